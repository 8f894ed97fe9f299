"""Run one prompt in ComfyUI: submit it or adopt the run of an earlier delivery, and follow it to its end.

Used by app.setup, app.worker; may import app.errors, schemas.

At most ``PREFETCH`` prompts of this worker wait in ComfyUI's queue beyond the running one: what waits there can be
neither handed to another worker nor survive a crash of ComfyUI.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import aiohttp
import anyio
import structlog

from app.comfy.client import ComfyClient
from app.comfy.ends import End, ExecutionThreadDead, Failed, Gone, Interrupted, Succeeded, failure
from app.comfy.followed import Followed
from app.comfy.history import HistoryEntry
from app.comfy.line import Line, Place
from app.comfy.watch import Watch
from app.comfy.whereabouts import LOOK_AGAIN_S, Nowhere, Where, Whereabouts
from app.errors import Cancelled, ComfyUnavailable, TimedOut
from schemas.events import Progress

__all__ = ["Completed", "Run", "Runs"]

# After an interrupt: how long a node may take to heed it before its prompt is answered without it.
STOP_WITHIN_S = 10.0
STOP_AGAIN_S = 2.0

T = TypeVar("T")

log = structlog.get_logger("comfybus.run")


class Run(Protocol):
    """What a run needs of the prompt it is for."""

    @property
    def prompt_id(self) -> str:
        """ComfyUI's id of it."""

    @property
    def timeout_s(self) -> float:
        """Seconds it may execute."""

    async def begin(self) -> None:
        """The try begins: nothing of the worker is ahead of it in ComfyUI. Stored before this returns."""

    async def started(self, at_ms: int) -> int:
        """ComfyUI began to execute it at this moment; returns since when its timeout counts, in the same unit.

        The try begins by it if it had not.
        """

    async def note_stop(self, reason: str) -> None:
        """It is about to be interrupted for this reason. Stored before this returns."""

    @property
    def stop_reason(self) -> str | None:
        """Why it is being stopped from outside, ``cancelled`` or ``drained``; None if it is not."""

    def check_expiry(self) -> None:
        """Raise ``Expired`` if it may not be submitted any more."""

    def follows(self, followed: Followed) -> None:
        """What is heard of it stands there, until its end and after it."""

    def queued(self) -> None:
        """ComfyUI has it."""

    def progress(self, progress: Progress) -> None:
        """It got on; returns at once."""


@dataclass(frozen=True)
class Completed:
    """A run that succeeded.

    Attributes:
        entry: ComfyUI's account.
        node_starts_ms: When each node began, as far as it was heard.
        node_errors: Findings on outputs that ComfyUI left out although it accepted the rest of the graph.
    """

    entry: HistoryEntry
    node_starts_ms: Mapping[str, int] = field(default_factory=dict)
    node_errors: Mapping[str, Any] = field(default_factory=dict)


class Runs:
    """All runs of one worker in one ComfyUI."""

    def __init__(
        self, client: ComfyClient, watch: Watch, prefetch: int, on_hung: Callable[[str], None] = lambda _: None
    ) -> None:
        """Runs in one ComfyUI.

        Args:
            client: ComfyUI's HTTP side.
            watch: Follows the runs.
            prefetch: How many may wait in ComfyUI's queue beyond the running one.
            on_hung: Told, with the reason, when ComfyUI answers but will not go on: only a restart helps.
        """
        self._on_hung = on_hung
        self._client = client
        self._watch = watch
        self._line = Line(prefetch + 1)
        self._whereabouts = Whereabouts(client)

    async def find(self, prompt_id: str) -> Where:
        """Where a prompt is; see ``Whereabouts.find``.

        Raises:
            ComfyUnavailable: ComfyUI does not answer.
        """
        return await self._whereabouts.find(prompt_id)

    async def forget(self, prompt_id: str) -> None:
        """Remove an ended run from ComfyUI's history, so that its id can be submitted again."""
        await self._client.forget(prompt_id)

    async def free(self) -> None:
        """Have ComfyUI free its memory; a ComfyUI that does not answer has other troubles."""
        try:
            await self._client.free()
        except ComfyUnavailable as exc:
            log.info("memory not freed", reason=str(exc))

    async def submit(self, run: Run, graph: Mapping[str, Any]) -> Completed:
        """Submit a graph when there is room and follow it to its end.

        Raises:
            Expired: Its time passed before there was room.
            InvalidPrompt: ComfyUI refused the graph.
            ExecutionFailed, OutOfMemory, Cancelled, TimedOut, ComfyUnavailable: How it ended.
        """
        async with self._line.place() as place:
            with self._watch.follow(run.prompt_id, graph, run.progress) as followed:
                place.stands_for(followed)
                run.follows(followed)
                if place.is_first:
                    await run.begin()
                await place.turn()
                run.check_expiry()
                node_errors = await self._hand_over(run, graph, followed)
                place.handed_over()
                run.queued()
                entry = await self._to_the_end(run, followed, place)
                return Completed(entry, followed.node_starts_ms, node_errors)

    async def adopt(self, run: Run, graph: Mapping[str, Any]) -> Completed:
        """Follow a run that an earlier delivery submitted. Raises as ``submit`` does."""
        async with self._line.place() as place:
            with self._watch.follow(run.prompt_id, graph, run.progress) as followed:
                place.stands_for(followed)
                run.follows(followed)
                followed.submitted(None)
                place.handed_over()
                run.queued()
                entry = await self._to_the_end(run, followed, place)
                return Completed(entry, followed.node_starts_ms)

    async def _hand_over(self, run: Run, graph: Mapping[str, Any], followed: Followed) -> Mapping[str, Any]:
        """Submit until ComfyUI has it: an answer that did not come says nothing, a look does.

        Raises:
            InvalidPrompt: ComfyUI refused the graph.
            ComfyUnavailable: It is not running, or went away with the prompt in its hands.
        """
        while True:
            client_id = self._watch.client_id
            try:
                accepted = await self._client.submit(graph, prompt_id=run.prompt_id, client_id=client_id)
            except ComfyUnavailable as exc:
                log.warning("submission not answered", reason=str(exc))
                never_arrived = isinstance(exc.__cause__, aiohttp.ClientConnectorError)
                if not isinstance(await self._whereabouts.find_when_up(run.prompt_id), Nowhere):
                    followed.submitted(client_id)
                    return {}
                if not never_arrived:
                    # It may be this very prompt that brings ComfyUI down: a try like any other, or it would go on
                    # for ever.
                    raise ComfyUnavailable("ComfyUI went away while it took the prompt, and has lost it") from exc
            except anyio.get_cancelled_exc_class():
                # It may have arrived: what is stopped from outside must not run on unheard.
                await self._stop_shielded(run, followed)
                raise
            else:
                followed.submitted(client_id)
                return accepted.node_errors

    async def _to_the_end(self, run: Run, followed: Followed, place: Place) -> HistoryEntry:
        try:
            end = await self._wait(run, followed, place)
        except anyio.get_cancelled_exc_class():
            await self._stop_shielded(run, followed)
            raise
        return self._completed(run, end)

    async def _wait(self, run: Run, followed: Followed, place: Place) -> End:
        """Wait for the end, for as long as the prompt may run and ComfyUI lives.

        Raises:
            TimedOut: It ran longer than it may; it was interrupted.
            ComfyUnavailable: ComfyUI is not running any more.
        """
        await self._while_it_lives(place.first_or_started)
        if place.is_first and followed.started_ms is None:
            await run.begin()
        await self._while_it_lives(followed.started.wait)
        if followed.end is not None or followed.started_ms is None:
            end = await self._while_it_lives(followed.wait)
            if followed.started_ms is not None and not isinstance(end, Succeeded):
                await run.begin()  # it may be tried again, which has to be charged
            return end
        since_ms = await run.started(followed.started_ms)
        left_s = since_ms / 1000 + run.timeout_s - time.time()
        with anyio.move_on_after(max(left_s, 0)):
            return await self._while_it_lives(followed.wait)
        await run.note_stop("timeout")
        await self._stop(followed)
        raise TimedOut(
            f"the prompt ran longer than {run.timeout_s:g} s and was interrupted; raise `timeout_s` or make it smaller"
        )

    async def _while_it_lives(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for something in ComfyUI; a port that refuses connections for a while means that it will not come."""
        refused_since: float | None = None
        while True:
            with anyio.move_on_after(LOOK_AGAIN_S):
                return await wait()
            refused_since = None if self._watch.up else await self._whereabouts.still_refused(refused_since)

    async def _stop_shielded(self, run: Run, followed: Followed) -> None:
        with anyio.CancelScope(shield=True):
            if run.stop_reason is not None:
                await run.note_stop(run.stop_reason)
                followed.submitted(None)
                await self._stop(followed)

    async def _stop(self, followed: Followed) -> None:
        """Interrupt or delete, again and again until it has ended or the patience has."""
        with anyio.move_on_after(STOP_WITHIN_S):
            while followed.end is None:
                try:
                    await self._client.stop(followed.prompt_id)
                except ComfyUnavailable as exc:
                    log.info("stop not answered", reason=str(exc))
                with anyio.move_on_after(STOP_AGAIN_S):
                    await followed.wait()
        if followed.end is None:
            log.warning("prompt does not heed the interrupt", prompt_id=followed.prompt_id)
            self._on_hung("a node does not heed the interrupt")

    def _completed(self, run: Run, end: End) -> HistoryEntry:
        """The entry of a success; every other end raises what it means."""
        match end:
            case Succeeded(entry):
                return entry
            case Failed():
                raise failure(end)
            case Interrupted(entry):
                interrupted = Cancelled("the prompt was interrupted in ComfyUI by somebody else")
                interrupted.saved = entry.outputs
                raise interrupted
            case ExecutionThreadDead():
                self._on_hung("it runs nothing any more")
                raise ComfyUnavailable("ComfyUI answers but runs nothing any more; restart it")
            case Gone():
                raise ComfyUnavailable(
                    f"the prompt {run.prompt_id} vanished from ComfyUI: it was restarted, or the queue was cleared"
                )

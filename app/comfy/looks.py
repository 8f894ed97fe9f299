"""Looks at ComfyUI's queue and history: the truth about every followed prompt, about once a second.

Used by watch; may import app.errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import anyio
import structlog

from app.comfy.client import ComfyClient, QueueView
from app.comfy.ends import ExecutionThreadDead, Gone, end_of
from app.comfy.followed import Followed
from app.comfy.stillness import Stillness
from app.errors import ComfyUnavailable

__all__ = ["Looks"]

_PAUSE_S: Final = 1.0
# With thousands of graphs in the queue a look costs both sides something; this still leaves room in 3 s.
_BULKY_BYTES: Final = 1024 * 1024
_BULKY_PAUSE_S: Final = 1.5
_IDLE_PAUSE_S: Final = 5.0
_QUEUE_IS_SILENT_S: Final = 2.0
_SILENT_PAUSE_S: Final = 0.5
_SILENT_LOOK_S: Final = 5.0
_DOWN_AFTER_S: Final = 5.0
_VERSION_S: Final = 5.0

_log = structlog.stdlib.get_logger(__name__)


class Looks:
    """Looks as long as it runs, and ends what has ended.

    Args:
        client: ComfyUI's HTTP side.
        followed: The prompts to look for, by prompt id; belongs to the caller, who adds and removes.
        on_shown: Called with a prompt and one of its events (``heard``, ``heard_end``) when a look showed what the
            websocket should say too.
    """

    def __init__(
        self,
        client: ComfyClient,
        followed: Mapping[str, Followed],
        on_shown: Callable[[Followed, anyio.Event], None],
    ) -> None:
        self._client = client
        self._followed = followed
        self._on_shown = on_shown
        self._stillness = Stillness()
        self._wake = anyio.Event()
        self._at_once = False
        self._pause_s = _PAUSE_S
        self._queue_answered_s = time.monotonic()
        self._unanswered_since_s: float | None = time.monotonic() - _DOWN_AFTER_S
        self._version_is_stale = True
        self.version: str | None = None
        self.queue_remaining: int | None = None

    @property
    def up(self) -> bool:
        """Whether ComfyUI answers: False before the first answer and after 5 s without one."""
        since = self._unanswered_since_s
        return since is None or time.monotonic() - since < _DOWN_AFTER_S

    def nudge(self) -> None:
        """A prompt was submitted: an idle pause ends after a second."""
        self._wake.set()

    def hurry(self) -> None:
        """Something happened to ComfyUI or to the way there: look at once, and ask for the version anew."""
        self._version_is_stale = True
        self._at_once = True
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_for_ever)
            tasks.start_soon(self._look_past_a_silent_queue)

    async def read_end(self, followed: Followed, *, nowhere_else: bool = False) -> bool:
        """Look for one prompt in the history.

        Args:
            followed: The prompt.
            nowhere_else: It is known not to wait and not to run, so that its absence is an end too.

        Returns:
            Whether its end is known now. An unanswered look proves nothing.
        """
        try:
            entry = await self._client.history(followed.prompt_id)
        except ComfyUnavailable:
            return followed.end is not None
        if entry is not None:
            if followed.finish(end_of(entry)) and not followed.heard_end.is_set():
                self._on_shown(followed, followed.heard_end)
        elif nowhere_else:
            followed.finish(Gone())
        return followed.end is not None

    async def _look_for_ever(self) -> None:
        while True:
            began_s = time.monotonic()
            if self._unanswered_since_s is None:
                self._unanswered_since_s = began_s
            answered = await (self._look() if self._open() else self._glance())
            if answered:
                self._unanswered_since_s = None
                await self._learn_version()
            else:
                self._stillness.unanswered()
            await self._pause(idle_s=_IDLE_PAUSE_S if answered else _PAUSE_S)

    async def _pause(self, *, idle_s: float) -> None:
        """Wait for the next look; a prompt that is submitted meanwhile shortens an idle pause, a hurry ends it."""
        ended_s = time.monotonic()
        while not self._at_once:
            rest_s = ended_s + (self._pause_s if self._open() else idle_s) - time.monotonic()
            if rest_s <= 0:
                break
            self._wake = anyio.Event()
            with anyio.move_on_after(rest_s):
                await self._wake.wait()
        self._at_once = False

    async def _glance(self) -> bool:
        """Look for a sign of life and the length of the queue; returns whether ComfyUI answered."""
        try:
            self.queue_remaining = await self._client.queue_remaining()
        except ComfyUnavailable:
            return False
        return True

    async def _look(self) -> bool:
        """Look where every followed prompt is; returns whether ComfyUI answered.

        ComfyUI takes a prompt from waiting to running, and from running into the history, each in one step under a
        lock. So a prompt that the queue does not show, and that the history, asked after the queue has answered, does
        not show either, is nowhere. The other way round it could slip through between the two. For the same reason
        only prompts submitted before the look began can be missing.
        """
        submitted = [followed for followed in self._open() if followed.is_submitted]
        try:
            view = await self._client.queue()
        except ComfyUnavailable:
            return False
        self._queue_answered_s = time.monotonic()
        self._pause_s = _BULKY_PAUSE_S if view.size_bytes > _BULKY_BYTES else _PAUSE_S
        self.queue_remaining = len(view.running) + len(view.pending)
        present = self._take_queue(view)
        for followed in submitted:
            if followed.prompt_id not in present and followed.end is None:
                await self.read_end(followed, nowhere_else=True)
        return True

    def _take_queue(self, view: QueueView) -> frozenset[str]:
        """Note who runs, and whether anybody ever will; returns the ids of all that are there."""
        running, pending = frozenset(view.running), frozenset(view.pending)
        dead = self._stillness.answered(running=bool(running), pending=pending, now_s=self._queue_answered_s)
        for followed in self._open():
            if followed.prompt_id in running and followed.started_ms is None:
                followed.begin()
                self._on_shown(followed, followed.heard)
            elif dead and followed.prompt_id in pending:
                _log.error("comfyui_execution_thread_dead", prompt_id=followed.prompt_id)
                followed.finish(ExecutionThreadDead())
        return running | pending

    async def _look_past_a_silent_queue(self) -> None:
        """Read ends from the history while ``/queue`` does not answer; what is not there proves nothing then."""
        while True:
            await anyio.sleep(_SILENT_PAUSE_S)
            if time.monotonic() - self._queue_answered_s < _QUEUE_IS_SILENT_S:
                continue
            for followed in [each for each in self._open() if each.is_submitted]:
                with anyio.move_on_after(_SILENT_LOOK_S):
                    await self.read_end(followed)

    async def _learn_version(self) -> None:
        if not self._version_is_stale:
            return
        with anyio.move_on_after(_VERSION_S):
            try:
                system = (await self._client.system_stats()).get("system")
            except ComfyUnavailable:
                return
            version = system.get("comfyui_version") if isinstance(system, dict) else None
            self.version = version if isinstance(version, str) else None
            self._version_is_stale = False

    def _open(self) -> list[Followed]:
        return [followed for followed in self._followed.values() if followed.end is None]

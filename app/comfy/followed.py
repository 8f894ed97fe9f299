"""One prompt that is followed in ComfyUI, from just before its submission to its end.

Used by line, looks, run, watch, app.setup, app.worker; may import schemas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio

from app.comfy.busy import Busy
from app.comfy.ends import End, Failed, Interrupted, Succeeded
from app.comfy.frames import Frame
from app.comfy.history import timestamp_ms
from app.comfy.progress import ProgressMeter
from schemas.events import Progress

__all__ = ["Followed"]


class Followed:
    """One prompt in ComfyUI, from just before its submission to its end. Made by ``Watch.follow``.

    A context manager: leaving the block ends the following, not the prompt.

    Attributes:
        prompt_id: ComfyUI's id of it.
        started: Set when it began to run; at its end at the latest, so that nobody waits in vain.
        started_ms: When it began, in milliseconds since 1970: by ComfyUI's clock if it said so, else when a look first
            saw it running. None if it never ran.
        began_s: When we learned that it runs, on the monotonic clock; None if only its history told of it.
        ended_s: When we learned its end, on the same clock.
        client_id: That of the submission; None before it, and for a prompt that nobody hears of.
        is_submitted: Whether its absence from ComfyUI means something.
        end: How it ended; None until then.
        heard: Set when the websocket first spoke of it.
        heard_end: Set when the websocket said that it is over.
    """

    def __init__(
        self,
        prompt_id: str,
        graph: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
        on_submitted: Callable[[], None],
        on_leave: Callable[[Followed], object],
        busy: Busy | None = None,
    ) -> None:
        self.prompt_id = prompt_id
        self.started = anyio.Event()
        self.started_ms: int | None = None
        self.began_s: float | None = None
        self.ended_s: float | None = None
        self.client_id: str | None = None
        self.is_submitted = False
        self.end: End | None = None
        self.heard = anyio.Event()
        self.heard_end = anyio.Event()
        self._ended = anyio.Event()
        self._meter = ProgressMeter(graph)
        self._on_progress = on_progress
        self._on_submitted = on_submitted
        self._on_leave = on_leave
        self._when_started: Callable[[], None] = _nothing
        self._busy = busy or Busy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._busy.ends(self.prompt_id)
        self._on_leave(self)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._meter.current

    @property
    def node_starts_ms(self) -> Mapping[str, int]:
        """Node id to when it began, in milliseconds since 1970 by our clock; only nodes we heard of."""
        return self._meter.node_starts_ms

    @property
    def visits(self) -> Sequence[tuple[str, int]]:
        """Node ids in the order in which they ran, with when each began; see ``ProgressMeter``."""
        return self._meter.visits

    def class_of(self, node_id: str) -> str | None:
        """The class of a node of its graph."""
        return self._meter.class_of(node_id)

    def submitted(self, client_id: str | None) -> None:
        """Say that ComfyUI has it, or had the chance to take it; from now on its absence means ``Gone``.

        To be called when the submission was answered, when its answer did not come, and at once for a prompt that is
        adopted.

        Args:
            client_id: What it was submitted with; None for an adopted prompt.
        """
        self.client_id = client_id
        self.is_submitted = True
        self._on_submitted()

    def when_started(self, call: Callable[[], None]) -> None:
        """Have something called as soon as ``started`` is set."""
        self._when_started = call
        if self.started.is_set():
            call()

    def _note_start(self) -> None:
        self.started.set()
        self._when_started()

    async def wait(self) -> End:
        """Wait for its end; the caller sets the deadline. Returns only while ``Watch.run`` runs."""
        while self.end is None:
            await self._ended.wait()
        return self.end

    def hear(self, frame: Frame) -> None:
        """Take one frame of this prompt. Called by the watch alone, as all below."""
        self.heard.set()
        if frame.is_end:
            self.heard_end.set()
        if self.end is not None:
            return
        if frame.type == "execution_start":
            self.begin(timestamp_ms(frame.data))
        progress = self._meter.feed(frame, _now_ms())
        if progress is not None:
            self._on_progress(progress)

    def begin(self, at_ms: int | None = None) -> None:
        """Note that it runs; the first note counts."""
        if self.started_ms is None:
            self.started_ms = at_ms or _now_ms()
            self.began_s = time.monotonic()
            self._busy.begins(self.prompt_id)
            self._note_start()
            self._on_progress(self._meter.current)

    def finish(self, end: End) -> bool:
        """Note its end; the first one counts. Returns whether this was it."""
        if self.end is not None:
            return False
        self.end = end
        self.ended_s = time.monotonic()
        self._busy.ends(self.prompt_id)
        if isinstance(end, Succeeded | Failed | Interrupted) and self.started_ms is None:
            self.started_ms = end.entry.start_ms
        if isinstance(end, Succeeded):
            self._on_progress(self._meter.succeeded())
        self._note_start()
        self._ended.set()
        return True


def _nothing() -> None:
    """Nobody waits for the start."""


def _now_ms() -> int:
    return int(time.time() * 1000)

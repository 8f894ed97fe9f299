"""The one place that knows what happens in ComfyUI: who waits, who runs, who has ended and how.

Used by run, app.worker; may import schemas.

The websocket is a hint, ``/queue`` and ``/history`` are the truth. Frames give progress and say where to look at once;
every end is read from the history, and a look every second finds it whatever the socket does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from app.comfy.busy import Busy
from app.comfy.client import ComfyClient
from app.comfy.followed import Followed
from app.comfy.frames import END_TYPES, Frame
from app.comfy.looks import Looks
from app.comfy.websocket import FrameSource
from schemas.events import Progress

__all__ = ["Watch"]

# At `executing {node: null}` the history was always complete, at `execution_success` up to 409 ms late.
_CONFIRM_PAUSES_S: Final = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25)
_WORD_COMES_WITHIN_S: Final = 2.0
_RECONNECT_FOLLOWING_S: Final = 2.0
_RECONNECT_IDLE_S: Final = 5.0
_FOLLOWING_TYPES: Final = END_TYPES | {
    "status",
    "executing",
    "execution_start",
    "execution_cached",
    "executed",
    "progress",
}

_log = structlog.stdlib.get_logger(__name__)
_T = TypeVar("_T")


class Watch:
    """Follows prompts in one ComfyUI to their ends; any number of them over one websocket.

    An end that ``/history`` or ``/queue`` shows is known within 3 s of being shown, whatever the socket does. A look
    that is not answered proves nothing: prompts stay followed while ComfyUI is down, and a ComfyUI that comes back
    without them makes them ``Gone``.

    Args:
        client: ComfyUI's HTTP side.
        system_events: Types of frames to hand to ``on_system_event``, of ``COMFY_EVENTS``.
        on_system_event: Called with each such frame, in order, from the reader: must return at once.

    Attributes:
        busy: How long prompts followed here have run.
    """

    def __init__(
        self,
        client: ComfyClient,
        *,
        system_events: frozenset[str] = frozenset(),
        on_system_event: Callable[[Frame], None] | None = None,
    ) -> None:
        self._client = client
        self.busy = Busy()
        self._system_events = system_events if on_system_event else frozenset()
        self._on_system_event = on_system_event or _nothing
        self._followed: dict[str, Followed] = {}
        # Prompts whose end a look told first: the socket gets a moment to say it too, when nobody follows any more.
        self._expected: dict[str, Followed] = {}
        self._confirming: set[str] = set()
        self._looks = Looks(client, self._followed, self._expect_word)
        self._source = FrameSource(
            client.base_url,
            wanted=_FOLLOWING_TYPES | self._system_events,
            on_frame=self._on_frame,
            on_change=self._looks.hurry,
            longest_pause_s=lambda: _RECONNECT_FOLLOWING_S if self._followed else _RECONNECT_IDLE_S,
        )
        self._tasks: TaskGroup | None = None

    @property
    def client_id(self) -> str | None:
        """What to submit with; None while no websocket is open."""
        return self._source.client_id

    @property
    def up(self) -> bool:
        """Whether ComfyUI answers: False before the first answer and after 5 s without one."""
        return self._looks.up

    @property
    def queue_remaining(self) -> int | None:
        """How many prompts ComfyUI has running and waiting, anybody's, as last heard or seen."""
        return self._looks.queue_remaining

    @property
    def connections(self) -> int:
        """How many websocket connections were made."""
        return self._source.connections

    @property
    def version(self) -> str | None:
        """ComfyUI's version; None until it was asked."""
        return self._looks.version

    async def run(self) -> None:
        """Hold the websocket and look, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._source.run)
            tasks.start_soon(self._looks.run)

    def follow(
        self, prompt_id: str, graph: Mapping[str, Any], on_progress: Callable[[Progress], None] | None = None
    ) -> Followed:
        """Begin to follow a prompt, before it is submitted: its first frames may come before ComfyUI's answer does.

        Submitting an id anew that the history still has from an earlier run needs ``ComfyClient.forget`` first, or the
        old end may be taken for the new one.

        Args:
            prompt_id: ComfyUI's id of it.
            graph: What is submitted.
            on_progress: Called with every new progress, from the reader: must return at once. First when the prompt
                begins, last with value 1.0 after success.

        Returns:
            A context manager; leaving it ends the following. ``submitted()`` has to be called on it.

        Raises:
            ValueError: The prompt is followed already.
        """
        if prompt_id in self._followed:
            raise ValueError(f"prompt {prompt_id} is followed already")
        report = on_progress or _nothing
        followed = Followed(
            prompt_id,
            graph,
            on_progress=lambda progress: _guarded(report, progress),
            on_submitted=self._looks.nudge,
            on_leave=lambda prompt: self._followed.pop(prompt.prompt_id, None),
            busy=self.busy,
        )
        self._followed[prompt_id] = followed
        return followed

    def _on_frame(self, frame: Frame) -> None:
        if frame.type in self._system_events:
            _guarded(self._on_system_event, frame)
        if frame.type == "status":
            self._take_status(frame.data)
        if frame.prompt_id is None:
            return
        followed = self._followed.get(frame.prompt_id) or self._expected.get(frame.prompt_id)
        if followed is not None:
            followed.hear(frame)
            if frame.is_end and followed.end is None and frame.prompt_id not in self._confirming:
                self._confirming.add(frame.prompt_id)
                self._start(self._confirm, followed)

    def _take_status(self, data: Mapping[str, Any]) -> None:
        status = data.get("status")
        info = status.get("exec_info") if isinstance(status, dict) else None
        remaining = info.get("queue_remaining") if isinstance(info, dict) else None
        if isinstance(remaining, int):
            self._looks.queue_remaining = remaining

    async def _confirm(self, followed: Followed) -> None:
        """Read the end that a frame told of; if the history has none yet, the next look will see it."""
        try:
            for pause_s in _CONFIRM_PAUSES_S:
                await anyio.sleep(pause_s)
                if await self._looks.read_end(followed):
                    return
        finally:
            self._confirming.discard(followed.prompt_id)

    def _expect_word(self, followed: Followed, word: anyio.Event) -> None:
        client_id = self._source.client_id
        # Of a prompt submitted over another connection, or none, this one has nothing to say.
        if client_id is None or client_id != followed.client_id:
            return
        if word is followed.heard_end:
            self._expected[followed.prompt_id] = followed
        self._start(self._replace_if_deaf, followed, word, client_id)

    async def _replace_if_deaf(self, followed: Followed, word: anyio.Event, client_id: str) -> None:
        """Replace the connection if it does not say within 2 s what a look has shown."""
        with anyio.move_on_after(_WORD_COMES_WITHIN_S):
            await word.wait()
        if word is followed.heard_end:
            self._expected.pop(followed.prompt_id, None)
        elif followed.end is not None or followed.prompt_id not in self._followed:
            return  # the word on its end decides, or nobody listens any more
        if not word.is_set() and self._source.client_id == client_id:
            self._source.replace()

    def _start(self, task: Callable[..., Any], *args: Any) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(task, *args)


def _nothing(_: Any) -> None:
    """Nobody listens."""


def _guarded(listener: Callable[[_T], None], value: _T) -> None:
    """Call a listener; progress and system events may be lost, the reader and the results may not."""
    try:
        listener(value)
    except Exception:  # noqa: BLE001 - a listener's own fault, logged with its traceback
        _log.exception("listener_failed", listener=getattr(listener, "__qualname__", repr(listener)))

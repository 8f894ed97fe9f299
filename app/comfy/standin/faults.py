"""Switches that make the stand-in misbehave, for tests of what clients do then.

Used by engine, execution_thread, http_answers, wire; may import its folder alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from app.comfy.standin.node_types import JsonObject

SocketFault = Literal["ok", "silent", "frozen", "deaf", "closed"]
HttpFault = Literal["ok", "refuse", "hang", "error", "lose_answer"]
ThreadFault = Literal["ok", "stalled", "dead"]


@dataclass
class Faults:
    """The switches as they are now; POST /standin/faults sets some, GET shows all, DELETE sets all back.

    * ``socket``: ``silent`` keeps sockets open and drops every message (pings are still answered); ``frozen`` does
      not answer pings either, like a peer that is gone without a word; ``deaf`` happens once: sockets open now never
      hear anything again, later ones do; ``closed`` happens once: open sockets break off (close code 1006).
    * ``http``: ``refuse`` breaks the connection off before the request is looked at; ``lose_answer`` carries the
      request out and then breaks off; ``error`` answers 500; ``hang`` answers nothing until the switch moves.
      ``http_paths`` limits this to paths that begin with one of these texts, ``http_times`` to so many requests.
    * ``latency_s``: pause before every request is looked at. ``history_lag_s``: pause between a prompt's last event
      of its own and its history entry. ``start_lag_s``: pause between a prompt's leaving the queue and its start; an
      interrupt in that time is lost, as in ComfyUI, where the time is short.
    * ``execution_thread``: ``stalled`` starts no further prompt until set to ok; ``dead`` ends the thread for good,
      at the latest when the running prompt ends: prompts are still taken and never run.
    * ``drop_history``: history is emptied and stays empty until the switch is off.

    Requests below /standin/ are never hit.
    """

    socket: SocketFault = "ok"
    http: HttpFault = "ok"
    http_paths: list[str] = field(default_factory=lambda: ["/"])
    http_times: int | None = None
    latency_s: float = 0.0
    history_lag_s: float = 0.0
    start_lag_s: float = 0.0
    execution_thread: ThreadFault = "ok"
    drop_history: bool = False

    def __post_init__(self) -> None:
        self._moved = asyncio.Event()

    def change(self, wishes: JsonObject) -> None:
        """Set the switches named in ``wishes``; ValueError, and no change, when a name or a value is unknown.

        A new ``http`` fault hits all paths, for ever, unless the same wishes limit it.
        """
        if "http" in wishes:
            wishes = {"http_paths": ["/"], "http_times": None, **wishes}
        for name, value in wishes.items():
            _judge(name, value)
        for name, value in wishes.items():
            setattr(self, name, value)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def reset(self) -> None:
        """Set every switch back."""
        self.change(Faults().shown())

    def shown(self) -> dict[str, Any]:
        """Return the switches as JSON."""
        return {name: getattr(self, name) for name in _KINDS}

    def http_fault(self, path: str) -> HttpFault:
        """Return what is to happen to a request for ``path``, and count it as hit."""
        if self.http == "ok" or not any(path.startswith(start) for start in self.http_paths):
            return "ok"
        if self.http_times is not None:
            if self.http_times <= 0:
                return "ok"
            self.http_times -= 1
        return self.http

    async def wait_until_moved(self) -> None:
        """Wait for the next change of any switch."""
        await self._moved.wait()


_KINDS: dict[str, tuple[Any, ...] | type] = {
    "socket": get_args(SocketFault),
    "http": get_args(HttpFault),
    "http_paths": list,
    "http_times": int,
    "latency_s": float,
    "history_lag_s": float,
    "start_lag_s": float,
    "execution_thread": get_args(ThreadFault),
    "drop_history": bool,
}


def _judge(name: str, value: object) -> None:
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"unknown switch {name!r}, known are {', '.join(_KINDS)}")
    if isinstance(kind, tuple):
        fits = value in kind
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    else:
        fits = isinstance(value, kind) or (name == "http_times" and value is None)
    if not fits:
        raise ValueError(f"{value!r} is no value of {name}")

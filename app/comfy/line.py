"""Who of this worker is in ComfyUI, in order of submission: room for a few, and whose turn it is.

Used by run; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from app.comfy.ends import Failed, Interrupted, Succeeded
from app.comfy.followed import Followed

__all__ = ["Line", "Place"]


class Place:
    """One prompt's place in the line."""

    def __init__(self, ahead: Place | None) -> None:
        self._first = anyio.Event()
        self._near = anyio.Event()
        self._handed_over = anyio.Event()
        self._ahead = ahead
        self.followed: Followed | None = None

    @property
    def is_first(self) -> bool:
        """Nothing of this worker is ahead of it."""
        return self._first.is_set()

    def stands_for(self, followed: Followed) -> None:
        """Say whose place it is."""
        self.followed = followed
        followed.when_started(self._near.set)

    async def first_or_started(self) -> None:
        """Wait until nothing is ahead, or until it was seen to run whatever was ahead."""
        await self._near.wait()

    async def turn(self) -> None:
        """Wait until the one ahead was submitted, so that ComfyUI's order is the line's.

        Else a prompt could run before the one ahead of it, and a crash would be charged to the wrong one.
        """
        if self._ahead is not None:
            await self._ahead._handed_over.wait()  # noqa: SLF001 - a place of the same line
            self._ahead = None

    def handed_over(self) -> None:
        """ComfyUI has it, or never will."""
        self._handed_over.set()

    def step_up(self) -> None:
        """Become the first."""
        self._first.set()
        self._near.set()


class Line:
    """Lets in at most ``room`` at a time, first come, first served."""

    def __init__(self, room: int) -> None:
        self._room = anyio.Semaphore(room)
        self._places: list[Place] = []

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Wait for room, then stand in the line until the block ends."""
        async with self._room:
            place = Place(self._places[-1] if self._places else None)
            if not self._places:
                place.step_up()
            self._places.append(place)
            try:
                yield place
            finally:
                self._leave(place)

    def _leave(self, place: Place) -> None:
        place.handed_over()
        was_first = self._places[0] is place
        self._places.remove(place)
        if was_first and self._places and _ended_in_order(place):
            self._places[0].step_up()


def _ended_in_order(place: Place) -> bool:
    """Whether ComfyUI went on to the next: not so when it died under this one, and the next has not begun then."""
    return place.followed is None or isinstance(place.followed.end, Succeeded | Failed | Interrupted)

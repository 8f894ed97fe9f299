"""Whether a ComfyUI that was launched comes up, and whether it goes on answering.

Used by process; may import app.errors.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from app.comfy.listeners import stranger_at
from app.comfy.process_config import ComfyEnded, ComfyPortTaken, ComfyStartFailed, ProcessConfig
from app.errors import ComfybusError

__all__ = ["End", "SignsOfLife"]

_SHORTEST_TRY_S: Final = 1.0
_LONGEST_LOOK_S: Final = 5.0


@dataclass(frozen=True)
class End:
    """Why one life of ComfyUI is over.

    Attributes:
        sentence: Cause and cure.
        error: What to raise with it where ComfyUI is not to be started again; None for an end that was asked for.
    """

    sentence: str
    error: type[ComfybusError] | None


class SignsOfLife:
    """Asks ComfyUI for an answer, again and again.

    Args:
        config: How often, for how long, and where.
        answers: Asks once; must not raise.
    """

    def __init__(self, config: ProcessConfig, answers: Callable[[], Awaitable[bool]]) -> None:
        self._config = config
        self._answers = answers

    async def until_it_answers(self, guard_pid: int) -> End | None:
        """Try until the ComfyUI below this guard answers; None if it does, else why it did not."""
        config = self._config
        for _ in range(config.check_max_tries):
            began_s = time.monotonic()
            if await self._answers_within(max(config.check_interval_s, _SHORTEST_TRY_S)):
                stranger = await stranger_at(config.host, config.port, guard_pid)
                if stranger is None:
                    return None
                return End(
                    f"port {config.port} of {config.host} was taken by {stranger} while ComfyUI started; end that",
                    ComfyPortTaken,
                )
            await anyio.sleep(max(began_s + config.check_interval_s - time.monotonic(), 0))
        return End(
            f"ComfyUI runs but did not answer at {config.host} port {config.port} in {config.check_max_tries} tries, "
            f"one every {config.check_interval_s:g} s; see that CMD makes it listen there, or raise "
            "STARTUP_CHECK_MAX_TRIES",
            ComfyStartFailed,
        )

    async def until_it_is_silent(self) -> End:
        """Wait until it has given no answer for as long as the limit says; every answer starts the time anew."""
        limit_s = self._config.silence_limit_s
        look_every_s = min(_LONGEST_LOOK_S, limit_s / 3)
        answered_s = time.monotonic()
        while True:
            await anyio.sleep(look_every_s)
            if await self._answers_within(look_every_s):
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s >= limit_s:
                return End(
                    f"ComfyUI ran but gave no answer for {limit_s:g} s; its last lines in the log may say why",
                    ComfyEnded,
                )

    async def _answers_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            return await self._answers()
        return False

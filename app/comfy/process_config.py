"""What is launched as ComfyUI and with how much patience, and what can go wrong with it.

Used by process, signs_of_life, app.settings.parts; may import app.errors.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from app.errors import ComfybusError, ConfigurationError

__all__ = ["ComfyEnded", "ComfyPortTaken", "ComfyStartFailed", "ProcessConfig"]


class ComfyStartFailed(ComfybusError):
    """ComfyUI could not be launched, or ended or did not answer in time after its launch."""


class ComfyPortTaken(ComfyStartFailed):
    """Somebody else listens where ComfyUI should."""


class ComfyEnded(ComfybusError):
    """ComfyUI was up and ended, or fell silent for good, and is not to be started again."""


@dataclass(frozen=True)
class ProcessConfig:
    """How to launch ComfyUI and watch over it.

    Attributes:
        command: ``CMD``, with quotes as in a shell, but run without one.
        url: Where ComfyUI answers; its host and port are those it is told to listen at.
        environment: Ours; what of it ComfyUI may see is decided in ``child_environment``.
        home: ``COMFY_HOME``, the working folder; ours if None.
        check_interval_s: ``STARTUP_CHECK_INTERVAL_S``, seconds between two tries to get an answer after a launch.
        check_max_tries: ``STARTUP_CHECK_MAX_TRIES``.
        always_restart: ``ALWAYS_RESTART_COMFYUI``: start it again whatever its exit code is.
        passed_on: Further names of variables, or globs, that ComfyUI may see.
        stop_grace_s: Seconds between SIGTERM and SIGKILL.
        silence_limit_s: A ComfyUI that runs and gives no answer for so many seconds is started anew.
        first_pause_s: Before the first restart after a long life; doubled with every short life that follows.
        longest_pause_s: The most it grows to, before a quarter of jitter.
        stable_after_s: A life of so many seconds in which it answered is a long one.

    Raises:
        ConfigurationError: ``command`` is empty or its quotes do not match, or ``url`` has no host.
    """

    command: str
    url: str
    environment: Mapping[str, str] = field(repr=False)
    home: Path | None = None
    check_interval_s: float = 1.0
    check_max_tries: int = 20
    always_restart: bool = True
    passed_on: tuple[str, ...] = ()
    stop_grace_s: float = 10.0
    silence_limit_s: float = 300.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    stable_after_s: float = 60.0

    def __post_init__(self) -> None:
        try:
            found = shlex.split(self.command)
        except ValueError as exc:
            raise ConfigurationError(
                f"CMD={self.command!r} is wrong: {str(exc).lower()}; quote it as in a shell"
            ) from None
        if not found:
            raise ConfigurationError(f"CMD={self.command!r} is wrong: it should name the program that runs ComfyUI")
        if not self.host:
            raise ConfigurationError("the address of ComfyUI is wrong: it should be http://host:port")

    @property
    def argv(self) -> list[str]:
        """Program and arguments."""
        return shlex.split(self.command)

    @property
    def host(self) -> str:
        """The host name or address that ComfyUI is reached at."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def pause_s(self, failures: int) -> float:
        """Seconds to wait before the next start: growing with the failures in a row, with jitter; 0 after none."""
        if failures <= 0:
            return 0.0
        grown_s = self.first_pause_s * 2.0 ** min(failures - 1, 30)
        return min(grown_s, self.longest_pause_s) * random.uniform(0.75, 1.25)

    def failures_after(self, failures: int, *, up_for_s: float, asked: bool) -> int:
        """Failures in a row after one more life: a long one wipes out what was before, an end asked for is none.

        Args:
            failures: Those before it.
            up_for_s: Seconds in which it answered. A short life counts even if its end was asked for, so that
                requests cannot make ComfyUI start without a pause for ever.
            asked: Its end was asked for.
        """
        long = up_for_s >= self.stable_after_s
        return (0 if long else failures) + (0 if long and asked else 1)

"""Runs a command's coroutine with the settings and with logs on standard error.

Used by bridge, commands, groups; may import app.logs, app.settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec

import anyio

from app.logs import set_up_logs
from app.settings import Settings, load_settings

__all__ = ["run"]

P = ParamSpec("P")


def run(command: Callable[Concatenate[Settings, P], Awaitable[int]], *arguments: P.args, **named: P.kwargs) -> int:
    """Read the settings, run the command to its end and return its exit code.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    settings = load_settings()
    # What goes wrong is said once by the command itself; broker and HTTP clients would repeat it.
    set_up_logs("fatal" if settings.log_level == "info" else settings.log_level, settings.log_format)

    async def body() -> int:
        return await command(settings, *arguments, **named)

    return anyio.run(body)

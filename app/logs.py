"""Structured logs: JSON lines, or a readable console; what a context binds stands on every line."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["set_up_logs"]

_LEVELS = {"trace": 5, "debug": 10, "info": 20, "warning": 30, "error": 40, "fatal": 50}


def set_up_logs(level: str = "info", form: str = "auto") -> None:
    """Send all logs to stderr at this level.

    Args:
        level: ``trace`` to ``fatal``.
        form: ``json``, ``console``, or ``auto``: console on a terminal, else JSON.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log by the standard module; only what is wrong is of interest.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)

"""Structured logs: JSON lines, or a readable console; what a context binds stands on every line, no secret on any.

Used by app.cli, app.worker; may import app.storage.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog
from typing_extensions import override

from app.storage.secrets import Scrubber

__all__ = ["hide_in_logs", "set_up_logs"]

_LEVELS = {"trace": 5, "debug": 10, "info": 20, "warning": 30, "error": 40, "fatal": 50}


_scrubber = Scrubber()


def hide_in_logs(secrets: Iterable[str]) -> None:
    """Mask these values in every line from now on; what looks like a secret, or stands in a URL, is masked anyway."""
    global _scrubber  # noqa: PLW0603 - there is one log of a process
    _scrubber = Scrubber(extra=secrets)


def _clean(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The line without secrets: exceptions of libraries may hold whole URLs."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _scrubber.text(value)
        elif isinstance(value, dict | list | tuple):
            event[name] = _scrubber.json(value)
        elif isinstance(value, BaseException):
            event[name] = _scrubber.text(repr(value))
    return event


class _CleanFormatter(logging.Formatter):
    """Lines of libraries without secrets."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return _scrubber.text(super().format(record))


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
            _clean,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log by the standard module; only what is wrong is of interest.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # In an outage aiokafka says the same many times a second; what matters of it is told by our own lines.
    logging.getLogger("aiokafka").setLevel(logging.WARNING if _LEVELS[level] < _LEVELS["info"] else logging.CRITICAL)

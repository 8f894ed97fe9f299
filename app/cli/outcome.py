"""How a command ends: its exit code, and one line on standard error when something is wrong.

Used by most of its folder, app.cli.demo; may import app.errors, brokers.
"""
# ruff: noqa: PLC0415 - the error types come with libraries that only a failure needs

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from enum import IntEnum

import typer
from typer.exceptions import TyperException

__all__ = ["CommandFailed", "ExitCode", "explain", "run_application", "say", "show", "show_tracebacks"]

_tracebacks = False


class ExitCode(IntEnum):
    """What the process returns."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class CommandFailed(Exception):
    """A command cannot go on; the sentence names the cause and the cure."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(sentence)
        self.code = code


def run_application(application: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Parse and run; usage errors and failures are raised, an interruption is a code."""
    command = typer.main.get_command(application)
    try:
        result = command.main(args=arguments, prog_name="comfybus", standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    return int(result or 0)


def say(line: str) -> None:
    """Write one line to standard error, where everything goes that is no result."""
    sys.stderr.write(line.rstrip("\n") + "\n")
    sys.stderr.flush()


def show(line: str) -> None:
    """Write one line of the command's result to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def show_tracebacks() -> None:
    """Show where a failure comes from besides its sentence."""
    global _tracebacks  # noqa: PLW0603 - one switch for the process, set by `comfybus --traceback`
    _tracebacks = True


def explain(failure: Exception) -> int:
    """Say in one line what went wrong; returns the exit code that belongs to it."""
    if _tracebacks:
        traceback.print_exception(failure)
    cause = next(_leaves(failure))
    if isinstance(cause, BrokenPipeError):
        # Whoever read our output has gone; the interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    sentence, code = _verdict(cause)
    say(f"comfybus: {' '.join(sentence.split())}")
    return code


def _leaves(failure: BaseException) -> Iterator[Exception]:
    """The failures inside a task group's bundle."""
    if isinstance(failure, BaseExceptionGroup):
        for inner in failure.exceptions:
            yield from _leaves(inner)
    elif isinstance(failure, Exception):
        yield failure


def _verdict(cause: Exception) -> tuple[str, ExitCode]:
    if isinstance(cause, CommandFailed):
        return str(cause), cause.code
    if isinstance(cause, TyperException):
        context = getattr(cause, "ctx", None)
        where = f"; see {context.command_path} --help" if context is not None else ""
        return cause.format_message().rstrip(".") + where, ExitCode.USAGE
    from app.errors import ComfyUnavailable, ConfigurationError, PromptError
    from brokers.base import BrokerError, MessageTooLarge

    codes: tuple[tuple[type[Exception], ExitCode], ...] = (
        (ConfigurationError, ExitCode.USAGE),
        (MessageTooLarge, ExitCode.USAGE),
        (BrokerError, ExitCode.NO_ANSWER),
        (ComfyUnavailable, ExitCode.NO_ANSWER),
        (PromptError, ExitCode.FAILED),
        (OSError, ExitCode.FAILED),
    )
    for kind, code in codes:
        if isinstance(cause, kind):
            cure = "; put large inputs behind a URL" if kind is MessageTooLarge else ""
            return f"{cause}{cure}", code
    return f"{type(cause).__name__}: {cause}; this is a fault of comfybus, --traceback shows where", ExitCode.FAILED

"""What to do with a prompt of which an earlier delivery may have left a run in ComfyUI. Pure.

Used by perform; may import app.comfy, app.errors, brokers.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.comfy.ends import Failed, Interrupted, Succeeded, end_of, failure
from app.comfy.history import HistoryEntry
from app.comfy.whereabouts import Ended, InQueue, Where
from app.errors import Cancelled, PromptError, TimedOut
from app.worker.settle import exhausted
from brokers.base import Tries

__all__ = ["Collect", "Follow", "Step", "Submit", "TryAgain", "resume"]


@dataclass(frozen=True)
class Follow:
    """It still waits or runs: follow it to its end."""


@dataclass(frozen=True)
class Collect:
    """It has succeeded: deliver its outputs."""

    entry: HistoryEntry


@dataclass(frozen=True)
class Submit:
    """Submit it with this record."""

    tries: Tries


@dataclass(frozen=True)
class TryAgain:
    """Our own drain interrupted it: remove that run from ComfyUI's history, then submit under the same prompt id."""

    tries: Tries


Step = Follow | Collect | Submit | TryAgain


def resume(tries: Tries, where: Where, max_attempts: int) -> Step:
    """Decide by the ledger's record and by what ComfyUI shows.

    An interrupt counts only with the reason that the ledger holds; without one somebody else interrupted the prompt. A
    run that began and is nowhere is lost: its try has ended, and the next attempt begins.

    Raises:
        PromptError: The run has ended in a failure, or the attempts are used up.
    """
    if tries.stopped in ("cancelled", "timeout") and not isinstance(where, Ended):
        raise _stopped(tries.stopped)
    match where:
        case InQueue():
            return Follow()
        case Ended(entry):
            return _ended(tries, entry)
        case _:
            return _nowhere(tries, max_attempts)


def _ended(tries: Tries, entry: HistoryEntry) -> Step:
    match end_of(entry):
        case Succeeded():
            if tries.stopped == "cancelled":
                raise _stopped("cancelled")
            return Collect(entry)
        case Failed() as end:
            raise failure(end)
        case Interrupted():
            if tries.stopped == "drained":
                return TryAgain(_unbegun(tries))
            raise _stopped(tries.stopped)
        case _:
            raise AssertionError("a history entry tells of no other end")


def _nowhere(tries: Tries, max_attempts: int) -> Submit:
    if not tries.begun or tries.stopped == "drained":
        return Submit(_unbegun(tries))
    failed = tries.attempt + tries.failures
    fault = "the worker or ComfyUI died while the prompt ran"
    if failed >= max_attempts:
        raise exhausted(tries.fault or fault, failed)
    return Submit(Tries(attempt=tries.attempt + 1, failures=tries.failures, fault=fault))


def _unbegun(tries: Tries) -> Tries:
    return Tries(attempt=tries.attempt, failures=tries.failures, fault=tries.fault)


def _stopped(reason: str | None) -> PromptError:
    if reason == "timeout":
        return TimedOut("the prompt ran longer than its `timeout_s` and was interrupted")
    if reason == "cancelled":
        return Cancelled("the prompt was cancelled")
    return Cancelled("the prompt was interrupted in ComfyUI by somebody else")

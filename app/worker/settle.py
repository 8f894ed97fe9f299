"""How a failed try ends: one pure function; docs/guarantees.md shows it as a table.

Used by outcome, perform, pipeline, resume, terminal, app.tracing; may import app.errors, brokers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from app.errors import AttemptsExhausted, ComfyUnavailable, PromptError, Undecodable, UploadFailed
from brokers.base import Tries

__all__ = ["Fail", "Retry", "after_failure", "retry_delay_s"]

# A second try soon, for what passes by itself; the third after a restart of ComfyUI has had its time.
DELAYS_S = (2.0, 15.0, 60.0, 300.0)
JITTER = 0.2


@dataclass(frozen=True)
class Retry:
    """Have the request delivered again after the delay, with this record."""

    delay_s: float
    tries: Tries


@dataclass(frozen=True)
class Fail:
    """Publish ``prompt.failed``; a dead letter first when the request is given up rather than answered."""

    error: PromptError
    dead_letter: bool


def after_failure(error: PromptError, tries: Tries, max_attempts: int) -> Retry | Fail:
    """Decide what a failure leads to.

    A failure of the request is never tried again. One of the surroundings is, with growing delay, until
    ``max_attempts`` tries have failed; then the request is given up. A try that began in ComfyUI raises the attempt.
    One that failed before counts too, or a dead input host would be asked for ever; only a prompt that waited in
    ComfyUI behind the one that brought it down is not charged.
    """
    if not error.retryable or isinstance(error, AttemptsExhausted):
        return Fail(error, dead_letter=isinstance(error, Undecodable | AttemptsExhausted))
    fault = f"{error.code}: {error}"[:500]
    if not tries.begun and isinstance(error, ComfyUnavailable):
        return Retry(retry_delay_s(1), Tries(attempt=tries.attempt, failures=tries.failures, fault=fault))
    failed = tries.attempt + tries.failures
    if failed >= max_attempts:
        return Fail(_given_up(error, failed), dead_letter=True)
    spent = 1 if tries.begun else 0
    after = Tries(attempt=tries.attempt + spent, failures=tries.failures + 1 - spent, fault=fault)
    return Retry(retry_delay_s(failed), after)


def _given_up(error: PromptError, attempts: int) -> PromptError:
    if isinstance(error, UploadFailed):
        # The prompt ran: what its sender has to know is that the target did not take what came of it.
        return UploadFailed(f"given up after {_counted(attempts)}: {error}", location=error.location)
    return exhausted(str(error), attempts, error)


def _counted(attempts: int) -> str:
    return f"{attempts} attempt{'' if attempts == 1 else 's'}"


def exhausted(fault: str, attempts: int, last: PromptError | None = None) -> AttemptsExhausted:
    """The failure of a request whose tries are used up, with what the last of them said."""
    return AttemptsExhausted(
        f"given up after {_counted(attempts)}; the last one ended with: {fault}",
        location=last.location if last else None,
        node=last.node if last else None,
        node_errors=last.node_errors if last else None,
    )


def retry_delay_s(attempt: int) -> float:
    """Seconds before the try after ``attempt``, spread by a fifth so that a crowd does not come back at once."""
    base = DELAYS_S[min(attempt, len(DELAYS_S)) - 1]
    return base * random.uniform(1 - JITTER, 1 + JITTER)

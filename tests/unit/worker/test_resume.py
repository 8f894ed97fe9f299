"""What happens to a prompt of which an earlier delivery may have left a run."""

from __future__ import annotations

from typing import Any

import pytest

from app.comfy.history import HistoryEntry, read_history
from app.comfy.whereabouts import Ended, InQueue, Nowhere
from app.errors import AttemptsExhausted, Cancelled, ExecutionFailed, TimedOut
from app.worker.resume import Collect, Follow, Submit, TryAgain, resume
from brokers.base import Tries

BEGUN = Tries(begun=True, started_ms=1000)


def ended(last: str, **data: Any) -> Ended:
    status = {"status_str": "success" if last == "execution_success" else "error", "messages": [[last, data]]}
    return Ended(read_history("p", {"prompt": [0, "p", {}, {}, []], "outputs": {}, "status": status}))


def test_a_run_in_the_queue_is_followed() -> None:
    """Whatever the ledger knows of it."""
    for tries in (Tries(), BEGUN, Tries(stopped="drained", begun=True)):
        assert resume(tries, InQueue(), 3) == Follow()


def test_a_success_is_collected_and_a_failure_raised() -> None:
    """The history's word counts."""
    step = resume(BEGUN, ended("execution_success"), 3)
    assert isinstance(step, Collect)
    assert isinstance(step.entry, HistoryEntry)
    with pytest.raises(ExecutionFailed, match="boom"):
        resume(BEGUN, ended("execution_error", exception_message="boom", node_id="1", node_type="X"), 3)


def test_an_interrupt_counts_by_the_ledgers_reason() -> None:
    """Ours for a cancel, a timeout or a drain; without a reason somebody else's."""
    where = ended("execution_interrupted", node_id="1")
    with pytest.raises(Cancelled, match="somebody else"):
        resume(BEGUN, where, 3)
    with pytest.raises(Cancelled, match="was cancelled"):
        resume(BEGUN.model_copy(update={"stopped": "cancelled"}), where, 3)
    with pytest.raises(TimedOut):
        resume(BEGUN.model_copy(update={"stopped": "timeout"}), where, 3)
    drained = Tries(attempt=2, begun=True, started_ms=5, stopped="drained")
    assert resume(drained, where, 3) == TryAgain(Tries(attempt=2))


def test_a_cancel_noted_before_a_crash_holds() -> None:
    """Even if the run was already gone, or succeeded in between."""
    stopped = BEGUN.model_copy(update={"stopped": "cancelled"})
    for where in (Nowhere(), InQueue(), ended("execution_success")):
        with pytest.raises(Cancelled):
            resume(stopped, where, 3)
    with pytest.raises(TimedOut):
        resume(BEGUN.model_copy(update={"stopped": "timeout"}), Nowhere(), 3)


def test_a_run_that_began_and_is_nowhere_is_a_lost_try() -> None:
    """The next attempt begins, until they are used up; one that never began costs nothing."""
    step = resume(BEGUN, Nowhere(), 3)
    assert isinstance(step, Submit)
    assert (step.tries.attempt, step.tries.begun) == (2, False)
    assert resume(Tries(attempt=2), Nowhere(), 3) == Submit(Tries(attempt=2))
    assert resume(Tries(attempt=2, begun=True, stopped="drained"), Nowhere(), 3) == Submit(Tries(attempt=2))
    with pytest.raises(AttemptsExhausted):
        resume(BEGUN.model_copy(update={"attempt": 3}), Nowhere(), 3)

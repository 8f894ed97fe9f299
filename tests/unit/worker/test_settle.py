"""What a failed try leads to: the table of docs/guarantees.md."""

from __future__ import annotations

import pytest

from app import errors
from app.worker.settle import DELAYS_S, Fail, Retry, after_failure, retry_delay_s
from brokers.base import Tries

FINAL = [
    errors.InvalidRequest,
    errors.InvalidPrompt,
    errors.WorkflowNotFound,
    errors.WorkflowFailed,
    errors.InputRefused,
    errors.ExecutionFailed,
    errors.Cancelled,
    errors.TimedOut,
    errors.Expired,
]
PASSING = [
    errors.InputUnavailable,
    errors.OutOfMemory,
    errors.ComfyUnavailable,
    errors.OutputMissing,
    errors.UploadFailed,
    errors.InternalError,
]


@pytest.mark.parametrize("kind", FINAL)
def test_a_failure_of_the_request_is_answered_at_once(kind: type[errors.PromptError]) -> None:
    """It is never tried again and makes no dead letter."""
    outcome = after_failure(error := kind("x"), Tries(begun=True), 3)
    assert outcome == Fail(error, dead_letter=False)


def test_an_unreadable_message_goes_to_the_dead_letter() -> None:
    """Its bytes are kept."""
    outcome = after_failure(error := errors.Undecodable("x"), Tries(), 3)
    assert outcome == Fail(error, dead_letter=True)


@pytest.mark.parametrize("kind", PASSING)
def test_a_failure_of_the_surroundings_is_tried_until_the_attempts_are_used_up(kind: type[errors.PromptError]) -> None:
    """A begun try raises the attempt; the last one is given up with a dead letter and says what went wrong."""
    tries = Tries(begun=True, started_ms=5, stopped="timeout")
    first = after_failure(kind("no luck"), tries, 3)
    assert isinstance(first, Retry)
    assert first.tries == Tries(attempt=2, fault=f"{kind.code}: no luck")
    second = after_failure(kind("no luck"), first.tries.model_copy(update={"begun": True}), 3)
    assert isinstance(second, Retry)
    assert second.tries.attempt == 3
    last = after_failure(kind("no luck"), second.tries.model_copy(update={"begun": True}), 3)
    assert isinstance(last, Fail)
    assert last.dead_letter
    # An upload keeps its name: the prompt itself ran.
    assert last.error.code == ("upload_failed" if kind is errors.UploadFailed else "attempts_exhausted")
    assert "no luck" in str(last.error)
    assert last.error.retryable


def test_a_failure_before_the_run_counts_without_raising_the_attempt() -> None:
    """An input host that stays down is not asked for ever, and the attempt stays what the contract says."""
    tries = Tries()
    for failures in (1, 2):
        outcome = after_failure(errors.InputUnavailable("down", location="prompt.1.inputs.image"), tries, 3)
        assert isinstance(outcome, Retry)
        tries = outcome.tries
        assert (tries.attempt, tries.failures) == (1, failures)
    last = after_failure(errors.InputUnavailable("down", location="prompt.1.inputs.image"), tries, 3)
    assert isinstance(last, Fail)
    assert last.error.code == "attempts_exhausted"
    assert last.error.location == "prompt.1.inputs.image"


def test_a_prompt_that_waited_behind_the_guilty_one_is_not_charged() -> None:
    """ComfyUI died before its try began: it comes back as often as it takes."""
    outcome = after_failure(errors.ComfyUnavailable("died"), Tries(attempt=3, failures=0), 3)
    assert isinstance(outcome, Retry)
    assert outcome.tries.attempt == 3


def test_delays_grow_and_are_spread() -> None:
    """Each within a fifth of its base, the last one for all that follow."""
    for attempt, base in enumerate([*DELAYS_S, DELAYS_S[-1], DELAYS_S[-1]], start=1):
        assert all(0.8 * base <= retry_delay_s(attempt) <= 1.2 * base for _ in range(50))


@pytest.mark.parametrize(("most", "words"), [(1, "after 1 attempt;"), (2, "after 2 attempts;")])
def test_the_sentence_counts_the_attempts(most: int, words: str) -> None:
    """One attempt, two attempts."""
    outcome = after_failure(errors.InternalError("x"), Tries(attempt=most, begun=True), most)
    assert isinstance(outcome, Fail)
    assert words in str(outcome.error)


def test_a_crowd_comes_back_spread() -> None:
    """Each delay lies within a fifth of its step, on both sides of it, and the last step lasts."""
    for attempt, base in enumerate((*DELAYS_S, DELAYS_S[-1]), 1):
        delays = [retry_delay_s(attempt) for _ in range(200)]
        assert 0.8 * base <= min(delays) < base < max(delays) <= 1.2 * base


def test_an_uncharged_prompt_comes_back_as_soon_as_after_the_first_try() -> None:
    """Its delay does not grow with the attempts of others."""
    outcome = after_failure(errors.ComfyUnavailable("died"), Tries(attempt=3), 3)
    assert isinstance(outcome, Retry)
    assert outcome.delay_s <= 1.2 * DELAYS_S[0]


def test_a_long_fault_is_cut_in_the_record() -> None:
    """The record holds 500 characters of it; the broker's metadata has little room."""
    outcome = after_failure(errors.InternalError("x" * 5000), Tries(begun=True), 3)
    assert isinstance(outcome, Retry)
    assert len(outcome.tries.fault or "") == 500

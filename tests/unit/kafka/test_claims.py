"""First come, first served: ids in hand and ids answered within one partition."""

from __future__ import annotations

import pytest

from brokers.base import RequestKey
from brokers.kafka.claims import REMEMBERED, Answered, Claims


def test_the_first_offset_keeps_an_id_until_it_is_settled() -> None:
    """Whoever claims first has it, also when asked again; after its end the next one may."""
    claims = Claims()
    key = RequestKey("a")
    assert claims.claim(key, 5)
    assert claims.claim(key, 5)
    assert not claims.claim(key, 4)
    claims.drop(5)
    assert claims.claim(key, 4)


def test_an_answer_ends_all_claims_of_its_replay_and_earlier_ones() -> None:
    """A replay is a submission of its own, until it or a later one is answered."""
    claims = Claims()
    claims.note("a", Answered(1))
    assert not claims.claim(RequestKey("a"), 1)
    assert not claims.claim(RequestKey("a", 1), 2)
    assert claims.claim(RequestKey("a", 2), 3)
    claims.note("a", Answered(0))
    assert claims.find(RequestKey("a", 1)) == Answered(1)


def test_the_oldest_answers_are_forgotten() -> None:
    """So many are remembered and no more; one that is noted again counts as new."""
    claims = Claims()
    claims.note("first", Answered(0))
    claims.note("second", Answered(0))
    claims.note("first", Answered(0))
    for number in range(REMEMBERED - 1):
        claims.note(str(number), Answered(0))
    assert claims.find(RequestKey("first")) is not None
    assert claims.find(RequestKey("second")) is None


@pytest.mark.parametrize("request_id", ["a-1", "A", "a_1"])
def test_ids_that_look_alike_are_different(request_id: str) -> None:
    """Nothing but the same id is the same id."""
    claims = Claims()
    claims.note("a", Answered(0))
    assert claims.claim(RequestKey(request_id), 0)

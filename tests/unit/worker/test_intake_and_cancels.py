"""Which id and replay a message is, and which cancels hit it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import InvalidRequest, Undecodable
from app.worker.cancels import Cancels
from app.worker.intake import read_delivery
from brokers.base import RequestKey, RequestOrigin
from schemas.events import RequestSource

GRAPH = {"1": {"class_type": "X", "inputs": {}}}
ORIGIN = RequestOrigin(RequestSource(stream="s", sequence=7), published_at=datetime(2026, 1, 1, tzinfo=UTC))


def body(**fields: object) -> bytes:
    return json.dumps({"prompt": GRAPH, **fields}).encode()


def test_the_id_is_the_bodys_then_the_envelopes_then_the_replays_then_derived() -> None:
    """In this order, and a redelivery gets the same derived one."""
    assert read_delivery(body(id="own"), {"ce-id": "env"}, ORIGIN).key == RequestKey("own")
    assert read_delivery(body(), {"CE_ID": "env"}, ORIGIN).key == RequestKey("env")
    replayed = read_delivery(body(), {"comfybus-replay": "2", "comfybus-id": "kept"}, ORIGIN)
    assert (replayed.key, replayed.id_was_derived) == (RequestKey("kept", 2), True)
    derived = read_delivery(body(), {"comfybus-id": "ignored without a replay"}, ORIGIN)
    assert derived.id_was_derived
    assert derived.key == read_delivery(body(), {}, ORIGIN).key
    other = RequestOrigin(RequestSource(stream="s", sequence=8), published_at=ORIGIN.published_at)
    assert derived.key != read_delivery(body(), {}, other).key


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "٣", "99999999999999999999"])
def test_only_a_positive_whole_number_makes_a_replay(value: str) -> None:
    """Anything else is ignored."""
    assert read_delivery(body(id="a"), {"comfybus-replay": value}, ORIGIN).key.replay == 0


def test_an_unusable_id_is_refused_under_a_derived_one() -> None:
    """The location says id; the rest of the request is echoed."""
    intake = read_delivery(body(id="a/b", metadata={"m": 1}, webhook_v2="https://h"), {"ce-id": "env"}, ORIGIN)
    assert isinstance(intake.refusal, InvalidRequest)
    assert intake.refusal.location == "id"
    assert intake.id_was_derived
    assert intake.echo == {"metadata": {"m": 1}, "webhook_v2": "https://h"}
    assert intake.prompt == GRAPH


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_is_undecodable(data: bytes) -> None:
    """It never raises."""
    assert isinstance(read_delivery(data, {}, ORIGIN).refusal, Undecodable)


def test_the_trace_goes_along_only_if_it_is_well_formed() -> None:
    """With its state."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert read_delivery(body(), {"Traceparent": parent, "TraceState": "a=b"}, ORIGIN).headers == {
        "traceparent": parent,
        "tracestate": "a=b",
    }
    assert read_delivery(body(), {"traceparent": "nonsense"}, ORIGIN).headers == {}


def test_a_cancel_holds_a_day_and_spares_later_replays() -> None:
    """Before or after the request; not for a replay published after it."""
    now = datetime.now(UTC)
    cancels = Cancels()
    cancels.add("a", now - timedelta(hours=1))
    assert cancels.hits(RequestKey("a"), now)
    assert cancels.hits(RequestKey("a", 1), now - timedelta(hours=2))
    assert not cancels.hits(RequestKey("a", 1), now)
    assert not cancels.hits(RequestKey("b"), now)
    cancels.add("old", now - timedelta(hours=25))
    assert not cancels.hits(RequestKey("old"), now)

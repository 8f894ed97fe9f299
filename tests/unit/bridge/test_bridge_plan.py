"""Which deliveries an event asks for, and what they carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.bridge.config import BridgeConfig
from app.bridge.plan import Planned, plan
from app.bridge.record import Record, host_of, lane_of, safe_webhook_id
from app.bridge.subscriptions import Subscription
from app.storage.config import StorageConfig
from brokers.webhooks import Feed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW_MS = 1_800_000_000_000


def config(**fields: Any) -> BridgeConfig:
    return BridgeConfig(StorageConfig(Path("cache")), **fields)


def planned(event: Any, event_id: str | None = "a1/complete", **fields: Any) -> list[Planned]:
    headers = {"ce-id": event_id} if event_id else {}
    return plan(json.dumps(event).encode(), headers, "comfyui-result#7", config(**fields), NOW_MS)


def test_an_event_that_is_read_again_gives_the_same_deliveries() -> None:
    """Ids depend on event and endpoint alone, so that the queue can drop what it has."""
    event = {
        "type": "prompt.complete",
        "id": "a1",
        "webhook_v2": "https://a.example/x",
        "webhook": "https://a.example/x",
    }
    event |= {"images": ["aGk=", "aGk="], "filenames": ["1.png", "2.png"]}
    first, again = planned(event), planned(event)
    assert [one.record.id for one in first] == [one.record.id for one in again]
    assert len({one.record.id for one in first}) == 3
    assert [one.record.webhook_id for one in first] == ["a1/complete", "a1/complete/output/0", "a1/complete/output/1"]
    assert {one.record.prompt for one in first} == {"a1"}
    assert planned(event, "a1/complete/1")[0].record.id != first[0].record.id


def test_the_body_of_webhook_v2_is_the_event_to_the_byte() -> None:
    """What the broker stores is what the receiver gets."""
    body = b'{ "type": "prompt.failed", "id":"a",  "webhook_v2": "https://a.example", "big": 12345678901234567890123 }'
    [one] = plan(body, {"ce_id": "a/failed"}, "x", config(), NOW_MS)
    assert one.body == body


def test_claim_checks_are_noted_with_their_size() -> None:
    """Files that are in an event as URLs are known with their size, so that the bridge can decide on fetching them."""
    event = {"type": "prompt.complete", "id": "a", "images": ["s3://b/1", "s3://b/2"], "filenames": ["1", "2"]}
    event |= {"webhook_v2": "https://a.example", "webhook": "https://a.example"}
    event |= {"outputs": [{"image": 0, "size_bytes": 10}, {"image": 1, "size_bytes": 5}, {"value": "text"}]}
    v2, first, second = (one.record for one in planned(event))
    assert (v2.claims, v2.claim_bytes) == (True, 15)
    assert [first.claim_bytes, second.claim_bytes] == [10, 5]
    del event["outputs"]
    assert [(one.record.claims, one.record.claim_bytes) for one in planned(event)] == [(True, None)] * 3
    event |= {"images": ["aGk=", "aGk="]}
    assert not any(one.record.claims for one in planned(event))


def test_subscribers_get_no_webhooks_of_the_producer() -> None:
    """The URLs of a prompt's webhooks may hold secrets: they are left out for everybody else."""
    one = Subscription(name="one", url="https://s.example", secrets=[SECRET])
    event = {"type": "prompt.failed", "id": "a", "webhook_v2": "https://a.example?t=1", "webhook": "https://b.example"}
    text = next(item for item in planned(event, subscriptions=(one,)) if item.record.origin == "subscription").body
    assert json.loads(text) == {"type": "prompt.failed", "id": "a"}


def test_system_events_are_chosen_by_type() -> None:
    """Only what SYSTEM_WEBHOOK_EVENTS names, and its order is that of its prompt."""
    chosen = {"system_url": "https://s.example", "system_events": frozenset({"comfy.executed"})}
    event = {"type": "comfy.executed", "data": {"type": "executed", "data": {"prompt_id": "r1"}}}
    [one] = planned(event, "w/1/2", **chosen)
    assert json.loads(one.body) == {"event": "comfy.executed", "data": event["data"], "metadata": {}}
    assert one.record.prompt == "r1"
    assert planned(event | {"type": "comfy.status"}, "w/1/3", **chosen) == []


def test_side_channels_are_read_only_when_somebody_wants_them() -> None:
    """Without a system webhook and without such a subscription the bridge has no consumer on the event stream."""
    assert config().feeds == {Feed.RESULTS}
    assert config(system_url="https://s.example").feeds == {Feed.RESULTS}
    assert config(system_url="https://s.example", system_events=frozenset({"comfy.status"})).feeds == set(Feed)
    only_results = Subscription(name="one", url="https://s.example", secrets=[SECRET], events=["prompt.*"])
    assert config(subscriptions=(only_results,)).feeds == {Feed.RESULTS}
    more = Subscription(name="one", url="https://s.example", secrets=[SECRET], events=["storage.file_uploaded"])
    assert config(subscriptions=(more,)).feeds == set(Feed)


def test_webhook_ids_can_stand_in_a_header() -> None:
    """An event's own id is used where it is harmless; else one that follows from it, the same each time."""
    assert safe_webhook_id("a1/complete", "x#1") == "a1/complete"
    for odd in ("日本/complete", "a b", "a\r\nx: y", "a.b", "", "x" * 257):
        made = safe_webhook_id(odd, "x#1")
        assert made.startswith("evt_")
        assert made == safe_webhook_id(odd, "x#1")
    assert safe_webhook_id("日", "x#1") != safe_webhook_id("日", "x#2")


def test_a_url_that_is_no_url_stays_small() -> None:
    """Whatever a request names as its webhook, the record of it can be stored."""
    [one] = planned({"type": "prompt.failed", "id": "a", "webhook_v2": "https://a.example/" + "x" * 500_000})
    assert len(one.record.encode()) < 2000


def test_endpoints_and_hosts() -> None:
    """A lane is a URL without user, query and fragment; a label is host and port."""
    assert lane_of("https://u:p@a.example/x?y=1#z") == lane_of("https://a.example/x")
    assert lane_of("https://a.example/x") != lane_of("https://a.example/y")
    assert host_of("https://u:p@a.example/x") == "a.example"
    assert host_of("http://a.example:8080/x") == "a.example:8080"
    assert host_of("http://[::1]:80/x") == "::1:80"
    assert host_of("nonsense") == host_of("http://a:b:c") == "-"


def test_a_record_survives_its_storing() -> None:
    """What is written is read again; what is no record is none."""
    [one] = planned({"type": "prompt.failed", "id": "a", "webhook_v2": "https://a.example"})
    assert Record.decode(one.record.encode()) == one.record
    assert Record.decode(b"{}") is None
    assert Record.decode(b"\xff") is None

"""The log of leases on Kafka: everybody who reads it comes to the same division of the shares."""

from __future__ import annotations

import json
from typing import Any

from brokers.channels import Names
from brokers.kafka.library import ConsumerRecord
from brokers.kafka.webhooks.layout import Place, WebhookTopics, share_of
from brokers.kafka.webhooks.lease_log import Epoch, LeaseLog

LEASE_S = 10.0
SHARES = 16


class Log:
    """A log that is written here and read by several."""

    def __init__(self) -> None:
        self.records: list[ConsumerRecord] = []

    def say(self, key: str, value: Any) -> None:
        raw = None if value is None else json.dumps(value).encode()
        self.records.append(
            ConsumerRecord("t", 0, len(self.records), 0, 0, key.encode(), raw, None, len(key), len(raw or b""), ())
        )

    def lease(self, share: int, bridge: str | None, epoch: Epoch) -> None:
        self.say(f"lease/{share}", {"bridge": bridge, "epoch": epoch})

    def seen_by(self, known: LeaseLog, now: float) -> LeaseLog:
        for record in self.records[known.position :]:
            known.read(record, now)
        return known


def division(log: LeaseLog, now: float, *bridges: str) -> dict[str, list[int]]:
    """What each of them would take."""
    living = log.living(now)
    part = -(-SHARES // len(living))
    mine = {
        one: {share for share, lease in log.leases.items() if lease.bridge == one and one in living} for one in bridges
    }
    return {one: log.plan(now, living, one, mine[one], SHARES, part) for one in bridges}


def test_free_shares_are_divided_without_a_conflict() -> None:
    """Bridges that start together take disjoint parts that make up the whole."""
    written = Log()
    for name in "abc":
        written.say(f"bridge/{name}", {})
    parts = division(written.seen_by(LeaseLog(LEASE_S), 0), 0, "a", "b", "c")
    assert [len(parts[name]) for name in "abc"] == [6, 6, 4]
    assert sorted(share for part in parts.values() for share in part) == list(range(SHARES))


def test_what_a_silent_bridge_held_is_free_after_a_lease() -> None:
    """Silence is measured by the clock of whoever watches, from when he saw the last sign."""
    written = Log()
    for name in ("dead", "alive"):
        written.say(f"bridge/{name}", {})
    for share in range(SHARES):
        written.lease(share, "dead" if share < 8 else "alive", (1, 1))
    log = written.seen_by(LeaseLog(LEASE_S), 100)
    assert division(log, 100 + LEASE_S, "alive") == {"alive": []}
    written.say("bridge/alive", {})
    log = written.seen_by(log, 100 + LEASE_S)
    assert log.living(101 + LEASE_S) == {"alive"}
    assert division(log, 101 + LEASE_S, "alive") == {"alive": list(range(8))}
    assert log.long_silent(101 + 6 * LEASE_S) == ["dead"]


def test_a_bridge_that_ends_wants_no_part_and_keeps_what_it_has() -> None:
    """What it still works on is its own; what it gave back is for the others at once."""
    written = Log()
    written.say("bridge/ends", {"retired": True})
    written.say("bridge/stays", {})
    for share in range(SHARES):
        written.lease(share, "ends", (1, 1))
    written.lease(3, None, (1, 1))
    assert division(written.seen_by(LeaseLog(LEASE_S), 0), 1, "stays") == {"stays": [3]}


def test_the_highest_epoch_counts_whatever_comes_last() -> None:
    """Who was shut out by a later producer of the share has no lease, also where his word comes behind."""
    written = Log()
    written.lease(5, "later", (7, 3))
    written.lease(5, "shut-out", (7, 2))
    log = written.seen_by(LeaseLog(LEASE_S), 0)
    assert log.leases[5].bridge == "later"
    assert log.last_epoch[5] == (7, 2)


def test_what_no_bridge_wrote_is_passed_over() -> None:
    """Foreign records change nothing."""
    written = Log()
    for key, value in (("lease/x", {}), ("lease/1", 7), ("lease/2", {"bridge": "a", "epoch": [1]}), ("other", None)):
        written.say(key, value)
    log = written.seen_by(LeaseLog(LEASE_S), 0)
    assert log.leases == {}
    assert log.position == 4


def test_places_and_names() -> None:
    """A record says where its body lies; topics keep the prefix's dots, transactional ids do not."""
    assert Place.find(Place(3, 17).headers) == Place(3, 17)
    assert Place.find([("body", b"nonsense")]) is None
    assert Place.find([]) is None
    own = WebhookTopics(Names("team.blue"))
    assert (own.queue, own.writer(4)) == ("team.blue-webhook", "team_blue.webhook-4")
    assert share_of("00000000000000a5", 16) == 5

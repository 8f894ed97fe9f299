"""The topics of the contract as they are created."""

from __future__ import annotations

from brokers.channels import Channel, Names
from brokers.kafka.config import KafkaConfig
from brokers.kafka.layout import wanted_topics

HOUR_MS = 3_600_000


def test_every_channel_has_a_topic_with_the_contracts_retention() -> None:
    """Names with the prefix's dots kept, 16 partitions where ids are keys, and how long each is kept."""
    wanted = {one.channel: one for one in wanted_topics(KafkaConfig(names=Names("team.blue")))}
    assert {channel: one.name for channel, one in wanted.items()} == {c: f"team.blue.{c}" for c in Channel}
    assert wanted[Channel.REQUEST].retention_ms == -1
    assert wanted[Channel.COMPLETE].retention_ms == wanted[Channel.FAILED].retention_ms == 168 * HOUR_MS
    assert wanted[Channel.PROGRESS].retention_ms == HOUR_MS
    assert wanted[Channel.CONTROL].retention_ms == 24 * HOUR_MS
    assert wanted[Channel.DEAD_LETTER].retention_ms == 30 * 24 * HOUR_MS
    assert {one.partitions for one in wanted.values()} == {1, 16}
    same = (Channel.REQUEST, Channel.COMPLETE, Channel.FAILED)
    assert {wanted[channel].partitions for channel in same} == {16}


def test_a_cluster_of_three_confirms_on_two() -> None:
    """Three replicas where there are as many brokers, and a write counts when two have it."""
    (request, *_) = wanted_topics(KafkaConfig())
    assert [request.replicas(brokers) for brokers in (1, 2, 3, 9)] == [1, 2, 3, 3]
    assert "min.insync.replicas" not in request.configs(2, 1000)
    assert request.configs(3, 1000)["min.insync.replicas"] == "2"


def test_dead_letters_have_more_room_than_requests() -> None:
    """64 KiB above the limit of requests; nothing else sets a limit of its own."""
    limits = {one.channel: one.configs(1, 1_000_000).get("max.message.bytes") for one in wanted_topics(KafkaConfig())}
    assert limits.pop(Channel.DEAD_LETTER) == "1065536"
    assert set(limits.values()) == {None}


def test_segments_are_short_enough_for_the_retention_to_mean_something() -> None:
    """A segment goes as a whole, so that none is longer than a sixth of its retention, within bounds."""
    segments = {one.channel: int(one.configs(1, 1)["segment.ms"]) for one in wanted_topics(KafkaConfig())}
    assert segments[Channel.PROGRESS] == 600_000
    assert segments[Channel.CONTROL] == 4 * HOUR_MS
    assert segments[Channel.REQUEST] == segments[Channel.DEAD_LETTER] == 24 * HOUR_MS

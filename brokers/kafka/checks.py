"""What ``doctor`` says about Kafka: one sentence for each thing that a worker or a client needs.

Used by client; may import brokers.
"""

from __future__ import annotations

import anyio

from brokers.base import BrokerError, BrokerRefused
from brokers.channels import Channel
from brokers.client import Check
from brokers.kafka.config import KafkaConfig
from brokers.kafka.declare import topic_limits
from brokers.kafka.errors import doing
from brokers.kafka.layout import LETTER_ROOM_BYTES, Wanted, wanted_topics
from brokers.kafka.library import TopicPartition
from brokers.kafka.link import Link, TopicFacts
from brokers.kafka.reading import Bounds, bounds, reader
from brokers.tracker import Mark, Tracker

__all__ = ["check"]

LOOK = "look at the topics"
ANSWER_WITHIN_S = 15.0


async def check(link: Link, config: KafkaConfig) -> list[Check]:
    """Look at the cluster, the topics and the group; changes nothing, never raises."""
    found = list[Check]()
    try:
        found.append(await _cluster(link))
        topics = await link.topics()
        limits = await _limits(link, [wanted.name for wanted in wanted_topics(config) if wanted.name in topics], found)
        found += [_topic(wanted, topics, limits, link) for wanted in wanted_topics(config)]
        if link.names.topic(Channel.REQUEST) in topics:
            found.append(await _group(link, topics))
    except BrokerError as exc:
        # Who gives no answer now gives none to the other questions either.
        found.append(Check(ok=False, text=str(exc)))
    return found


async def _cluster(link: Link) -> Check:
    link.check_version()
    brokers = await link.brokers()
    plural = "broker" if brokers == 1 else "brokers"
    return Check(ok=True, text=f"Kafka at {link.config.where}, {brokers} {plural}")


async def _limits(link: Link, names: list[str], found: list[Check]) -> dict[str, int]:
    try:
        return await topic_limits(link, names) if names else {}
    except BrokerRefused as exc:
        found.append(Check(ok=False, text=str(exc)))
        return {}


def _topic(wanted: Wanted, topics: TopicFacts, limits: dict[str, int], link: Link) -> Check:
    name = wanted.name
    if name not in topics:
        return Check(ok=False, text=f"the topic {name} is missing; start a worker once")
    request = link.names.topic(Channel.REQUEST)
    if wanted.channel is Channel.DEAD_LETTER and limits.get(name, 0) < limits.get(request, 0) + LETTER_ROOM_BYTES:
        return Check(
            ok=False,
            text=f"the topic {name} takes messages up to {limits.get(name, 0)} bytes; dead letters of the largest "
            f"requests need {limits.get(request, 0) + LETTER_ROOM_BYTES}, set its max.message.bytes to that",
        )
    if wanted.channel in (Channel.COMPLETE, Channel.FAILED) and topics[name] != topics[request]:
        return Check(
            ok=False,
            text=f"the topic {name} has {topics[name]} partitions and {request} has {topics[request]}; with as many, "
            "answers of before are found quicker after a rebalance",
        )
    size = f", messages up to {limits[name] / 1024:.0f} KiB" if name in limits else ""
    plural = "partition" if topics[name] == 1 else "partitions"
    return Check(ok=True, text=f"the topic {name}: {topics[name]} {plural}{size}")


async def _group(link: Link, topics: TopicFacts) -> Check:
    group, topic = link.names.worker_group, link.names.topic(Channel.REQUEST)
    sources = [TopicPartition(topic, number) for number in range(topics[topic])]
    marks = await link.committed(group, sources)
    async with reader(link, LOOK) as consumer:
        with doing(LOOK):
            where = await bounds(consumer, sources)
    waiting, in_hand = _counts(marks, where)
    members = await _members(link, group)
    standing_by = max(0, members - len(sources))
    workers = "worker" if members == 1 else "workers"
    text = f"the group {group}: {members} {workers} on {len(sources)} partitions"
    if standing_by:
        text += f", {standing_by} of them stand by for want of a partition"
    return Check(ok=True, text=f"{text}; requests waiting: about {waiting}, in hand or retried later: {in_hand}")


def _counts(marks: dict[TopicPartition, Mark], where: Bounds) -> tuple[int, int]:
    """How many offsets were never handed out, and how many were and are unfinished."""
    begin, end = where
    waiting = in_hand = 0
    for source in begin:
        tracker = Tracker.read(marks.get(source, Mark(begin[source])))
        waiting += max(0, end[source] - max(tracker.position, begin[source]))
        in_hand += len(tracker.unfinished)
    return waiting, in_hand


async def _members(link: Link, group: str) -> int:
    with doing("look at the group"), anyio.fail_after(ANSWER_WITHIN_S):
        (response,) = await link.admin.describe_consumer_groups([group])
    return sum(len(one[5]) for one in response.groups)

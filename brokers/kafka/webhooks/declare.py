"""Creates the bridge's topics where they are missing, and checks what exists; changes nothing.

Used by bus, feed; may import brokers, brokers.kafka.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import structlog

from brokers.base import BrokerError, BrokerRefused
from brokers.kafka.config import KafkaConfig
from brokers.kafka.creating import create_topics
from brokers.kafka.declare import MAX_MESSAGE, topic_limits
from brokers.kafka.errors import doing
from brokers.kafka.layout import DEFAULT_LIMIT_BYTES, REPLICAS, Wanted, wanted_topics
from brokers.kafka.library import ConfigResource, ConfigResourceType, NewTopic
from brokers.kafka.link import Link, TopicFacts
from brokers.kafka.webhooks.layout import CHANNELS, ROOM_BYTES, WebhookTopics

__all__ = ["Facts", "declare"]

POLICY = "cleanup.policy"
ANSWER_WITHIN_S = 20.0
CREATED_WITHIN_S = 15.0
PAUSE_S = 0.1
NO_ERROR = 0

log = structlog.get_logger("comfybus.kafka")


class Facts:
    """What is there: partitions of every topic that the bridge uses, and how large a body may be."""

    def __init__(self, partitions: TopicFacts, limit_bytes: int) -> None:
        self.partitions = partitions
        self.limit_bytes = limit_bytes


async def declare(link: Link, config: KafkaConfig) -> Facts:
    """Make sure that everything is there.

    Raises:
        BrokerRefused: Something is missing and may not be created, or exists in an unfit form; one line says which.
        BrokerUnavailable: Kafka does not answer.
    """
    own = WebhookTopics(config.names)
    found = await link.topics()
    link.check_version()
    channels = {channel for some in CHANNELS.values() for channel in some}
    # A worker creates these too.
    read = [wanted for wanted in wanted_topics(config) if wanted.channel in channels]
    needed = {*(wanted.name for wanted in read), *own.wanted()}
    if not needed <= set(found):
        await _create(link, own, [wanted for wanted in read if wanted.name not in found], found)
        found = await _until_seen(link, needed)
    await _check(link, own)
    return Facts({name: found[name] for name in needed}, await _limit(link, own.bodies))


async def _create(link: Link, own: WebhookTopics, read: list[Wanted], found: TopicFacts) -> None:
    results = [wanted.name for wanted in wanted_topics(link.config) if wanted.name in found]

    async def make(brokers: int) -> list[NewTopic]:
        replicas = min(REPLICAS, brokers)
        topics = [
            NewTopic(
                wanted.name, wanted.partitions, replicas, topic_configs=wanted.configs(brokers, DEFAULT_LIMIT_BYTES)
            )
            for wanted in read
        ]
        largest = max((await _limits(link, results)).values(), default=DEFAULT_LIMIT_BYTES)
        settings = {"message.timestamp.type": "LogAppendTime", MAX_MESSAGE: str(largest + ROOM_BYTES)}
        if brokers >= REPLICAS:
            settings["min.insync.replicas"] = str(REPLICAS - 1)
        return topics + [
            NewTopic(name, partitions, replicas, topic_configs={**settings, **special})
            for name, (partitions, special) in own.wanted().items()
            if name not in found
        ]

    failed = await create_topics(link, make)
    if failed:
        why = next((text for text in failed.values() if text), "not allowed")
        raise BrokerRefused(
            f"these topics are missing in Kafka and may not be created ({why}): {', '.join(sorted(failed))}; create "
            f"them (docs/webhooks.md says how), or grant CREATE on topics that begin with {own.names.prefix!r}"
        )
    log.info("topics created", topics=sorted({*(wanted.name for wanted in read), *own.wanted()} - set(found)))


async def _until_seen(link: Link, needed: set[str]) -> TopicFacts:
    with doing("see the created topics"), anyio.fail_after(CREATED_WITHIN_S):
        while True:
            found = await link.topics()
            if needed <= set(found) and all(found[name] for name in needed):
                return found
            await anyio.sleep(PAUSE_S)


async def _check(link: Link, own: WebhookTopics) -> None:
    """A queue that is not compacted would lose what waits longer than it keeps its records."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name, {POLICY: ""}) for name in own.wanted()]
    with doing("look at the topics of the webhooks"), anyio.fail_after(ANSWER_WITHIN_S):
        responses = await link.admin.describe_configs(wanted)
    for response in responses:
        for code, _, _, name, entries in response.resources:
            if code != NO_ERROR:
                log.warning("settings of a topic not read, they are taken for fit", topic=name)
                continue
            policy = next((entry[1] for entry in entries if entry[0] == POLICY), "")
            if "compact" not in policy:
                raise BrokerRefused(f"the topic {name} must be compacted (cleanup.policy compact); correct it")


async def _limits(link: Link, names: list[str]) -> Mapping[str, int]:
    try:
        return await topic_limits(link, names) if names else {}
    except BrokerRefused as exc:
        log.warning("limits of messages not read, Kafka's own are assumed", reason=str(exc))
        return {}


async def _limit(link: Link, name: str) -> int:
    try:
        return (await _limits(link, [name])).get(name, DEFAULT_LIMIT_BYTES)
    except BrokerError as exc:
        log.warning("limits of messages not read, Kafka's own are assumed", reason=str(exc))
        return DEFAULT_LIMIT_BYTES

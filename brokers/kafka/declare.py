"""Creating the topics that are missing, and reading what the existing ones take.

Used by most of its folder, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import structlog

from brokers.base import BrokerError, BrokerRefused
from brokers.channels import Channel
from brokers.kafka.creating import create_topics
from brokers.kafka.errors import doing
from brokers.kafka.layout import DEFAULT_LIMIT_BYTES, Wanted, wanted_topics
from brokers.kafka.library import ConfigResource, ConfigResourceType, NewTopic
from brokers.kafka.link import Link, TopicFacts

__all__ = ["Declaration", "topic_limits"]

MAX_MESSAGE = "max.message.bytes"
MAX_MESSAGE_BROKER = "message.max.bytes"
ANSWER_WITHIN_S = 20.0
CREATED_WITHIN_S = 15.0
PAUSE_S = 0.1
NO_ERROR = 0

log = structlog.get_logger("comfybus.kafka")


class Declaration:
    """What is known of the topics; nothing that exists is ever changed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._wanted = {wanted.channel: wanted for wanted in wanted_topics(link.config)}
        self.partitions: dict[Channel, int] = {}
        self.limits: dict[Channel, int] = {}

    @property
    def max_answer_bytes(self) -> int:
        """Largest terminal event of either outcome."""
        return min(self.limit_bytes(Channel.COMPLETE), self.limit_bytes(Channel.FAILED))

    def limit_bytes(self, channel: Channel) -> int:
        """Largest message of a channel."""
        return self.limits.get(channel, DEFAULT_LIMIT_BYTES)

    async def make(self) -> None:
        """Create what is missing, then read limits and partitions of all.

        Raises:
            BrokerRefused: Something is missing and may not be created; the sentence lists all of it.
            BrokerUnavailable: No answer.
        """
        found = await self._link.topics()
        self._link.check_version()
        missing = [wanted for wanted in self._wanted.values() if wanted.name not in found]
        if missing:
            await self._create(missing)
            found = await self._until_seen(missing)
        self.partitions = {channel: found[wanted.name] for channel, wanted in self._wanted.items()}
        await self.read_limits()

    async def read_limits(self) -> None:
        """Read how large messages may be; a broker that does not say is taken for one with Kafka's own limit."""
        try:
            by_name = await topic_limits(self._link, [wanted.name for wanted in self._wanted.values()])
        except BrokerRefused as exc:
            log.warning("limits of messages not read, Kafka's own are assumed", reason=str(exc))
            return
        self.limits = {
            channel: by_name.get(wanted.name, DEFAULT_LIMIT_BYTES) for channel, wanted in self._wanted.items()
        }

    async def _create(self, missing: list[Wanted]) -> None:
        async def make(brokers: int) -> list[NewTopic]:
            limit = await self._request_limit(missing)
            return [
                NewTopic(
                    wanted.name,
                    wanted.partitions,
                    wanted.replicas(brokers),
                    topic_configs=wanted.configs(brokers, limit),
                )
                for wanted in missing
            ]

        failed = await create_topics(self._link, make)
        for wanted in missing:
            if wanted.name not in failed:
                log.info("topic created", topic=wanted.name, partitions=wanted.partitions)
        if failed:
            why = next((message for message in failed.values() if message), "not allowed")
            raise BrokerRefused(
                f"these topics are missing in Kafka and may not be created ({why}): {', '.join(sorted(failed))}; "
                f"create them, or grant CREATE on topics that begin with {self._link.names.prefix!r}"
            )

    async def _request_limit(self, missing: list[Wanted]) -> int:
        """How large a request may be: by its topic if that exists, else by the broker's default."""
        request = self._wanted[Channel.REQUEST]
        try:
            if request not in missing:
                return (await topic_limits(self._link, [request.name])).get(request.name, DEFAULT_LIMIT_BYTES)
            return await _broker_limit(self._link)
        except BrokerError as exc:
            log.info("the broker's limit of messages not read", reason=str(exc))
            return DEFAULT_LIMIT_BYTES

    async def _until_seen(self, created: list[Wanted]) -> TopicFacts:
        """A topic is known to all brokers a moment after it was created."""
        names = {wanted.name for wanted in self._wanted.values()}
        with doing("see the created topics"), anyio.fail_after(CREATED_WITHIN_S):
            while True:
                found = await self._link.topics()
                if names <= set(found) and all(found[wanted.name] for wanted in created):
                    return found
                await anyio.sleep(PAUSE_S)


async def topic_limits(link: Link, names: Iterable[str]) -> dict[str, int]:
    """Largest message of each topic, in bytes; its own setting or the broker's."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name, {MAX_MESSAGE: ""}) for name in names]
    return {name: int(values[MAX_MESSAGE]) for name, values in (await _configs(link, wanted)).items()}


async def _broker_limit(link: Link) -> int:
    with doing("look at the cluster"), anyio.fail_after(ANSWER_WITHIN_S):
        brokers = (await link.admin.describe_cluster())["brokers"]
    wanted = [
        ConfigResource(ConfigResourceType.BROKER, str(broker["node_id"]), {MAX_MESSAGE_BROKER: ""})
        for broker in brokers
    ]
    found = await _configs(link, wanted)
    return min((int(values[MAX_MESSAGE_BROKER]) for values in found.values()), default=DEFAULT_LIMIT_BYTES)


async def _configs(link: Link, wanted: list[Any]) -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    with doing("read the limits of messages"), anyio.fail_after(ANSWER_WITHIN_S):
        for response in await link.admin.describe_configs(wanted):
            for code, message, _, name, entries in response.resources:
                if code != NO_ERROR:
                    raise BrokerRefused(f"Kafka does not let us read the settings of {name} ({message}); grant it")
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found

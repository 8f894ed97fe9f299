"""What the bridge keeps on NATS: one stream ``<P>-webhook`` with one message per subject, and its two consumers.

Used by most of its folder; may import brokers, brokers.nats.

::

    <P>.webhook.due.<share>.<lane>.<delivery>   the record of a delivery that waits
    <P>.webhook.body.<delivery>                 what is to be sent
    <P>.webhook.dlq.<delivery>                  the record of one that was given up
    <P>.webhook.gone.<endpoint>                 an endpoint that answered 410
    <P>.webhook.lease.<share>                   which bridge has a share
    <P>.webhook.bridge.<bridge>                 sign of life of a bridge

Records are small and change with every failed attempt; bodies are large and do not. So they are messages of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import api

from brokers.channels import Channel, Names
from brokers.nats.connection import NatsConfig
from brokers.nats.layout import DAY_S, Wanted, wanted_streams
from brokers.webhooks import Feed

__all__ = ["DURABLE", "SHARES", "WebhookNames", "feed_stream", "wanted_consumer", "wanted_for_webhooks"]

DURABLE = "bridge"
# So many bridges can share the work. A lane's share follows from its name: never change it while deliveries wait.
SHARES = 16
# Longer than the bridge is ever patient with a delivery, 27 days and one more delay.
KEPT_S = 35 * DAY_S
# An event delivered again within this time adds nothing; the server holds the ids in memory.
DEDUPE_S = 1800.0


@dataclass(frozen=True)
class WebhookNames:
    """Stream and subjects of one deployment's webhooks."""

    names: Names

    @property
    def stream(self) -> str:
        """The stream of everything below."""
        return f"{self.names.flat}-webhook"

    def subject(self, *parts: str) -> str:
        """One subject of the stream."""
        return ".".join((self.names.prefix, "webhook", *parts))

    def due(self, lane: str, delivery: str) -> str:
        """Where a waiting delivery's record lies; wildcards are allowed for the delivery."""
        return self.subject("due", str(share_of(lane)), lane, delivery)

    def due_of_share(self, share: int) -> str:
        """All that waits in one share."""
        return self.subject("due", str(share), "*", "*")

    @staticmethod
    def parse_due(subject: str) -> tuple[int, str, str]:
        """Share, lane and delivery of a record's subject."""
        share, lane, delivery = subject.split(".")[-3:]
        return int(share), lane, delivery


def share_of(lane: str) -> int:
    """The share in which a lane lies."""
    return int(lane, 16) % SHARES


def feed_stream(names: Names, feed: Feed) -> str:
    """The stream that a feed reads."""
    return names.result_stream if feed is Feed.RESULTS else names.event_stream


def wanted_for_webhooks(config: NatsConfig) -> list[Wanted]:
    """The streams that the bridge reads, which the worker creates too, and its own."""
    names = config.names
    read = [one for one in wanted_streams(config) if one.name in (names.result_stream, names.event_stream)]
    own = WebhookNames(names)
    stream = api.StreamConfig(
        name=own.stream,
        subjects=[own.subject(">")],
        max_msgs_per_subject=1,
        max_age=KEPT_S,
        duplicate_window=DEDUPE_S,
        allow_direct=True,
    )
    return [*read, Wanted(stream, "webhook deliveries")]


def wanted_consumer(config: NatsConfig, feed: Feed) -> api.ConsumerConfig:
    """The durable consumer of one feed, shared by all bridges."""
    return api.ConsumerConfig(
        durable_name=DURABLE,
        description="The webhook bridge.",
        # Results of the time before the first bridge are still wanted by their receivers; other events are news.
        deliver_policy=api.DeliverPolicy.ALL if feed is Feed.RESULTS else api.DeliverPolicy.NEW,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=config.ack_wait_s,
        max_deliver=-1,
        max_ack_pending=-1,
    )


def subject_channel(names: Names, subject: str) -> Channel | None:
    """The channel of an event's subject; None for what is no event."""
    channels = (Channel.COMPLETE, Channel.FAILED, Channel.STORAGE, Channel.SYSTEM, Channel.WORKER)
    return next((one for one in channels if subject.startswith(f"{names.topic(one)}.")), None)

"""Creates the bridge's stream and consumers where they are missing, and checks what exists; changes nothing.

Used by bus; may import brokers, brokers.nats.
"""

from __future__ import annotations

import nats.js.errors
import structlog
from nats.js import api
from nats.js.errors import NotFoundError

from brokers.base import BrokerRefused
from brokers.nats.connection import NatsConfig
from brokers.nats.errors import NAME_IN_USE
from brokers.nats.layout import Wanted
from brokers.nats.link import Link
from brokers.nats.webhooks.layout import DURABLE, WebhookNames, feed_stream, wanted_consumer, wanted_for_webhooks
from brokers.webhooks import Feed

__all__ = ["declare"]

log = structlog.get_logger("comfybus.nats")


async def declare(link: Link, config: NatsConfig, feeds: frozenset[Feed]) -> None:
    """Make sure that everything is there.

    Args:
        link: The open connection.
        config: What to create.
        feeds: Which of them this bridge reads; a consumer is made for these only.

    Raises:
        BrokerRefused: Something is missing and may not be created, or exists in an unfit form; one line says which.
        BrokerUnavailable: NATS does not answer.
    """
    link.check_version()
    for wanted in wanted_for_webhooks(config):
        found = await _stream(link, wanted)
        if reason := _unfit(wanted, found, WebhookNames(config.names).stream):
            raise BrokerRefused(reason)
    for feed in sorted(feeds, key=lambda one: one.value):
        await _consumer(link, config, feed)


async def _stream(link: Link, wanted: Wanted) -> api.StreamConfig:
    with link.doing(f"create the stream {wanted.name} for {wanted.purpose}"):
        try:
            found: api.StreamConfig = (await link.js.stream_info(wanted.name)).config
        except NotFoundError:
            try:
                found = (await link.js.add_stream(wanted.config)).config
                log.info("stream created", stream=wanted.name)
            except nats.js.errors.APIError as exc:
                # A worker or another bridge was faster.
                if exc.err_code != NAME_IN_USE:
                    raise
                found = (await link.js.stream_info(wanted.name)).config
    return found


def _unfit(wanted: Wanted, found: api.StreamConfig, own: str) -> str:
    if reason := wanted.unfit(found):
        return reason
    if wanted.name == own and found.max_msgs_per_subject != 1:
        return f"the stream {own} must keep one message per subject (max_msgs_per_subject 1); correct it"
    return ""


async def _consumer(link: Link, config: NatsConfig, feed: Feed) -> None:
    stream = feed_stream(config.names, feed)
    with link.doing(f"create the consumer {DURABLE} of {stream}"):
        try:
            info: api.ConsumerInfo = await link.js.consumer_info(stream, DURABLE)
        except NotFoundError:
            info = await link.js.add_consumer(stream, wanted_consumer(config, feed))
            log.info("consumer created", stream=stream, consumer=DURABLE)
    of = f"the consumer {DURABLE} of {stream}"
    if info.config.deliver_subject:
        raise BrokerRefused(f"{of} pushes; delete it, it must be pulled from")
    if info.config.ack_policy != api.AckPolicy.EXPLICIT:
        raise BrokerRefused(f"{of} must ack explicitly; delete or correct it")
    if (info.config.max_deliver or -1) > 0:
        raise BrokerRefused(f"{of} has max_deliver {info.config.max_deliver}; it must be -1, else events are lost")

"""What ``doctor`` says about NATS: one sentence for each thing that a worker or a client needs.

Used by client; may import brokers.
"""

from __future__ import annotations

from functools import partial

from nats.js.errors import NotFoundError

from brokers.base import BrokerError, BrokerRefused
from brokers.client import Check
from brokers.nats.connection import NatsConfig
from brokers.nats.layout import DURABLE, Wanted, unfit_consumer, wanted_streams
from brokers.nats.link import Link, api_subject

__all__ = ["check"]


async def check(link: Link, config: NatsConfig) -> list[Check]:
    """Look at the server, the streams and the durable; changes nothing, never raises."""
    looks = [partial(_server, link)]
    looks += [partial(_stream, link, wanted) for wanted in wanted_streams(config)]
    looks += [partial(_consumer, link, config)]
    found = list[Check]()
    for look in looks:
        try:
            found.append(await look())
        except BrokerRefused as exc:
            found.append(Check(ok=False, text=str(exc)))
        except BrokerError as exc:
            # Who gives no answer now gives none to the other questions either.
            found.append(Check(ok=False, text=str(exc)))
            break
    return found


async def _server(link: Link) -> Check:
    with link.doing("ask for JetStream", api_subject("INFO")):
        account = await link.js.account_info()
    version = link.client.connected_server_version
    return Check(
        ok=True,
        text=f"nats-server {version.major}.{version.minor}.{version.patch} at {link.config.where}, JetStream with "
        f"{account.streams} streams, messages up to {link.max_message_bytes / 1024:.0f} KiB",
    )


async def _stream(link: Link, wanted: Wanted) -> Check:
    with link.doing(f"look at the stream {wanted.name}", api_subject(f"STREAM.INFO.{wanted.name}")):
        try:
            info = await link.js.stream_info(wanted.name)
        except NotFoundError:
            text = f"the stream {wanted.name} for {wanted.purpose} is missing; start a worker once"
            return Check(ok=False, text=text)
    if reason := wanted.unfit(info.config):
        return Check(ok=False, text=reason)
    return Check(ok=True, text=f"the stream {wanted.name} holds {info.state.messages} {wanted.purpose}")


async def _consumer(link: Link, config: NatsConfig) -> Check:
    stream = config.names.request_stream
    with link.doing(f"look at the consumer {DURABLE} of {stream}", api_subject("CONSUMER.INFO")):
        try:
            info = await link.js.consumer_info(stream, DURABLE)
        except NotFoundError:
            return Check(ok=False, text=f"the consumer {DURABLE} of {stream} is missing; start a worker once")
    if reason := unfit_consumer(stream, info.config):
        return Check(ok=False, text=reason)
    waiting, held = info.num_pending or 0, info.num_ack_pending or 0
    return Check(ok=True, text=f"the consumer {DURABLE}: {waiting} requests wait, {held} are in hand or retried later")

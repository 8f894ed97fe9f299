"""How long requests have been waiting in the work queue.

Used by bus; may import brokers.
"""

from __future__ import annotations

from datetime import datetime

import nats.errors
import structlog

from brokers.base import BrokerError
from brokers.channels import Channel
from brokers.nats.layout import DURABLE
from brokers.nats.link import Link, api_subject

__all__ = ["oldest_waiting"]

log = structlog.get_logger("comfybus.nats")


async def oldest_waiting(link: Link) -> datetime | None:
    """When the first request that the durable has not handed out was published; None when there is none.

    Requests that are in hand or wait for another try do not count. Also None when the server does not tell.
    """
    stream = link.names.request_stream
    try:
        with link.doing("look at the backlog", api_subject(f"CONSUMER.INFO.{stream}.{DURABLE}")):
            info = await link.js.consumer_info(stream, DURABLE)
        if not info.num_pending:
            return None
        begin = (info.delivered.stream_seq if info.delivered else 0) + 1
        subject = link.names.subject(Channel.REQUEST)
        first = await link.read("look at the backlog", stream, seq=begin, next_by_subj=subject)
    except (BrokerError, nats.errors.Error) as exc:
        log.debug("backlog not read", reason=str(exc))
        return None
    return first.time if first else None

"""Creating what is missing on the server and checking what exists; nothing that exists is changed.

Used by bus, upkeep; may import brokers.
"""

from __future__ import annotations

import nats.js.errors
import structlog
from nats.js import api
from nats.js.errors import NotFoundError

from brokers.base import BrokerRefused
from brokers.nats.connection import NatsConfig
from brokers.nats.errors import NAME_IN_USE
from brokers.nats.layout import DURABLE, Wanted, unfit_consumer, wanted_consumer, wanted_streams
from brokers.nats.link import Link, api_subject

__all__ = ["Declaration"]

log = structlog.get_logger("comfybus.nats")


class Declaration:
    """Declares streams and the durable, at the start and again whenever something may have gone.

    The progress stream lives in memory and is gone after a server's restart, hence the repetition.
    """

    def __init__(self, link: Link, config: NatsConfig) -> None:
        self._link = link
        self._config = config
        self._warned = False
        self.lease_s = config.ack_wait_s
        """The durable's ack wait: how long a request stays ours without a sign of life."""
        self.max_answer_bytes = 0
        """What a terminal event may weigh."""

    async def make(self) -> None:
        """Create what is missing and check what exists.

        Raises:
            BrokerRefused: Something is missing and may not be created, or exists in an unfit form; one line says which.
            BrokerUnavailable: NATS does not answer.
        """
        self._link.check_version()
        for wanted in wanted_streams(self._config):
            found = await self._stream(wanted)
            if wanted.name == self._config.names.result_stream:
                own = found.max_msg_size or -1
                limit = self._link.max_message_bytes
                self.max_answer_bytes = min(limit, own) if own > 0 else limit
        consumer = await self._consumer()
        self.lease_s = consumer.ack_wait or self._config.ack_wait_s

    async def _stream(self, wanted: Wanted) -> api.StreamConfig:
        what = f"create the stream {wanted.name} for {wanted.purpose}"
        with self._link.doing(
            what, api_subject(f"STREAM.INFO.{wanted.name}"), api_subject(f"STREAM.CREATE.{wanted.name}")
        ):
            try:
                found = (await self._link.js.stream_info(wanted.name)).config
            except NotFoundError:
                try:
                    found = (await self._link.js.add_stream(wanted.config)).config
                    log.info("stream created", stream=wanted.name)
                except nats.js.errors.APIError as exc:
                    # Another worker was faster, with settings that differ in time only.
                    if exc.err_code != NAME_IN_USE:
                        raise
                    found = (await self._link.js.stream_info(wanted.name)).config
        if reason := wanted.unfit(found):
            raise BrokerRefused(reason)
        return found

    async def _consumer(self) -> api.ConsumerConfig:
        stream = self._config.names.request_stream
        with self._link.doing(f"create the consumer {DURABLE} of {stream}", api_subject("CONSUMER.")):
            try:
                info: api.ConsumerInfo = await self._link.js.consumer_info(stream, DURABLE)
            except NotFoundError:
                info = await self._link.js.add_consumer(stream, wanted_consumer(self._config))
                log.info("consumer created", stream=stream, consumer=DURABLE)
        if reason := unfit_consumer(stream, info.config):
            raise BrokerRefused(reason)
        if (info.config.max_ack_pending or -1) > 0 and not self._warned:
            self._warned = True
            log.warning("consumer limits what may be pending; waiting retries can block fresh requests", stream=stream)
        return info.config

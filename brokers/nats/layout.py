"""Streams, the durable consumer and the buckets as the contract names them: created when missing, never changed."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError, NotFoundError

from brokers.base import BrokerRefused
from brokers.channels import Channel
from brokers.nats.connection import NatsConfig, foreign_errors

__all__ = ["DURABLE", "declare", "missing", "streams"]

DURABLE = "worker"
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
# A letter sent again after a crash is dropped within this time.
DEAD_LETTER_DEDUPE_S = DAY_S
# The server says so when two workers create the same stream at once with settings that differ in time only.
STREAM_NAME_IN_USE = 10058

log = structlog.get_logger("comfybus.nats")


@dataclass(frozen=True)
class Declared:
    """One stream of the contract and what it is for, in words for an error."""

    config: api.StreamConfig
    purpose: str


def streams(config: NatsConfig) -> list[Declared]:
    """Every stream of the contract for these settings."""
    names = config.names
    subject = names.subject
    result = [subject(Channel.COMPLETE, "*"), subject(Channel.FAILED, "*")]
    events = [subject(channel, ">") for channel in (Channel.STORAGE, Channel.SYSTEM, Channel.WORKER)]
    retention_s = config.result_retention_h * HOUR_S
    stream = api.StreamConfig
    return [
        Declared(
            stream(
                name=names.request_stream,
                subjects=[subject(Channel.REQUEST)],
                retention=api.RetentionPolicy.WORK_QUEUE,
                discard=api.DiscardPolicy.NEW,
            ),
            "requests",
        ),
        Declared(
            stream(name=names.control_stream, subjects=[subject(Channel.CONTROL)], max_age=DAY_S, allow_direct=True),
            "commands",
        ),
        Declared(
            stream(name=names.result_stream, subjects=result, max_age=retention_s, allow_direct=True),
            "terminal events",
        ),
        Declared(
            stream(
                name=names.progress_stream,
                subjects=[subject(Channel.PROGRESS, "*")],
                max_age=HOUR_S,
                max_msgs_per_subject=1,
                storage=api.StorageType.MEMORY,
                allow_direct=True,
            ),
            "progress",
        ),
        Declared(stream(name=names.event_stream, subjects=events, max_age=DAY_S, allow_direct=True), "events"),
        Declared(
            stream(
                name=names.dead_letter_stream,
                subjects=[subject(Channel.DEAD_LETTER)],
                max_age=30 * DAY_S,
                duplicate_window=DEAD_LETTER_DEDUPE_S,
                allow_direct=True,
            ),
            "dead letters",
        ),
    ]


async def declare(js: JetStreamContext, config: NatsConfig) -> api.ConsumerInfo:
    """Create what is missing and check what exists; called at the start and after every reconnect.

    The progress stream lives in memory and is gone after a server's restart, hence the repetition.

    Returns:
        The durable consumer as it is, whose ack wait decides how often leases are renewed.

    Raises:
        BrokerRefused: Something is missing and may not be created, or exists in an unfit form; one line says which.
        BrokerUnavailable: NATS does not answer.
    """
    for declared in streams(config):
        await _declare_stream(js, declared)
    with foreign_errors("create the ledger"):
        try:
            await js.key_value(config.names.ledger_bucket)
        except NotFoundError:
            await js.create_key_value(api.KeyValueConfig(bucket=config.names.ledger_bucket, history=1))
    return await _declare_consumer(js, config)


async def _declare_stream(js: JetStreamContext, declared: Declared) -> None:
    wanted = declared.config
    name = str(wanted.name)
    with foreign_errors(f"create the stream {name} for {declared.purpose}"):
        try:
            found = (await js.stream_info(name)).config
        except NotFoundError:
            try:
                await js.add_stream(wanted)
            except BadRequestError as exc:
                if exc.err_code != STREAM_NAME_IN_USE:
                    raise
                found = (await js.stream_info(name)).config
            else:
                log.info("stream created", stream=name)
                return
    covered = set(found.subjects or ())
    if lacking := [one for one in wanted.subjects or () if not any(_covers(have, one) for have in covered)]:
        raise BrokerRefused(f"the stream {name} lacks the subject {lacking[0]}; add it, Comfybus changes no stream")
    if wanted.retention == api.RetentionPolicy.WORK_QUEUE and found.retention != wanted.retention:
        raise BrokerRefused(f"the stream {name} has retention {found.retention}; it must be a work queue")


def _covers(have: str, wanted: str) -> bool:
    """Whether a subject pattern holds every subject of another."""
    left, right = have.split("."), wanted.split(".")
    for index, part in enumerate(left):
        if part == ">":
            return len(right) > index
        if index >= len(right) or right[index] == ">" or part not in ("*", right[index]):
            return False
    return len(left) == len(right)


async def _declare_consumer(js: JetStreamContext, config: NatsConfig) -> api.ConsumerInfo:
    stream = config.names.request_stream
    with foreign_errors(f"create the consumer {DURABLE} of {stream}"):
        try:
            info: api.ConsumerInfo = await js.consumer_info(stream, DURABLE)
        except NotFoundError:
            info = await js.add_consumer(
                stream,
                api.ConsumerConfig(
                    durable_name=DURABLE,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=config.ack_wait_s,
                    # Attempts are counted in the ledger: beyond max_deliver the server stops in silence.
                    max_deliver=-1,
                    # Retries that wait count as pending; a limit would let them block fresh requests.
                    max_ack_pending=-1,
                ),
            )
            log.info("consumer created", stream=stream, consumer=DURABLE)
    found = info.config
    if found.ack_policy != api.AckPolicy.EXPLICIT or (found.max_deliver or -1) > 0:
        raise BrokerRefused(
            f"the consumer {DURABLE} of {stream} must ack explicitly and have max_deliver -1; delete or correct it"
        )
    if (found.max_ack_pending or -1) > 0:
        log.warning("consumer limits what may be pending; waiting retries can block fresh requests", stream=stream)
    return info


async def missing(js: JetStreamContext, config: NatsConfig) -> list[str]:
    """Names of streams that do not exist, for ``doctor``; creates nothing."""
    found = []
    for declared in streams(config):
        with foreign_errors("look up the streams"):
            try:
                await js.stream_info(str(declared.config.name))
            except NotFoundError:
                found.append(str(declared.config.name))
    return found

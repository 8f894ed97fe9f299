"""Streams, the durable consumer and the ledger's bucket as the contract names them: what they should be like.

Used by backlog, bus, checks, declare, letters, app.settings, brokers.nats.webhooks; may import brokers.
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import api

from brokers.channels import Channel
from brokers.nats.connection import NatsConfig

__all__ = ["DAY_S", "DURABLE", "Wanted", "unfit_consumer", "wanted_consumer", "wanted_ledger", "wanted_streams"]

DURABLE = "worker"
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
# A letter sent again after a crash is dropped within this time.
DEAD_LETTER_DEDUPE_S = DAY_S
# The server's own default; it may not be longer than messages are kept.
DEDUPE_S = 120.0


@dataclass(frozen=True)
class Wanted:
    """One stream of the contract and what it is for, in words for an error."""

    config: api.StreamConfig
    purpose: str

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self.config.name)

    def unfit(self, found: api.StreamConfig) -> str:
        """Why an existing stream cannot serve, as a sentence, or nothing. Limits are the operator's business."""
        have = found.subjects or ()
        lacking = [one for one in self.config.subjects or () if not any(_covers(pattern, one) for pattern in have)]
        if lacking:
            return f"the stream {self.name} lacks the subject {lacking[0]}; add it, Comfybus changes no stream"
        retention = self.config.retention or api.RetentionPolicy.LIMITS
        if found.retention != retention:
            return f"the stream {self.name} has retention {found.retention}; it must be {retention.value}"
        if found.sealed:
            return f"the stream {self.name} is sealed; nothing can be stored in it"
        return ""


def wanted_streams(config: NatsConfig) -> list[Wanted]:
    """Every stream of the contract for these settings."""
    names = config.names
    subject = names.subject
    result = [subject(Channel.COMPLETE, "*"), subject(Channel.FAILED, "*")]
    events = [subject(channel, ">") for channel in (Channel.STORAGE, Channel.SYSTEM, Channel.WORKER)]
    retention_s = config.result_retention_h * HOUR_S
    stream = api.StreamConfig
    return [
        Wanted(
            stream(
                name=names.request_stream,
                subjects=[subject(Channel.REQUEST)],
                retention=api.RetentionPolicy.WORK_QUEUE,
                discard=api.DiscardPolicy.NEW,
            ),
            "requests",
        ),
        Wanted(
            stream(name=names.control_stream, subjects=[subject(Channel.CONTROL)], max_age=DAY_S, allow_direct=True),
            "commands",
        ),
        Wanted(
            stream(
                name=names.result_stream,
                subjects=result,
                max_age=retention_s,
                duplicate_window=min(DEDUPE_S, retention_s),
                allow_direct=True,
            ),
            "terminal events",
        ),
        Wanted(
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
        Wanted(stream(name=names.event_stream, subjects=events, max_age=DAY_S, allow_direct=True), "events"),
        Wanted(
            stream(
                name=names.dead_letter_stream,
                subjects=[subject(Channel.DEAD_LETTER)],
                max_age=30 * DAY_S,
                duplicate_window=DEAD_LETTER_DEDUPE_S,
                allow_direct=True,
            ),
            "dead letters",
        ),
        wanted_ledger(config),
    ]


def wanted_ledger(config: NatsConfig) -> Wanted:
    """The stream behind the bucket of claims, as every NATS client creates a key-value bucket."""
    bucket = config.names.ledger_bucket
    stream = api.StreamConfig(
        name=f"KV_{bucket}",
        subjects=[f"$KV.{bucket}.>"],
        max_msgs_per_subject=1,
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
    )
    return Wanted(stream, "claims")


def wanted_consumer(config: NatsConfig) -> api.ConsumerConfig:
    """The durable consumer that all workers share."""
    return api.ConsumerConfig(
        durable_name=DURABLE,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=config.ack_wait_s,
        # Attempts are counted in the ledger: beyond max_deliver the server stops in silence.
        max_deliver=-1,
        # Retries that wait count as pending; a limit would let them block fresh requests.
        max_ack_pending=-1,
    )


def unfit_consumer(stream: str, found: api.ConsumerConfig) -> str:
    """Why an existing durable cannot serve, as a sentence, or nothing."""
    of = f"the consumer {DURABLE} of {stream}"
    if found.deliver_subject:
        return f"{of} pushes; delete it, it must be pulled from"
    if found.ack_policy != api.AckPolicy.EXPLICIT:
        return f"{of} must ack explicitly; delete or correct it"
    if (found.max_deliver or -1) > 0:
        return f"{of} has max_deliver {found.max_deliver}; it must be -1, else requests are given up in silence"
    return ""


def _covers(have: str, wanted: str) -> bool:
    """Whether a subject pattern holds every subject of another."""
    left, right = have.split("."), wanted.split(".")
    for index, part in enumerate(left):
        if part == ">":
            return len(right) > index
        if index >= len(right) or right[index] == ">" or part not in ("*", right[index]):
            return False
    return len(left) == len(right)

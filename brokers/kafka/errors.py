"""aiokafka's exceptions, translated at one boundary into sentences with a cure.

Used by most of its folder, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from brokers.base import BrokerError, BrokerRefused, BrokerUnavailable
from brokers.kafka.library import KafkaError, kafka_errors

__all__ = ["FOREIGN", "doing", "is_stray", "translated"]

# What aiokafka raises: its own tree, the network's errors, and assertions where a broker's answer surprises it.
FOREIGN = (KafkaError, OSError, TimeoutError, AssertionError)

_NOT_ALLOWED = {
    kafka_errors.TopicAuthorizationFailedError: "the topic",
    kafka_errors.GroupAuthorizationFailedError: "the group",
    kafka_errors.ClusterAuthorizationFailedError: "the cluster",
    kafka_errors.TransactionalIdAuthorizationFailed: "the transactional id",
}
_WHO_ARE_YOU = (
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)


def translated(what: str, exc: BaseException) -> BrokerError:
    """The failure of something we wanted as an exception of ours.

    Args:
        what: The thing that failed, as an infinitive: ``publish a terminal event``.
        exc: What was raised.
    """
    for kind, thing in _NOT_ALLOWED.items():
        if isinstance(exc, kind):
            return BrokerRefused(f"Kafka does not allow us to {what}: {thing} {exc}; grant it")
    if isinstance(exc, _WHO_ARE_YOU):
        return BrokerRefused(f"Kafka refuses the connection: {_sentence(exc)}; check KAFKA_SASL_*")
    if isinstance(exc, ssl.SSLError):
        return BrokerRefused(f"the TLS connection to Kafka failed: {_sentence(exc)}; check BROKER_TLS_*")
    if isinstance(exc, TimeoutError | kafka_errors.RequestTimedOutError | kafka_errors.KafkaTimeoutError):
        return BrokerUnavailable(f"Kafka did not answer in time when we wanted to {what}")
    return BrokerUnavailable(f"we could not {what}: {_sentence(exc)}")


def _sentence(exc: BaseException) -> str:
    text = str(exc).strip()
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Translate what is raised inside.

    Raises:
        BrokerUnavailable: Trying again may help.
        BrokerRefused: An operator has to act.
    """
    try:
        yield
    except BrokerError:
        raise
    except FOREIGN as exc:
        raise translated(what, exc) from exc
    except asyncio.CancelledError as exc:
        if not is_stray():
            raise
        raise BrokerUnavailable(f"we could not {what}: a request was given up with its connection") from exc


def is_stray() -> bool:
    """Whether a ``CancelledError`` is nobody's wish: aiokafka cancels futures that others wait for when it closes.

    Let through, it would end the task that waits without a word.
    """
    task = asyncio.current_task()
    return task is not None and not task.cancelling()

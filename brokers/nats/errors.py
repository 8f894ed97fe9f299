"""What nats-py raises, translated once into the broker errors of this package.

Used by most of its folder, brokers.nats.webhooks; may import brokers.
"""

from __future__ import annotations

import nats.errors
import nats.js.errors

from brokers.base import BrokerError, BrokerRefused, BrokerUnavailable

__all__ = [
    "FOREIGN",
    "NAME_IN_USE",
    "NO_MESSAGE",
    "STREAM_MISSING",
    "WRONG_LAST_SEQUENCE",
    "StreamMissing",
    "translated",
]

FOREIGN = (nats.errors.Error, TimeoutError, OSError, ValueError)

# Codes of the server's errors, which are stable; their texts are not.
NO_MESSAGE = 10037
STREAM_MISSING = 10059
# Two created the same stream at once, with settings that differ.
NAME_IN_USE = 10058
# The second one is what a clustered stream says while the first message is still on its way to the followers.
WRONG_LAST_SEQUENCE = (10071, 10164)
TEMPORARILY_UNAVAILABLE = 10008


class StreamMissing(BrokerUnavailable):
    """The stream does not exist, for now: a worker creates it."""


def translated(doing: str, exc: Exception) -> BrokerError:
    """The broker error for an exception of nats-py.

    Args:
        doing: What was tried, as the beginning of the sentence.
        exc: What nats-py raised.
    """
    error: type[BrokerError] = BrokerUnavailable
    reason = f"no answer from NATS ({type(exc).__name__})"
    match exc:
        case nats.js.errors.NoStreamResponseError():
            error, reason = StreamMissing, "no stream takes it; a worker creates what is missing"
        case nats.js.errors.APIError(err_code=code) if code == STREAM_MISSING:
            error, reason = StreamMissing, "its stream is missing; a worker creates it"
        case nats.js.errors.APIError(err_code=code) if code == TEMPORARILY_UNAVAILABLE:
            reason = "JetStream is temporarily unavailable"
        case nats.js.errors.APIError(description=str() as text) if text:
            error, reason = BrokerRefused, f"NATS refuses ({text})"
        case nats.js.errors.ServiceUnavailableError() | nats.errors.NoRespondersError():
            reason = "JetStream does not answer; is it enabled for this account?"
        case nats.js.errors.APIError() | nats.errors.AuthorizationError():
            error, reason = BrokerRefused, f"NATS refuses ({exc})"
        case nats.errors.BadHeaderError() | nats.errors.BadSubjectError():
            error, reason = BrokerRefused, f"NATS cannot carry it ({exc})"
    return error(f"{doing}: {reason}")

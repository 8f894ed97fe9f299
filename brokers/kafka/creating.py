"""Creating topics, also at a Kafka that answers before it is whole.

Used by declare, brokers.kafka.webhooks.declare; may import brokers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from brokers.base import BrokerUnavailable
from brokers.kafka.errors import doing
from brokers.kafka.library import NewTopic
from brokers.kafka.link import Link

__all__ = ["create_topics"]

ANSWER_WITHIN_S = 20.0
# A Kafka that starts, or that was paused for longer than its brokers' sessions, answers while no broker counts as
# living: it then lists none, or refuses every number of copies.
WHOLE_WITHIN_S = 20.0
PAUSE_S = 0.2
NO_ERROR = 0
TOPIC_EXISTS = 36
# Timed out, replication factor, not the controller (any more), too many at once.
PASSING = (7, 38, 41, 89)


async def create_topics(link: Link, make: Callable[[int], Awaitable[Sequence[NewTopic]]]) -> dict[str, str]:
    """Create topics, for up to 20 s where Kafka is not ready to; those that exist already are left as they are.

    Args:
        link: The connection.
        make: The topics for a cluster of so many brokers; asked again for each attempt.

    Returns:
        The names of those that may not be created, each with Kafka's reason, which may be empty.

    Raises:
        BrokerUnavailable: No answer, or no broker of the cluster is ready in time.
    """
    end = anyio.current_time() + WHOLE_WITHIN_S
    while True:
        waits_for = "none of its brokers is ready"
        if brokers := await link.brokers():
            topics = await make(brokers)
            with doing("create topics"), anyio.fail_after(ANSWER_WITHIN_S):
                response = await link.admin.create_topics(list(topics))
            failed = {name: (code, (text or "").strip().rstrip(".")) for name, code, text in response.topic_errors}
            passing = [text for code, text in failed.values() if code in PASSING]
            if not passing:
                return {name: text for name, (code, text) in failed.items() if code not in (NO_ERROR, TOPIC_EXISTS)}
            waits_for = next(filter(None, passing), "it did not say why")
        if anyio.current_time() > end:
            raise BrokerUnavailable(
                f"Kafka at {link.config.where} answers, but does not create topics ({waits_for}); see whether all of "
                "its brokers are up"
            )
        await anyio.sleep(PAUSE_S)

"""Clients of aiokafka that end when they are told to, and leave nothing behind.

Used by most of its folder, brokers.kafka.webhooks; may import its folder alone.

Its own ways of closing wait for confirmations that may never come, and a cancelled start leaves a connection open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import anyio
import anyio.lowlevel

from brokers.kafka.errors import is_stray
from brokers.kafka.library import (
    AIOKafkaAdminClient,
    AIOKafkaClient,
    AIOKafkaConsumer,
    AIOKafkaProducer,
    KafkaError,
    kafka_errors,
)

__all__ = [
    "abandon_producer",
    "check_consumer",
    "let_go",
    "make_admin",
    "make_consumer",
    "make_producer",
    "stop_consumer",
]

FAREWELL_S = 3.0
# A first question that was begun is waited for, when its asker is cancelled, for so long.
BOOTSTRAP_WITHIN_S = 10.0
UNREACHED_PAUSE_S = 0.2


class _CarefulClient(AIOKafkaClient):  # type: ignore[misc]
    """A client that leaves no connection behind when it is cancelled or closed at the wrong moment."""

    _is_closed = False

    async def bootstrap(self) -> None:
        """The first question is asked on a connection that only this call knows: cancelled, it would stay open."""
        with anyio.fail_after(BOOTSTRAP_WITHIN_S, shield=True):
            await super().bootstrap()
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def close(self) -> None:
        """Close, and open nothing for those who have not heard of it yet."""
        self._is_closed = True
        await super().close()

    async def _get_conn(self, node_id: Any, **options: Any) -> Any:
        connection = None if self._is_closed else await super()._get_conn(node_id, **options)
        if connection is not None and self._is_closed:
            connection.close()
            return None
        if connection is None and not self._is_closed:
            # It would be asked for again at once, by each of a worker's clients, as long as the broker is away.
            await anyio.sleep(UNREACHED_PAUSE_S)
        return connection


def make_admin(**options: Any) -> AIOKafkaAdminClient:
    """An admin client with a careful connection."""
    made = AIOKafkaAdminClient(**options)
    made._client.__class__ = _CarefulClient  # noqa: SLF001 - it makes its client itself
    return made


def make_consumer(**options: Any) -> AIOKafkaConsumer:
    """A consumer with a careful connection."""
    made = AIOKafkaConsumer(**options)
    made._client.__class__ = _CarefulClient  # noqa: SLF001 - it makes its client itself
    return made


def make_producer(**options: Any) -> AIOKafkaProducer:
    """A producer with a careful connection."""
    made = AIOKafkaProducer(**options)
    made.client.__class__ = _CarefulClient
    return made


def check_consumer(consumer: AIOKafkaConsumer) -> None:
    """Raise what went wrong in the consumer's background tasks; also lets it go on after an error.

    Raises:
        KafkaError: The group refuses us, or a task has ended.
    """
    consumer._coordinator.check_errors()  # noqa: SLF001 - else only a poll would tell, and one without demand is wrong
    fetching = consumer._fetcher.error_future  # noqa: SLF001 - it died in silence before (aiokafka#983)
    if fetching.done():
        raise KafkaError("the task that fetches requests has ended")


@contextmanager
def _no_stray_cancellation() -> Iterator[None]:
    """Closing, aiokafka raises the cancellation of its own tasks; let through, it would end ours without a word."""
    try:
        yield
    except asyncio.CancelledError:
        if not is_stray():
            raise


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close, within a few seconds whatever the broker does.

    A consumer that waits for the others in a rebalance would hear of its end only after that; then it is cut short and
    the group is told all the same.
    """
    with anyio.move_on_after(FAREWELL_S, shield=True), suppress(KafkaError), _no_stray_cancellation():
        await consumer.stop()
        return
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001 - what stop() could not end
    in_group = hasattr(coordinator, "_coordination_task")
    tasks = [coordinator._coordination_task, coordinator._heartbeat_task] if in_group else []  # noqa: SLF001
    with anyio.move_on_after(FAREWELL_S, shield=True):
        await _end_tasks(tasks)
        if in_group:
            with anyio.move_on_after(FAREWELL_S / 3), suppress(KafkaError):
                await coordinator._maybe_leave_group()  # noqa: SLF001
        if fetcher is not None:
            # Its own way of closing stops at the first of its tasks that was cancelled before.
            await _end_tasks(list(fetcher._pending_tasks))  # noqa: SLF001
            fetcher._pending_tasks.clear()  # noqa: SLF001
            await fetcher.close()
        await consumer._client.close()  # noqa: SLF001


async def abandon_producer(producer: AIOKafkaProducer) -> None:
    """Close a producer without waiting for what it still wanted to send.

    ``stop`` waits until all is confirmed, which is never for a fenced or bricked producer or a broker that is gone.
    """
    producer._closed = True  # noqa: SLF001 - no door of its own
    sender, transactions, queue = producer._sender, producer._txn_manager, producer._message_accumulator  # noqa: SLF001
    with anyio.move_on_after(FAREWELL_S, shield=True):
        await producer.client.close()
        await _end_tasks([sender.sender_task])
        await producer.client.close()
    queue.fail_all(kafka_errors.ProducerClosed())
    futures = [transactions._transaction_waiter, transactions._pid_waiter] if transactions is not None else []  # noqa: SLF001
    for batch in (*chain.from_iterable(queue._batches.values()), *queue._pending_batches):  # noqa: SLF001
        futures += [batch.future, batch._drain_waiter, *(future for future, _ in batch._msg_futures)]  # noqa: SLF001
    let_go(futures)


def let_go(futures: Iterable[asyncio.Future[Any] | None]) -> None:
    """Nobody waits for these any more; asyncio shall not report their failures as overlooked."""
    for future in futures:
        if future is None or future.cancelled():
            continue
        if future.done():
            future.exception()
        else:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _end_tasks(tasks: Sequence[asyncio.Task[Any] | None]) -> None:
    alive = [task for task in tasks if task is not None and not task.done()]
    for task in alive:
        task.cancel()
    if alive:
        await asyncio.wait(alive, timeout=FAREWELL_S / 3)
    for ended in tasks:
        if ended is not None and ended.done() and not ended.cancelled():
            ended.exception()

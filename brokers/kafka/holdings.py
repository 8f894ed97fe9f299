"""All partitions of this worker: given to it, taken from it, and what of theirs is handed out next.

Used by bus, membership, tidy; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup

from brokers.kafka.delivery import KafkaDelivery
from brokers.kafka.library import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from brokers.kafka.partition import Partition, Received, Work
from brokers.kafka.session import Session

__all__ = ["Holdings"]

log = structlog.get_logger("comfybus.kafka")


class Holdings:
    """Partitions by topic and number, with the session of each while it is ours."""

    def __init__(
        self,
        make_session: Callable[[Partition, Callable[[Partition], None]], Session],
        make_delivery: Callable[[Partition, Received], KafkaDelivery],
    ) -> None:
        """Prepare.

        Args:
            make_session: Makes the session of a partition; the callable is what it calls when reading may begin.
            make_delivery: Makes what is handed out.
        """
        self.partitions: dict[TopicPartition, Partition] = {}
        self.tasks: TaskGroup
        self._sessions: dict[TopicPartition, Session] = {}
        self._make_session = make_session
        self._make_delivery = make_delivery
        self._changed = anyio.Event()
        self._consumer: AIOKafkaConsumer | None = None

    # --- what is held

    @property
    def deliveries(self) -> Iterator[KafkaDelivery]:
        """Everything that is handed out and not settled."""
        return (delivery for partition in self.partitions.values() for delivery in list(partition.held.values()))

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """What would be read next of each partition that is read."""
        return {source: one.wanted_offset for source, one in self.partitions.items() if one.is_open}

    @property
    def oldest_read(self) -> datetime | None:
        """When the oldest request that was read and not yet handed out was published."""
        heads = [at for partition in self.partitions.values() if (at := partition.oldest_ready_ms) is not None]
        return datetime.fromtimestamp(min(heads) / 1000, UTC) if heads else None

    @property
    def has_released(self) -> bool:
        """Something was handed back, for anybody to take."""
        return any(partition.has_released for partition in self.partitions.values())

    @property
    def all_open(self) -> bool:
        """Every partition that is ours has been taken over."""
        return all(partition.is_open for partition in self.partitions.values())

    @property
    def has_ready(self) -> bool:
        """Something can be handed out without reading."""
        return next(self._ready(), None) is not None

    def change(self) -> None:
        """There may be something to hand out, or room to read."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def changes(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    # --- handing out

    async def next(self) -> KafkaDelivery:
        """The next request, waited for. Cancelled, it leaves what it would have handed out to the next one."""
        while True:
            changed = self._changed
            found = next(self._ready(), None)
            if found is not None:
                partition, offset = found
                if partition.is_covered(offset):
                    return partition.hand_out(offset, partial(self._make_delivery, partition))
                # A commit before the first one is handed out: a successor shall know that it may have been.
                await self._cover(partition)
                continue
            due = [partition.next_due for partition in self.partitions.values() if partition.next_due is not None]
            with anyio.move_on_at(min(due)) if due else anyio.CancelScope():
                await changed.wait()

    def _ready(self) -> Iterator[tuple[Partition, int]]:
        now = anyio.current_time()
        for partition in self.partitions.values():
            if (offset := partition.next_ready(now)) is not None:
                yield partition, offset

    @staticmethod
    async def _cover(partition: Partition) -> None:
        work = Work()
        partition.submit(work)
        await work.done.wait()

    # --- reading

    def receive(self, source: TopicPartition, record: ConsumerRecord) -> None:
        """A request was read."""
        partition = self.partitions.get(source)
        if partition is None or not partition.is_open or self._consumer is None:
            return
        reread = partition.is_rereading
        partition.receive(record)
        if reread and partition.wanted_offset != record.offset + 1:
            self._consumer.seek(source, partition.wanted_offset)
        self._pause_or_resume(partition)

    def _pause_or_resume(self, partition: Partition) -> None:
        """A partition whose commits have no room for more is not read."""
        consumer, source = self._consumer, partition.source
        if consumer is None or source not in consumer.assignment():
            return
        paused = source in consumer.paused()
        if partition.may_read and partition.is_open and paused:
            consumer.resume(source)
        elif not (partition.may_read and partition.is_open) and not paused:
            consumer.pause(source)

    def resume_where_there_is_room(self) -> None:
        """Read on where requests were settled meanwhile."""
        for partition in self.partitions.values():
            self._pause_or_resume(partition)

    # --- changing hands

    def assign(self, consumer: AIOKafkaConsumer, sources: Iterable[TopicPartition]) -> None:
        """These are ours now; those that were and are not among them are lost."""
        self._consumer = consumer
        ours = set(sources)
        consumer.pause(*ours)
        for source in set(self.partitions) - ours:
            if lost := list(self.partitions[source].held.values()):
                log.warning("partition moved away with requests in hand", partition=source.partition, lost=len(lost))
            self.partitions.pop(source).lose()
        for source in sorted(ours):
            partition = self.partitions.setdefault(source, Partition(source, self.change))
            session = self._make_session(partition, self._begin_to_read)
            self._sessions[source] = session
            self.tasks.start_soon(session.run)

    def _begin_to_read(self, partition: Partition) -> None:
        consumer = self._consumer
        if consumer is not None and partition.source in consumer.assignment():
            consumer.seek(partition.source, partition.wanted_offset)
            self._pause_or_resume(partition)
        self.change()

    def hold_back(self) -> None:
        """Hand out nothing for now; what is settled is still committed."""
        for partition in self.partitions.values():
            partition.is_open = False

    async def suspend(self) -> None:
        """Commit nothing more until the partitions are assigned anew; commits in progress may end."""
        self._consumer = None
        sessions, self._sessions = self._sessions, {}
        async with anyio.create_task_group() as tasks:
            for session in sessions.values():
                tasks.start_soon(session.end)

    def lose_all(self) -> None:
        """Nothing is ours any more."""
        partitions, self.partitions = self.partitions, {}
        for partition in partitions.values():
            partition.lose()
        self.change()

"""Being a member of the group: joined when requests are asked for, left when nobody asks any more, never by accident.

Used by bus; may import brokers.

One consumer for all partitions. Its offsets are never committed by it, its partitions are read only with a free slot,
and it is never thrown out for a prompt that takes long: aiokafka's own limit for the time between two polls is set to
its maximum, since its heartbeats say all that the group has to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import structlog

from brokers.base import BrokerError, Health
from brokers.channels import Channel
from brokers.kafka.assignor import StickyAssignor, own_sticky_assignor, set_generation
from brokers.kafka.clients import check_consumer, make_consumer, stop_consumer
from brokers.kafka.errors import doing
from brokers.kafka.holdings import Holdings
from brokers.kafka.library import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.trouble import Troubles
from brokers.kafka.unreadable import UNREADABLE, find_unreadable

__all__ = ["Membership"]

JOIN = "take requests"
POLL_MS = 1000
LOOK_EVERY_S = 1.0
NEVER_MS = 2**31 - 1
# How long nobody may ask for a request before the partitions are left to others; and when some were handed back.
IDLE_LEAVE_S = 60.0
RELEASED_LEAVE_S = 0.2
WATCH_EVERY_S = 0.1
# A rebalance waits so long at most for what is nearly done here; it holds up the whole group.
NEARLY_DONE_S = 10.0
# Joining, or taking partitions over, may take so long before health calls it trouble.
PATIENCE_S = 15.0
PAUSE_FIRST_S = 0.2
PAUSE_LONGEST_S = 10.0
# Without trouble for so long, the next one begins with a short pause again.
CALM_S = 60.0

log = structlog.get_logger("comfybus.kafka")


class Membership:
    """Keeps the worker in the group as long as it wants requests or has some in hand."""

    def __init__(self, link: Link, holdings: Holdings, troubles: Troubles) -> None:
        self._link = link
        self._holdings = holdings
        self._troubles = troubles
        self._asking = 0
        self._last_asked = 0.0
        self._scope = anyio.CancelScope()
        self._unsettled_since: float | None = None
        self._is_member = False
        self._consumer: AIOKafkaConsumer | None = None

    # --- what others ask for

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Somebody has a free slot."""
        self._asking += 1
        if self._asking == 1:
            self._holdings.change()
        try:
            yield
        finally:
            self._asking -= 1
            self._last_asked = anyio.current_time()

    def rejoin(self) -> None:
        """Leave the group and join it anew: a partition's writer is fenced or broken, so who owns it is in doubt."""
        self._scope.cancel()

    def health(self) -> Health:
        """Whether requests come: a member with all its partitions taken over, or nobody asked for some."""
        since = self._unsettled_since
        if since is not None and anyio.current_time() - since > PATIENCE_S:
            return Health(ok=False, reason=f"the group {self._group} has not given this worker its partitions")
        return Health(ok=True)

    @property
    def _group(self) -> str:
        return self._link.names.worker_group

    # --- the course of things

    async def run(self) -> None:
        """Join, read, leave, for ever; at the end leave without waiting for anything but a commit in progress."""
        pause_s, last_trouble = PAUSE_FIRST_S, 0.0
        while True:
            while not (self._asking or any(self._holdings.deliveries)):
                await self._holdings.changes()
            self._unsettled_since = anyio.current_time()
            with anyio.CancelScope() as self._scope:
                try:
                    await self._belong()
                except BrokerError as exc:
                    self._troubles.report(JOIN, exc)
            self._unsettled_since = None
            if not any(self._holdings.deliveries):
                self._holdings.lose_all()
            if anyio.current_time() - last_trouble > CALM_S:
                pause_s = PAUSE_FIRST_S
            last_trouble = anyio.current_time()
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)

    async def _belong(self) -> None:
        """One membership, from joining to leaving."""
        assignor = own_sticky_assignor()
        consumer = self._consumer = self._make_consumer(assignor)
        consumer.subscribe([self._link.names.topic(Channel.REQUEST)], listener=_Listener(self, consumer, assignor))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._leave_when_idle)
                with doing("join the group"):
                    await consumer.start()
                await self._read(consumer)
        except ExceptionGroup as exc:
            raise _first(exc) from exc
        finally:
            self._is_member, self._consumer = False, None
            with anyio.CancelScope(shield=True):
                await self._holdings.suspend()
                await stop_consumer(consumer)

    def _make_consumer(self, assignor: StickyAssignor) -> AIOKafkaConsumer:
        config = self._link.config
        return make_consumer(
            **{
                **self._link.options,
                # A member that joins waits for the others: the request may take as long as a rebalance.
                "request_timeout_ms": config.rebalance_ms + self._link.options["request_timeout_ms"],
            },
            group_id=self._group,
            group_instance_id=config.static_member,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(assignor,),
            session_timeout_ms=config.session_timeout_ms,
            heartbeat_interval_ms=config.heartbeat_ms,
            rebalance_timeout_ms=config.rebalance_ms,
            max_poll_interval_ms=NEVER_MS,
        )

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Read one request at a time, and only while somebody waits for one."""
        while True:
            with doing("read requests"):
                check_consumer(consumer)
            self._holdings.resume_where_there_is_room()
            if not self._asking or self._holdings.has_ready:
                with anyio.move_on_after(LOOK_EVERY_S):
                    await self._holdings.changes()
                continue
            with doing("read requests"):
                try:
                    for source, records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=1)).items():
                        for record in records:
                            self._holdings.receive(source, record)
                except UNREADABLE:
                    async for source, record in find_unreadable(consumer):
                        self._holdings.receive(source, record)

    async def _leave_when_idle(self) -> None:
        """Leave the partitions to others when nobody asks for requests: ComfyUI is down, or the worker drains."""
        self._last_asked = anyio.current_time()
        while True:
            await anyio.sleep(WATCH_EVERY_S)
            if self._is_member and self._holdings.all_open:
                self._unsettled_since = None
            elif self._unsettled_since is None:
                self._unsettled_since = anyio.current_time()
            if self._asking or any(self._holdings.deliveries):
                continue
            limit_s = RELEASED_LEAVE_S if self._holdings.has_released else IDLE_LEAVE_S
            if anyio.current_time() - self._last_asked > limit_s:
                log.info("leaving the group, nobody asks for requests", group=self._group)
                self._scope.cancel()

    # --- rebalances

    async def revoked(self) -> None:
        """The group is being divided anew: wait a bounded time for what is nearly done, then commit no more."""
        self._is_member, self._unsettled_since = False, anyio.current_time()
        self._holdings.hold_back()
        with anyio.move_on_after(min(NEARLY_DONE_S, self._link.config.rebalance_ms / 3000)):
            while any(delivery.is_settling or delivery.nearly_done for delivery in self._holdings.deliveries):
                await self._holdings.changes()
        await self._holdings.suspend()

    def assigned(self, consumer: AIOKafkaConsumer, sources: Iterable[TopicPartition]) -> None:
        """The division is known; it may come while we are leaving, and then it means nothing any more."""
        if consumer is not self._consumer:
            return
        ours = list(sources)
        self._holdings.assign(consumer, ours)
        self._holdings.change()
        self._is_member = True
        self._troubles.over(JOIN)
        if ours:
            log.info("partitions assigned", group=self._group, partitions=sorted(one.partition for one in ours))
        else:
            log.info("standing by: the group has a worker for every partition already", group=self._group)

    @property
    def stands_by(self) -> bool:
        """A member without partitions, which takes over when another one leaves."""
        return self._is_member and not self._holdings.partitions


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka calls it in its own task; heartbeats go on while partitions are given up, and stop while taken."""

    def __init__(self, membership: Membership, consumer: AIOKafkaConsumer, assignor: StickyAssignor) -> None:
        self._membership = membership
        self._consumer = consumer
        self._assignor = assignor

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            await self._membership.revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        set_generation(self._consumer, self._assignor)
        self._membership.assigned(self._consumer, assigned)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """One exception for several that came together: trouble with the broker, if it is among them."""
    flat: list[Exception] = []
    waiting: list[Exception] = [group]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, ExceptionGroup):
            waiting += one.exceptions
        else:
            flat.append(one)
    return next((one for one in flat if isinstance(one, BrokerError)), flat[0])

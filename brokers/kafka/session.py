"""A partition while it is ours: take it over, go on from what is committed, then commit what is submitted.

Used by bus, holdings; may import brokers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from brokers.base import BrokerError
from brokers.kafka.answered import ReadBack
from brokers.kafka.link import Link
from brokers.kafka.partition import Partition, Work
from brokers.kafka.trouble import Troubles
from brokers.kafka.writer import Outgoing, Writer, WriterBroken

__all__ = ["Session"]

OPEN = "take over a partition"
WRITE = "write for a partition"
# Works that wait are committed together: one transaction costs as much as one of them alone.
WORKS_AT_ONCE = 32
PAUSE_FIRST_S = 0.2
PAUSE_LONGEST_S = 5.0
# A commit that began before a rebalance gets this long to end.
LAST_COMMIT_S = 5.0


@dataclass
class Session:
    """One assignment of one partition. Run once; after ``end`` nothing more is committed by it.

    Attributes:
        partition: Whose requests.
        link: For the committed offsets.
        make_writer: Makes the partition's producer, not yet started.
        read_back: Reads the answers of before.
        troubles: Where trouble is told.
        on_open: Called when reading may begin.
        on_broken: Called when the writer can write no more: the group has to be left and joined anew.
    """

    partition: Partition
    link: Link
    make_writer: Callable[[], Writer]
    read_back: ReadBack
    troubles: Troubles
    on_open: Callable[[Partition], None]
    on_broken: Callable[[], None]
    writer: Writer | None = None
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _ended: anyio.Event = field(default_factory=anyio.Event)
    _stop: bool = False
    _is_committing: bool = False

    async def run(self) -> None:
        """Take over, then commit until ``end`` or until the writer is broken."""
        try:
            with self._scope:
                self.writer = await self._take_over()
                await self._commit_all(self.writer)
        finally:
            self.partition.is_open = False
            if self.writer is not None:
                with anyio.CancelScope(shield=True):
                    await self.writer.close()
            self._ended.set()

    async def end(self) -> None:
        """Commit no more; a commit in progress may come to its end within a few seconds. Returns when it is over."""
        self._stop = True
        self.partition.is_open = False
        self.partition.work_waits.set()
        if self._is_committing:
            with anyio.move_on_after(LAST_COMMIT_S):
                await self._ended.wait()
        self._scope.cancel()
        await self._ended.wait()

    # --- taking over

    async def _take_over(self) -> Writer:
        """First start the writer, which ends the predecessor's; only then is what is committed the truth."""
        doing = f"{OPEN} {self.partition.source.partition}"
        pause_s = PAUSE_FIRST_S
        try:
            while True:
                try:
                    return await self._try_to_take_over()
                except BrokerError as exc:
                    self.troubles.report(doing, exc)
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_LONGEST_S)
        finally:
            self.troubles.over(doing)

    async def _try_to_take_over(self) -> Writer:
        writer, source = self.make_writer(), self.partition.source
        try:
            await writer.start()
            mark = (await self.link.committed(self.link.names.worker_group, [source])).get(source)
            if self.partition.committed is None or mark != self.partition.committed:
                for request_id, answered in await self.read_back(source.partition):
                    self.partition.claims.note(request_id, answered)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await writer.close()
            raise
        self.partition.restore(mark)
        self.partition.is_open = True
        self.troubles.over(WRITE)
        self.on_open(self.partition)
        return writer

    # --- committing

    async def _commit_all(self, writer: Writer) -> None:
        while not self._stop:
            if not self.partition.work:
                self.partition.work_waits = anyio.Event()
                await self.partition.work_waits.wait()
                continue
            works = [self.partition.work[index] for index in range(min(len(self.partition.work), WORKS_AT_ONCE))]
            try:
                self._is_committing = True
                await self._commit(writer, works)
            except WriterBroken as exc:
                # Whether it was committed shows when the partition is taken over again; the works wait till then.
                self.troubles.report(WRITE, str(exc))
                self.on_broken()
                return
            finally:
                self._is_committing = False

    async def _commit(self, writer: Writer, works: Sequence[Work]) -> None:
        partition = self.partition
        staged = partition.tracker.after(work.change for work in works if work.change is not None)
        records, answered, late = self._what_to_write(works)
        mark, position = staged.mark(), staged.position
        await writer.commit(records, mark)
        for work in answered:
            if work.key is not None and work.answer is not None:
                partition.claims.note(work.key.id, work.answer)
        partition.is_committed(works, late, mark, position)

    def _what_to_write(self, works: Sequence[Work]) -> tuple[list[Outgoing], list[Work], list[Work]]:
        """The records; whose answer is among them; and who comes too late, since the id has a later answer."""
        claims = self.partition.claims
        records, answered, late = list[Outgoing](), list[Work](), list[Work]()
        replays: dict[str, int] = {}
        for work in works:
            if work.key is None:
                records += work.records
            elif claims.find(work.key) is not None or replays.get(work.key.id, -1) >= work.key.replay:
                late.append(work)
            else:
                replays[work.key.id] = work.key.replay
                records += work.records
                answered.append(work)
        return records, answered, late

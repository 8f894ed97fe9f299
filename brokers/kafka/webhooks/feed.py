"""Events for the bridge: each share brings its part of the events' partitions with it.

Used by bus; may import brokers, brokers.kafka.

What an event asks for and the place up to which events were read are stored in one transaction of the share's writer,
so that an event becomes deliveries once, whatever is killed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import structlog

from brokers.base import BrokerError
from brokers.channels import Channel
from brokers.kafka.clients import check_consumer
from brokers.kafka.errors import doing
from brokers.kafka.headers import decode, record_size
from brokers.kafka.library import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import Offsets, bounds, small_reader
from brokers.kafka.unreadable import UNREADABLE, find_unreadable
from brokers.kafka.webhooks.declare import Facts
from brokers.kafka.webhooks.layout import CHANNELS, WebhookTopics, share_of
from brokers.kafka.webhooks.share import KafkaShare
from brokers.kafka.webhooks.writer import Body, Change, Row
from brokers.webhooks import Feed, NewDelivery

__all__ = ["FeedReader", "KafkaFedEvent"]

POLL_MS = 200
# So many events are read ahead of those who take them.
AHEAD = 64
LOOK_S = 0.05
PAUSE_S = 0.5

log = structlog.get_logger("comfybus.kafka")


class KafkaFedEvent:
    """See ``brokers.webhooks.FedEvent``."""

    def __init__(self, reader: FeedReader, source: _Source, channel: Channel, record: ConsumerRecord) -> None:
        self._reader = reader
        self.source = source
        self.channel = channel
        self.body: bytes = record.value or b""
        self.headers: Mapping[str, str] = decode(record.headers)
        self.offset: int = record.offset
        self.origin = f"{record.topic}-{record.partition}@{record.offset}"
        self.deliveries: Sequence[NewDelivery] | None = None
        self.change: Change | None = None
        self.is_submitted = anyio.Event()

    async def done(self, deliveries: Sequence[NewDelivery]) -> None:
        """Store them with the place of this event, behind the events before it; see the protocol."""
        self.deliveries = deliveries
        self._reader.submit(self.source)
        await self.is_submitted.wait()
        if self.change is not None:
            await self.change.over.wait()


@dataclass(eq=False)
class _Source:
    """One partition of events."""

    place: TopicPartition
    channel: Channel
    share: KafkaShare
    next: int | None
    in_hand: deque[KafkaFedEvent] = field(default_factory=deque)
    is_over: bool = False


class FeedReader:
    """Reads one feed for all shares of this bridge."""

    def __init__(self, link: Link, own: WebhookTopics, feed: Feed, tell: Callable[[BrokerError | None], None]) -> None:
        self._link = link
        self._own = own
        self._feed = feed
        self._tell = tell
        self._facts = Facts({}, 0)
        self._sources: dict[TopicPartition, _Source] = {}
        self._ready: deque[KafkaFedEvent] = deque()
        self._arrived = anyio.Event()
        self._news_from: dict[TopicPartition, int] = {}
        self._is_stale = False

    # --- shares come and go

    def begin(self, share: KafkaShare) -> None:
        """Read the part that belongs to a share from where it was read before."""
        for channel in CHANNELS[self._feed]:
            topic = self._link.names.topic(channel)
            shares = self._facts.partitions[self._own.queue]
            for number in range(share.number, self._facts.partitions[topic], shares):
                place = TopicPartition(topic, number)
                known = share.feeds.get(self._own.feed(place))
                self._sources[place] = _Source(place, channel, share, known)
        self._is_stale = True

    def end(self, share: KafkaShare) -> None:
        """Its part is somebody else's from now on, also what was taken and is not stored."""
        for source in [one for one in self._sources.values() if one.share is share]:
            source.is_over = True
            del self._sources[source.place]
            for event in source.in_hand:
                event.is_submitted.set()
            self._is_stale = True
        self._ready = deque(event for event in self._ready if not event.source.is_over)

    # --- reading

    async def prepare(self, facts: Facts) -> None:
        """Note where the events end now: what comes from now on is wanted, also before their share is ours.

        Raises:
            BrokerUnavailable: No answer.
        """
        self._facts = facts
        if self._feed is Feed.RESULTS:
            return
        topics = [self._link.names.topic(channel) for channel in CHANNELS[self._feed]]
        sources = [TopicPartition(topic, number) for topic in topics for number in range(facts.partitions[topic])]
        what = f"take {self._feed.value}"
        async with small_reader(self._link, what, "read_committed") as consumer:
            with doing(what):
                _, end = await bounds(consumer, sources)
        self._news_from = dict(end)

    async def run(self) -> None:
        """Read until cancelled, through outages."""
        doing_so = f"take {self._feed.value}"
        while True:
            try:
                async with small_reader(self._link, doing_so, "read_committed") as consumer:
                    self._is_stale = True
                    await self._read(consumer, doing_so)
            except BrokerError as exc:
                self._tell(exc)
            await anyio.sleep(PAUSE_S)

    async def _read(self, consumer: AIOKafkaConsumer, doing_so: str) -> None:
        while True:
            if self._is_stale:
                with doing(doing_so):
                    await self._assign(consumer)
            if not self._sources or len(self._ready) >= AHEAD:
                await anyio.sleep(LOOK_S)
                continue
            with doing(doing_so):
                check_consumer(consumer)
                try:
                    found = await consumer.getmany(timeout_ms=POLL_MS, max_records=AHEAD)
                except UNREADABLE:
                    async for place, record in find_unreadable(consumer):
                        self._receive(place, record)
                else:
                    for place, records in found.items():
                        for record in records:
                            self._receive(place, record)
                self._tell(None)

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        self._is_stale = False
        sources = dict(self._sources)
        if not sources:
            return
        begin, end = await bounds(consumer, sources)
        for place, source in sources.items():
            if source.next is None:
                self._begin_anew(source, begin, end)
            consumer.seek(place, source.next)
        consumer.resume(*sources)

    def _begin_anew(self, source: _Source, begin: Offsets, end: Offsets) -> None:
        """No bridge has ever read it: all results that are kept are wanted, other events are news."""
        if self._feed is Feed.RESULTS:
            source.next = begin[source.place]
            return
        source.next = self._news_from.get(source.place, end[source.place])
        source.share.writer.submit(Change([self._row(source, source.next)]))

    def _receive(self, place: TopicPartition, record: ConsumerRecord) -> None:
        source = self._sources.get(place)
        # What was read for another share of ours, before this one, is passed over.
        if source is None or source.next is None or record.offset < source.next:
            return
        source.next = record.offset + 1
        event = KafkaFedEvent(self, source, source.channel, record)
        source.in_hand.append(event)
        self._ready.append(event)
        arrived, self._arrived = self._arrived, anyio.Event()
        arrived.set()

    async def take(self, wait_s: float) -> KafkaFedEvent | None:
        """The next event; see ``WebhookBus.take``."""
        with anyio.move_on_after(wait_s):
            while not self._ready:
                await self._arrived.wait()
            return self._ready.popleft()
        return None

    # --- storing

    def submit(self, source: _Source) -> None:
        """Store all that is done at the head of what is in hand, so that no event is passed over."""
        if source.is_over:
            for event in source.in_hand:
                event.is_submitted.set()
            return
        events = list[KafkaFedEvent]()
        while source.in_hand and source.in_hand[0].deliveries is not None:
            events.append(source.in_hand.popleft())
        if not events:
            return
        end, key = events[-1].offset + 1, self._own.feed(source.place)
        rows = [self._delivery(new) for event in events for new in event.deliveries or ()]
        share = source.share
        change = Change([*rows, self._row(source, end)], is_stored=lambda: share.feeds.get(key, -1) >= end)
        share.writer.submit(change)
        for event in events:
            event.change = change
            event.is_submitted.set()

    def _row(self, source: _Source, offset: int) -> Row:
        return Row(self._own.queue, source.share.number, self._own.feed(source.place), str(offset).encode())

    def _delivery(self, new: NewDelivery) -> Row:
        partition = share_of(new.lane, self._facts.partitions[self._own.queue])
        home = partition % self._facts.partitions[self._own.bodies]
        body: Body | None = Body(self._own.bodies, home, new.id, new.body)
        if (size := record_size(new.id, new.body, {})) > self._facts.limit_bytes:
            log.error("webhook is too large for the broker", delivery=new.id, size_bytes=size)
            body = None
        return Row(self._own.queue, partition, self._own.due(new.lane, new.id), new.record, body=body)

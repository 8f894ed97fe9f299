"""Events as they come: of one prompt to its end, or of all for ever; and the stored answer of an id.

Used by client, dlq, heard; may import brokers, schemas.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from brokers.base import BrokerUnavailable
from brokers.channels import Channel
from brokers.client import EventMessage
from brokers.kafka.answered import replay_number
from brokers.kafka.clients import check_consumer
from brokers.kafka.errors import doing
from brokers.kafka.headers import decode
from brokers.kafka.library import AIOKafkaConsumer, ConsumerRecord, TopicPartition, partition_of
from brokers.kafka.link import Link
from brokers.kafka.reading import Bounds, backwards, bounds, reader
from schemas.envelope import attributes

__all__ = ["event", "everything", "last_terminal", "prompt", "signs", "sources"]

TERMINAL = (Channel.COMPLETE, Channel.FAILED)
LIVE = (Channel.PROGRESS, Channel.STORAGE, Channel.SYSTEM, Channel.WORKER)
FOLLOW = "follow the events"
SEARCH = "look for a terminal event"
POLL_MS = 500
# A stored answer is searched from the end of its topic, in pieces.
PIECE = 500


async def sources(link: Link, *channels: Channel) -> list[TopicPartition]:
    """All partitions of some channels.

    Raises:
        BrokerUnavailable: A topic is missing, or there is no answer.
    """
    found = await link.topics()
    wanted = []
    for channel in channels:
        topic = link.names.topic(channel)
        if topic not in found:
            raise BrokerUnavailable(f"the topic {topic} is missing; a worker creates it")
        wanted += [TopicPartition(topic, number) for number in range(found[topic])]
    return wanted


def event(channel: Channel, record: ConsumerRecord) -> EventMessage:
    """A record as an event."""
    return EventMessage(channel, record.value or b"", decode(record.headers))


def _channel(link: Link, topic: str) -> Channel:
    return next(one for one in (*TERMINAL, *LIVE) if link.names.topic(one) == topic)


def _is_answer(link: Link, record: ConsumerRecord, request_id: str, replay: int) -> bool:
    """Whether it is the terminal event of this replay of the id or of a later one."""
    if _channel(link, record.topic) not in TERMINAL or record.key != request_id.encode():
        return False
    return replay_number(attributes(decode(record.headers))) >= replay


# --- stored


async def last_terminal(link: Link, request_id: str) -> EventMessage | None:
    """The stored terminal event of the highest replay, searched from the latest backwards; see the protocol."""
    async with reader(link, SEARCH) as consumer:
        with doing(SEARCH):
            wanted = await sources(link, *TERMINAL)
            async with aclosing(_stored(link, consumer, request_id, 0, await bounds(consumer, wanted))) as found:
                answers = [one async for one in found if one is not None]
    best = max(answers, key=lambda one: replay_number(attributes(decode(one.headers))), default=None)
    return event(_channel(link, best.topic), best) if best is not None else None


async def _stored(
    link: Link, consumer: AIOKafkaConsumer, request_id: str, replay: int, where: Bounds
) -> AsyncGenerator[ConsumerRecord | None, None]:
    """Stored answers of the id, first where its key belongs; None after each piece that was looked through.

    Requests without their key, or with another partitioner, are answered elsewhere, so all is searched unless one was
    found in its place.
    """
    begin, end = where
    found = False
    for at_home in (True, False):
        for source in begin:
            count = sum(one.topic == source.topic for one in begin)
            if (source.partition == partition_of(request_id.encode(), count)) != at_home:
                continue
            async for piece in backwards(consumer, source, begin[source], end[source], PIECE):
                answers = [record for record in piece if _is_answer(link, record, request_id, replay)]
                for record in answers:
                    found = True
                    yield record
                yield None
                if answers:
                    break
        if found:
            return


# --- live


@asynccontextmanager
async def prompt(link: Link, request_id: str, replay: int) -> AsyncIterator[AsyncIterator[EventMessage]]:
    """Progress of one prompt and its terminal event of this replay or a later one, see ``Client.follow``."""
    async with reader(link, FOLLOW) as live, reader(link, FOLLOW) as past:
        with doing(FOLLOW):
            where = await _from_now(live, await sources(link, *TERMINAL, Channel.PROGRESS))
        async with aclosing(_until_terminal(link, live, past, where, request_id, replay)) as events:
            yield events


async def _until_terminal(
    link: Link, live: AIOKafkaConsumer, past: AIOKafkaConsumer, where: Bounds, request_id: str, replay: int
) -> AsyncGenerator[EventMessage, None]:
    """What comes, and between two looks at that a piece of what is stored: it may be answered already."""
    stored = {source for source in where[0] if _channel(link, source.topic) in TERMINAL}
    begin, end = ({source: one[source] for source in stored} for one in where)
    with doing(FOLLOW):
        await bounds(past, stored)
    async with aclosing(_stored(link, past, request_id, replay, (begin, end))) as search:
        searching = True
        while True:
            with doing(FOLLOW):
                check_consumer(live)
                found = await live.getmany(timeout_ms=POLL_MS if not searching else 0)
            for source, records in found.items():
                for record in records:
                    if record.key != request_id.encode():
                        continue
                    if _is_answer(link, record, request_id, replay):
                        yield event(_channel(link, source.topic), record)
                        return
                    if _channel(link, source.topic) is Channel.PROGRESS:
                        yield event(Channel.PROGRESS, record)
            if searching:
                with doing(SEARCH):
                    try:
                        record = await anext(search)
                    except StopAsyncIteration:
                        searching = False
                        continue
                if record is not None:
                    yield event(_channel(link, record.topic), record)
                    return


@asynccontextmanager
async def everything(link: Link) -> AsyncIterator[AsyncIterator[EventMessage]]:
    """All events from now on, see ``Client.watch``."""
    async with _live(link, *TERMINAL, *LIVE) as events:
        yield events


@asynccontextmanager
async def signs(link: Link) -> AsyncIterator[AsyncIterator[EventMessage]]:
    """Worker and progress events from now on, see ``Client.signs``."""
    async with _live(link, Channel.WORKER, Channel.PROGRESS) as events:
        yield events


@asynccontextmanager
async def _live(link: Link, *channels: Channel) -> AsyncIterator[AsyncIterator[EventMessage]]:
    async with reader(link, FOLLOW) as live:
        with doing(FOLLOW):
            await _from_now(live, await sources(link, *channels))
        async with aclosing(_for_ever(link, live)) as events:
            yield events


async def _for_ever(link: Link, live: AIOKafkaConsumer) -> AsyncGenerator[EventMessage, None]:
    while True:
        with doing(FOLLOW):
            check_consumer(live)
            found = await live.getmany(timeout_ms=POLL_MS)
        for source, records in found.items():
            for record in records:
                yield event(_channel(link, source.topic), record)


async def _from_now(live: AIOKafkaConsumer, wanted: list[TopicPartition]) -> Bounds:
    """Read what comes from now on; where now is."""
    where = await bounds(live, wanted)
    for source, end in where[1].items():
        live.seek(source, end)
    live.resume(*wanted)
    return where

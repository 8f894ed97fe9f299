"""Events as they come: of one prompt to its end, or of all for ever.

Used by client; may import brokers.

A live message is a hint where it matters: a terminal event that lost the race for its id reaches plain subscribers too,
and one may be missed in an outage. So terminal events are always read from their stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

import anyio
import nats.errors
from anyio.streams.memory import MemoryObjectReceiveStream
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from brokers.base import BrokerUnavailable
from brokers.channels import Channel, Names
from brokers.client import EventMessage
from brokers.nats.link import Link
from brokers.nats.stored import StoredMessage
from brokers.nats.tail import Tail

__all__ = ["everything", "last_terminal", "prompt", "signs"]

LOOK_EVERY_S = 2.0
# A terminal event may be heard a moment before its stream has it.
LOOK_AGAIN_S = 0.05
# What may wait for a slow reader; beyond that live events are lost, as the contract allows.
BUFFERED = 4096
TERMINAL = (Channel.COMPLETE, Channel.FAILED)
SIGNS = (Channel.WORKER, Channel.PROGRESS)
LIVE = (Channel.PROGRESS, Channel.STORAGE, Channel.SYSTEM, Channel.WORKER)


def channel_of(names: Names, subject: str) -> Channel | None:
    """The channel of an event's subject; None for anything else, such as a dead letter."""
    return next((one for one in (*TERMINAL, *LIVE) if subject.startswith(f"{names.topic(one)}.")), None)


async def last_terminal(link: Link, request_id: str) -> EventMessage | None:
    """The stored terminal event of the highest replay."""
    found = await link.read(
        "look for a terminal event", link.names.result_stream, last_by_subj=link.names.of_prompt(request_id)
    )
    return _event(link.names, found) if found is not None else None


def _event(names: Names, message: StoredMessage) -> EventMessage:
    return EventMessage(channel_of(names, message.subject) or Channel.FAILED, message.data, message.headers)


def _replay_of(event: EventMessage) -> int:
    event_id = next((value for name, value in event.headers.items() if name.lower() == "ce-id"), "")
    number = event_id.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


@asynccontextmanager
async def prompt(link: Link, request_id: str, replay: int) -> AsyncIterator[AsyncIterator[EventMessage]]:
    """Progress of one prompt and its terminal event of this replay or a later one, see ``Client.follow``."""
    async with (
        _subscribed(link, link.names.of_prompt(request_id)) as heard,
        aclosing(_until_terminal(link, request_id, replay, heard)) as events,
    ):
        yield events


async def _until_terminal(
    link: Link, request_id: str, replay: int, heard: MemoryObjectReceiveStream[Msg]
) -> AsyncGenerator[EventMessage, None]:
    wait_s = 0.0
    while True:
        message = await _next(heard, wait_s)
        if message is not None and channel_of(link.names, message.subject) is Channel.PROGRESS:
            yield EventMessage(Channel.PROGRESS, message.data, message.headers or {})
            continue
        # An outage is waited out here, as everywhere.
        with suppress(BrokerUnavailable):
            found = await last_terminal(link, request_id)
            if found is not None and _replay_of(found) >= replay:
                for waiting in _waiting(heard):
                    if channel_of(link.names, waiting.subject) is Channel.PROGRESS:
                        yield EventMessage(Channel.PROGRESS, waiting.data, waiting.headers or {})
                yield found
                return
        wait_s = LOOK_EVERY_S if message is None else LOOK_AGAIN_S


@asynccontextmanager
async def everything(link: Link) -> AsyncIterator[AsyncIterator[EventMessage]]:
    """All events from now on, see ``Client.watch``."""
    names = link.names
    subjects = [f"{names.topic(channel)}.>" for channel in (*TERMINAL, *LIVE)]
    results = Tail(link, names.result_stream, f"{names.prefix}.prompt.*.*", from_now=True)
    async with _subscribed(link, *subjects) as heard, aclosing(_for_ever(names, heard, results)) as events:
        with suppress(BrokerUnavailable):
            await results.find_bounds()
        yield events


@asynccontextmanager
async def signs(link: Link) -> AsyncIterator[AsyncIterator[EventMessage]]:
    """Worker and progress events from now on, see ``Client.signs``."""
    subjects = [f"{link.names.topic(channel)}.>" for channel in SIGNS]
    async with _subscribed(link, *subjects) as heard, aclosing(_as_heard(link.names, heard)) as events:
        yield events


async def _as_heard(names: Names, heard: MemoryObjectReceiveStream[Msg]) -> AsyncGenerator[EventMessage, None]:
    async for message in heard:
        if (channel := channel_of(names, message.subject)) in SIGNS and channel is not None:
            yield EventMessage(channel, message.data, message.headers or {})


async def _for_ever(
    names: Names, heard: MemoryObjectReceiveStream[Msg], results: Tail
) -> AsyncGenerator[EventMessage, None]:
    looked, wait_s = 0.0, LOOK_EVERY_S
    while True:
        message = await _next(heard, wait_s)
        channel = channel_of(names, message.subject) if message is not None else None
        if message is not None and channel in LIVE:
            yield EventMessage(channel, message.data, message.headers or {})
            if anyio.current_time() - looked < LOOK_EVERY_S:
                continue
        looked = anyio.current_time()
        with suppress(BrokerUnavailable):
            async with aclosing(results.new()) as stored:
                async for one in stored:
                    yield _event(names, one)
        wait_s = LOOK_AGAIN_S if channel in TERMINAL else LOOK_EVERY_S


def _waiting(heard: MemoryObjectReceiveStream[Msg]) -> Iterator[Msg]:
    with suppress(anyio.WouldBlock):
        while True:
            yield heard.receive_nowait()


async def _next(heard: MemoryObjectReceiveStream[Msg], wait_s: float) -> Msg | None:
    with anyio.move_on_after(wait_s):
        return await heard.receive()
    return None


@asynccontextmanager
async def _subscribed(link: Link, *subjects: str) -> AsyncIterator[MemoryObjectReceiveStream[Msg]]:
    """Messages on these subjects, in one buffer, from before the block begins."""
    send, receive = anyio.create_memory_object_stream[Msg](BUFFERED)

    async def keep(message: Msg) -> None:
        with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            send.send_nowait(message)

    async with send, receive, AsyncExitStack() as stack:
        with link.doing("listen to events", f"{link.names.prefix}."):
            for subject in subjects:
                subscription = await link.client.subscribe(subject, cb=keep)
                stack.push_async_callback(_unsubscribe, subscription)
            await link.client.flush(timeout=5)
        yield receive


async def _unsubscribe(subscription: Subscription) -> None:
    with anyio.CancelScope(shield=True), suppress(nats.errors.Error):
        await subscription.unsubscribe()

"""What every broker gives producers and consumers, which for us is the command line: send, follow, look after letters.

Used by app.cli, brokers.kafka, brokers.nats; may import schemas.

Two brokers implement ``Client`` and one contract suite holds both to every sentence here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from brokers.channels import Channel
from brokers.messages import BrokerRefused
from schemas.base import load_json
from schemas.envelope import usable_id

__all__ = ["Check", "Client", "DeadLetter", "EventMessage", "check_request_id", "newest_letter"]


@dataclass(frozen=True)
class EventMessage:
    """One event as a consumer reads it.

    Attributes:
        channel: What it is about.
        body: JSON.
        headers: All headers as they were sent, CloudEvents attributes among them.
    """

    channel: Channel
    body: bytes
    headers: Mapping[str, str]

    @property
    def document(self) -> Any:
        """The body decoded.

        Raises:
            WrongField: It is no JSON; then no worker wrote it.
        """
        return load_json(self.body)


@dataclass(frozen=True)
class DeadLetter:
    """One request given up, without its body (it may hold secrets).

    Attributes:
        place: Where the letter lies, e.g. ``comfyui-dlq#7``.
        request_id: The id that its events carry.
        reason: A sentence.
        code: The error code of its ``prompt.failed``.
        worker: Who gave it up.
        attempts: How many tries were made.
        replay: The replay that failed; 0 for the first run.
        id_was_derived: The request brought no usable id of its own.
        time: When it was given up, ISO 8601.
        headers: All headers of the letter.
    """

    place: str
    request_id: str
    reason: str
    code: str
    worker: str
    attempts: int
    replay: int
    id_was_derived: bool
    time: str
    headers: Mapping[str, str]

    @classmethod
    def from_headers(cls, place: str, headers: Mapping[str, str]) -> DeadLetter:
        """What the headers of a stored letter say; one that is missing or no number reads as empty or 0.

        A letter that an operator wrote by hand is listed too, so nothing here raises.
        """

        def number(name: str) -> int:
            value = headers.get(name, "")
            return int(value) if value.isdecimal() else 0

        return cls(
            place=place,
            request_id=headers.get("comfybus-request-id", ""),
            reason=headers.get("comfybus-reason", ""),
            code=headers.get("comfybus-code", ""),
            worker=headers.get("comfybus-worker", ""),
            attempts=number("comfybus-attempts"),
            replay=number("comfybus-replay"),
            id_was_derived="comfybus-id" in headers,
            time=headers.get("comfybus-time", ""),
            headers=headers,
        )


@dataclass(frozen=True)
class Check:
    """One line of ``doctor``: whether it is well, and a sentence that names the cure where it is not."""

    ok: bool
    text: str


class Client(Protocol):
    """A producer's and consumer's connection, for the command line; it creates no streams or topics.

    Every method may raise ``BrokerUnavailable`` (no answer; try again) and ``BrokerRefused`` (an operator has to act).
    """

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Connect, and stay connected until the block ends."""

    async def submit(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, request_id: str, message_id: str | None = None
    ) -> None:
        """Send a request; returns when the broker has confirmed it.

        Args:
            body: JSON.
            headers: CloudEvents attributes and others, written as this broker writes them.
            request_id: The id of the request: Kafka's record key.
            message_id: A second submission with the same one within two minutes is dropped by the broker (NATS only).

        Raises:
            MessageTooLarge: Body and headers do not fit the broker.
        """

    def follow(self, request_id: str, *, replay: int = 0) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """Progress of one prompt as it comes, then its terminal event, then the end.

        Enter the block before submitting, so that nothing is missed. Progress may be lost; the terminal event is the
        stored one and never waited for in vain: it is looked up every two seconds besides.

        Args:
            request_id: Whose events.
            replay: A terminal event of an earlier replay does not count.
        """

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """All events from now on, of every prompt and worker, for ever."""

    def signs(self) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """Worker and progress events from now on, of every prompt and worker, for ever; no results are read."""

    async def command(self, body: bytes) -> None:
        """Send a command to all workers; returns when the broker has confirmed it."""

    async def last_terminal(self, request_id: str) -> EventMessage | None:
        """The stored terminal event of an id, that of the highest replay; None when there is none."""

    def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Every letter that is kept, oldest first."""

    async def letter(self, request_id: str) -> DeadLetter | None:
        """The newest letter of an id."""

    async def replay(self, letter: DeadLetter) -> int:
        """Run a letter again: its original bytes and headers go to the request channel; returns the replay's number.

        A replay that still waits or runs is not doubled.

        Raises:
            BrokerRefused: The letter or its bytes are no longer kept.
        """

    async def workers(self) -> list[EventMessage]:
        """The last started, heartbeat or stopped event of each worker heard of in the last 24 hours."""

    async def inventories(self) -> list[EventMessage]:
        """The last models event of each worker heard of in the last 24 hours."""

    async def fetch_object(self, url: str, path: Path) -> None:
        """Write the object behind ``nats://<bucket>/<key>`` to a file, piece by piece, its digest verified.

        Raises:
            BrokerRefused: There is no such object, or its bytes are damaged; then there is no file either.
        """

    async def check(self) -> list[Check]:
        """Look at the broker and at every stream or topic of the contract; changes nothing, never raises."""


def check_request_id(request_id: str) -> None:
    """Refuse what is no request id: on NATS it could be a wildcard, and mean other people's prompts.

    Raises:
        BrokerRefused: It is none.
    """
    if not usable_id(request_id):
        raise BrokerRefused(f"{request_id!r} is no request id; it should match [A-Za-z0-9][A-Za-z0-9_-]{{0,127}}")


async def newest_letter(letters: AsyncGenerator[DeadLetter, None], request_id: str) -> DeadLetter | None:
    """The last of these letters that is of an id."""
    found = None
    async with aclosing(letters):
        async for letter in letters:
            if letter.request_id == request_id:
                found = letter
    return found

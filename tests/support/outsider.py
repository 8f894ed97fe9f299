"""A plain client that knows only the contract: the broker's own library, no code of ours.

The suites speak to the broker through this, so that they run unchanged on every broker.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import nats
from nats.js.errors import BadRequestError, NoKeysError, NotFoundError

TERMINAL = ("prompt.complete", "prompt.failed")


@dataclass(frozen=True)
class Event:
    """One event as it came: its channel without the prefix, headers in lower case, decoded body and its bytes."""

    channel: str
    headers: dict[str, str]
    body: dict[str, Any]
    data: bytes = b""


class Outsider(Protocol):
    """What the suites need of a broker."""

    prefix: str

    async def send(self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Publish a request, confirmed."""

    async def command(self, body: dict[str, Any]) -> None:
        """Publish a command, confirmed."""

    async def command_bytes(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish any bytes as a command, confirmed."""

    async def terminal(self, request_id: str, within_s: float = 30, *, replay: int = 0) -> Event:
        """Wait for the terminal event of a request."""

    async def terminals(self) -> dict[str, list[Event]]:
        """Every terminal event that is stored, by request id."""

    async def letters(self) -> list[Event]:
        """Every dead letter that is stored."""

    async def unsettled(self) -> int:
        """How many requests are not settled."""

    def heard(self, request_id: str | None = None, channel: str = "") -> list[Event]:
        """Live events heard so far."""

    async def in_hand(self) -> int:
        """How many requests are taken and not settled."""

    async def put_output(self, key: str, body: bytes) -> str:
        """Store bytes where the worker stores outputs; returns their URL."""

    async def fetch_output(self, url: str) -> bytes:
        """The bytes of an output that travelled as a reference."""

    async def request_limit_bytes(self) -> int:
        """The largest body that a request without headers may have."""

    async def notes(self) -> dict[str, str]:
        """What the worker keeps at the broker beside the channels, by a name for each."""

    def is_request_place(self, source: dict[str, Any]) -> bool:
        """Whether this says where a request stood on this broker."""


@dataclass
class NatsOutsider:
    """On NATS."""

    url: str
    prefix: str = "comfyui"
    events: list[Event] = field(default_factory=list)
    _by_id: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    _read: dict[str, list[Event]] = field(default_factory=dict)
    _position: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsOutsider]:
        async def quiet(_: Exception) -> None:
            """Broken connections are part of the game here."""

        self.nc = await nats.connect(
            self.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet, allow_reconnect=True
        )
        self.js = self.nc.jetstream(timeout=10)
        await self.nc.subscribe(f"{self.prefix}.>", cb=self._hear)
        await self.nc.flush()
        try:
            yield self
        finally:
            await self.nc.close()

    async def _hear(self, message: Any) -> None:
        if message.subject == f"{self.prefix}.prompt.request" or not message.data:
            return
        event = self._event(message.subject, message.headers, message.data)
        self.events.append(event)
        if "id" in event.body:
            self._by_id[str(event.body["id"])].append(event)

    def _event(self, subject: str, headers: dict[str, str] | None, data: bytes) -> Event:
        parts = subject.removeprefix(f"{self.prefix}.").split(".")
        channel = ".".join(parts[:2]) if parts[0] == "prompt" else parts[0]
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = {"raw": data}
        if not isinstance(body, dict):
            body = {"raw": data}
        return Event(channel, {k.lower(): v for k, v in (headers or {}).items()}, body, data)

    async def send(self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.js.publish(f"{self.prefix}.prompt.request", data, headers=headers)

    async def command(self, body: dict[str, Any]) -> None:
        await self.command_bytes(json.dumps(body).encode())

    async def command_bytes(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        await self.js.publish(f"{self.prefix}.control", body, headers=headers)

    async def terminal(self, request_id: str, within_s: float = 30, *, replay: int = 0) -> Event:
        with anyio.move_on_after(within_s):
            while True:
                event = await self._stored(request_id)
                if event is not None and event.body.get("replay", 0) == replay:
                    return event
                await anyio.sleep(0.02)
        raise AssertionError(f"no terminal event for {request_id} within {within_s} s")

    async def _stored(self, request_id: str) -> Event | None:
        try:
            message = await self.js.get_last_msg(
                f"{self.prefix.replace('.', '_')}-result", f"{self.prefix}.prompt.*.{request_id}"
            )
        except (NotFoundError, nats.errors.Error, TimeoutError):
            return None
        return self._event(message.subject or "", message.headers, message.data or b"{}")

    async def terminals(self) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = defaultdict(list)
        for event in await self._all("result"):
            found[str(event.body["id"])].append(event)
        return found

    async def letters(self) -> list[Event]:
        return await self._all("dlq")

    async def _all(self, stream: str) -> list[Event]:
        """Every message of a stream; what was read before is remembered."""
        name = f"{self.prefix.replace('.', '_')}-{stream}"
        found = self._read.setdefault(stream, [])
        while True:
            try:
                message = await self.js.get_msg(
                    name, seq=self._position[stream] + 1, subject=f"{self.prefix}.>", next=True
                )
            except NotFoundError:
                return list(found)
            self._position[stream] = message.seq or self._position[stream] + 1
            found.append(self._event(message.subject or "", message.headers, message.data or b""))

    async def unsettled(self) -> int:
        return int((await self.js.stream_info(f"{self.prefix.replace('.', '_')}-request")).state.messages)

    def heard(self, request_id: str | None = None, channel: str = "") -> list[Event]:
        events = self._by_id[request_id] if request_id is not None else self.events
        return [event for event in events if event.channel.startswith(channel)]

    async def in_hand(self) -> int:
        flat = self.prefix.replace(".", "_")
        return int((await self.js.consumer_info(f"{flat}-request", "worker")).num_ack_pending or 0)

    @property
    def _bucket(self) -> str:
        return f"{self.prefix.replace('.', '_')}-outputs"

    async def put_output(self, key: str, body: bytes) -> str:
        try:
            store = await self.js.create_object_store(self._bucket)
        except BadRequestError:
            store = await self.js.object_store(self._bucket)
        await store.put(key, body)
        return f"nats://{self._bucket}/{key}"

    async def fetch_output(self, url: str) -> bytes:
        bucket, _, key = url.removeprefix("nats://").partition("/")
        return (await (await self.js.object_store(bucket)).get(key)).data or b""

    async def request_limit_bytes(self) -> int:
        return int(self.nc.max_payload)

    async def notes(self) -> dict[str, str]:
        """The ledger."""
        ledger = await self.js.key_value(f"{self.prefix.replace('.', '_')}-ledger")
        try:
            return {f"ledger {key}": str((await ledger.get(key)).value) for key in await ledger.keys()}
        except NoKeysError:
            return {}

    def is_request_place(self, source: dict[str, Any]) -> bool:
        return source == {"stream": f"{self.prefix.replace('.', '_')}-request", "sequence": source.get("sequence")}


def place_in(letter: Event) -> dict[str, Any]:
    """Where the request of a dead letter stood, as ``source`` of its event has it."""
    found: dict[str, Any] = {}
    for name in ("stream", "topic", "sequence", "partition", "offset"):
        if (value := letter.headers.get(f"comfybus-{name}")) is not None:
            found[name] = int(value) if value.isdecimal() else value
    return found


async def request_in(outside: Outsider, letter: Event) -> bytes:
    """The bytes of the request in a dead letter, wherever they are kept."""
    if "comfybus-body-bytes" not in letter.headers:
        return letter.data
    return await outside.fetch_output(letter.headers["ce-dataref"])

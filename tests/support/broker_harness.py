"""What the contract suite of the brokers needs of each: a real server to torment, buses on it, and a plain client."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio

from brokers.base import Bus, Claim, Delivery, Message, RequestKey, Tries
from brokers.channels import Channel, Names
from brokers.nats import NatsBus, NatsConfig
from schemas.envelope import terminal_event_id
from tests.support.outsider import NatsOutsider, Outsider
from tests.support.processes import Process, launch
from tests.support.stack import NatsServer
from tests.support.tcp_proxy import TcpProxy

WITHIN_S = 15.0
HOLDER = Path(__file__).with_name("holder.py")


class BrokerHarness(Protocol):
    """One broker under test."""

    outside: Outsider
    lease_s: float
    shares_requests: bool
    """Any bus that asks may get any request; else each has requests of its own as long as it is there."""
    has_room_for_letters: bool
    """A letter may be larger than a request by what its own headers need."""

    async def kill(self) -> None:
        """kill -9 the server."""

    async def restart(self) -> None:
        """Start it again at the same address with its state."""

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        """An open bus, as a worker has it."""

    def bus_on_a_wire(self) -> AbstractAsyncContextManager[tuple[Bus, TcpProxy]]:
        """An open bus whose connection can be frozen and cut."""

    async def holder(self, request_id: str, tries: Tries) -> Process:
        """Another process that has taken the next request, claimed it and stored the tries."""


@dataclass
class NatsHarness:
    """NATS, for this broker's own tests too."""

    folder: Path
    server: NatsServer
    outside: NatsOutsider
    names: Names
    lease_s: float
    shares_requests: bool = True
    has_room_for_letters: bool = False
    _holders: list[Process] = field(default_factory=list)

    @property
    def config(self) -> NatsConfig:
        return self.config_at(self.server.port)

    def config_at(self, port: int, **changes: Any) -> NatsConfig:
        values = {"names": self.names, "ack_wait_s": self.lease_s, "first_connection_s": 5, **changes}
        return NatsConfig(servers=(f"nats://127.0.0.1:{port}",), **values)

    async def kill(self) -> None:
        await self.server.kill()

    async def restart(self) -> None:
        await self.server.start()

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[NatsBus]:
        async with NatsBus(self.config).open() as bus:
            yield bus

    @asynccontextmanager
    async def bus_on_a_wire(self) -> AsyncIterator[tuple[NatsBus, TcpProxy]]:
        async with TcpProxy(self.server.port).run() as wire, NatsBus(self.config_at(wire.port)).open() as bus:
            yield bus, wire

    async def holder(self, request_id: str, tries: Tries) -> Process:
        said = self.folder / f"holder-{len(self._holders)}.log"
        args = [sys.executable, str(HOLDER), self.server.url, self.names.prefix, request_id, tries.model_dump_json()]
        process = launch(args, said)
        self._holders.append(process)
        with anyio.fail_after(30):
            while "holding" not in said.read_text():
                assert process.running, process.tail()
                await anyio.sleep(0.02)
        return process

    async def end(self) -> None:
        for process in (*self._holders, self.server.process):
            if process is not None:
                await process.kill()


@asynccontextmanager
async def run_nats(folder: Path, *, prefix: str = "comfyui", lease_s: float = 30) -> AsyncIterator[NatsHarness]:
    """A nats-server of its own and a plain client on it."""
    server = NatsServer(folder / "nats")
    outside = NatsOutsider(server.url, prefix)
    harness = NatsHarness(folder, server, outside, Names(prefix), lease_s)
    try:
        await server.start()
        async with outside.open():
            yield harness
    finally:
        with anyio.CancelScope(shield=True):
            await harness.end()


async def take(bus: Bus, within_s: float = WITHIN_S) -> Delivery:
    """The next request; fails when none comes."""
    with anyio.move_on_after(within_s):
        while True:
            if (delivery := await bus.take(1)) is not None:
                return delivery
    raise AssertionError(f"no request within {within_s} s")


async def take_claimed(bus: Bus, request_id: str, *, replay: int = 0, within_s: float = WITHIN_S) -> Delivery:
    """The next request, claimed for this id."""
    delivery = await take(bus, within_s)
    claim, _ = await delivery.claim(RequestKey(request_id, replay))
    assert claim is Claim.OWNED
    return delivery


def answer(request_id: str, outcome: str = "complete", *, replay: int = 0, text: str = "", by: str = "w1") -> Message:
    """A terminal event, shortened to what the broker side looks at."""
    body: dict[str, Any] = {"type": f"prompt.{outcome}", "id": request_id, "text": text}
    if replay:
        body["replay"] = replay
    attributes = {
        "id": terminal_event_id(request_id, outcome, replay),
        "type": f"prompt.{outcome}",
        "source": f"/comfybus/{by}",
        "specversion": "1.0",
        "subject": request_id,
        "time": "2026-01-01T00:00:00.000Z",
    }
    channel = Channel.COMPLETE if outcome == "complete" else Channel.FAILED
    return Message(channel, (request_id,), request_id, json.dumps(body).encode(), attributes)


async def eventually(question: Any, within_s: float = WITHIN_S) -> Any:
    """Ask an async or plain callable until its answer is true, and return that."""
    said: Any = None
    with anyio.move_on_after(within_s):
        while True:
            said = question()
            if hasattr(said, "__await__"):
                said = await said
            if said:
                return said
            await anyio.sleep(0.02)
    raise AssertionError(f"not so within {within_s} s; last: {said!r}")

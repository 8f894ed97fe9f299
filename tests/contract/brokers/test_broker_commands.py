"""The control channel: read back for a day, then followed, by every worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from brokers.base import Bus, CommandMessage
from tests.support.broker_harness import BrokerHarness, eventually

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def commands_of(bus: Bus) -> AsyncIterator[list[CommandMessage]]:
    """What a worker's reader has got so far."""
    got: list[CommandMessage] = []

    async def read() -> None:
        async for command in bus.commands():
            got.append(command)  # noqa: PERF401 - it never ends

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        yield got
        tasks.cancel_scope.cancel()


def numbers(got: list[CommandMessage]) -> list[int]:
    """The numbers the test put into the commands."""
    return [json.loads(command.body)["n"] for command in got]


async def test_old_commands_are_read_back_before_new_ones(broker: BrokerHarness) -> None:
    """What stood in the channel comes first, in order and not fresh; commands_read is set behind it."""
    async with broker.bus():
        for number in range(20):
            await broker.outside.command({"n": number})
    async with broker.bus() as bus, commands_of(bus) as got:
        with anyio.fail_after(5):
            await bus.commands_read.wait()
        assert numbers(got) == list(range(20))
        assert not any(command.fresh for command in got)
        await broker.outside.command({"n": 20})
        await eventually(lambda: len(got) == 21)
        assert got[-1].fresh
        assert got[-1].published_at > got[0].published_at


async def test_every_worker_hears_a_command_soon(broker: BrokerHarness) -> None:
    """A new command reaches all of them long before the next look by the clock, in order."""
    async with broker.bus() as one, broker.bus() as other, commands_of(one) as first, commands_of(other) as second:
        await one.commands_read.wait()
        await other.commands_read.wait()
        for number in range(30):
            began = anyio.current_time()
            await broker.outside.command({"n": number})
            await eventually(lambda n=number: len(first) > n and len(second) > n)
            assert anyio.current_time() - began < 2
        assert numbers(first) == numbers(second) == list(range(30))


async def test_a_command_that_nobody_can_read_is_handed_out_too(broker: BrokerHarness) -> None:
    """Whatever is sent comes as it is, and the next one after it."""
    async with broker.bus() as bus, commands_of(bus) as got:
        await bus.commands_read.wait()
        await broker.outside.command_bytes(b"\xff{", {"content-type": "application/json"})
        await broker.outside.command({"n": 1})
        await eventually(lambda: len(got) == 2)
        assert got[0].body == b"\xff{"


async def test_commands_go_on_after_a_restart_of_the_server(broker: BrokerHarness) -> None:
    """After an outage none is missed and none comes twice."""
    async with broker.bus() as bus, commands_of(bus) as got:
        for number in range(3):
            await broker.outside.command({"n": number})
        await eventually(lambda: len(got) == 3)
        await broker.kill()
        await eventually(lambda: not bus.health().ok)
        await broker.restart()
        await broker.outside.command({"n": 3})
        await eventually(lambda: len(got) == 4)
        assert numbers(got) == [0, 1, 2, 3]
        assert got[-1].fresh

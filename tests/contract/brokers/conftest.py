"""Every broker of the contract suite, each with a harness of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.support.broker_harness import BrokerHarness, NatsHarness, run_nats
from tests.support.kafka_harness import run_kafka

HARNESSES: dict[str, Callable[..., AbstractAsyncContextManager[BrokerHarness]]] = {
    "nats": run_nats,
    "kafka": run_kafka,
}


@pytest.fixture(params=HARNESSES)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerHarness]:
    """A real broker with leases longer than any test."""
    async with HARNESSES[request.param](tmp_path) as harness:
        yield harness


@pytest.fixture(params=HARNESSES)
async def hasty_broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerHarness]:
    """A real broker that delivers again after one second without a sign of life."""
    async with HARNESSES[request.param](tmp_path, lease_s=1) as harness:
        yield harness


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsHarness]:
    """NATS, for what only NATS has."""
    async with run_nats(tmp_path) as harness:
        yield harness

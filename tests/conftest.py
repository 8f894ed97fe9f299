"""Fixtures that every suite shares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# Whole deployments for minutes: `make test-full` runs them.
LONG = (
    "contract/brokers/test_kafka",
    "fault/test_bridge",
    "integration/bridge/",
    "integration/setup/test_migration.py",
)

ON_KAFKA = re.compile(r"[\[-]kafka[\]-]")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes minutes as of full size."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(LONG) or ON_KAFKA.search(item.nodeid):
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """nats-py, aiokafka and aiohttp run on asyncio."""
    return "asyncio"

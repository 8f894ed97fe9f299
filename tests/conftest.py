"""Fixtures that every suite shares."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# Whole deployments for minutes: `make test-full` runs them.
LONG = (
    "contract/brokers/test_kafka",
    "fault/test_bridge",
    "integration/bridge/test_bridge_examples.py::test_the_example_receivers_work[node",
    "integration/bridge/test_bridge_kafka",
    "integration/bridge/test_bridge_letters",
    "integration/bridge/test_bridge_links",
    "integration/bridge/test_bridge_patience",
    "integration/bridge/test_bridge_queue.py::test_what_an_operator_deletes",
    "integration/bridge/test_bridge_receivers.py::test_connections",
    "integration/bridge/test_bridge_receivers.py::test_prompt_webhook_retries",
    "integration/bridge/test_bridge_receivers.py::test_the_body_of_an_answer",
    "integration/bridge/test_bridge_shares",
    "integration/bridge/test_bridge_webhooks.py::test_a_prompt_of_a_real_worker",
    "integration/bridge/test_bridge_webhooks.py::test_files_above",
    "integration/bridge/test_bridge_webhooks.py::test_large_results",
    "integration/bridge/test_bridge_webhooks.py::test_several_secrets",
    "integration/setup/test_migration.py",
)

ON_KAFKA = re.compile(r"[\[-]kafka[\]-]")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes minutes as of full size."""
    here = Path(__file__).parent
    for item in items:
        name = f"{item.path.relative_to(here).as_posix()}::{item.name}"
        if name.startswith(LONG) or ON_KAFKA.search(item.nodeid):
            item.add_marker(pytest.mark.full)
        if ON_KAFKA.search(item.nodeid) and item.get_closest_marker("timeout") is None:
            # A killed Kafka is back after seconds, on a busy machine after a minute.
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A test that sets logs up writes to a stream that is closed after it: others may not inherit that."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """nats-py, aiokafka and aiohttp run on asyncio."""
    return "asyncio"

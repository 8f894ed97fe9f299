"""Fixtures that every suite shares."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """nats-py, aiokafka and aiohttp run on asyncio."""
    return "asyncio"

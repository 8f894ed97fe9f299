"""A broken download is continued by the date of its file only where that date tells versions apart."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.storage.cache_locks import Hold
from tests.contract.storage.conftest import Access, Open
from tests.support.services.raw_server import run_raw

pytestmark = pytest.mark.anyio

CHANGED = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(("later_s", "continued"), [(0, False), (1, True), (3600, True), (None, False)])
async def test_a_file_that_just_changed_may_change_again(opened: Open, later_s: int | None, continued: bool) -> None:
    """Dates have whole seconds: within the second of its change two versions of a file have one date."""
    data = os.urandom(400_000)
    half, asked = len(data) // 2, list[str]()
    modified = format_datetime(CHANGED, usegmt=True)
    date = "" if later_s is None else f"Date: {format_datetime(CHANGED + timedelta(seconds=later_s), usegmt=True)}\r\n"

    async def answer(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = head.decode("latin-1")
        asked.append(text)
        at = half if f"Range: bytes={half}-" in text and f"If-Range: {modified}" in text else 0
        status, extra = ("206 Partial Content", f"Content-Range: bytes {half}-{len(data) - 1}/{len(data)}\r\n")
        if not at:
            status, extra = "200 OK", ""
        end = half if len(asked) == 1 else len(data)
        writer.write(
            f"HTTP/1.1 {status}\r\n{date}Last-Modified: {modified}\r\n{extra}"
            f"Content-Length: {len(data) - at}\r\nConnection: close\r\n\r\n".encode()
        )
        writer.write(data[at:end])
        await writer.drain()

    with run_raw(answer) as port:
        async with opened(Access({"allowed_private_hosts": ("127.0.0.1",)})) as stores:
            with Hold() as hold:
                fetched = await stores.fetch(f"http://127.0.0.1:{port}/x.bin", in_use=hold)
                assert fetched.path.read_bytes() == data
    assert len(asked) == 2
    assert ("If-Range" in asked[1]) is continued

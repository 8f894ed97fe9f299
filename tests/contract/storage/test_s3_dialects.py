"""What stores that speak S3 do besides: other regions, answers that come too late, and some that ignore a header."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app.errors import UploadFailed
from app.storage.cache_locks import Hold
from app.storage.config import S3Config
from tests.contract.storage.conftest import Access, Open
from tests.support.services.places import TIMINGS
from tests.support.services.raw_server import run_raw

pytestmark = pytest.mark.anyio

Endings = list[tuple[int, str] | None]
MakeFile = Callable[[int], Path]
PART = 16 * 1024 * 1024


@dataclass
class Dialect:
    """A store of few words: takes multipart uploads, and says at the end what the test wants.

    Attributes:
        endings: Status and body of the answers to CompleteMultipartUpload, in order; None closes the connection.
        size: What it says the object's size is; None for what it received.
        region: Where its buckets live.
        deaf: It does not answer ``Expect: 100-continue``.
    """

    endings: Endings = field(default_factory=list)
    size: int | None = None
    region: str = "us-east-1"
    deaf: bool = False
    received: int = 0
    heads: list[str] = field(default_factory=list)

    async def answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = head.decode("latin-1")
        self.heads.append(text)
        method, path, _ = text.split(" ", 2)
        length = int((re.search(r"(?i)content-length: (\d+)", text) or [0, 0])[1])
        if f"%2F{self.region}%2F" not in path:
            await self._say(
                writer, 301, "<Error><Code>PermanentRedirect</Code></Error>", f"x-amz-bucket-region: {self.region}\r\n"
            )
            return
        if "100-continue" in text and not self.deaf:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length:
            await reader.readexactly(length)
        if "uploads" in path:
            await self._say(
                writer,
                200,
                "<InitiateMultipartUploadResult><UploadId>u&amp;1</UploadId></InitiateMultipartUploadResult>",
            )
        elif method == "PUT":
            self.received += length
            await self._say(writer, 200, "", 'ETag: "part&tag"\r\n')
        elif method == "POST":
            ending = self.endings.pop(0)
            if ending is not None:
                await self._say(writer, *ending)
        elif method == "HEAD":
            await self._say(
                writer, 200, None, f"Content-Length: {self.received if self.size is None else self.size}\r\n"
            )
        elif method == "GET":
            await self._say(writer, 200, "content")
        else:
            await self._say(writer, 204, None)

    @staticmethod
    async def _say(writer: asyncio.StreamWriter, status: int, body: str | None, headers: str = "") -> None:
        length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{headers}{length}Connection: close\r\n\r\n{body or ''}".encode())
        await writer.drain()

    @property
    def methods(self) -> list[str]:
        return [head.split(" ", 1)[0] for head in self.heads]


def access(port: int) -> Access:
    return Access({"s3": S3Config(f"http://127.0.0.1:{port}", None, "key", "secret")})


DONE = (200, "<CompleteMultipartUploadResult/>")
LATE_ERROR = (200, "<Error><Code>InternalError</Code><Message>x</Message></Error>")
INVALID = (400, "<Error><Code>InvalidPart</Code></Error>")
GONE = (404, "<Error><Code>NoSuchUpload</Code></Error>")


@pytest.mark.parametrize(
    "endings",
    [[DONE], [LATE_ERROR, DONE], [None, DONE], [None, GONE], [(503, "")] * 3 + [DONE]],
    ids=["at once", "error in a 200", "answer lost", "answer lost, upload gone", "busy"],
)
async def test_ends_of_uploads(opened: Open, make_file: MakeFile, endings: list[tuple[int, str] | None]) -> None:
    """However the end of an upload in parts comes about, it is one when the object has its size."""
    dialect = Dialect(endings=list(endings))
    with run_raw(dialect.answer) as port:
        async with opened(access(port)) as stores:
            await stores.put(make_file(2 * PART + 1), "s3://b/k")
    assert not dialect.endings
    assert dialect.received == 2 * PART + 1
    assert dialect.methods[-1] == "HEAD"
    assert sum("uploadId=u%261" in head for head in dialect.heads) >= 4


@pytest.mark.parametrize("endings", [[LATE_ERROR] * 4, [GONE], [INVALID], [DONE]])
async def test_ends_that_are_none(opened: Open, make_file: MakeFile, endings: Endings) -> None:
    """An upload whose object is not there with its size has failed, and its parts are given up."""
    dialect = Dialect(endings=list(endings), size=7)
    with run_raw(dialect.answer) as port:
        async with opened(access(port)) as stores:
            with pytest.raises(UploadFailed):
                await stores.put(make_file(PART + 1), "s3://b/k")
    assert dialect.methods[-1] == "DELETE"


async def test_a_bucket_in_another_region(opened: Open, make_file: MakeFile) -> None:
    """A bucket that says where it lives is asked again with a signature for that place, and remembered."""
    dialect = Dialect(region="eu-west-1")
    with run_raw(dialect.answer) as port:
        async with opened(access(port)) as stores:
            with Hold() as hold:
                assert (await stores.fetch("s3://b/k", in_use=hold)).path.read_bytes() == b"content"
            await stores.put(make_file(5), "s3://b/k")
    assert ["us-east-1" in head for head in dialect.heads] == [True, False, False]


async def test_a_store_that_does_not_know_expect(opened: Open, make_file: MakeFile) -> None:
    """A store that waits for the body instead of asking for it gets it unasked the second time."""
    dialect = Dialect(deaf=True)
    with run_raw(dialect.answer) as port:
        async with opened(access(port), timings=replace(TIMINGS, connect_s=0.5)) as stores:
            await stores.put(make_file(1_000_000), "s3://b/k")
    assert ["100-continue" in head for head in dialect.heads] == [True, False]
    assert dialect.received == 1_000_000

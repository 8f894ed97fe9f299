"""Moves bytes between disk and HTTP: redirects, resumption, retries, lengths; the same for every backend.

Used by azure_blob, backends, http, huggingface, s3; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import aiohttp
import anyio
from typing_extensions import override
from yarl import URL

from app.storage.base import Progress
from app.storage.calls import CHUNK_BYTES, Answer, Call, Explain, FilePart, MakeCall, Received, explain
from app.storage.config import Timings
from app.storage.faults import Fault
from app.storage.outgoing import Body, Outgoing, Pace
from app.storage.partial import PartialFile, Source, expected_digests
from app.storage.retry import retrying
from app.storage.threads import disk
from app.storage.urls import origin, resolve_location
from app.storage.versions import range_source, validator_of

__all__ = ["Carrier"]

MOST_REDIRECTS: Final = 10
_LONGEST_ANSWER_BYTES: Final = 1024 * 1024
# A refusal of larger bodies should come before they are sent.
_ASK_FROM_BYTES: Final = 256 * 1024
# A try that brought that much does not count against the tries.
_WORTH_BYTES: Final = 1024 * 1024
_FOLLOWED: Final = {"GET": (301, 302, 303, 307, 308), "HEAD": (301, 302, 303, 307, 308), "PUT": (307, 308)}


class Carrier:
    """HTTP for the backends. Calls are made anew for each try, since signatures expire.

    Args:
        outgoing: Open connections.
        timings: Retries.
        limit_bytes: The largest file that may come in.
    """

    def __init__(self, outgoing: Outgoing, timings: Timings, limit_bytes: int) -> None:
        self._outgoing = outgoing
        self._timings = timings
        self._limit_bytes = limit_bytes

    async def receive(
        self, make: MakeCall, into: Path, *, where: str, progress: Progress | None = None, explain: Explain = explain
    ) -> Received:
        """GET a file to disk, continuing what an earlier call left; see ``Storage.download``.

        Raises:
            Fault: It did not come.
        """
        file = PartialFile(into, self._limit_bytes)
        await disk(file.look)
        most = file.size

        def moved() -> bool:
            """Whether bytes are here that never were before; those given up and fetched again are no progress."""
            nonlocal most
            grown = file.size >= most + _WORTH_BYTES
            most = max(most, file.size)
            return grown

        async def step() -> tuple[Mapping[str, str], URL, str]:
            # Before the server is asked: it would not wait for the digest of gigabytes.
            while await disk(file.catch_up):
                pass
            headers, url = await self._receive_once(await make(), file, progress, explain)
            return headers, url, await disk(file.finish)

        try:
            headers, url, sha256 = await retrying(step, self._timings, where=where, moved=moved)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await disk(file.discard_if_useless)
            raise
        finally:
            file.close()
        return Received(file.size, sha256, headers, url)

    async def _receive_once(
        self, call: Call, file: PartialFile, progress: Progress | None, explain: Explain
    ) -> tuple[Mapping[str, str], URL]:
        known = file.source
        wanted = {"Range": f"bytes={file.size}-", "If-Range": known.validator} if known else {}
        async with self._followed(call, wanted) as (response, pace, url):
            if response.status not in (200, 206):
                if known and response.status in (412, 416):
                    await disk(file.forget)
                    raise Fault("the file changed at its source; try again later", passing=True)
                raise explain(await _read_answer(response))
            total = await self._begin(response, file, known)
            async for chunk in _gathered(response, pace):
                await disk(file.write, chunk)
                if progress is not None:
                    progress(file.size, total)
            if total is not None and file.size != total:
                raise Fault("the server ended the transfer before its end; try again later", passing=True)
            return response.headers, url

    async def _begin(self, response: aiohttp.ClientResponse, file: PartialFile, known: Source | None) -> int | None:
        """Decide by the answer's head whether its bytes continue the file or are all of it; returns the whole size."""
        headers = response.headers
        if response.status == 206:
            source = range_source(headers, file.size)
            if known is None or source != known:
                await disk(file.forget)
                raise Fault("the file changed at its source; try again later", passing=True)
            await disk(file.resume, expected_digests(headers, whole=False))
            return known.total
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Fault(f"the server sends it in {encoding[:20]!a}, unasked; look at the server", passing=False)
        if encoding not in ("identity", ""):
            await disk(file.start, None, {}, encoded=True)
            return None
        total = response.content_length
        await disk(file.check_size, total)
        validator = validator_of(headers)
        source = Source(validator, total) if validator and total else None
        await disk(file.start, source, expected_digests(headers, whole=True))
        return total

    async def send(self, make: MakeCall, part: FilePart, *, where: str, explain: Explain = explain) -> Answer:
        """Send a piece of a file as a body; the answer is a 2xx.

        Raises:
            Fault: It was not taken.
        """
        asks = True

        async def step() -> Answer:
            nonlocal asks
            call = await make()
            call = call if asks else replace(call, expect=False)
            file = await disk(part.path.open, "rb")
            body = _FileBody(file, part)
            try:
                async with self._followed(call, {}, body) as (response, _, _):
                    answer = await _read_answer(response)
            finally:
                file.close()
                # A server that never asks for the body gets it unasked the next time.
                asks = body.begun
            return _accepted(answer, call, explain)

        return await retrying(step, self._timings, where=where)

    async def ask(
        self,
        make: MakeCall,
        *,
        where: str,
        body: bytes | None = None,
        explain: Explain = explain,
        is_refusal: Callable[[Answer], bool] = lambda _: False,
    ) -> Answer:
        """Send a small request; the answer is a 2xx, and none that ``is_refusal`` all the same.

        With ``follow="origin"`` it may also be the redirect that leaves the origin.

        Raises:
            Fault: Another status, or no answer.
        """

        async def step() -> Answer:
            call = await make()
            async with self._followed(call, {}, body) as (response, _, _):
                answer = await _read_answer(response)
            if is_refusal(answer):
                raise explain(answer)
            return _accepted(answer, call, explain)

        return await retrying(step, self._timings, where=where)

    async def may_read(self, make: MakeCall, *, where: str, explain: Explain = explain) -> None:
        """Ask for the first byte of a file and take nothing of it.

        A GET is asked, not a HEAD: signatures hold for one method, and some servers know no HEAD.

        Raises:
            Fault: It may not be read, or nobody answers.
        """

        async def step() -> None:
            async with self._followed(await make(), {"Range": "bytes=0-0"}) as (response, _, _):
                # 416: the file is empty.
                if response.status not in (200, 206, 416):
                    raise explain(await _read_answer(response))

        await retrying(step, self._timings, where=where)

    @asynccontextmanager
    async def _followed(
        self, call: Call, headers: Mapping[str, str], body: Body | bytes | None = None
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Pace, URL]]:
        """The answer of whoever has the file in the end; secret headers stay with the first origin."""
        url, secret = call.url, call.secret_headers
        expect = call.expect and isinstance(body, Body) and body.size_bytes >= _ASK_FROM_BYTES
        for _ in range(MOST_REDIRECTS + 1):
            sent = {**call.headers, **headers, **secret}
            async with self._outgoing.exchange(call.method, url, sent, body=body, expect=expect) as (response, pace):
                target = _redirect(call, response, url)
                if target is None or (call.follow == "origin" and origin(target) != origin(url)):
                    yield response, pace, url
                    return
            if origin(target) != origin(call.url):
                secret = {}
            url = target
        raise Fault(f"the server redirects more than {MOST_REDIRECTS} times; correct the URL", passing=False)


def _redirect(call: Call, response: aiohttp.ClientResponse, url: URL) -> URL | None:
    if call.follow == "none" or response.status not in _FOLLOWED.get(call.method, ()):
        return None
    return resolve_location(url, response.headers.get("Location", ""))


def _accepted(answer: Answer, call: Call, explain: Explain) -> Answer:
    last = 400 if call.follow == "origin" else 300
    if 200 <= answer.status < last:
        return answer
    if answer.status < 400 and call.follow == "all":
        raise Fault(f"the server redirects with HTTP {answer.status}; give the address it leads to", passing=False)
    raise explain(answer)


async def _read_answer(response: aiohttp.ClientResponse) -> Answer:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= _LONGEST_ANSWER_BYTES:
            break
    return Answer(response.status, response.headers, bytes(body[:_LONGEST_ANSWER_BYTES]))


async def _gathered(response: aiohttp.ClientResponse, pace: Pace) -> AsyncIterator[bytes]:
    """The body in pieces worth a thread's while."""
    gathered = bytearray()
    async for chunk in response.content.iter_any():
        pace.moved(len(chunk))
        gathered += chunk
        if len(gathered) >= CHUNK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


class _FileBody(Body):
    """A piece of an open file."""

    def __init__(self, file: BinaryIO, part: FilePart) -> None:
        self.size_bytes = part.length
        self._file = file
        self._part = part
        self.begun = False

    @override
    async def read(self) -> AsyncIterator[bytes]:
        """The bytes, 1 MiB at a time."""
        self.begun = True
        at, end = self._part.offset, self._part.offset + self._part.length
        while at < end:
            chunk = await disk(_read_at, self._file, at, min(CHUNK_BYTES, end - at))
            if not chunk:
                raise Fault("the file became shorter while it was sent", passing=False)
            at += len(chunk)
            yield chunk


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)

"""HTTP to ComfyUI: deadlines, bounded bodies, and the one boundary where foreign exceptions become ours.

Used by client, queue_view, refusal, websocket; may import app.errors, schemas.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import pydantic_core

from app.errors import ComfyUnavailable
from schemas.base import dump_json

__all__ = ["Answer", "Transport", "public_url"]

_CONNECT_S: Final = 5.0
_JSON_LIMIT_BYTES: Final = 256 * 1024 * 1024
# Values take up to 70 bytes of memory where they are one byte of JSON; what all installed nodes have is a tenth of it.
_MOST_VALUES: Final = 5_000_000
# Escapes of characters; one half of a pair is what Python writes for a file name that is no UTF-8.
_ESCAPE: Final = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
_CHUNK_BYTES: Final = 1024 * 1024
# A proxy between us and ComfyUI must not hand us compressed files whose size and hash are not the file's.
_HEADERS: Final = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Answer:
    """One whole HTTP answer.

    Attributes:
        status: HTTP status; no status raises by itself.
        body: The bytes, at most 256 MiB.
        call: ``METHOD /path``, for sentences.
        server: ComfyUI's address without credentials, for sentences.
    """

    status: int
    body: bytes
    call: str
    server: str

    @property
    def text(self) -> str:
        """The first 300 characters of the body, for sentences."""
        return self.body[:1200].decode(errors="replace").strip()[:300]

    def json(self) -> Any:
        """The body decoded; big integers keep their value, half characters are replaced.

        Raises:
            ComfyUnavailable: The body is no JSON or holds millions of values, so this is no ComfyUI or a broken one.
        """
        try:
            return _decoded(self.body)
        except ValueError as exc:
            raise ComfyUnavailable(
                f"{self.server} answered {self.call} with something that is no JSON; "
                "check that COMFYUI_URL is a ComfyUI and that no other server stands in between."
            ) from exc

    def object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one if it is anything else."""
        try:
            document = _decoded(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def expect_ok(self) -> Answer:
        """This answer, if its status is 2xx.

        Raises:
            ComfyUnavailable: Any other status.
        """
        if 200 <= self.status < 300:
            return self
        raise self.unusable()

    def unusable(self) -> ComfyUnavailable:
        """The failure that this answer stands for, by its status or, after a 200, by its form."""
        cure = "look into ComfyUI's log"
        if self.status == 200:
            cure = "but in another form than ComfyUI's; check that COMFYUI_URL is the address of a ComfyUI"
        elif self.status in {401, 403}:
            cure = "COMFYUI_URL needs an address that takes requests without a login, on ComfyUI's own host name"
        elif 300 <= self.status < 500:
            cure = "check that COMFYUI_URL is the address of a ComfyUI 0.3.64 or newer"
        return ComfyUnavailable(f"ComfyUI at {self.server} answered {self.call} with HTTP {self.status}; {cure}.")


class Transport:
    """Calls to one ComfyUI over a session that belongs to the caller.

    Every wait has a deadline: connecting 5 s, a call its own, a stream a limit on silence. Redirects are not followed
    and proxies are not used; no ``Origin`` header is sent, because ComfyUI answers a foreign one with 403.
    """

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url.rstrip("/")
        self.server = public_url(self.base_url)
        self._session = session

    async def call(
        self,
        method: str,
        path: str,
        *,
        deadline_s: float,
        params: Mapping[str, str] | None = None,
        document: Any = None,
        form: aiohttp.FormData | None = None,
    ) -> Answer:
        """Send one request and read its whole answer.

        Args:
            method: HTTP method.
            path: Path below the base URL, percent-encoded.
            deadline_s: For everything from connecting to the last byte.
            params: Query parameters, not yet encoded.
            document: JSON body, if one is sent.
            form: Multipart body, if one is sent.

        Raises:
            ComfyUnavailable: No connection, no answer in time, or an answer larger than 256 MiB.
        """
        timeout = aiohttp.ClientTimeout(total=deadline_s, sock_connect=_CONNECT_S)
        body = None if document is None else aiohttp.BytesPayload(dump_json(document), content_type="application/json")
        async with self.stream(method, path, timeout=timeout, params=params, body=form or body) as response:
            call = f"{method} {path}"
            if 0 < (response.content_length or 0) < min(_CHUNK_BYTES, _JSON_LIMIT_BYTES):
                with self._translated(call):
                    return Answer(response.status, await response.read(), call, self.server)
            pieces = bytearray()
            async for chunk in self.chunks(response, call):
                pieces += chunk
                if len(pieces) > _JSON_LIMIT_BYTES:
                    raise ComfyUnavailable(f"ComfyUI at {self.server} answered {call} with more than 256 MiB.")
            return Answer(response.status, bytes(pieces), call, self.server)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own kind, silence and total in one
        params: Mapping[str, str] | None = None,
        body: aiohttp.Payload | aiohttp.FormData | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and hand out its answer unread.

        Raises:
            ComfyUnavailable: No connection, no answer in time, or a compressed one. What the caller's block raises
                passes unchanged.
        """
        with self._translated(f"{method} {path}"):
            response = await self._session.request(
                method,
                self.base_url + path,
                params=params,
                data=body,
                headers=_HEADERS,
                timeout=timeout,
                allow_redirects=False,
                auto_decompress=False,
                proxy=None,
            )
        async with response:
            if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                # What it unpacks to no length says; a kilobyte may be a gigabyte.
                raise ComfyUnavailable(
                    f"ComfyUI at {self.server} answered {method} {path} compressed, which nobody asked for; switch "
                    "compression off in what stands between."
                )
            yield response

    async def chunks(self, response: aiohttp.ClientResponse, call: str) -> AsyncIterator[bytes]:
        """The answer's body in pieces of at most 1 MiB.

        Raises:
            ComfyUnavailable: The connection broke or fell silent before the end.
        """
        while True:
            with self._translated(call):
                chunk = await response.content.read(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as exc:
            raise ComfyUnavailable(
                f"ComfyUI at {self.server} did not answer {call} in time; see whether it hangs."
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise ComfyUnavailable(
                f"ComfyUI at {self.server} cannot be reached for {call} ({type(exc).__name__}); "
                "see whether it runs and COMFYUI_URL is right."
            ) from exc


def _decoded(body: bytes) -> Any:
    """The document; half characters, which Python's encoder writes and no other reads, are replaced.

    Raises:
        ValueError: No JSON, or millions of values.
    """
    if len(body) > _MOST_VALUES and sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES} values")
    try:
        return pydantic_core.from_json(body)
    except ValueError:
        if b"\\ud" not in body.lower():
            raise
        return pydantic_core.from_json(_ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], body))


def public_url(url: str) -> str:
    """The URL without user info, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

"""One HTTP exchange with the outside: the address checked, every wait bounded, foreign exceptions made ours.

Used by backends, carrier, hub_process; may import its folder alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import aiohttp
import anyio
from aiohttp.abc import AbstractStreamWriter
from typing_extensions import override
from yarl import URL

from app.storage.config import Timings
from app.storage.faults import Fault
from app.storage.guard import ForbiddenAddress, Guard, GuardedResolver, forbidden_fault
from app.storage.proxies import Proxies

__all__ = ["Body", "Outgoing", "Pace"]

READ_BUFFER_BYTES = 256 * 1024
# Signed Locations of large stores and many cookies fit; more is an attack.
LONGEST_HEADER_BYTES = 32 * 1024
# More than all prompts in hand together need; waiting for one would count against an answer's deadline.
CONNECTIONS = 512


class Pace:
    """The deadline of one exchange: first for its answer, then moved on by the bytes that flow.

    A transfer that brings less than ``stall_bytes`` in ``stall_s`` ends, so that a source which drips is no hang.
    """

    def __init__(self, scope: anyio.CancelScope, timings: Timings) -> None:
        self._scope = scope
        self._timings = timings
        self._bytes = 0
        self.reason = ""
        self.await_answer()

    def await_answer(self) -> None:
        """From now on wait ``answer_s`` for an answer to begin."""
        self.reason = f"the server did not answer within {self._timings.answer_s:g} s"
        self._scope.deadline = anyio.current_time() + self._timings.answer_s

    def await_leave(self) -> None:
        """From now on wait for the word that a body may come; a server that knows it says it at once."""
        self.reason = "the server does not say that it takes the body"
        self._scope.deadline = anyio.current_time() + 2 * self._timings.connect_s

    def await_bytes(self) -> None:
        """From now on wait ``stall_s`` for the next ``stall_bytes``."""
        self.reason = f"the transfer stalled for {self._timings.stall_s:g} s"
        self._bytes = 0
        self._scope.deadline = anyio.current_time() + self._timings.stall_s

    def moved(self, size_bytes: int) -> None:
        """Bytes went through."""
        self._bytes += size_bytes
        if self._bytes >= self._timings.stall_bytes:
            self.await_bytes()


class Body(ABC):
    """What an upload sends.

    Attributes:
        size_bytes: How much that is.
    """

    size_bytes: int

    @abstractmethod
    def read(self) -> AsyncIterator[bytes]:
        """The bytes, from the first one each time this is called."""


class Outgoing:
    """HTTP connections to wherever requests point; also the way of webhooks.

    Connections go to addresses that the guard allowed, or through the configured proxy. Nothing is followed, kept as a
    cookie, decompressed or read from the environment. Used as an async context; safe for many tasks of one loop.
    """

    def __init__(self, guard: Guard, proxies: Proxies, timings: Timings) -> None:
        self._guard = guard
        self._proxies = proxies
        self._timings = timings
        self._direct: aiohttp.ClientSession
        self._proxied: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        # Without a cache of names every new connection is judged anew.
        resolver = GuardedResolver(self._guard)
        self._direct = self._session(aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=CONNECTIONS))
        # The proxy itself is the operator's and may be anywhere.
        self._proxied = self._session(aiohttp.TCPConnector(limit=CONNECTIONS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._direct.close()
        await self._proxied.close()

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timings.connect_s),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=LONGEST_HEADER_BYTES,
            max_field_size=LONGEST_HEADER_BYTES,
        )

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: Body | bytes | None = None,
        expect: bool = False,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Pace]]:
        """Send one request to one host and hand out its answer, body unread, whatever its status.

        Args:
            method: HTTP method.
            url: Taken as it is encoded.
            headers: All of them; ``Accept-Encoding`` is identity unless given.
            body: With its ``Content-Length``.
            expect: Ask before the body is sent, so that a refusal costs nothing and is not lost in a broken pipe.

        Raises:
            Fault: The address is forbidden, nobody answers, the connection breaks or is too slow, also while the
                block reads the body; what else the block raises passes unchanged.
        """
        proxy = self._proxies.for_url(url)
        self._guard.check_url(url, proxied=proxy is not None)
        session = self._proxied if proxy else self._direct
        with anyio.CancelScope() as scope:
            pace = Pace(scope, self._timings)
            if expect:
                pace.await_leave()
            try:
                response = await session.request(
                    method,
                    url,
                    data=_Paced(body, pace) if isinstance(body, Body) else body,
                    headers={"Accept-Encoding": "identity", "User-Agent": "comfybus", **headers},
                    skip_auto_headers=("Content-Type",),
                    allow_redirects=False,
                    proxy=proxy,
                    expect100=expect,
                )
                async with response:
                    pace.await_bytes()
                    yield response, pace
            except (aiohttp.ClientError, OSError) as exc:
                raise _fault(exc) from exc
        if scope.cancelled_caught:
            raise Fault(f"{pace.reason}; try again later", passing=True)


class _Paced(aiohttp.Payload):
    """A body whose bytes move the deadline. It begins anew where aiohttp sends again on a fresh connection."""

    _autoclose = True

    def __init__(self, body: Body, pace: Pace) -> None:
        super().__init__(None)
        self._body = body
        self._pace = pace
        self._size = body.size_bytes

    @override
    async def write(self, writer: AbstractStreamWriter) -> None:
        self._pace.await_bytes()
        async for chunk in self._body.read():
            await writer.write(chunk)
            self._pace.moved(len(chunk))
        self._pace.await_answer()

    @override
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body that streams has no text")


# The first that fits counts; texts of aiohttp are not used, since they may hold the whole URL.
_MEANINGS: Final[tuple[tuple[tuple[type[Exception], ...], str, bool], ...]] = (
    ((aiohttp.ClientConnectorDNSError,), "its host name does not resolve; correct the URL or look at the DNS", True),
    (
        (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError),
        "its TLS certificate is not trusted or TLS fails; correct the server",
        False,
    ),
    (
        (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError),
        "the proxy of HTTP_PROXY or HTTPS_PROXY does not let it through; look at the proxy",
        True,
    ),
    ((aiohttp.ClientConnectorError,), "nobody answers at its host and port; see whether the server runs", True),
    ((aiohttp.InvalidURL,), "it is no valid URL; correct it", False),
    ((TimeoutError,), "no connection came about in time; see whether the server runs", True),
    ((aiohttp.ClientPayloadError,), "the server ended the transfer before its end; try again later", True),
    ((aiohttp.ClientResponseError,), "the server's answer is no valid HTTP; look at the server", True),
    ((aiohttp.ClientError, ConnectionError), "the connection broke; try again later", True),
)


def _fault(exc: Exception) -> Fault:
    """What aiohttp raised, in our words."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ForbiddenAddress):
            return forbidden_fault(cause)
        cause = cause.__cause__
    for kinds, reason, passing in _MEANINGS:
        if isinstance(exc, kinds):
            return Fault(reason, passing=passing)
    # An error of the disk, raised by the block that reads the body.
    raise exc

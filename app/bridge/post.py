"""One request to a receiver: the address checked, nothing followed, every wait bounded, connections used again.

Used by app.bridge.app, deliver; may import app.storage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp
import anyio
from yarl import URL

from app.bridge.payload import Payload
from app.bridge.verdict import Answer
from app.storage.faults import Fault
from app.storage.guard import ForbiddenAddress, Guard, GuardedResolver
from app.storage.proxies import Proxies

__all__ = ["Poster"]

CONNECT_S: Final = 10.0
# Below what servers keep idle connections for (Node and uvicorn: 5 s): a request on one that is just being closed
# would fail for no reason.
KEEP_ALIVE_S: Final = 4.0
# A receiver may take in a large body at this pace before it counts as hanging.
SLOWEST_BYTES_PER_S: Final = 128 * 1024
# Of an answer's body: read so that the connection can be used again; what is more ends the connection.
READ_BYTES: Final = 64 * 1024
READ_S: Final = 1.0
EXCERPT_BYTES: Final = 512
LONGEST_HEADER_BYTES: Final = 32 * 1024


class Poster:
    """Sends to the addresses that one guard allows. Used as an async context; safe for many tasks of one loop."""

    def __init__(self, guard: Guard, proxies: Proxies, timeout_s: float) -> None:
        """Prepare.

        Args:
            guard: Which addresses may be reached.
            proxies: Which URLs go through which proxy.
            timeout_s: From the beginning to that of the answer; large bodies get more.
        """
        self._guard = guard
        self._proxies = proxies
        self._timeout_s = timeout_s
        self._direct: aiohttp.ClientSession
        self._proxied: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        # Without a cache of names every new connection is judged anew. How many are open at once is decided elsewhere.
        resolver = GuardedResolver(self._guard)
        self._direct = _session(
            aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0, keepalive_timeout=KEEP_ALIVE_S)
        )
        # The proxy itself is the operator's and may be anywhere.
        self._proxied = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._direct.close()
            await self._proxied.close()

    async def post(self, url: URL, headers: Mapping[str, str], payload: Payload) -> Answer:
        """Send, and say what came; never raises but when cancelled.

        Args:
            url: Without user info.
            headers: All of them but the length.
            payload: The body.
        """
        began = time.monotonic()
        proxy = self._proxies.for_url(url)
        try:
            self._guard.check_url(url, proxied=proxy is not None)
        except Fault as exc:
            return Answer(trouble=exc.reason, forbidden=True)
        deadline_s = self._timeout_s + payload.size_bytes / SLOWEST_BYTES_PER_S
        with anyio.move_on_after(deadline_s):
            try:
                return await self._exchange(url, headers, payload, proxy, began)
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                return _trouble(exc, time.monotonic() - began)
        return Answer(
            trouble=f"the receiver does not answer within {self._timeout_s:g} s", took_s=time.monotonic() - began
        )

    async def _exchange(
        self, url: URL, headers: Mapping[str, str], payload: Payload, proxy: str | None, began: float
    ) -> Answer:
        session = self._proxied if proxy else self._direct
        plain = payload.is_plain
        request = session.post(
            url,
            data=b"".join(payload.pieces()) if plain else payload.stream(),
            headers={"Accept-Encoding": "identity", "Content-Length": str(payload.size_bytes), **headers},
            allow_redirects=False,
            proxy=proxy,
        )
        response = await request
        try:
            took_s = time.monotonic() - began
            excerpt = await _excerpt(response)
        except BaseException:
            response.close()
            raise
        return Answer(response.status, response.headers.get("Retry-After"), excerpt=excerpt, took_s=took_s)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        trust_env=False,
        auto_decompress=False,
        max_line_size=LONGEST_HEADER_BYTES,
        max_field_size=LONGEST_HEADER_BYTES,
    )


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """The beginning of the body. What does not end soon is cut off: the status alone says how it went."""
    head = bytearray()
    read, ended = 0, False
    with anyio.move_on_after(READ_S):
        try:
            async for piece in response.content.iter_any():
                head += piece[: EXCERPT_BYTES - len(head)]
                read += len(piece)
                if read > READ_BYTES:
                    break
            else:
                ended = True
        except (aiohttp.ClientError, OSError):
            # The status came; that the rest broke changes nothing.
            response.close()
    if ended:
        response.release()
    else:
        response.close()
    return "".join(letter if letter.isprintable() else " " for letter in head.decode(errors="replace")).strip()


# The first that fits counts; texts of aiohttp are not used, since they may hold the whole URL.
_MEANINGS: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((aiohttp.ClientConnectorDNSError,), "its host name does not resolve"),
    ((aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError), "its TLS certificate is not trusted"),
    ((aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError), "the proxy does not let it through"),
    ((TimeoutError,), "no connection came about in time"),
    ((aiohttp.ClientConnectorError,), "nobody answers at its host and port"),
    ((aiohttp.ClientResponseError,), "the answer is no valid HTTP"),
    ((aiohttp.ClientError, ConnectionError), "the connection broke"),
)


def _trouble(exc: Exception, took_s: float) -> Answer:
    """What aiohttp raised, in our words."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ForbiddenAddress):
            reason = f"{cause.host} is not at a public address; the operator can allow it by ALLOWED_PRIVATE_HOSTS"
            return Answer(trouble=reason, forbidden=True, took_s=took_s)
        cause = cause.__cause__
    if isinstance(exc, aiohttp.InvalidURL):
        return Answer(trouble="the URL is no valid one", forbidden=True, took_s=took_s)
    reason = next((text for kinds, text in _MEANINGS if isinstance(exc, kinds)), f"it fails ({type(exc).__name__})")
    return Answer(trouble=reason, took_s=took_s)

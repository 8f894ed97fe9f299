"""HTTP and HTTPS: GET in, PUT out, with the request's credentials, the URL's user info or the operator's header.

Used by azure_blob, backends, s3; may import schemas.
"""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from typing_extensions import override
from yarl import URL

from app.storage.base import ANY_AUTH, Downloaded, Progress, Storage, Uploaded
from app.storage.calls import Call, FilePart, Received, always
from app.storage.carrier import Carrier
from app.storage.config import StorageConfig
from app.storage.credentials import http_auth
from app.storage.faults import Fault, as_input, as_upload
from app.storage.media_types import safe_filename
from app.storage.secrets import public_url
from app.storage.threads import disk
from app.storage.urls import parse_http
from schemas.credentials import Auth

__all__ = ["HttpStorage", "filename_of", "media_type_of"]

_LONGEST_DISPOSITION: Final = 2048
_SCHEME: Final = re.compile(r"https?://", re.IGNORECASE)


class HttpStorage(Storage):
    """See ``Storage``. A PUT is complete when the server answers 2xx; what it stored it does not tell.

    Redirects are followed, at most ten, each to an address judged anew; credentials go to the first origin only, an
    upload is sent again only for 307 and 308.
    """

    name = "http"
    auth_types = ANY_AUTH - {"s3"}

    def __init__(self, carrier: Carrier, config: StorageConfig) -> None:
        self._carrier = carrier
        self._header = config.http_auth_header
        self._hosts = frozenset(host.strip().lower() for host in config.http_auth_hosts)

    @override
    def accepts(self, url: str) -> bool:
        """Every http and https URL."""
        return _SCHEME.match(url) is not None

    @override
    def uses_operator_credentials(self, url: str) -> bool:
        """Whether HTTP_AUTH_HEADER would go out: the host is one of HTTP_AUTH_HOSTS and the URL has no user info."""
        try:
            parsed = parse_http(url)
        except Fault:
            return False
        return parsed.authorization is None and self._is_listed(parsed.url)

    @override
    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """GET; see ``Storage``."""
        with as_input(url):
            call = self._call("GET", url, auth)
            received = await self._carrier.receive(always(call), into, where=public_url(url), progress=progress)
        return Downloaded(
            into,
            received.size_bytes,
            received.sha256,
            filename=filename_of(received),
            media_type=media_type_of(received),
        )

    @override
    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """PUT; see ``Storage``."""
        with as_upload(url):
            size = (await disk(path.stat)).st_size
            headers = {"Content-Type": media_type} if media_type else {}
            call = self._call("PUT", url, auth, headers)
            await self._carrier.send(always(call), FilePart(path, 0, size), where=public_url(url))
        return Uploaded(public_url(url), size)

    @override
    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """GET of the first byte; see ``Storage``."""
        with as_input(url):
            call = self._call("GET", url, auth)
            await self._carrier.may_read(always(call), where=public_url(url))

    @override
    async def probe(self) -> str:
        """Nothing is configured that could be asked."""
        if self._header and not self._hosts:
            return "any host; HTTP_AUTH_HEADER_NAME is set and HTTP_AUTH_HOSTS is not, so the header goes to nobody"
        return "any host at a public address; nothing is configured that could be asked"

    def _call(self, method: str, text: str, auth: Auth | None, headers: dict[str, str] | None = None) -> Call:
        parsed = parse_http(text)
        url, secret = parsed.url, dict[str, str]()
        if auth is not None:
            extra = http_auth(auth)
            url, secret = extra.on(url), extra.headers
        elif parsed.authorization is not None:
            secret = {"Authorization": parsed.authorization}
        elif self._header is not None and self._is_listed(url):
            secret = dict([self._header])
        return Call(method, url, headers or {}, secret, follow="all")

    def _is_listed(self, url: URL) -> bool:
        host = (url.host or "").rstrip(".").lower()
        return self._header is not None and (host in self._hosts or f"{host}:{url.port}" in self._hosts)


def filename_of(received: Received) -> str | None:
    """The name a server gives a file: of Content-Disposition, else the last segment of the URL it came from."""
    if disposition := received.headers.get("Content-Disposition"):
        message = Message()
        # Cut: the parser's time grows with the square of what it reads.
        message["Content-Disposition"] = disposition[:_LONGEST_DISPOSITION].replace("\r", " ").replace("\n", " ")
        if name := safe_filename(message.get_filename()):
            return name
    return safe_filename(unquote(received.url.raw_name))


def media_type_of(received: Received) -> str | None:
    """The media type of an answer, without parameters."""
    return received.headers.get("Content-Type", "").partition(";")[0].strip().lower()[:127] or None

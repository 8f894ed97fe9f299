"""Who may do what with which blob: the operator's account, a request's credentials, a signature in the URL.

Used by azure_blob, backends, app.bridge.links; may import schemas.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, unquote

from app.storage.config import AzureConfig
from app.storage.credentials import http_auth
from app.storage.faults import Fault
from app.storage.urls import check_path, check_text
from schemas.credentials import Auth, BasicAuth

__all__ = ["AzureAccount", "BlobAccess", "BlobPlace", "azure_account", "blob_place"]

# A signature is made for each try and good for its beginning only; an hour forgives clocks that differ.
SIGNATURE_S: Final = 3600
_SCOPE: Final = "https://storage.azure.com/.default"
_PUBLIC: Final = re.compile(
    r"https://[a-z0-9]{3,24}(?:-secondary)?(?:\.z[0-9]{1,3})?\.blob"
    r"\.(?:core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|storage\.azure\.net)(?=/)"
)
# The emulator's well-known account, as Microsoft publishes it.
_EMULATOR: Final = {
    "AccountName": "devstoreaccount1",
    "AccountKey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "BlobEndpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


@dataclass(frozen=True)
class AzureAccount:
    """The operator's account.

    Attributes:
        url: Of its blob service, without a slash at the end.
        name: Of the account.
        key: Shared key, if there is one.
        sas: Shared access signature, if there is one; without a question mark.
    """

    url: str
    name: str
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)


def azure_account(config: AzureConfig) -> AzureAccount | None:
    """The account that the settings name, if they name one.

    Raises:
        ValueError: The connection string is none; the sentence says what is missing.
    """
    if config.connection_string:
        return _from_connection_string(config.connection_string)
    if not config.account:
        return None
    sas = (config.sas_token or "").lstrip("?") or None
    url = f"https://{config.account}.blob.core.windows.net"
    return AzureAccount(url, config.account, config.key, None if config.key else sas)


def _from_connection_string(text: str) -> AzureAccount:
    parts = dict(part.strip().partition("=")[::2] for part in text.split(";") if part.strip())
    if parts.get("UseDevelopmentStorage", "").lower() == "true":
        parts = _EMULATOR | parts
    name, url = parts.get("AccountName", ""), parts.get("BlobEndpoint", "")
    if not url and name:
        suffix = parts.get("EndpointSuffix", "core.windows.net")
        url = f"{parts.get('DefaultEndpointsProtocol', 'https')}://{name}.blob.{suffix}"
    if not url.startswith(("http://", "https://")):
        raise ValueError("it names neither AccountName nor BlobEndpoint")
    host, _, path = url.rstrip("/").partition("://")[2].partition("/")
    name = name or path or host.partition(".")[0]
    return AzureAccount(url.rstrip("/"), name, parts.get("AccountKey"), parts.get("SharedAccessSignature"))


@dataclass(frozen=True)
class BlobPlace:
    """One blob as a URL names it.

    Attributes:
        base: URL of the blob service, without a slash at the end.
        container: Name of the container.
        blob: Name of the blob, decoded.
        query: The URL's own query, perhaps a signature.
    """

    base: str
    container: str
    blob: str
    query: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Without a query, percent-encoded."""
        return f"{self.base}/{quote(self.container)}/{quote(self.blob)}"

    @property
    def is_signed(self) -> bool:
        """Whether the URL brings its own signature."""
        return any(part.startswith("sig=") for part in self.query.split("&"))


def blob_place(url: str, account: AzureAccount | None) -> BlobPlace | None:
    """The blob a URL names; None if it is no blob of the operator's account nor of Azure's public services.

    Raises:
        Fault: Its path leads upwards.
    """
    check_text(url)
    bare, _, query = url.partition("#")[0].partition("?")
    if account is not None and bare.startswith(f"{account.url}/"):
        base = account.url
    elif match := _PUBLIC.match(bare):
        base = match.group()
    else:
        return None
    container, _, blob = bare[len(base) + 1 :].partition("/")
    if not blob:
        container, blob = "$root", container
    blob, container = unquote(blob), unquote(container)
    check_path(blob)
    check_path(container)
    if "/" in container:
        raise Fault("its container has an encoded slash; write it without", passing=False)
    return BlobPlace(base, container, blob, query)


class BlobAccess:
    """Makes the query and the headers with which one blob may be read or written.

    Args:
        account: The operator's, if one is configured.
    """

    def __init__(self, account: AzureAccount | None) -> None:
        self._account = account
        self._lock = threading.Lock()
        self._identity: Any = None

    def grant(self, place: BlobPlace, auth: Auth | None, permission: str) -> tuple[str, dict[str, str]]:
        """Query and headers for one call; blocks, and is called in a thread.

        Args:
            place: The blob.
            auth: The request's own credentials: bearer is an access token, basic an account and its key, query a
                parameter of a signature, header a header.
            permission: Letters of what a signature is to allow: ``r``, ``cw``, ``d``.

        Raises:
            Fault: The credentials do not fit, or no token can be had.
        """
        if isinstance(auth, BasicAuth):
            return _joined(place, self._sign(place, auth.username, auth.password.get_secret_value(), permission)), {}
        if auth is not None:
            extra = http_auth(auth)
            pairs = (f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in extra.query.items())
            return _joined(place, *pairs), extra.headers
        account = self._account
        if place.is_signed or account is None or place.base != account.url:
            return place.query, {}
        if account.key:
            return _joined(place, self._sign(place, account.name, account.key, permission)), {}
        if account.sas:
            return _joined(place, account.sas), {}
        return place.query, {"Authorization": f"Bearer {self._token()}"}

    @staticmethod
    def _sign(place: BlobPlace, name: str, key: str, permission: str) -> str:
        from azure.storage.blob import generate_blob_sas  # noqa: PLC0415 - slow to import, needed by users of Azure

        try:
            return str(
                generate_blob_sas(
                    account_name=name,
                    container_name=place.container,
                    blob_name=place.blob,
                    account_key=key,
                    permission=permission,
                    expiry=datetime.now(UTC) + timedelta(seconds=SIGNATURE_S),
                )
            )
        except ValueError as exc:
            # The SDK decodes the key from base64.
            raise Fault("the account key is no Azure key; correct it", passing=False) from exc

    def _token(self) -> str:
        try:
            from azure.core.exceptions import AzureError  # noqa: PLC0415 - see above
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - see above
        except ImportError as exc:
            raise Fault(
                "AZURE_STORAGE_ACCOUNT alone needs the package azure-identity; install it", passing=False
            ) from exc
        try:
            with self._lock:
                self._identity = self._identity or DefaultAzureCredential()
            return str(self._identity.get_token(_SCOPE).token)
        except AzureError as exc:
            raise Fault(
                "Azure gives this machine no token; set AZURE_STORAGE_KEY or an identity", passing=True
            ) from exc


def _joined(place: BlobPlace, *parts: str) -> str:
    return "&".join(part for part in (place.query, *parts) if part)

"""Which backend and whose credentials are for a URL, and whether those may be used.

Used by stores; may import schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from app.storage.base import Storage
from app.storage.config import StorageConfig
from app.storage.credentials import Glob, find_auth
from app.storage.faults import Fault
from app.storage.urls import check_path, check_text
from schemas.credentials import Auth, Credential

__all__ = ["Choice"]


class Choice:
    """Decides by the text of a URL.

    Args:
        backends: In the order of asking.
        config: ALLOWED_URLS and OUTPUT_STORE.
    """

    def __init__(self, backends: Sequence[Storage], config: StorageConfig) -> None:
        self._backends = backends
        self._allowed = [Glob(pattern) for pattern in config.allowed_urls]
        self._store = config.output_store.rstrip("/")

    def choose(self, url: str, credentials: Sequence[Credential] | None) -> tuple[Storage, Auth | None]:
        """The backend for a URL, and the request's own credentials for it, if it has some.

        Raises:
            Fault: Nobody takes such URLs, the credentials do not fit them, or the operator's must not be used here.
        """
        check_text(url)
        storage = next((one for one in self._backends if one.accepts(url)), None)
        if storage is None:
            schemes = "https, http or s3; file and nats below OUTPUT_STORE"
            raise Fault(f"no backend takes URLs of this kind; use {schemes}", passing=False)
        auth = find_auth(credentials, url)
        if auth is not None and auth.type not in storage.auth_types:
            fitting = " or ".join(sorted(storage.auth_types))
            raise Fault(f"its credentials are of type {auth.type}; such a URL takes {fitting}", passing=False)
        if auth is None and storage.uses_operator_credentials(url) and not self._is_allowed(url):
            raise Fault("ALLOWED_URLS does not name it; send credentials with the request", passing=False)
        return storage, auth

    def in_output_store(self, url: str) -> bool:
        """Whether a URL lies below OUTPUT_STORE."""
        if not self._store or not url.startswith(f"{self._store}/"):
            return False
        try:
            check_path(unquote(url.partition("://")[2]))
        except Fault:
            return False
        return True

    def _is_allowed(self, url: str) -> bool:
        return not self._allowed or self.in_output_store(url) or any(one.matches(url) for one in self._allowed)

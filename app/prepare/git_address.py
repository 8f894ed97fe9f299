"""Judges the address of a repository before Git, which opens its own connections, is let go there.

Used by app.worker.inputs; may import app.storage.
"""

from __future__ import annotations

import socket
from typing import Final

import anyio
from yarl import URL

from app.storage.faults import Fault
from app.storage.guard import ForbiddenAddress, Guard, GuardedResolver, forbidden_fault

__all__ = ["AddressCheck"]

_RESOLVE_S: Final = 30.0


class AddressCheck:
    """Whether a URL may be reached; see ``GitClone``.

    Args:
        guard: What the operator allows.
        proxied: Git goes through a proxy, which resolves names by its own rules.
    """

    def __init__(self, guard: Guard, *, proxied: bool = False) -> None:
        self._guard = guard
        self._proxied = proxied

    async def __call__(self, url: str) -> None:
        """Resolve the host now and judge all its addresses.

        Raises:
            Fault: One of them must not be reached, or the name does not resolve.
        """
        try:
            parsed = URL(url)
            self._guard.check_url(parsed, proxied=self._proxied)
        except ValueError as exc:
            raise Fault("it is no http:// or https:// URL with a host; correct it", passing=False) from exc
        if self._proxied:
            return
        try:
            with anyio.fail_after(_RESOLVE_S):
                await GuardedResolver(self._guard).resolve(parsed.host or "", parsed.port or 0, socket.AF_UNSPEC)
        except ForbiddenAddress as exc:
            raise forbidden_fault(exc) from exc
        except (OSError, TimeoutError) as exc:
            raise Fault("its host name does not resolve; correct it, or see the name server", passing=True) from exc

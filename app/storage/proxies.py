"""Which proxy, if any, a URL goes through.

Used by backends, outgoing, app.bridge.app, app.bridge.post; may import its folder alone.
"""

from __future__ import annotations

import ipaddress

from yarl import URL

from app.storage.config import ProxyConfig

__all__ = ["Proxies"]


class Proxies:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as curl reads them.

    NO_PROXY is a list of hosts that are reached directly: names stand for themselves and all below them, with or
    without a dot in front; ``host:port`` for one port; addresses and CIDR for literal addresses; ``*`` for everything.
    """

    def __init__(self, config: ProxyConfig) -> None:
        self._by_scheme = {"http": config.http, "https": config.https}
        self._direct = [entry.strip().lower() for entry in config.no_proxy.split(",") if entry.strip()]

    def for_url(self, url: URL) -> str | None:
        """The proxy's URL, which may hold a user and a password; None for a direct connection."""
        proxy = self._by_scheme.get(url.scheme)
        if not proxy or self._is_direct((url.host or "").rstrip(".").lower(), url.port):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _is_direct(self, host: str, port: int | None) -> bool:
        return any(_fits(entry, host, port) for entry in self._direct)


def _fits(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name, separator, wanted = entry.rpartition(":")
    if separator and wanted.isdigit() and ":" not in name:
        return int(wanted) == port and _fits(name, host, None)
    suffix = entry.removeprefix("*").removeprefix(".")
    return host == suffix or host.endswith(f".{suffix}")

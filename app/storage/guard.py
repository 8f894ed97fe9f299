"""Which addresses requests may reach: public ones, and what the operator named; checked where connections are made.

Used by backends, outgoing, app.bridge, app.prepare, app.worker; may import its folder alone.

A name is resolved once, every address it has is judged, and the connection goes to one of the judged addresses, so that
a name which resolves differently a moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from app.storage.faults import Fault
from app.storage.secrets import public_url

__all__ = ["ForbiddenAddress", "Guard", "GuardedResolver", "is_public"]

Address = IPv4Address | IPv6Address

_IPV6_GLOBAL: Final = IPv6Network("2000::/3")
# Parts of it that lead elsewhere: protocol assignments with Teredo and ORCHID, documentation, 6to4.
_IPV6_NOT_GLOBAL: Final = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# RFC 6052: the last 32 bits are the IPv4 address that a translator connects to.
_NAT64: Final = IPv6Network("64:ff9b::/96")
# Anycast of 6to4 relays (withdrawn, RFC 7526), and AS112.
_IPV4_NOT_GLOBAL: Final = tuple(IPv4Network(network) for network in ("192.88.99.0/24", "192.31.196.0/24"))
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f\\]")
_LONGEST_LABEL: Final = 63
_LONGEST_HOST: Final = 254
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class ForbiddenAddress(OSError):
    """A name resolves to an address that must not be reached; an OSError, so that connectors pass it on."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is not at a public address")
        self.host = host


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped in.

    IPv4-mapped addresses and those of the well-known NAT64 prefix are judged by the IPv4 address in them; 6to4, Teredo
    and IPv4-compatible ones are refused whole. A translator with a prefix of the site's own cannot be known from here.
    """
    if isinstance(address, IPv4Address):
        outside = any(address in network for network in _IPV4_NOT_GLOBAL)
        return address.is_global and not address.is_multicast and not address.is_reserved and not outside
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _IPV6_GLOBAL or any(address in network for network in _IPV6_NOT_GLOBAL):
        return False
    return address.is_global


@dataclass(frozen=True)
class _Allowed:
    everything: bool
    hosts: frozenset[tuple[str, int | None]]
    networks: tuple[IPv4Network | IPv6Network, ...]


class Guard:
    """Judges hosts and addresses.

    Args:
        allowed: ALLOWED_PRIVATE_HOSTS: ``host``, ``host:port``, CIDR, or ``*`` for all. A host stands for the name as
            the URL has it, or for a literal address.
        endpoints: URLs of configured storage endpoints; their host and port may be reached wherever they are.

    Raises:
        ValueError: An entry is none of these; the sentence names it.
    """

    def __init__(self, allowed: Iterable[str] = (), endpoints: Iterable[str] = ()) -> None:
        hosts: set[tuple[str, int | None]] = set()
        networks: list[IPv4Network | IPv6Network] = []
        entries = [entry.strip() for entry in allowed if entry.strip()]
        for entry in entries:
            if "/" in entry:
                try:
                    networks.append(ipaddress.ip_network(entry, strict=False))
                except ValueError as exc:
                    raise ValueError(f"{entry} is no network such as 10.0.0.0/8") from exc
            elif entry != "*":
                hosts.add(_host_and_port(entry))
        for endpoint in endpoints:
            url = URL(endpoint)
            if url.host:
                hosts.add((_plain(url.host), url.port))
        self._allowed = _Allowed("*" in entries, frozenset(hosts), tuple(networks))

    def check_url(self, url: URL, *, proxied: bool = False) -> None:
        """Judge what a URL's text tells: its scheme, and its host where that is a literal address.

        Names are judged when they are resolved; through a proxy only names of this machine are refused here, since the
        proxy resolves the others by its own rules.

        Raises:
            Fault: It must not be reached; not passing.
        """
        host = url.host
        if url.scheme not in _DEFAULT_PORTS or not host or url.port is None or not _is_host(url.raw_host or ""):
            raise Fault("it is no http:// or https:// URL with a host; correct it", passing=False)
        if self._names(host, url.port):
            return
        address = _literal(host)
        name = _plain(host)
        local = name == "localhost" or name.endswith(".localhost")
        if (address is not None and not self.allows(host, url.port, address)) or (proxied and local):
            raise Fault(_forbidden(name), passing=False)

    def allows(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to this address, for this host and port of a URL, may be made."""
        if self._names(host, port) or is_public(address):
            return True
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        return any(plain in network for network in self._allowed.networks if network.version == plain.version)

    def _names(self, host: str, port: int) -> bool:
        allowed, name = self._allowed, _plain(host)
        return allowed.everything or (name, None) in allowed.hosts or (name, port) in allowed.hosts


class GuardedResolver(AbstractResolver):
    """Resolves names for a connector and hands out nothing that the guard refuses.

    A name with one forbidden address is refused whole: such names are made to slip through.
    """

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve and judge.

        Raises:
            ForbiddenAddress: One of the addresses must not be reached.
            OSError: The name does not resolve.
        """
        try:
            found = await self._resolver.resolve(host, port, family)
        except UnicodeError as exc:
            raise OSError(f"{host[:100]} is no name that could resolve") from exc
        for one in found:
            if not self._guard.allows(host, port, ipaddress.ip_address(one["host"].partition("%")[0])):
                raise ForbiddenAddress(host)
        return found

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()


def forbidden_fault(exc: ForbiddenAddress) -> Fault:
    """The fault for a name that the resolver refused."""
    return Fault(_forbidden(exc.host), passing=False)


def _forbidden(host: str) -> str:
    return f"{host} is not at a public address; the operator can allow it by ALLOWED_PRIVATE_HOSTS"


def _plain(host: str) -> str:
    """A host as it is compared: lower case, no brackets, no dot at its end, addresses in their shortest form."""
    name = host.strip("[]").rstrip(".").lower()
    address = _literal(name)
    if address is None:
        return name
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _is_host(host: str) -> bool:
    """Whether a name could resolve: no control characters, and parts of the length that DNS and its encoder take."""
    # A colon stands in literal addresses only, which have no such parts.
    labels = () if ":" in host else host.removesuffix(".").split(".")
    fits = all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    return fits and len(host) <= _LONGEST_HOST and _CONTROL.search(host) is None


def _literal(host: str) -> Address | None:
    """The address that a host's text is, in any form that a resolver takes: 127.1 and 0x7f000001 too."""
    text = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(text))
    except (OSError, UnicodeError, ValueError):
        return None


def _host_and_port(entry: str) -> tuple[str, int | None]:
    bare = entry.strip("[]")
    if bare.count(":") > 1 and not entry.startswith("["):
        return _plain(bare), None
    host, separator, port = entry.rpartition(":")
    if not separator or entry.endswith("]"):
        return _plain(entry), None
    if not port.isascii() or not port.isdigit() or not host:
        raise ValueError(f"{public_url(entry)} is neither host, host:port, CIDR nor *")
    return _plain(host), int(port)

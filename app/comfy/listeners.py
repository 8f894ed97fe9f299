"""Who listens at a port of this machine: read from /proc where there is one, else by knocking.

Used by process, signs_of_life; may import its folder alone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import SocketAttribute

from app.comfy.guard import below, parents

__all__ = ["Listener", "listener_at", "listening_sockets", "stranger_at"]

_LISTEN: Final = "0A"
_KNOCK_S: Final = 2.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Listener:
    """Somebody who listens.

    Attributes:
        pid: Its process id; None if it cannot be seen: another user's, another container's, no Linux.
        name: The program's name, likewise.
    """

    pid: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that cannot be seen from here"
        return f"pid {self.pid} ({self.name})" if self.name else f"pid {self.pid}"


async def listener_at(host: str, port: int) -> Listener | None:
    """Who listens where a server for this address would; None if nobody does."""
    found = await anyio.to_thread.run_sync(_holders, host, port)
    for _, pids in found:
        return _listener(min(pids, default=None))
    return Listener() if await _answers_a_knock(host, port) else None


async def stranger_at(host: str, port: int, ancestor: int) -> Listener | None:
    """Who listens there without descending from a process; None if nobody does, or nobody that can be seen.

    A listening socket is known by the processes that hold it. One whose holders cannot be seen proves nothing: ComfyUI
    may run in a container of its own.
    """
    found = await anyio.to_thread.run_sync(_holders, host, port)
    if not found:
        return None
    family = below(await anyio.to_thread.run_sync(parents), ancestor) | {ancestor}
    for _, pids in found:
        if pids and family.isdisjoint(pids):
            return _listener(min(pids))
    return None


def listening_sockets(table: str, port: int) -> Iterator[tuple[Address, str]]:
    """Local address and inode of each listening socket at a port, out of the text of ``/proc/net/tcp`` or ``tcp6``."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        local, _, number = fields[1].partition(":")
        if int(number, 16) == port:
            yield _address(local), fields[9]


def _address(hexadecimal: str) -> Address:
    # Words of 32 bits in the machine's own order.
    words = [bytes.fromhex(hexadecimal[at : at + 8]) for at in range(0, len(hexadecimal), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


def _holders(host: str, port: int) -> list[tuple[str, frozenset[int]]]:
    """Each listening socket in the way of a server for this address, and the processes that can be seen to hold it."""
    wanted = _addresses(host)
    anywhere = not wanted or any(address.is_unspecified for address in wanted)
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError, ValueError):
            text = Path("/proc/self/net", table).read_text()
            for address, inode in listening_sockets(text, port):
                if anywhere or address.is_unspecified or address in wanted:
                    inodes.add(inode)
    if not inodes:
        return []
    links = {f"socket:[{inode}]": inode for inode in inodes}
    pids: dict[str, set[int]] = {inode: set() for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if (held := links.get(os.readlink(entry.path))) is not None:  # noqa: PTH115 - Path would resolve
                        pids[held].add(int(folder.parent.name))
    return [(inode, frozenset(pids[inode])) for inode in sorted(inodes)]


def _addresses(host: str) -> set[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}


def _listener(pid: int | None) -> Listener:
    if pid is None:
        return Listener()
    name = None
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() or None
    return Listener(pid, name)


async def _answers_a_knock(host: str, port: int) -> bool:
    with anyio.move_on_after(_KNOCK_S), suppress(OSError):
        async with await anyio.connect_tcp(host, port) as stream:
            # A port nobody listens at may be picked for the connection itself, which then reaches its own sender.
            ends = [stream.extra(end) for end in (SocketAttribute.local_address, SocketAttribute.remote_address)]  # noqa: S610 - no Django here
            return bool(ends[0] != ends[1])
    return False

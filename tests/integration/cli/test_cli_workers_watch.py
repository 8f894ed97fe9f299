"""``comfybus workers --watch`` on a real terminal's other end, against a real worker."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.integration.cli.command_line import Commands, finished, interrupted
from tests.support.kafka_stack import run_kafka_stack
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

# Colours and movements of the cursor.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
WITHIN_S = 60.0


@dataclass
class Terminal:
    """A program on a terminal of 120 by 40."""

    process: subprocess.Popen[bytes]
    master: int
    seen: str = ""

    async def until(self, *words: str) -> str:
        """Wait until all of these stand in one picture; the picture."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0)
            if not ready:
                await anyio.sleep(0.02)
                continue
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                break
            # Every picture begins with the cursor at the top left.
            for frame in self.seen.split("\x1b[H")[-3:]:
                text = ESCAPES.sub("", frame)
                if all(word in text for word in words):
                    return text
        raise AssertionError(f"never saw {words}; the last was\n{ESCAPES.sub('', self.seen[-4000:])}")

    async def rest(self) -> str:
        """What it writes until it has ended."""
        start = len(self.seen)
        with anyio.fail_after(WITHIN_S):
            while True:
                ready, _, _ = select.select([self.master], [], [], 0)
                if ready:
                    try:
                        data = os.read(self.master, 65536)
                    except OSError:
                        break
                    if not data:
                        break
                    self.seen += data.decode(errors="replace")
                elif self.process.poll() is not None:
                    break
                else:
                    await anyio.sleep(0.02)
        return self.seen[start:]


@contextmanager
def on_a_terminal(commands: Commands, *arguments: str) -> Iterator[Terminal]:
    """Run a command as from a shell."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "app", *arguments],
        cwd=commands.folder,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm-256color", **commands.env},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait(10)
        os.close(master)


@pytest.fixture(params=["nats", "kafka"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    """One worker with its ComfyUI on each broker."""
    if request.param == "kafka":
        async with run_kafka_stack(tmp_path) as stack:
            await stack.worker(await stack.comfy()).start()
            yield stack
        return
    async with run_stack(tmp_path) as stack:
        await stack.worker(await stack.comfy()).start()
        yield stack


def commands_for(stack: Stack) -> Commands:
    return Commands(stack.folder, {**stack.env, "BROKER_URL": stack.broker.url})


async def following(commands: Commands) -> tuple[subprocess.Popen[str], str]:
    """A command that follows the events, and its first line; on a busy machine the broker may not answer in 5 s."""
    for _ in range(5):
        process = commands.start("workers", "--watch", "--json")
        assert process.stdout is not None
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        if line:
            return process, line
        done = await finished(process)
        assert done.code == 3, done.err
    raise AssertionError(done.err)


async def until_it_answers(commands: Commands) -> None:
    """The same for the list."""
    with anyio.fail_after(WITHIN_S):
        while (await commands.run("workers")).code == 3:
            pass


async def test_the_table_follows_a_prompt_and_ends_with_ctrl_c(fleet: Stack) -> None:
    """The worker, then its prompt with node and steps; the terminal gets its own picture back."""
    await until_it_answers(commands_for(fleet))
    with on_a_terminal(commands_for(fleet), "workers", "--watch") as terminal:
        first = await terminal.until("Workers", "w0", "up", "0 of 4", "none")
        assert "0.3.64" in first
        await fleet.outside.send({"id": "slow-cat", "prompt": graph(seconds=30, steps=60)})
        await terminal.until("slow-cat", "running", "SlowProgress", "/60")
        # The heartbeat counts it too.
        await terminal.until("slow-cat", "1 of 4")
        await fleet.outside.command({"type": "prompt.cancel", "id": "slow-cat"})
        await fleet.outside.terminal("slow-cat")
        await terminal.until("0 of 4", "none")
        terminal.process.send_signal(signal.SIGINT)
        rest = await terminal.rest()
        assert terminal.process.wait(30) == 130
        assert "\x1b[?1049l" in rest
        assert "\x1b[?25h" in rest
        assert "Traceback" not in rest
        assert "w0" in rest.split("\x1b[?1049l")[1]


async def test_events_as_json_and_without_a_terminal(fleet: Stack) -> None:
    """Without a terminal there is a sentence; with --json worker and progress events, and nothing else."""
    commands = commands_for(fleet)
    done = await commands.run("workers", "--watch")
    assert done.code == 2
    assert "--watch --json" in done.err
    process, first = await following(commands)
    lines = [first]
    assert json.loads(first)["worker"] == "w0"
    assert process.stdout is not None
    await fleet.outside.send({"id": "quick-cat", "prompt": graph()})
    await fleet.outside.terminal("quick-cat")
    with anyio.fail_after(WITHIN_S):
        while '"storing"' not in lines[-1]:
            lines.append(await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True))
    ended = await interrupted(process)
    assert ended.code == 130
    types = {json.loads(line)["type"] for line in lines}
    assert types <= {"worker.started", "worker.heartbeat", "worker.models", "prompt.progress"}
    assert "prompt.progress" in types

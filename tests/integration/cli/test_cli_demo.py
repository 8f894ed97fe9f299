"""The demonstration: a picture in seconds, and nothing left of it however it ends."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.cli.command_line import Commands, finished, interrupted, line_of
from tests.support.stack import Stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


@pytest.fixture
def bare(tmp_path: Path) -> Commands:
    """An empty folder, a temporary folder of its own, and settings that must not matter."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / ".env").write_text("TOPIC_PREFIX=wrong one\nCOMFYUI_URL=http://127.0.0.1:1\n")
    env = {"TMPDIR": str(tmp_path / "tmp"), "BROKER_URL": "nats://127.0.0.1:1", "WORKER_ID": "not-mine"}
    return Commands(tmp_path / "here", env)


def left_over(commands: Commands) -> list[str]:
    """Processes and files of a demonstration that has ended: all its children work below its TMPDIR."""
    mark = commands.env["TMPDIR"]
    found = [str(path) for path in Path(mark).iterdir()]
    for process in Path("/proc").iterdir():
        try:
            about = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (OSError, NotADirectoryError):
            continue
        if mark.encode() in about and process.name != str(os.getpid()):
            found.append(about.replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


async def test_the_demonstration_makes_a_picture(bare: Commands) -> None:
    """One path on standard output, progress and the stand-in named on the way, well below a minute."""
    began = time.monotonic()
    done = await bare.run("demo")
    assert done.code == 0, done.err
    (path,) = done.out.splitlines()
    with Image.open(bare.folder / path) as picture:
        assert (picture.format, picture.size) == ("PNG", (768, 512))
    assert path.startswith("comfybus-demo/")
    assert "STAND-IN" in done.err
    assert re.search(r"\d+% running SlowProgress \d+/\d+", done.err)
    assert all(f"comfybus {command}" in done.err for command in ("doctor", "worker", "submit"))
    assert time.monotonic() - began < 40
    assert left_over(bare) == []


async def test_the_demonstration_uses_a_real_comfyui(bare: Commands, stack: Stack) -> None:
    """With --comfyui that one runs the prompt, and goes on afterwards."""
    comfy = stack.comfys[0]
    done = await bare.run("demo", "--comfyui", comfy.url, "--out", "result")
    assert done.code == 0, done.err
    assert (bare.folder / done.out.strip()).parent == bare.folder / "result"
    assert "STAND-IN" not in done.err
    assert f"0.3.64 at {comfy.url}" in done.err
    assert comfy.process is not None
    assert comfy.process.running
    assert left_over(bare) == []


async def test_a_comfyui_that_is_not_there_is_one_line(bare: Commands) -> None:
    """The exit code is 3, and the broker that was started is gone."""
    done = await bare.run("demo", "--comfyui", "http://127.0.0.1:1")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[-1].startswith("comfybus: ComfyUI at http://127.0.0.1:1 cannot be reached")
    assert "Traceback" not in done.err
    assert left_over(bare) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_signal_leaves_nothing(bare: Commands, number: signal.Signals) -> None:
    """While the prompt runs, and although the signal comes again while the children are ended."""
    process = bare.start("demo")
    while "running" not in await line_of(process.stderr):
        pass
    process.send_signal(number)
    ended = await interrupted(process, number)
    assert (ended.code, ended.out) == (128 + number, "")
    assert "Traceback" not in ended.err
    assert left_over(bare) == []


async def test_an_early_ctrl_c_leaves_nothing(bare: Commands) -> None:
    """Right after the first line, while the stand-in is starting."""
    process = bare.start("demo")
    assert (await line_of(process.stderr)).startswith("broker")
    ended = await interrupted(process)
    assert ended.code == 130
    assert left_over(bare) == []


async def test_a_worker_that_dies_ends_the_demonstration(bare: Commands) -> None:
    """One line says so; nobody waits for an answer that cannot come."""
    process = bare.start("demo")
    while not (line := await line_of(process.stderr)).startswith("worker"):
        pass
    os.kill(int(line.split()[-1]), signal.SIGKILL)
    ended = await finished(process)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1].startswith("comfybus: the worker ended with exit code -9")
    assert left_over(bare) == []

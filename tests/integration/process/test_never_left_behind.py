"""ComfyUI and all it has started end: with a cancelled supervisor, and with a worker that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from random import randrange

import anyio
import pytest
from supervised import Stage, alive, end, until, up

from app.comfy.guarded import guarded

pytestmark = pytest.mark.anyio

FAMILY = ("child", "heir", "runaway")


@pytest.fixture
def worker(stage: Stage) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a worker-like process whose ComfyUI lives as the steps say; returns it when ComfyUI is up."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*steps: str) -> subprocess.Popen[bytes]:
        started.append(process := stage.worker_like(*steps))
        assert process.stdout is not None
        # Its log goes the same way.
        assert any(line == b"up\n" for line in iter(process.stdout.readline, b""))
        return process

    yield start
    for process in started:
        end(process)


async def test_all_of_it_ends_with_the_supervision(stage: Stage) -> None:
    """Cancelled, the supervisor ends a child of ComfyUI, an orphan and one that left the session, deaf as they are."""
    config = stage.config(*FAMILY, "deaf", "listen", stop_grace_s=0.3)
    async with stage.running(config) as supervisor:
        await up(supervisor)
        assert all(map(alive, stage.pids()))
        assert len(stage.pids()) == 4
    assert not any(map(alive, stage.pids()))
    assert stage.exits == []


async def test_sigterm_comes_first(stage: Stage) -> None:
    """A ComfyUI that heeds SIGTERM ends by it, long before the grace is over; one that does not, at its end."""
    async with stage.running(stage.config("listen", stop_grace_s=60.0)) as supervisor:
        await up(supervisor)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30
    async with stage.running(stage.config("deaf", "listen", stop_grace_s=1.0)) as supervisor:
        await up(supervisor)
        began_s = time.monotonic()
    assert time.monotonic() - began_s >= 1.0
    assert not any(map(alive, stage.pids()))


async def test_what_a_crash_leaves_is_ended_before_the_next_start(stage: Stage) -> None:
    """When ComfyUI crashes, its children, which may hold port and GPU, end before a new one is launched."""
    go = stage.folder / "go"
    config = stage.config("first:1:child", "first:1:runaway", "listen", f"first:1:ask:{go}", "first:1:die:9",
                          stop_grace_s=0.2)  # fmt: skip
    async with stage.running(config) as supervisor:
        await up(supervisor)
        old = stage.pids("child") + stage.pids("runaway")
        assert all(map(alive, old))
        go.touch()
        await until(lambda: supervisor.starts == 2)
        assert not any(map(alive, old))
        await up(supervisor, start=2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_all_of_it_ends_with_a_killed_worker(
    stage: Stage, worker: Callable[..., subprocess.Popen[bytes]], number: signal.Signals
) -> None:
    """kill -9 of the worker, and a SIGTERM it does not handle, take ComfyUI and every process of it along."""
    process = await anyio.to_thread.run_sync(lambda: worker(*FAMILY, "deaf", "listen"))
    everybody = stage.pids()
    assert len(everybody) == 4
    assert all(map(alive, everybody))
    process.send_signal(number)
    await anyio.to_thread.run_sync(process.wait)
    await until(lambda: not any(map(alive, everybody)))


async def test_worker_and_guard_killed_at_once(stage: Stage, worker: Callable[..., subprocess.Popen[bytes]]) -> None:
    """With nobody left to act the kernel still ends ComfyUI itself, deaf to SIGTERM as it is."""
    process = await anyio.to_thread.run_sync(lambda: worker("deaf", "listen"))
    (leader,) = stage.pids()
    guard_pid = int(stage.family(leader)[1].name)
    process.send_signal(signal.SIGSTOP)
    os.kill(guard_pid, signal.SIGKILL)
    process.kill()
    await until(lambda: not alive(leader))


async def test_a_worker_killed_while_comfyui_starts(stage: Stage) -> None:
    """Killed before the first answer, at whatever point of the launch, the worker leaves nothing behind."""
    for launches in (1, 2):
        process = stage.worker_like("child")
        try:
            await until(lambda launches=launches: len(stage.launches) == launches)
            await anyio.sleep(randrange(20) / 1000)
        finally:
            await anyio.to_thread.run_sync(end, process)
        await until(lambda: not any(map(alive, stage.pids())))


async def test_a_killed_guard_takes_comfyui_along(stage: Stage) -> None:
    """kill -9 of the guard ends ComfyUI and its group too; the supervisor notices and starts it again.

    What had left the group survives: a limit, and it must not hold anybody up though it holds the output open.
    """
    config = stage.config("first:1:child", "first:1:runaway", "deaf", "listen", stop_grace_s=0.2)
    async with stage.running(config) as supervisor:
        await up(supervisor)
        old = stage.pids("leader") + stage.pids("child")
        os.kill(int(stage.family(supervisor.pid)[1].name), signal.SIGKILL)
        await until(lambda: bool(stage.exits))
        assert "together with its guard" in stage.exits[0]
        assert not any(map(alive, old))
        await up(supervisor, start=2)
    for pid in stage.pids("runaway"):
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: not alive(pid))


async def test_a_guard_that_is_told_to_end(stage: Stage) -> None:
    """SIGTERM to the guard, as a service manager may send it to all processes, ends everything in order."""
    async with stage.running(stage.config("first:1:runaway", "listen", stop_grace_s=0.2)) as supervisor:
        await up(supervisor)
        old = stage.pids()
        os.kill(int(stage.family(supervisor.pid)[1].name), signal.SIGTERM)
        await until(lambda: bool(stage.exits))
        assert "was ended by SIGTERM" in stage.exits[0]
        assert not any(map(alive, old))
        await up(supervisor, start=2)


async def test_a_start_that_is_cancelled(stage: Stage) -> None:
    """Cancelled before the first answer, the supervisor ends what it has launched."""
    async with stage.running(stage.config("child", stop_grace_s=0.2)):
        await until(lambda: len(stage.pids()) == 2)
    assert not any(map(alive, stage.pids()))


async def test_a_stuck_guard_is_passed_by(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that is stopped does not keep us: after its time it is killed, and ComfyUI with it."""
    monkeypatch.setattr("app.comfy.guard.KILL_WITHIN_S", 0.1)
    monkeypatch.setattr("app.comfy.guarded._MARGIN_S", 0.1)
    lines: list[str] = []
    command = stage.config("child", "say:ready").argv
    async with guarded(
        command, cwd=None, environment=dict(os.environ), grace_s=0.1, on_line=lines.append
    ) as program, anyio.create_task_group() as tasks:  # fmt: skip
        tasks.start_soon(program.exited)
        await until(lambda: lines == ["ready"])
        os.kill(program.guard_pid, signal.SIGSTOP)
        tasks.cancel_scope.cancel()
    await until(lambda: not any(map(alive, [*stage.pids(), program.guard_pid])))


async def test_restarts_leak_nothing(stage: Stage) -> None:
    """Five restarts later this process has as many open files as after the first start."""
    async with stage.running(stage.config("listen", stable_after_s=0.0)) as supervisor:
        await up(supervisor)
        await supervisor.restart("warm")
        await up(supervisor, start=2)
        open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a folder whose entries come and go
        for start in range(3, 8):
            await supervisor.restart("again")
            await up(supervisor, start=start)
        # The client's kept connection may be there or not.
        assert abs(len(os.listdir("/proc/self/fd")) - open_files) <= 1  # noqa: PTH208

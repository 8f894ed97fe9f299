"""ComfyUI ends in every way it can, and is there again."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import anyio
import pytest
from supervised import Stage, alive, until, up

from app.comfy.process import ComfyEnded, ComfyStartFailed

pytestmark = pytest.mark.anyio


async def test_it_is_launched_and_answers(stage: Stage) -> None:
    """After a launch that opens its port late the supervisor is up, has said so once, and knows the process."""
    async with stage.running(stage.config("sleep:0.5", "listen")) as supervisor:
        assert not supervisor.up
        await up(supervisor)
        assert (supervisor.up, supervisor.starts, supervisor.trouble, supervisor.last_exit) == (True, 1, None, None)
        assert stage.began == 1
        assert [supervisor.pid] == stage.pids("leader")
    assert not supervisor.up
    assert not any(map(alive, stage.pids()))


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("exit:0", "ended with exit code 0"),
        ("exit:1", "ended with exit code 1"),
        ("die:9", "was ended by SIGKILL"),
        ("die:15", "was ended by SIGTERM"),
    ],
)
async def test_every_end_is_noticed_and_followed_by_a_start(stage: Stage, end: str, told: str) -> None:
    """Exit code 0, another code and signals alike: it is down at once, said why, and up again by itself."""
    signal_file = stage.folder / "go"
    config = stage.config("listen", f"first:1:ask:{signal_file}", f"first:1:{end}")
    async with stage.running(config) as supervisor:
        await up(supervisor)
        signal_file.touch()
        await until(lambda: bool(stage.exits))
        assert told in stage.exits[0]
        assert supervisor.last_exit == stage.exits[0]
        await up(supervisor, start=2)
        assert (supervisor.starts, stage.began) == (2, 2)
    assert len(stage.exits) == 1


async def test_crashes_during_the_start_run_one_start_at_a_time(stage: Stage) -> None:
    """Two quick crashes before the first answer lead to three launches, never two of them alive together."""
    config = stage.config("alone", "first:2:exit:3", "listen")
    async with stage.running(config) as supervisor:
        await up(supervisor, start=3)
        assert supervisor.starts == 3
        assert len(stage.launches) == 3
        assert stage.began == 1
    assert not (stage.folder / "overlaps").exists()
    assert all("exit code 3" in told and "before it answered" in told for told in stage.exits)


async def test_pauses_between_starts_grow(stage: Stage) -> None:
    """A ComfyUI that crashes again and again is started less and less often, up to a bound."""
    config = stage.config("exit:1", first_pause_s=0.1, longest_pause_s=0.4)
    async with stage.running(config) as supervisor:
        await until(lambda: len(stage.launches) >= 5)
        assert not supervisor.up
    times = [at for at, _ in stage.launches[:5]]
    gaps = [after - before for before, after in pairwise(times)]
    for gap, least in zip(gaps, (0.075, 0.15, 0.3, 0.3), strict=True):
        assert gap >= least


async def test_without_always_restart_an_end_is_raised(stage: Stage) -> None:
    """With ALWAYS_RESTART_COMFYUI=false an exit ends the supervision with an error, exit code 0 too."""
    signal_file = stage.folder / "go"
    config = stage.config("listen", f"ask:{signal_file}", "exit:0", always_restart=False)
    stage.when_up = signal_file.touch
    async with stage.supervisor(config) as supervisor:
        with pytest.raises(ComfyEnded, match=r"exit code 0.*foreground"), anyio.fail_after(30):
            await supervisor.run()
        assert not supervisor.up
        assert supervisor.starts == 1


async def test_without_always_restart_a_failed_start_is_raised(stage: Stage) -> None:
    """With ALWAYS_RESTART_COMFYUI=false a crash before the first answer ends the supervision, said as such."""
    async with stage.supervisor(stage.config("exit:7", always_restart=False)) as supervisor:
        with pytest.raises(ComfyStartFailed, match="exit code 7"), anyio.fail_after(30):
            await supervisor.run()


async def test_a_port_that_never_opens(stage: Stage) -> None:
    """A process that runs and never answers is ended after the tries, and started again."""
    config = stage.config("first:1:sleep:600", "listen", check_max_tries=10)
    async with stage.running(config) as supervisor:
        await up(supervisor, start=2)
    assert "did not answer" in stage.exits[0]
    assert "STARTUP_CHECK_MAX_TRIES" in stage.exits[0]
    assert not any(map(alive, stage.pids()))


@pytest.mark.parametrize("command", ["no-such-program --port 1", "/", "cd / && python main.py"])
async def test_a_command_that_cannot_be_launched(stage: Stage, command: str) -> None:
    """A CMD that names no program stops the first start with one line that names it, restarts or not."""
    async with stage.supervisor(stage.config(command=command)) as supervisor:
        with pytest.raises(ComfyStartFailed, match=r"CMD=.*cannot be launched") as caught, anyio.fail_after(30):
            await supervisor.run()
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_home_that_is_not_there(stage: Stage) -> None:
    """A COMFY_HOME that does not exist is named."""
    home = stage.folder / "nowhere"
    async with stage.supervisor(stage.config("listen", home=home)) as supervisor:
        with pytest.raises(ComfyStartFailed, match="nowhere"), anyio.fail_after(30):
            await supervisor.run()


async def test_a_restart_on_request(stage: Stage) -> None:
    """A requested restart ends the process, returns when it has ended, and a new one comes up without being asked."""
    async with stage.running(stage.config("listen")) as supervisor:
        await up(supervisor)
        first = supervisor.pid
        assert first is not None
        with anyio.fail_after(30):
            await supervisor.restart("its execution thread is dead")
        assert not alive(first)
        assert supervisor.starts == 1 or supervisor.pid != first
        await up(supervisor, start=2)
        assert supervisor.last_exit is not None
        assert "its execution thread is dead" in supervisor.last_exit
    assert len(stage.exits) == 1


async def test_requests_at_the_same_time_are_one_restart(stage: Stage) -> None:
    """Ten requests at once, one for an earlier start and one while nothing is up restart it once."""
    async with stage.running(stage.config("sleep:0.2", "listen")) as supervisor:
        await supervisor.restart("too early")
        await up(supervisor)
        seen = supervisor.starts
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(supervisor.restart, f"reason {number}")
        await up(supervisor, start=2)
        await supervisor.restart("seen before the restart", seen_start=seen)
        assert supervisor.up
        assert supervisor.starts == 2
    assert len(stage.exits) == 1
    assert "reason 0" in stage.exits[0]


async def test_a_requested_restart_without_always_restart(stage: Stage) -> None:
    """A restart we asked for is one also where an end by itself would not be followed by a start."""
    async with stage.running(stage.config("listen", always_restart=False)) as supervisor:
        await up(supervisor)
        await supervisor.restart("above the memory threshold")
        await up(supervisor, start=2)


async def test_a_comfyui_that_hangs_is_started_anew(stage: Stage) -> None:
    """A stopped process keeps its port and answers nothing: after the limit it is ended, stopped as it is."""
    config = stage.config("listen", silence_limit_s=0.6, stop_grace_s=0.2)
    async with stage.running(config) as supervisor:
        await up(supervisor)
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        await up(supervisor, start=2)
    assert "gave no answer for 0.6 s" in stage.exits[0]


async def test_a_hook_that_fails_does_not_end_the_supervision(stage: Stage) -> None:
    """A fault in on_start is logged, and the supervision goes on."""
    stage.when_up = lambda: 1 // 0
    async with stage.running(stage.config("listen")) as supervisor:
        await up(supervisor)
        await supervisor.restart("to see it twice")
        await up(supervisor, start=2)

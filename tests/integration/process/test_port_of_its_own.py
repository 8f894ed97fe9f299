"""ComfyUI is launched only where nobody listens, and is up only if it is the one that answers."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing

import anyio
import pytest
from structlog.testing import capture_logs
from supervised import Stage, end, until, up

from app.comfy.listeners import Listener, listener_at, stranger_at
from app.comfy.process import ComfyPortTaken

pytestmark = pytest.mark.anyio


@pytest.fixture
def stranger(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """Another program that answers at the port as ComfyUI does, like the orphan of a worker that was killed."""
    process = stage.other_program("listen", "say:listening", folder=stage.folder / "stranger")
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
    yield process
    end(process)


async def test_a_stranger_at_the_port_is_waited_for(stage: Stage, stranger: subprocess.Popen[bytes]) -> None:
    """Nothing is launched over a stranger, though it answers; one line names its pid; when it goes, ours starts."""
    with capture_logs() as logs:
        async with stage.running(stage.config("listen")) as supervisor:
            await until(lambda: "taken" in (supervisor.trouble or ""))
            await anyio.sleep(0.3)  # several looks, to see that none of them takes the stranger for ours
            assert (supervisor.up, supervisor.starts, stage.launches) == (False, 0, [])
            assert f"pid {stranger.pid} (python" in (supervisor.trouble or "")
            stranger.kill()
            stranger.wait()
            await up(supervisor)
            assert supervisor.starts == 1
    errors = [line for line in logs if line["log_level"] == "error"]
    assert len(errors) == 1
    assert f"pid {stranger.pid}" in errors[0]["reason"]


async def test_without_always_restart_a_stranger_ends_the_wait(stage: Stage, stranger: subprocess.Popen[bytes]) -> None:
    """With ALWAYS_RESTART_COMFYUI=false the wait for the port is as long as that for a start, then an error."""
    config = stage.config("listen", always_restart=False, check_max_tries=5)
    async with stage.supervisor(config) as supervisor:
        with pytest.raises(ComfyPortTaken, match=f"pid {stranger.pid}"), anyio.fail_after(30):
            await supervisor.run()
    assert stage.launches == []


async def test_a_stranger_that_comes_during_the_start(stage: Stage) -> None:
    """A stranger that takes the port while ComfyUI loads is not taken for it, though it answers."""
    async with stage.running(stage.config("first:1:sleep:600", "listen")) as supervisor:
        await until(lambda: len(stage.launches) == 1)
        process = stage.other_program("listen", folder=stage.folder / "stranger")
        try:
            await until(lambda: bool(stage.exits))
            assert f"pid {process.pid}" in stage.exits[0]
            assert stage.began == 0
        finally:
            end(process)
        await up(supervisor, start=2)


async def test_a_child_of_comfyui_may_listen(stage: Stage) -> None:
    """CMD may be a script: what listens is then a process below it, and that is right."""
    command = f"sh -c {_quoted(stage.command('listen') + '; true')}"
    async with stage.running(stage.config(command=command)) as supervisor:
        await up(supervisor)
        assert [supervisor.pid] != stage.pids("leader")


async def test_who_listens(stage: Stage) -> None:
    """The pid and name of a listener are found for its address, for all addresses, and not for another address."""
    with closing(socket.create_server(("127.0.0.1", stage.port))):
        found = await listener_at("127.0.0.1", stage.port)
        assert found is not None
        assert (found.pid, found.name is not None) == (os.getpid(), True)
        assert await listener_at("0.0.0.0", stage.port) == found
        assert await listener_at("127.0.0.2", stage.port) is None
        assert await stranger_at("127.0.0.1", stage.port, os.getpid()) is None
        assert await stranger_at("127.0.0.1", stage.port, os.getppid()) is None
        assert await stranger_at("127.0.0.1", stage.port, 2**22 + 1) == found
    assert await listener_at("127.0.0.1", stage.port) is None
    with closing(socket.create_server(("", stage.port))):
        assert await listener_at("127.0.0.1", stage.port) == found


async def test_who_listens_without_proc(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc does not tell, a listener is found by knocking, and nobody is taken for a stranger."""
    monkeypatch.setattr("app.comfy.listeners._holders", lambda host, port: [])
    with closing(socket.create_server(("127.0.0.1", stage.port))):
        assert await listener_at("127.0.0.1", stage.port) == Listener()
        assert str(Listener()) == "a process that cannot be seen from here"
        assert await stranger_at("127.0.0.1", stage.port, os.getppid()) is None
    assert await listener_at("127.0.0.1", stage.port) is None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"

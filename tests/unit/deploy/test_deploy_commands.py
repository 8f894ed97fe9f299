"""Every command that images, compose and manifests run is run here."""

from __future__ import annotations

import http.server
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.deploy.deployment import DOCKERFILES, ROOT, compose, containers, read_dockerfile

PROSE = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / ".github").rglob("*.yml")), ROOT / "docker-compose.yml"]


def program_commands() -> set[tuple[str, ...]]:
    """What our images are started with: entry point and arguments, without the entry point's folder."""
    found = set()
    for path in DOCKERFILES:
        image = read_dockerfile(path)
        found.add((Path(image.entrypoint[0]).name, *image.command))
    for service in compose()["services"].values():
        if str(service.get("image", "")).startswith("comfybus-"):
            found.add((*service.get("entrypoint", ["comfybus"]), *service["command"]))
    found |= {("comfybus", *container["args"]) for _, container in containers() if "args" in container}
    return found


def described_commands() -> set[tuple[str, ...]]:
    """``comfybus …`` as documents, alerts and workflows tell people and runners to call it: sub-commands only."""
    found = set()
    for path in [*PROSE, ROOT / "deploy" / "prometheus" / "alerts.yml"]:
        for words in re.findall(r"(?:^|[`$ ])comfybus((?: [a-z]+(?=[ `\n]|$))+)", path.read_text(), re.MULTILINE):
            found.add(tuple(words.split()))
    return found


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command, env={**kept, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_is_started_is_there() -> None:
    """Worker, bridge and the stand-in; nothing else."""
    assert {command[:2] for command in program_commands()} == {
        ("comfybus", "worker"),
        ("comfybus", "bridge"),
        ("python", "-m"),
    }


@pytest.mark.parametrize("command", sorted(program_commands()))
def test_every_command_of_an_image_runs(command: tuple[str, ...]) -> None:
    """With --help behind it: the program is found, takes these arguments and says what it does."""
    name, *arguments = command
    start = [sys.executable, "-m", "app"] if name == "comfybus" else [sys.executable]
    done = run(*start, *arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_every_command_that_is_written_down_exists() -> None:
    """Each sub-command in documents, alerts and workflows is one of the command line."""
    from typer.main import get_command

    from app.cli.commands import application

    root = get_command(application)
    for words in described_commands():
        command = root
        for word in words:
            known = getattr(command, "commands", None)
            if known is None:
                break  # an argument
            assert word in known, f"comfybus {' '.join(words)}"
            command = known[word]


class _Probed(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/health"
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def probed(status: int) -> Iterator[str]:
    handler = type("Handler", (_Probed,), {"status": status})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_health_check_tells_health(path: Path) -> None:
    """0 while /health is 200, else not 0: unhealthy, and nobody there."""
    name, *arguments = read_dockerfile(path).healthcheck
    assert Path(name).name == "python"
    with probed(200) as port:
        assert run(sys.executable, *arguments, PORT=port).returncode == 0
    with probed(500) as port:
        assert run(sys.executable, *arguments, PORT=port).returncode != 0
    assert run(sys.executable, *arguments, PORT=port).returncode != 0


def test_the_standin_of_compose_is_probed_where_it_listens() -> None:
    """Its health check asks the port that its command names."""
    service = compose()["services"]["standin"]
    port = service["command"][service["command"].index("--port") + 1]
    kind, name, *arguments = service["healthcheck"]["test"]
    assert (kind, name) == ("CMD", "python")
    assert f"127.0.0.1:{port}/queue" in arguments[-1]
    compile(arguments[-1], "healthcheck", "exec")


def test_hooks_run() -> None:
    """What a pod runs before it ends needs nothing that the slim image has not."""
    hooks = {tuple(c["lifecycle"]["preStop"]["exec"]["command"]) for _, c in containers() if "lifecycle" in c}
    assert hooks == {("sleep", "1")}
    assert run(*next(iter(hooks))).returncode == 0


def test_comfyui_is_launched_as_it_wants() -> None:
    """CMD of the image can be split, listens where the worker looks, and starts a program of the image."""
    image = next(read_dockerfile(path) for path in DOCKERFILES if path.name == "comfyui.Dockerfile")
    words = shlex.split(image.environment["CMD"])
    assert words[1:] == ["main.py", "--listen", "127.0.0.1", "--port", "8188", "--disable-auto-launch"]

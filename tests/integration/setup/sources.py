"""Where a set-up gets its things in tests: repositories and files on loopback, programs that only note their use."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from aiohttp import web

_WHO = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b.example",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b.example",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def git(*arguments: str, cwd: Path) -> str:
    """Run the machine's git and return what it prints."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), **_WHO}
    done = subprocess.run(["git", *arguments], cwd=cwd, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass
class Repository:
    """A history of three commits: ``first`` (tag v1.0.0), ``side`` (branch side) and ``last`` (branch main)."""

    path: Path
    first: str = ""
    side: str = ""
    last: str = ""

    def commit(self, files: dict[str, str], message: str = "more") -> str:
        """Add a commit to the branch that is checked out in the work tree."""
        work = self.path.with_suffix(".work")
        for name, text in files.items():
            (work / name).write_text(text)
        git("add", "-A", cwd=work)
        git("commit", "-q", "-m", message, cwd=work)
        git("push", "-q", "--tags", "origin", "HEAD", cwd=work)
        return git("rev-parse", "HEAD", cwd=work)


def make_repository(path: Path, owner: str, requirements: str | None = None) -> Repository:
    """A bare repository at a path and its work tree beside it."""
    path.mkdir(parents=True)
    git("init", "-q", "--bare", "-b", "main", cwd=path)
    work = path.with_suffix(".work")
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    git("remote", "add", "origin", str(path), cwd=work)
    repository = Repository(path)
    files = {"__init__.py": f"NODE = '{owner} 1'\n", "of.txt": owner}
    if requirements is not None:
        files["requirements.txt"] = requirements
    repository.first = repository.commit(files, "first")
    git("tag", "v1.0.0", cwd=work)
    git("checkout", "-q", "-b", "side", cwd=work)
    repository.side = repository.commit({"__init__.py": f"NODE = '{owner} side'\n"})
    git("checkout", "-q", "main", cwd=work)
    repository.last = repository.commit({"__init__.py": f"NODE = '{owner} 2'\n"})
    git("update-server-info", cwd=path)
    return repository


@dataclass
class Sources:
    """A host on loopback: ``/files/…``, repositories below ``/git/`` (smart) and ``/dumb/`` (plain files).

    Repositories below ``/git/private/`` want user and password.
    """

    folder: Path
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    user: str = "robot:top-secret-1"

    def repository(self, name: str, requirements: str | None = None) -> Repository:
        """Make ``/git/<name>``."""
        return make_repository(self.folder / f"{name}.git", name.partition("/")[0], requirements)

    async def give_file(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        body = self.files.get(request.match_info["name"])
        return web.Response(status=404) if body is None else web.Response(body=body)

    async def give_plainly(self, request: web.Request) -> web.StreamResponse:
        path = self.folder / request.match_info["path"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async def give_smartly(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        wanted = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        if path.startswith("private/") and request.headers.get("Authorization") != wanted:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=git"})
        self.asked[f"/git/{path}"] += 1
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            **_WHO,
        }
        done = await anyio.run_process(["git", "http-backend"], input=await request.read(), env=env)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Sources]:
        app = web.Application()
        app.router.add_get("/files/{name:.*}", self.give_file)
        app.router.add_get("/dumb/{path:.*}", self.give_plainly)
        app.router.add_route("*", "/git/{path:.*}", self.give_smartly)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@dataclass
class Machine:
    """A PATH of its own: programs that note their arguments, and git, which notes them and does its work."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def calls(self) -> list[str]:
        """Every program that was run, with its arguments, in order."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def called(self, name: str) -> list[str]:
        """The calls of one program."""
        return [call for call in self.calls if call.split()[0] == name]

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)

    def program(self, name: str, body: str = "") -> None:
        """Put a program on PATH; ``body`` is shell."""
        self.bin.mkdir(parents=True, exist_ok=True)
        path = self.bin / name
        calls = self.folder / "calls"
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> "{calls}"\necho "{name} works"\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": f"{self.bin}:{self.folder / 'system'}", "HOME": str(self.folder), **more}


def make_machine(folder: Path) -> Machine:
    """A machine with apt-get, pip, comfy and git, and nothing else but what shell scripts need."""
    machine = Machine(folder)
    system = folder / "system"
    system.mkdir(parents=True)
    for name in ("sh", "mkdir", "sleep", "cat", "touch", "env"):
        (system / name).symlink_to(str(shutil.which(name)))
    for name in ("apt-get", "pip", "comfy"):
        machine.program(name)
    real = shutil.which("git")
    # Without "works": what git prints is read.
    machine.program("git", f'exec {real} "$@"')
    script = machine.bin / "git"
    script.write_text(script.read_text().replace('echo "git works"\n', ""))
    return machine


def manifest_settings(machine: Machine, home: Path, cache: Path, **env: Any) -> dict[str, str]:
    """The environment of a process that sets up on this machine."""
    return {
        **machine.environment(),
        "COMFY_HOME": str(home),
        "CACHE_DIR": str(cache),
        "PYTHONPATH": str(Path(__file__).parents[3]),
        **{name: str(value) for name, value in env.items()},
    }


DRIVER = Path(__file__).with_name("set_up_once.py")


def start(env: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    """Run the set-up of an environment's settings in a process of its own; its log comes by its pipe."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(DRIVER)],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

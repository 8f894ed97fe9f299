"""Debian packages and Python packages: with the machine's own installers, and only what is not there by the record.

Used by custom_nodes, installation; may import its folder alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio.to_thread
import structlog

from app.setup.programs import Programs, SetupFailed, step
from app.setup.record import Record

__all__ = ["Packages", "pip_command"]

# Another installer at work is waited for by apt-get itself.
_LOCK_WAIT: Final = "DPkg::Lock::Timeout=300"
_QUIET: Final = {"DEBIAN_FRONTEND": "noninteractive"}

log = structlog.get_logger("comfybus.setup")


def pip_command(programs: Programs, python: Path | None) -> list[str]:
    """How Python packages are installed here: uv where it is, else pip.

    Without COMFY_PYTHON they go where the program on PATH puts them. There uv alone has to be told when that is no
    virtual environment; pip has no such option.

    Raises:
        SetupFailed: There is neither.
    """
    if programs.find("uv"):
        where = ["--python", str(python)] if python else [] if programs.active_environment() else ["--system"]
        return ["uv", "pip", "install", *where]
    if python:
        return [str(python), "-m", "pip", "install"]
    pip = next((name for name in ("pip", "pip3") if programs.find(name)), None)
    if pip is None:
        raise SetupFailed("there is neither uv nor pip on PATH; install one, or set COMFY_PYTHON")
    return [pip, "install"]


class Packages:
    """Installs packages.

    Args:
        programs: Runs apt-get, uv or pip.
        record: Of what is done.
        environment: Mark of the machine; what was installed elsewhere does not count.
        python: COMFY_PYTHON.
    """

    def __init__(self, programs: Programs, record: Record, environment: str, python: Path | None) -> None:
        self._programs = programs
        self._record = record
        self._environment = environment
        self._python = python

    @property
    def active(self) -> dict[str, str]:
        """Variables that tell other installers which environment ComfyUI's Python is of, if it is of one."""
        prefix = self._python.parent.parent if self._python else None
        return {"VIRTUAL_ENV": str(prefix)} if prefix and (prefix / "pyvenv.cfg").is_file() else {}

    async def apt(self, names: Sequence[str]) -> None:
        """Install Debian packages, those that are missing in one go.

        Raises:
            SetupFailed: apt-get does not do it.
        """
        missing = [name for name in dict.fromkeys(names) if not self._is_done(f"apt:{name}")]
        if not missing:
            return
        async with step("apt", " ".join(missing)):
            if self._record.begun("apt") is not None and self._programs.find("dpkg"):
                # A dpkg that was killed at work refuses everything else until it could finish.
                await self._run(["dpkg", "--configure", "-a"])
            await self._record.begin("apt", packages=missing)
            await self._run(["apt-get", "update", "-o", _LOCK_WAIT])
            await self._run(["apt-get", "install", "-y", "-o", _LOCK_WAIT, *missing])
            for name in missing:
                await self._record.finish(f"apt:{name}", environment=self._environment)
            await self._record.finish("apt", environment=self._environment)

    async def pip(self, requirements: Sequence[str]) -> None:
        """Install Python packages, all together so that their versions fit each other.

        Raises:
            SetupFailed: The installer does not do it.
        """
        content = _digest("\n".join(requirements))
        if not requirements or self._is_done("pip", content):
            return
        async with step("pip", " ".join(requirements)):
            await self._install("pip", content, list(requirements), None)

    async def requirements(self, folder: Path, name: str) -> None:
        """Install what a custom node's ``requirements.txt`` names, if it has one.

        Raises:
            SetupFailed: The installer does not do it.
        """
        key, content = f"requirements:{name}", await anyio.to_thread.run_sync(_requirements, folder)
        if content is None or self._is_done(key, content):
            return
        async with step("requirements", name):
            await self._install(key, content, ["-r", "requirements.txt"], folder)

    async def _install(self, key: str, content: str, what: Sequence[str], cwd: Path | None) -> None:
        if self._programs.own_environment() and self._python is None:
            log.warning("packages go into the environment of comfybus itself; set COMFY_PYTHON to that of ComfyUI")
        await self._record.begin(key, content=content)
        await self._programs.run([*pip_command(self._programs, self._python), *what], cwd=cwd)
        await self._record.finish(key, content=content, environment=self._environment)

    async def _run(self, command: Sequence[str]) -> None:
        try:
            await self._programs.run(command, environment=_QUIET)
        except SetupFailed as exc:
            if os.geteuid() != 0 and exc.output:
                sentence = f"{exc}; Debian packages need root: run as root, or build an image that has them"
                raise SetupFailed(sentence, exc.output) from exc
            raise

    def _is_done(self, key: str, content: str | None = None) -> bool:
        facts = self._record.done(key)
        return facts is not None and facts.get("environment") == self._environment and facts.get("content") == content


def _requirements(folder: Path) -> str | None:
    """A digest of a custom node's ``requirements.txt``; None if it has none."""
    try:
        return _digest((folder / "requirements.txt").read_text(errors="replace"))
    except FileNotFoundError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""What the set-up has done, in a small file that outlives crashes: a step that is in it is not done again.

Used by custom_nodes, git_nodes, installation, models, packages; may import app.storage.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import structlog

from app.setup.programs import SetupFailed
from app.storage.cache_locks import try_lock

__all__ = ["Record", "environment_id"]

_FILE: Final = "setup.json"
_LOOK_S: Final = 0.5
_CHANGE_WITHIN_S: Final = 30.0
_CHANGE_LOOK_S: Final = 0.01
_MOUNTS: Final = Path("/proc/self/mountinfo")

log = structlog.get_logger("comfybus.setup")

Facts = Mapping[str, Any]


class Record:
    """The record of one folder.

    A step is noted as begun before it changes anything and as done when all of it is on disk. One that is begun and
    not done was cut off by a crash; whoever does it again may have to clear up first. Every note is read, changed and
    written under a lock, so that workers that share a folder do not lose each other's.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, dict[str, Any]] = {}

    @asynccontextmanager
    async def alone(self, wait_s: float) -> AsyncIterator[None]:
        """A block in which no other process installs by this record: two at a time would break each other's work.

        Raises:
            SetupFailed: The folder cannot be written, or another process installs for longer than ``wait_s``.
        """
        await self.load()
        handle = await self._until_alone(wait_s)
        try:
            # What the other process has done meanwhile need not be done again.
            await self.load()
            yield
        finally:
            os.close(handle)

    def done(self, key: str) -> Facts | None:
        """What was noted when the step was done; None if it was not."""
        return self._done.get(key)

    def begun(self, key: str) -> Facts | None:
        """What was noted when the step began, if it was cut off."""
        return self._begun.get(key)

    async def load(self) -> None:
        """Read it, made when missing.

        Raises:
            SetupFailed: The folder cannot be used.
        """
        await self._in_thread(lambda: None)

    async def begin(self, key: str, **facts: Any) -> None:
        """Note that a step begins; on disk when this returns."""
        await self._in_thread(lambda: self._begun.update({key: facts}), save=True)

    async def finish(self, key: str, **facts: Any) -> None:
        """Note that a step is done; on disk when this returns."""

        def change() -> None:
            self._begun.pop(key, None)
            self._done[key] = facts

        await self._in_thread(change, save=True)

    async def _until_alone(self, wait_s: float) -> int:
        path, told = self._folder / "installing.lock", False
        with anyio.move_on_after(wait_s):
            while (handle := await anyio.to_thread.run_sync(lambda: try_lock(path, shared=False))) is None:
                if not told:
                    log.info("another process installs, waiting for it", folder=str(self._folder))
                    told = True
                await anyio.sleep(_LOOK_S)
            return handle
        raise SetupFailed(f"another process has installed for {wait_s:g} s by the record in {self._folder}; look at it")

    async def _in_thread(self, change: Callable[[], None], *, save: bool = False) -> None:
        try:
            await anyio.to_thread.run_sync(lambda: self._changed(change, save=save))
        except OSError as exc:
            raise SetupFailed(
                f"the record of what is installed cannot be kept in {self._folder} ({exc.strerror}); make it writable"
            ) from exc

    def _changed(self, change: Callable[[], None], *, save: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(self._folder / "record.lock")
        try:
            self._load()
            change()
            if save:
                self._save()
        finally:
            os.close(handle)

    def _load(self) -> None:
        try:
            document = json.loads((self._folder / _FILE).read_text())
            self._done = {str(key): dict(facts) for key, facts in document["done"].items()}
            self._begun = {str(key): dict(facts) for key, facts in document["begun"].items()}
        except FileNotFoundError:
            self._done, self._begun = {}, {}
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            log.warning("record of the set-up is damaged, every step is done again", reason=str(exc))
            self._done, self._begun = {}, {}

    def _save(self) -> None:
        part = self._folder / f".{_FILE}.part"
        with part.open("w") as file:
            json.dump({"version": 1, "done": self._done, "begun": self._begun}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / _FILE)


def _locked(path: Path) -> int:
    """Lock for one change; whoever has it needs milliseconds."""
    deadline = time.monotonic() + _CHANGE_WITHIN_S
    while (handle := try_lock(path, shared=False)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock", str(path))
        time.sleep(_CHANGE_LOOK_S)
    return handle


def environment_id(python: str) -> str:
    """A mark of the machine or container that packages are installed into; blocks for a moment.

    ComfyUI's folder may lie on a volume that a new container finds as the last one left it, while packages are gone
    with that container. So what is installed outside the folder is noted with this mark: host name, root file system
    (of a container its own upper layer) and the Python that is used.
    """
    root = ""
    try:
        for line in _MOUNTS.read_text().splitlines():
            left, _, right = line.partition(" - ")
            if left.split()[4] == "/":
                kind, source, options = right.split(" ", 2)
                upper = [option for option in options.split(",") if option.startswith("upperdir=")]
                root = " ".join((kind, source, *upper))
    except (OSError, ValueError, IndexError):
        root = ""
    return hashlib.sha256(f"{socket.gethostname()}\n{root}\n{python}".encode()).hexdigest()[:16]

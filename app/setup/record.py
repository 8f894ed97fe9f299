"""What the set-up has done, in a small file that outlives crashes: a step that is in it is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
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
_LOCK: Final = "setup.lock"
_LOOK_S: Final = 0.5
_MOUNTS: Final = Path("/proc/self/mountinfo")

log = structlog.get_logger("comfybus.setup")

Facts = Mapping[str, Any]


class Record:
    """The record of one folder. ``open`` takes it for this process alone: two that install at a time break things.

    A step is noted as begun before it changes anything and as done when all of it is on disk. One that is begun and
    not done was cut off by a crash; whoever does it again may have to clear up first.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, dict[str, Any]] = {}

    @asynccontextmanager
    async def open(self, wait_s: float) -> AsyncIterator[None]:
        """Hold the record until the block ends.

        Raises:
            SetupFailed: The folder cannot be written, or another process holds it for longer than ``wait_s``.
        """
        try:
            await anyio.to_thread.run_sync(lambda: self._folder.mkdir(parents=True, exist_ok=True))
            handle = await self._lock(wait_s)
        except OSError as exc:
            raise SetupFailed(
                f"the record of what is installed cannot be kept in {self._folder} ({exc.strerror}); make it writable"
            ) from exc
        try:
            await anyio.to_thread.run_sync(self._load)
            yield
        finally:
            os.close(handle)

    def done(self, key: str) -> Facts | None:
        """What was noted when the step was done; None if it was not."""
        return self._done.get(key)

    def begun(self, key: str) -> Facts | None:
        """What was noted when the step began, if it was cut off."""
        return self._begun.get(key)

    async def begin(self, key: str, **facts: Any) -> None:
        """Note that a step begins; on disk when this returns."""
        self._begun[key] = facts
        await anyio.to_thread.run_sync(self._save)

    async def finish(self, key: str, **facts: Any) -> None:
        """Note that a step is done; on disk when this returns."""
        self._begun.pop(key, None)
        self._done[key] = facts
        await anyio.to_thread.run_sync(self._save)

    async def _lock(self, wait_s: float) -> int:
        path = self._folder / _LOCK
        told = False
        with anyio.move_on_after(wait_s):
            while (handle := await anyio.to_thread.run_sync(lambda: try_lock(path, shared=False))) is None:
                if not told:
                    log.info("another process installs, waiting for it", folder=str(self._folder))
                    told = True
                await anyio.sleep(_LOOK_S)
            return handle
        raise SetupFailed(f"another process has installed for {wait_s:g} s by the record in {self._folder}; look at it")

    def _load(self) -> None:
        try:
            document = json.loads((self._folder / _FILE).read_text())
            self._done = {str(key): dict(facts) for key, facts in document["done"].items()}
            self._begun = {str(key): dict(facts) for key, facts in document["begun"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            log.warning("record of the set-up not readable, every step is done again", reason=str(exc))

    def _save(self) -> None:
        part = self._folder / f".{_FILE}.{uuid.uuid4().hex}.part"
        try:
            with part.open("w") as file:
                json.dump({"version": 1, "done": self._done, "begun": self._begun}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / _FILE)
        except OSError as exc:
            part.unlink(missing_ok=True)
            raise SetupFailed(f"the record in {self._folder} cannot be written ({exc.strerror})") from exc


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

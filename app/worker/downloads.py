"""``model.download``: brings a model into the folder of its type and answers with one storage event.

Used by worker; may import app.errors, app.prepare, app.storage, schemas.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import structlog

from app.errors import ComfyUnavailable, InputRefused, InputUnavailable, InternalError, PromptError
from app.prepare.catalogue import Catalogue
from app.prepare.media import Fetch
from app.prepare.models import MODEL_ENDINGS
from app.storage.secrets import auth_secrets, public_url
from app.storage.stores import Hold, StorageTransfer
from schemas.control import ModelDownload
from schemas.credentials import Credential

__all__ = ["Downloads", "ModelPlaces"]

# Folders whose content ComfyUI executes or reads as its configuration.
_NEVER: Final = frozenset({"custom_nodes", "configs"})
# ComfyUI lists no text files among weights.
_ENDINGS: Final = MODEL_ENDINGS - {".yaml"}
_NAME: Final = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")
_AT_ONCE: Final = 2
_MOST_WAITING: Final = 100
# ComfyUI may be starting anew when the command comes.
_ASK_AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_DEADLINE_S: Final = 12 * 3600.0

log = structlog.get_logger("comfybus.downloads")


@dataclass(frozen=True)
class ModelPlaces:
    """Where models go.

    Attributes:
        catalogue: Says which folders ComfyUI has.
        shared: ComfyUI's folders are shared with this process.
        model_dir: ComfyUI's models folder as this process sees it, where that is not the path ComfyUI itself has.
    """

    catalogue: Catalogue
    shared: bool
    model_dir: Path | None

    async def folder(self, model_type: str) -> Path:
        """The directory for a type.

        Raises:
            InputRefused: The folders are not shared, or ComfyUI has no such folder.
            ComfyUnavailable: ComfyUI does not say where its folders are.
        """
        if not self.shared:
            raise InputRefused(
                "A model download needs a model folder that the worker shares with ComfyUI; set COMFY_HOME (or CMD, so "
                "that the worker starts ComfyUI itself), or install the model there."
            )
        folders = await self.catalogue.model_folders()
        paths = folders.get(model_type, [])
        if not paths or model_type in _NEVER:
            known = ", ".join(sorted(folders.keys() - _NEVER))
            raise InputRefused(f"Unknown model type {model_type[:100]!r}; ComfyUI has {known}.")
        # Some types have several places; the one of its own name is where people put files by hand.
        usual = next((path for path in paths if PurePosixPath(path).name == model_type), paths[0])
        folder = self.model_dir / PurePosixPath(usual).name if self.model_dir else Path(usual)
        if not self.model_dir and not await anyio.to_thread.run_sync(folder.is_dir):
            raise InputRefused(
                f"ComfyUI keeps {model_type!r} in {usual}, which the worker does not see; set MODEL_DIR."
            )
        return folder


@dataclass(eq=False)
class _Download:
    """One command being carried out."""

    command: ModelDownload
    token: str
    began_s: float = field(default_factory=time.monotonic)
    told: StorageTransfer | None = None


class Downloads:
    """Takes commands at once, works on two at a time, and answers each with exactly one transfer.

    What the stores say of a command's transfers is kept back and summed up in its answer: ``downloaded`` with the
    place of the model, also where the cache had the file, or ``download_failed``. So ``heard`` has to stand between
    the stores and whoever makes events of transfers.

    Args:
        tell: Told of every answer, and of all transfers that are not of commands; must not block or raise.
        on_change: Called when a model has come: ComfyUI's list is longer now.
    """

    def __init__(self, tell: Callable[[StorageTransfer], None], on_change: Callable[[], None] = lambda: None) -> None:
        self._tell = tell
        self._on_change = on_change
        self._count = itertools.count(1)
        self._under_way: dict[str, _Download] = {}
        self._waiting: deque[_Download] = deque()
        self._available = anyio.Semaphore(0)

    def heard(self, transfer: StorageTransfer) -> None:
        """Take a transfer of the stores: kept if it is of a command, else passed on."""
        download = self._under_way.get(transfer.request_id or "")
        if download is None:
            self._tell(transfer)
        else:
            download.told = transfer

    async def take(self, command: ModelDownload) -> None:
        """Take a command; returns at once. Beyond a hundred that wait it is answered as failed."""
        # No request id has a slash.
        download = _Download(command, token=f"model.download/{next(self._count)}")
        if len(self._waiting) >= _MOST_WAITING:
            busy = InputUnavailable(f"{_MOST_WAITING} downloads wait already; send the command again later.")
            self._failed(download, busy)
            return
        self._waiting.append(download)
        self._available.release()

    async def run(self, fetch: Fetch, places: ModelPlaces) -> None:
        """Carry out commands until cancelled; those that came before wait for this.

        Args:
            fetch: ``Stores.fetch``; commands are judged like requests.
            places: Where models go.
        """
        async with anyio.create_task_group() as tasks:
            for _ in range(_AT_ONCE):
                tasks.start_soon(self._work, fetch, places)

    async def _work(self, fetch: Fetch, places: ModelPlaces) -> None:
        while True:
            await self._available.acquire()
            download = self._waiting.popleft()
            download.began_s = time.monotonic()
            self._under_way[download.token] = download
            try:
                with anyio.fail_after(_DEADLINE_S):
                    await self._carry_out(download, fetch, places)
            except PromptError as exc:
                self._failed(download, exc)
            except TimeoutError:
                self._failed(download, InputUnavailable(f"The model did not come within {_DEADLINE_S / 3600:g} h."))
            except OSError as exc:
                reason = exc.strerror or type(exc).__name__
                self._failed(download, InputUnavailable(f"The model cannot be stored ({reason}); see rights and room."))
            except Exception as exc:
                log.exception("fault of ours")
                self._failed(download, InternalError(f"A fault inside Comfybus ({type(exc).__name__}: {exc})."))
            finally:
                del self._under_way[download.token]

    async def _carry_out(self, download: _Download, fetch: Fetch, places: ModelPlaces) -> None:
        command = download.command
        wanted = _checked(command.filename) if command.filename is not None else None
        folder = await _folder(places, command.model_type)
        credentials = [Credential(url_pattern="**", auth=command.auth)] if command.auth else []
        with Hold(download.token) as hold:
            fetched = await fetch(command.url, credentials, in_use=hold)
            filename = wanted or _name_of(command.url, fetched.filename)
            placed = await fetch(command.url, credentials, folder=folder, filename=filename, in_use=hold)
        places.catalogue.forget()
        log.info("model is there", model_type=command.model_type, filename=filename, size_bytes=placed.size_bytes)
        backend = download.told.backend if download.told else "cache"
        self._answer(
            download,
            StorageTransfer(
                "downloaded",
                backend,
                public_url(command.url),
                command.id,
                local_path=str(placed.path),
                size_bytes=placed.size_bytes,
                duration_s=round(time.monotonic() - download.began_s, 3),
            ),
        )
        self._on_change()

    def _failed(self, download: _Download, exc: PromptError) -> None:
        command = download.command
        sentence = str(exc)
        for secret in auth_secrets(command.auth) if command.auth else ():
            sentence = sentence.replace(secret, "***")
        failure = StorageTransfer(
            "download_failed",
            download.told.backend if download.told else "none",
            public_url(command.url),
            command.id,
            duration_s=round(time.monotonic() - download.began_s, 3),
            error=sentence,
            code=exc.code,
        )
        self._answer(download, failure)

    def _answer(self, download: _Download, transfer: StorageTransfer) -> None:
        self._tell(replace(transfer, request_id=download.command.id))


async def _folder(places: ModelPlaces, model_type: str) -> Path:
    for pause_s in _ASK_AGAIN_S:
        try:
            return await places.folder(model_type)
        except ComfyUnavailable as exc:
            log.info("ComfyUI does not say where its folders are, asking again", reason=str(exc))
            await anyio.sleep(pause_s)
    return await places.folder(model_type)


def _checked(filename: str) -> str:
    """A file name that ComfyUI lists among models.

    Raises:
        InputRefused: It is a path, or has another ending.
    """
    plain = _NAME.fullmatch(filename) is not None and not filename.startswith(".")
    if not plain or PurePosixPath(filename).suffix.lower() not in _ENDINGS:
        raise InputRefused(
            f"The file name {filename[:100]!r} cannot be used; it should be one path segment that ends in one of "
            f"{', '.join(sorted(_ENDINGS))}."
        )
    return filename


def _name_of(url: str, source_name: str | None) -> str:
    """The file's name: the URL's last part, else what its source calls it.

    Raises:
        InputRefused: Neither is the name of a model.
    """
    candidates: Sequence[str | None] = (unquote(urlsplit(url).path).rpartition("/")[2], source_name)
    for candidate in candidates:
        try:
            return _checked(candidate or "")
        except InputRefused:
            continue
    raise InputRefused("Neither the URL nor its source names a model file; give a `filename` with the command.")

"""What a prompt put out: listed in ComfyUI's order, and brought here from a shared folder or over ``/view``.

Used by app.setup, app.worker; may import schemas.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

import anyio
import anyio.to_thread
import structlog

from app.comfy.client import ComfyClient
from app.comfy.media import describe
from schemas.events import Kind

__all__ = ["LocalOutput", "OutputReader", "OutputRef", "list_outputs"]

# Lists beside the files that only say how to show them.
_BOOKKEEPING: Final = frozenset({"animated"})
_HASHES_AT_ONCE: Final = 2
_AFTER_ID: Final = re.compile(r"(?:-a\d+)?(?:-r\d+)?(?![A-Za-z0-9-])")
_PIECE_BYTES: Final = 16 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class OutputRef:
    """One output of one node, as the history lists it.

    Attributes:
        node_id: The node.
        class_type: Its class; None for a node made at run time that the graph does not have.
        kind: ``image``, ``video``, ``audio`` and ``file`` for files, ``text`` for values.
        filename: Name of the file; None for a value.
        subfolder: Where it is below the folder, as ComfyUI writes it; may be empty.
        folder: ``output``, ``temp`` or ``input``.
        media_type: Of the file, by its name.
        value: The text, number or object itself.
    """

    node_id: str
    class_type: str | None
    kind: Kind
    filename: str | None = None
    subfolder: str = ""
    folder: str = "output"
    media_type: str | None = None
    value: Any = None


@dataclass(frozen=True)
class LocalOutput:
    """An output's file on this machine.

    Attributes:
        path: Where it is.
        size_bytes: Its size.
        sha256: Lower-case hex.
        owned: Whether it lies in the caller's scratch folder and goes with it; else it is ComfyUI's own file.
    """

    path: Path
    size_bytes: int
    sha256: str
    owned: bool


def list_outputs(outputs: Mapping[str, Any], graph: Mapping[str, Any]) -> list[OutputRef]:
    """Every output of every node, temp files and subfolders included, in ComfyUI's order; pure.

    Args:
        outputs: ``outputs`` of a history entry: node id to name of a list to items.
        graph: The graph as it ran, for the class of each node.
    """
    found = []
    for node_id, lists in outputs.items():
        node = graph.get(node_id)
        class_type = node.get("class_type") if isinstance(node, dict) else None
        class_type = class_type if isinstance(class_type, str) else None
        # Custom nodes may return anything; what is no object of lists is one value.
        for name, items in lists.items() if isinstance(lists, dict) else [("", lists)]:
            if name not in _BOOKKEEPING:
                each = items if isinstance(items, list) else [items]
                found += [_output(node_id, class_type, item) for item in each if item is not None]
    return found


def _output(node_id: str, class_type: str | None, item: Any) -> OutputRef:
    filename = item.get("filename") if isinstance(item, dict) else None
    if not isinstance(filename, str) or not filename:
        return OutputRef(node_id, class_type, "text", value=item)
    kind, media_type = describe(filename)
    return OutputRef(
        node_id,
        class_type,
        kind,
        filename=filename,
        subfolder=str(item.get("subfolder") or ""),
        folder=str(item.get("type") or "output"),
        media_type=media_type,
    )


class OutputReader:
    """Brings outputs here, and cleans up what is no longer needed.

    Args:
        client: For ``/view``.
        output_dir: ComfyUI's output folder, if it is shared with us.
    """

    def __init__(self, client: ComfyClient, *, output_dir: Path | None = None) -> None:
        self._client = client
        self._output_dir = output_dir
        self._hashing = anyio.CapacityLimiter(_HASHES_AT_ONCE)

    async def fetch(self, ref: OutputRef, scratch: Path) -> LocalOutput:
        """Make an output readable here and hash it, in constant memory and off the event loop.

        Args:
            ref: A file, not a value.
            scratch: Folder of the caller for what has to be copied, made when something is; each file gets a name of
                its own.

        Raises:
            OutputMissing: ComfyUI lists the file but it is not there.
            ComfyUnavailable: It had to be asked and did not answer.
            OSError: The scratch folder took no more.
        """
        if ref.filename is None:
            raise ValueError("a value has no file")
        if ref.folder == "output" and self._output_dir is not None:
            shared = await anyio.to_thread.run_sync(_shared, self._output_dir, ref, limiter=self._hashing)
            if isinstance(shared, LocalOutput):
                return shared
            if shared is not None:
                # Where ComfyUI may read and we may not, it is asked as well.
                with suppress(OSError):
                    return await self._measure_large(shared)
        await anyio.to_thread.run_sync(lambda: scratch.mkdir(parents=True, exist_ok=True))
        ending = ref.filename.rpartition(".")[2]
        into = scratch / (f"{uuid.uuid4().hex}.{ending}" if ending.isalnum() and len(ending) < 16 else uuid.uuid4().hex)
        stored = await self._client.view(ref.filename, ref.subfolder, ref.folder, into)
        return LocalOutput(into, stored.size_bytes, stored.sha256, owned=True)

    async def measure(self, path: Path) -> LocalOutput:
        """Size and hash of a file."""
        small = await anyio.to_thread.run_sync(_whole, path, limiter=self._hashing)
        return small or await self._measure_large(path)

    async def _measure_large(self, path: Path) -> LocalOutput:
        """Piece by piece, so that a cancellation does not wait for gigabytes."""
        digest = hashlib.sha256()
        file = await anyio.to_thread.run_sync(path.open, "rb")
        try:
            while await anyio.to_thread.run_sync(_digest_piece, file, digest, limiter=self._hashing):
                pass
            return LocalOutput(path, file.tell(), digest.hexdigest(), owned=False)
        finally:
            file.close()

    async def remove(self, refs: Iterable[OutputRef], request_id: str) -> None:
        """Delete outputs from the shared output folder that are this request's own; never raises.

        Its own is a file whose name, or whose first subfolder below the output folder, begins with the request id.
        Everything else stays: temp files, files of other requests that ComfyUI answered with from its cache, and
        whatever lies outside. Subfolders of the request that became empty go too.
        """
        own = [ref for ref in refs if _is_own(ref, request_id)]
        if self._output_dir is not None and own:
            await anyio.to_thread.run_sync(_unlink_all, self._output_dir, own, request_id)


def _is_own(ref: OutputRef, request_id: str) -> bool:
    if ref.folder != "output" or ref.filename is None:
        return False
    return _carries(ref.filename, request_id) or _carries(ref.subfolder.split("/")[0], request_id)


def _carries(name: str, request_id: str) -> bool:
    """Whether a name begins with the id, and not with a longer id that begins alike.

    ``_`` is what ComfyUI adds; ``-a2`` and ``-r1`` stand for a later attempt and a replay of the same request.
    """
    return name.startswith(request_id) and _AFTER_ID.match(name, len(request_id)) is not None


def _inside(folder: Path | None, ref: OutputRef) -> Path | None:
    """The file's real path, or None when it is not a file inside the folder, symlinks resolved."""
    if folder is None or ref.filename is None:
        return None
    try:
        root = _root(folder)
        path = Path(os.path.realpath(root / ref.subfolder / ref.filename, strict=True))
    except (OSError, ValueError, RuntimeError):
        return None
    return path if path.is_relative_to(root) and path.is_file() else None


@cache
def _root(folder: Path) -> Path:
    """One of ComfyUI's few folders, symlinks resolved; asked for each file, so once. Raises while it is missing."""
    return folder.resolve(strict=True)


def _shared(folder: Path, ref: OutputRef) -> LocalOutput | Path | None:
    """A small file inside the folder measured, a large one's real path; None when it cannot be read there."""
    path = _inside(folder, ref)
    try:
        return path and (_whole(path) or path)
    except OSError:
        return None


def _whole(path: Path) -> LocalOutput | None:
    """Size and hash of a file of at most 16 MiB, in one step; None of a larger one."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        whole = _digest_piece(file, digest) is False
        return LocalOutput(path, file.tell(), digest.hexdigest(), owned=False) if whole else None


def _digest_piece(file: IO[bytes], digest: hashlib._Hash) -> bool:
    """Hash the next 16 MiB; returns whether there were any."""
    end = file.tell() + _PIECE_BYTES
    while (left := end - file.tell()) > 0 and (chunk := file.read(min(left, _READ_BYTES))):
        digest.update(chunk)
    return file.tell() == end


def _unlink_all(folder: Path, refs: Iterable[OutputRef], request_id: str) -> None:
    for ref in refs:
        try:
            _unlink(folder, ref, request_id)
        except (OSError, ValueError) as exc:
            _log.warning("output_not_removed", filename=ref.filename, subfolder=ref.subfolder, reason=str(exc))


def _unlink(folder: Path, ref: OutputRef, request_id: str) -> None:
    if (found := _inside(folder, ref)) is None:
        return
    root = _root(folder)
    # Its name may say one thing and lead elsewhere: `<id>/../other.png`.
    parts = found.relative_to(root).parts
    if not (_carries(parts[0], request_id) or _carries(parts[-1], request_id)):
        return
    path = root / ref.subfolder / str(ref.filename)
    path.unlink(missing_ok=True)
    for parent in _own_folders(root, path, request_id):
        try:
            parent.rmdir()
        except OSError:
            return  # not empty yet


def _own_folders(root: Path, path: Path, request_id: str) -> Iterator[Path]:
    """The folders of the request above a file, innermost first."""
    parts = path.parent.relative_to(root).parts
    if parts and _carries(parts[0], request_id):
        for depth in range(len(parts), 0, -1):
            yield root.joinpath(*parts[:depth])

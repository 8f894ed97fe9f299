"""What prepared inputs do on disk; every function blocks and is called in a thread.

Used by inputs, uploads; may import nothing of ours.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "PART",
    "Found",
    "copy_all",
    "file_digest",
    "link_or_copy",
    "list_digest",
    "remove",
    "rename",
    "scan",
    "size_of",
    "touch",
]

PART: Final = ".part"
_CHUNK_BYTES: Final = 1024 * 1024
# A part that old was left by a process that died: no single input takes so long to write.
_STALE_PART_S: Final = 6 * 3600.0

Found = tuple[str, int, float]
"""Name below the root, size in bytes, and when it was used last in seconds since 1970."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_digest(sources: Sequence[tuple[Path, str]]) -> str:
    """SHA-256 over the contents and endings of files in their order."""
    lines = "".join(f"{file_digest(path)}{ending}\n" for path, ending in sources)
    return hashlib.sha256(lines.encode()).hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name where the disk allows it, else copy it in pieces.

    Never a symbolic link: ComfyUI refuses those that lead out of its folders, and may not see where they lead.
    """
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as reading, target.open("xb") as writing:
            shutil.copyfileobj(reading, writing, _CHUNK_BYTES)


def copy_all(sources: Sequence[tuple[Path, str]], folder: Path) -> None:
    """Make a folder whose files sort by name in the order given."""
    folder.mkdir(parents=True)
    for index, (source, ending) in enumerate(sources):
        link_or_copy(source, folder / f"{index:05d}{ending}")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files right in a folder."""
    return sum(child.stat().st_size for child in path.iterdir()) if path.is_dir() else path.stat().st_size


def touch(path: Path, now: float) -> bool:
    """Note a use in the access time; False if there is nothing.

    The modification time stays: nodes that load videos take another one for another file and compute anew.
    """
    try:
        os.utime(path, ns=(int(now * 1e9), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def rename(part: Path, target: Path) -> None:
    """Give a whole part its name; what stands there already has the same content and may stay."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        part.replace(target)


def remove(paths: Iterable[Path], root: Path) -> None:
    """Remove files and folders, and the folders below the root that get empty by it; what is gone is no error."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent != root and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def scan(root: Path, now: float) -> list[Found]:
    """Everything prepared below the root; parts that a dead process left are removed."""
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        used_at = _used_at(path)
        if path.name.endswith(PART):
            if used_at < now - _STALE_PART_S:
                remove([path], root)
        elif path.is_dir() and not path.is_symlink():
            found += [(f"{path.name}/{inner.name}", size_of(inner), _used_at(inner)) for inner in path.iterdir()]
        else:
            found.append((path.name, path.lstat().st_size, used_at))
    return found


def _used_at(path: Path) -> float:
    status = path.lstat()
    return max(status.st_atime, status.st_mtime)

"""A process for one transfer with the Hugging Face Hub: its library can be killed, and its memory is its own.

Run by hub_process as a process of its own; may import its folder alone.

It reads one job as a line of JSON from stdin and writes lines of JSON to stdout: ``{"at": [bytes, total]}`` as bytes
move, ``{"alive": true}`` while something else does, and last ``{"done": {...}}`` or ``{"fault": {...}}``. Tokens come
by stdin only. It ends when stdin does, so that it never outlives its parent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, ClassVar, Final, Self

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HFValidationError

from app.storage.hub_reasons import HUB_REASONS

__all__ = ["main"]

_SAY_EVERY_S: Final = 0.2
_SHA256_LENGTH: Final = 64
_CHUNK_BYTES: Final = 1024 * 1024

# The library's exceptions by name, the most special first, and the Hub's code for each.
_CODES: Final = {
    "GatedRepoError": "GatedRepo",
    "DisabledRepoError": "DisabledRepo",
    "RepositoryNotFoundError": "RepoNotFound",
    "RevisionNotFoundError": "RevisionNotFound",
    "EntryNotFoundError": "EntryNotFound",
}


def main() -> None:
    """Do the job of stdin."""
    # Whatever a library prints must not get between our lines.
    voice = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    say = Bar.say = Voice(voice)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _hurry(float(job["longest_sleep_s"]))
    try:
        done = {"download": _download, "upload": _upload, "probe": _probe}[job["do"]](job, say)
    except Exception as exc:  # noqa: BLE001 - the boundary of this process: everything becomes a fault
        say.line({"fault": _fault(exc)})
    else:
        say.line({"done": done})
    voice.flush()
    # Threads of the library are not waited for.
    os._exit(0)


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.read()
    os._exit(1)


def _hurry(longest_s: float) -> None:
    """Cut the library's pauses: it would sleep for a day where a Retry-After says so. Our parent does the waiting."""
    sleep = time.sleep

    def shorter(seconds: float) -> None:
        sleep(min(seconds, longest_s))

    time.sleep = shorter  # type: ignore[assignment]  # takes what is used of it


class Voice:
    """Writes lines to the parent, from any thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last = 0.0

    def line(self, message: dict[str, Any]) -> None:
        """Write a line."""
        with self._lock:
            self._stream.write(json.dumps(message) + "\n")

    def now_and_then(self, message: dict[str, Any]) -> None:
        """Write a line unless the last one was written a moment ago."""
        if time.monotonic() - self._last >= _SAY_EVERY_S:
            self._last = time.monotonic()
            self.line(message)


def _download(job: dict[str, Any], say: Voice) -> dict[str, Any]:
    place = {key: job[key] for key in ("repo_id", "repo_type", "filename", "endpoint")}
    url = hf_hub_url(**place, revision=job["revision"])
    found = get_hf_file_metadata(url, token=job["token"], endpoint=job["endpoint"], retry_on_errors=True)
    if found.size is not None and found.size > job["limit"]:
        raise TooLarge
    folder, into = Path(job["into"] + ".hub"), Path(job["into"])
    path = hf_hub_download(
        **place,
        revision=found.commit_hash or job["revision"],
        local_dir=folder,
        token=job["token"],
        tqdm_class=Bar,
    )
    sha256, size = _digest(Path(path), say)
    expected = found.etag or ""
    wrong = len(expected) == _SHA256_LENGTH and expected != sha256
    if wrong or (found.size is not None and found.size != size):
        Path(path).unlink()
        raise Damaged
    Path(path).replace(into)
    shutil.rmtree(folder, ignore_errors=True)
    return {"size": size, "sha256": sha256}


def _upload(job: dict[str, Any], say: Voice) -> dict[str, Any]:
    api = HfApi(endpoint=job["endpoint"], token=job["token"])
    place = {key: job[key] for key in ("repo_id", "repo_type")}
    size = Path(job["path"]).stat().st_size
    commit = api.upload_file(
        path_or_fileobj=job["path"],
        path_in_repo=job["filename"],
        revision=job["revision"],
        commit_message=f"Add {job['filename']}",
        **place,
    )
    say.line({"alive": True})
    found = api.get_paths_info(paths=[job["filename"]], revision=commit.oid, **place)
    if not found or getattr(found[0], "size", None) != size:
        raise Damaged
    return {"size": size}


def _probe(job: dict[str, Any], _: Voice) -> dict[str, Any]:
    return {"name": str(HfApi(endpoint=job["endpoint"], token=job["token"]).whoami()["name"])}


class TooLarge(Exception):
    """The file is larger than allowed."""


class Damaged(Exception):
    """What arrived is not what the Hub said."""


_OURS: Final = {
    TooLarge: ("it is larger than MAX_DOWNLOAD_GB allows; raise that", False),
    Damaged: ("what arrived is not what the Hub said; try again later", True),
    HFValidationError: ("the Hub takes no such repository name; correct it", False),
}


class Bar:
    """Stands where the library wants a progress bar: shows nothing and tells the parent."""

    say: ClassVar[Voice]

    def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
        self.n = initial
        self.total = total
        self.format_dict: dict[str, object] = {}

    def update(self, n: float | None = 1) -> None:
        """Bytes of the file."""
        self.n += n or 0
        self.say.now_and_then({"at": [int(self.n), int(self.total) if self.total else None]})

    def update_transfer(self, _: float) -> None:
        """Bytes of the network, before they are put together."""
        self.say.now_and_then({"alive": True})

    def _nothing(self, *_: object, **__: object) -> None:
        """Nothing is shown."""

    refresh = close = set_postfix_str = set_transfer_postfix_str = set_description = __exit__ = _nothing

    def __enter__(self) -> Self:
        return self


def _digest(path: Path, say: Voice) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            say.now_and_then({"alive": True})
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def _fault(exc: Exception) -> dict[str, Any]:
    """What went wrong, in our words; the library's texts may hold signed URLs."""
    names = [kind.__name__ for kind in type(exc).__mro__]
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return _told("the disk is full; make room, or set LRU_CACHE_SIZE_GB below its size", passing=True)
    for kind, (reason, passing) in _OURS.items():
        if isinstance(exc, kind):
            return _told(reason, passing=passing)
    for name, code in _CODES.items():
        # Its local sister means that the Hub did not answer.
        if name in names and "LocalEntryNotFoundError" not in names:
            return _told(HUB_REASONS[code], passing=False, status=status)
    if isinstance(status, int):
        return {"status": status, "headers": _retry_after(exc)}
    return _told(f"the Hub cannot be reached or broke off ({names[0]}); try again later", passing=True)


def _told(reason: str, *, passing: bool, status: int | None = None) -> dict[str, Any]:
    return {"reason": reason, "passing": passing, "status": status}


def _retry_after(exc: Exception) -> dict[str, str]:
    headers = getattr(getattr(exc, "response", None), "headers", {})
    value = headers.get("Retry-After")
    return {"Retry-After": str(value)} if value else {}


if __name__ == "__main__":
    main()

"""Clones one revision of a Git repository that nobody vouches for: over https, bounded, with nothing of it executed.

Used by repositories, app.setup.git_refs, app.worker.inputs; may import app.errors, app.storage, schemas.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from app.errors import InputRefused, InputUnavailable
from app.storage.credentials import find_auth
from app.storage.faults import as_input
from schemas.credentials import BasicAuth, BearerAuth, Credential

__all__ = ["GitClone", "split_revision"]

_LOOK_S: Final = 2.0
_DEADLINE_S: Final = 3600.0
_POINTER: Final = b"version https://git-lfs"
_POINTER_BYTES: Final = 1024
_PASSING: Final = re.compile(r"could not resolve|timed out|connection|early EOF|HTTP 5|50[0-4]|429", re.IGNORECASE)
# How hosts write a revision behind the address of a repository.
_REVISIONS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<base>.+?)@(?P<revision>[^/@]+)",
        r"(?P<base>.+?)/-/tree/(?P<revision>[^/]+)/?",
        r"(?P<base>.+?)/-/commit/(?P<revision>[^/]+)/?",
        r"(?P<base>.+?)/tree/(?P<revision>[^/]+)/?",
        r"(?P<base>.+?)/commit/(?P<revision>[^/]+)/?",
        r"(?P<base>.+?)/releases/tag/(?P<revision>[^/]+)/?",
    )
)
# No questions, no other protocols, no hooks, no configuration of the machine, no content from a second server.
_ENVIRONMENT: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:http",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_ASKPASS": "true",
    "LC_ALL": "C",
}
_CONFIG: Final = {
    "core.hooksPath": os.devnull,
    "core.symlinks": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "submodule.recurse": "false",
    "filter.lfs.smudge": "",
    "filter.lfs.required": "false",
    "transfer.fsckObjects": "true",
}


class GitClone:
    """Clones with the ``git`` of this machine.

    Args:
        check_address: Raises ``Fault`` unless the host of a URL may be reached; asked before each clone.
        limit_bytes: A clone that grows beyond it is ended.
        proxies: HTTP_PROXY and the like, since nothing else of the environment is handed on.
    """

    def __init__(
        self,
        check_address: Callable[[str], Awaitable[None]],
        *,
        limit_bytes: int,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._check_address = check_address
        self._limit_bytes = limit_bytes
        self._proxies = dict(proxies or {})
        self._locks: dict[Path, anyio.Lock] = {}

    async def into(self, url: str, credentials: Sequence[Credential], target: Path) -> None:
        """Clone to a directory, which appears when it is whole; one that is there already is left as it is.

        Raises:
            InputRefused: There is no such repository or revision, it may not be read, it is too large, or its files
                are in Git LFS.
            InputUnavailable: It cannot be had now, or this machine has no git.
        """
        async with self._locks.setdefault(target, anyio.Lock()):
            if await anyio.to_thread.run_sync(target.is_dir):
                return
            base, revision = split_revision(url.strip())
            with as_input(base):
                await self._check_address(base)
            part = target.with_name(f".{uuid.uuid4().hex}.part")
            try:
                await anyio.to_thread.run_sync(lambda: target.parent.mkdir(parents=True, exist_ok=True))
                await self._clone(base, revision, credentials, part)
                await anyio.to_thread.run_sync(_check_files, part)
                await anyio.to_thread.run_sync(part.rename, target)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(part, ignore_errors=True))

    async def _clone(self, base: str, revision: str | None, credentials: Sequence[Credential], part: Path) -> None:
        environment = self._environment(base, credentials)
        parts = urlsplit(base)
        base = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        await self._git(["init", "--quiet", str(part)], environment, part)
        # A fetch takes a branch, a tag or a commit alike; the revision is no option even if it begins with a dash.
        reference = ["fetch", "--quiet", "--depth", "1", "--no-tags", "--end-of-options", base, revision or "HEAD"]
        await self._git(["-C", str(part), *reference], environment, part)
        await self._git(["-C", str(part), "checkout", "--quiet", "--detach", "FETCH_HEAD"], environment, part)
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(part / ".git", ignore_errors=True))

    async def _git(self, arguments: Sequence[str], environment: Mapping[str, str], part: Path) -> None:
        try:
            with anyio.fail_after(_DEADLINE_S):
                async with await anyio.open_process(
                    ["git", *arguments],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                ) as process:
                    complaint = await self._watched(process, part)
        except FileNotFoundError as exc:
            raise InputUnavailable(
                "This machine has no git; install it, or give a URL of the Hugging Face Hub."
            ) from exc
        except TimeoutError as exc:
            raise InputUnavailable(f"The repository did not come within {_DEADLINE_S:g} s.") from exc
        if complaint is not None:
            kind = InputUnavailable if _PASSING.search(complaint) else InputRefused
            raise kind(f"Git cannot fetch the repository: {complaint}.")

    async def _watched(self, process: anyio.abc.Process, part: Path) -> str | None:
        """What git complains of, or None when it succeeded; ended when the clone grows too large."""
        complaint = bytearray()

        async def listen() -> None:
            if process.stderr is not None:
                async for chunk in process.stderr:
                    # The last words count; git may say a lot before.
                    complaint.extend(chunk)
                    del complaint[:-4096]

        async def watch() -> None:
            while True:
                await anyio.sleep(_LOOK_S)
                if await anyio.to_thread.run_sync(_size, part) > self._limit_bytes:
                    complaint[:] = b"it is larger than MAX_DOWNLOAD_GB allows"
                    process.kill()
                    return

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await listen()
            code = await process.wait()
            group.cancel_scope.cancel()
        return None if code == 0 else _last_line(complaint)

    def _environment(self, base: str, credentials: Sequence[Credential]) -> dict[str, str]:
        """Variables for git. Secrets travel in them, never in arguments, which everybody on the machine can list."""
        config = dict(_CONFIG)
        parts = urlsplit(base)
        auth = find_auth(credentials, base)
        if isinstance(auth, BearerAuth):
            config["http.extraHeader"] = f"Authorization: Bearer {auth.token.get_secret_value()}"
        elif isinstance(auth, BasicAuth):
            config["http.extraHeader"] = _basic(auth.username, auth.password.get_secret_value())
        elif parts.username is not None:
            config["http.extraHeader"] = _basic(unquote(parts.username), unquote(parts.password or ""))
        numbered = enumerate(config.items())
        pairs = {
            f"GIT_CONFIG_{part}_{i}": text
            for i, pair in numbered
            for part, text in zip(("KEY", "VALUE"), pair, strict=True)
        }
        path = {"PATH": os.environ.get("PATH", os.defpath)}
        return {**path, **self._proxies, **_ENVIRONMENT, **pairs, "GIT_CONFIG_COUNT": str(len(config))}


def _basic(username: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def split_revision(url: str) -> tuple[str, str | None]:
    """The address of a repository and the branch, tag or commit that the URL names behind it, if it names one."""
    parts = urlsplit(url)
    for pattern in _REVISIONS:
        # The user info before the host has an "@" of its own.
        if found := pattern.fullmatch(parts.path):
            return parts._replace(path=found["base"], query="", fragment="").geturl(), found["revision"]
    return parts._replace(query="", fragment="").geturl(), None


def _check_files(folder: Path) -> None:
    """Refuse pointers to content that lies elsewhere."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size <= _POINTER_BYTES and path.read_bytes().startswith(_POINTER):
            raise InputRefused(
                "The repository keeps its weights in Git LFS; give the model's URL on the Hugging Face Hub, or that of "
                "a single checkpoint file."
            )


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            # Git removes its temporary files while we look.
            continue
    return total


def _last_line(text: bytearray) -> str:
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    words = lines[-1].removeprefix("fatal: ").strip() if lines else "it gave no reason"
    return re.sub(r"://[^@\s/]+@", "://", words)[:300].rstrip(".")

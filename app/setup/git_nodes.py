"""Custom nodes from Git repositories: cloned at one revision, brought to another one, and never mixed up.

Used by custom_nodes, installation; may import its folder alone.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import structlog

from app.setup.git_refs import GitSource, same_repository
from app.setup.programs import Programs, SetupFailed, step
from app.setup.record import Record

__all__ = ["GitNodes"]

# ComfyUI does not load folders that end so.
_UNFINISHED: Final = ".comfybus.disabled"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORTEST_SECRET: Final = 4
# Names that git gives to what it fetched; all branches, where a commit cannot be asked for by itself.
_EVERYTHING: Final = ("--tags", "--force")
_BRANCHES: Final = "+refs/heads/*:refs/remotes/origin/*"

log = structlog.get_logger("comfybus.setup")


class GitNodes:
    """The clones below one ``custom_nodes`` folder.

    Args:
        programs: Runs git.
        record: Of what is done.
        folder: ``custom_nodes``.
    """

    def __init__(self, programs: Programs, record: Record, folder: Path) -> None:
        self._programs = programs
        self._record = record
        self._folder = folder

    async def install(self, source: GitSource) -> Path:
        """Have the repository at the wanted reference in its folder; returns the folder.

        What the record has at this reference is left as it is, whatever its branch points to by now. What it has at
        another reference, or from another address, is brought to the wanted one; files that git does not track stay.
        A clone of this repository that somebody else made is used, and moved only if a reference is asked for and
        nothing in it was changed.

        Raises:
            SetupFailed: The folder is something else, or git does not do it.
        """
        key, target = f"node:{source.folder}", self._folder / source.folder
        wanted = {"url": source.base, "reference": source.reference}
        done, begun = self._record.done(key), self._record.begun(key)
        there = await anyio.to_thread.run_sync(target.exists)
        if there and begun is None and done is not None and wanted.items() <= done.items():
            return target
        async with step("custom node", source.folder, url=source.base, reference=source.reference):
            noted = [facts for facts in (done, begun) if facts is not None]
            ours = not there or any(facts.get("ours") for facts in noted)
            if there:
                await self._check(target, source, [source.base, *(str(facts.get("url")) for facts in noted)])
            await self._record.begin(key, **wanted, ours=ours)
            commit = None
            if not there:
                commit = await self._clone(source, target)
            elif ours:
                commit = await self._move(source, target, ["--depth", "1"], ["--force"])
            elif source.reference is not None:
                commit = await self._move(source, target, [], [])
            await self._record.finish(key, **wanted, ours=ours, commit=commit)
        return target

    async def _check(self, target: Path, source: GitSource, addresses: Sequence[str]) -> None:
        """Refuse what is in the place of the clone and comes from none of these addresses.

        Raises:
            SetupFailed: It is something else.
        """
        cure = f"remove {target}, or take {source.base} out of the manifest"
        if not await anyio.to_thread.run_sync((target / ".git").exists):
            raise SetupFailed(f"{target} exists and is no clone of a repository; {cure}")
        config = target / ".git" / "config"
        try:
            found = await self._git(["config", "--file", str(config), "--get", "remote.origin.url"], source)
        except SetupFailed:
            found = []
        origin = found[-1].strip() if found else "a place that it does not name"
        if not any(same_repository(origin, address) for address in addresses):
            raise SetupFailed(f"{target} is a clone of {origin}, not of {source.base}; {cure}")

    async def _clone(self, source: GitSource, target: Path) -> str:
        """Clone aside, so that ComfyUI never sees half a node."""
        part = target.with_name(target.name + _UNFINISHED)
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(part, ignore_errors=True))
        await anyio.to_thread.run_sync(lambda: part.mkdir(parents=True))
        try:
            await self._git(["init", "--quiet", str(part)], source)
            await self._in(part, ["remote", "add", "origin", source.base], source)
            commit = await self._bring(source, part, ["--depth", "1"])
            await self._check_out(source, part, commit, ["--force"])
            await anyio.to_thread.run_sync(part.rename, target)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(part, ignore_errors=True))
        return commit

    async def _move(self, source: GitSource, target: Path, fetch: Sequence[str], check_out: Sequence[str]) -> str:
        """Bring an existing clone to the reference."""
        await anyio.to_thread.run_sync(_remove_locks, target)
        commit = await self._bring(source, target, fetch)
        await self._check_out(source, target, commit, check_out)
        await self._in(target, ["remote", "set-url", "origin", source.base], source)
        return commit

    async def _bring(self, source: GitSource, repository: Path, how: Sequence[str]) -> str:
        """Fetch the reference; returns its commit.

        Most servers hand out a branch, a tag or a whole commit id by itself. For an abbreviated id, and where a server
        does not, all branches and tags are fetched and the id is looked up here.
        """
        fetch = ["fetch", "--quiet", "--no-tags", *how, "--end-of-options", source.base, source.reference or "HEAD"]
        try:
            await self._in(repository, fetch, source)
        except SetupFailed:
            return await self._look_up(source, repository)
        return await self._commit("FETCH_HEAD", repository, source)

    async def _look_up(self, source: GitSource, repository: Path) -> str:
        shallow = await anyio.to_thread.run_sync((repository / ".git" / "shallow").exists)
        deepen = ["--unshallow"] if shallow else []
        fetch = ["fetch", "--quiet", *_EVERYTHING, *deepen, "--end-of-options", source.base, _BRANCHES]
        await self._in(repository, fetch, source)
        reference = source.reference
        if reference is None:
            await self._in(repository, ["fetch", "--quiet", "--end-of-options", source.base, "HEAD"], source)
            return await self._commit("FETCH_HEAD", repository, source)
        for name in (f"refs/tags/{reference}", f"refs/remotes/origin/{reference}", reference):
            with suppress(SetupFailed):
                return await self._commit(name, repository, source)
        raise SetupFailed(f"{source.base} has no branch, tag or commit {reference!r}; correct it in the manifest")

    async def _commit(self, name: str, repository: Path, source: GitSource) -> str:
        ask = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
        for line in reversed(await self._in(repository, ask, source)):
            if _COMMIT.fullmatch(line.strip()):
                return line.strip()
        raise SetupFailed(f"git does not tell which commit {name} is")

    async def _check_out(self, source: GitSource, repository: Path, commit: str, how: Sequence[str]) -> None:
        await self._in(repository, ["checkout", "--quiet", "--detach", *how, commit], source)
        log.info("custom node checked out", node=source.folder, commit=commit)

    async def _in(self, repository: Path, arguments: Sequence[str], source: GitSource) -> list[str]:
        # The folder may belong to whoever built the image; what it holds is code that ComfyUI runs anyway.
        return await self._git(["-c", f"safe.directory={repository}", "-C", str(repository), *arguments], source)

    async def _git(self, arguments: Sequence[str], source: GitSource) -> list[str]:
        """Run git without questions; user and password travel in its environment, which only we can read."""
        environment = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        secrets: list[str] = []
        if source.user_info is not None:
            pair = base64.b64encode(source.user_info.encode()).decode()
            parts = urlsplit(source.base)
            environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {pair}",
            }
            secrets = [text for text in (pair, *source.user_info.split(":")) if len(text) >= _SHORTEST_SECRET]
        return await self._programs.run(["git", *arguments], environment=environment, secrets=secrets)


def _remove_locks(repository: Path) -> None:
    """Remove what a killed git left locked; nobody else works here while the record is held."""
    for path in (repository / ".git").glob("*.lock"):
        path.unlink(missing_ok=True)

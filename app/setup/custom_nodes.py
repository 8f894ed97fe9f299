"""Custom nodes of the manifest, one after the other: from the registry by its client, from repositories by git.

Used by installation; may import its folder alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from app.setup.git_nodes import GitNodes
from app.setup.git_refs import source_of
from app.setup.manifest import is_url
from app.setup.packages import Packages
from app.setup.programs import Programs, SetupFailed, step
from app.setup.record import Record

__all__ = ["CustomNodes"]


class CustomNodes:
    """Installs custom nodes and what they require.

    Args:
        programs: Runs ``comfy``.
        record: Of what is done.
        git: For repositories.
        packages: For their requirements.
        home: COMFY_HOME.
    """

    def __init__(self, programs: Programs, record: Record, git: GitNodes, packages: Packages, home: Path) -> None:
        self._programs = programs
        self._record = record
        self._git = git
        self._packages = packages
        self._home = home
        self._folder = home / "custom_nodes"

    async def install(self, nodes: Sequence[str]) -> None:
        """Install them in the order of the manifest, each with its requirements.

        Raises:
            SetupFailed: One cannot be installed; those behind it were not begun.
        """
        for node in nodes:
            if is_url(node):
                source = source_of(node)
                folders = [(await self._git.install(source)).name]
            else:
                folders = await self._from_registry(node)
            for folder in folders:
                await self._packages.requirements(self._folder / folder, folder)

    async def _from_registry(self, node: str) -> list[str]:
        """Have the registry's client install it; returns the folders that are its own.

        What a crash left of it is removed first, for the client would take half a node for a whole one.
        """
        name = node.partition("@")[0]
        key, before = f"registry:{name}", await self._listed()
        done, begun = self._record.done(key) or {}, self._record.begun(key)
        folders = [str(folder) for folder in done.get("folders", ())]
        if begun is None and done.get("node") == node and before.issuperset(folders):
            return folders
        async with step("custom node", node):
            if begun is not None:
                before -= await self._without_half(name, set(begun.get("before", before)))
            await self._record.begin(key, node=node, before=sorted(before))
            said = await self._ask(node)
            folders = sorted(await self._listed() - before) or folders or [name] * (name in before)
            if not folders and (complaint := next(filter(_is_complaint, said), None)):
                raise SetupFailed(f"{complaint.strip()} See that the name is right", said)
            await self._record.finish(key, node=node, folders=folders)
        return folders

    async def _without_half(self, name: str, before: set[str]) -> set[str]:
        """Remove the folder of a node that was not there before its installation was cut off."""
        left = {folder for folder in await self._listed() - before if _bare(folder) == _bare(name)}
        for folder in left:
            await anyio.to_thread.run_sync(shutil.rmtree, self._folder / folder)
        return left

    async def _ask(self, node: str) -> list[str]:
        """Without its dependencies: the client would resolve those of all nodes anew, PyTorch's version included."""
        place, how = ["--skip-prompt", "--workspace", str(self._home)], ["--no-deps", "--exit-on-fail"]
        command = ["comfy", *place, "node", "install", node, *how]
        return await self._programs.run(command, cwd=self._home, environment=self._packages.active)

    async def _listed(self) -> set[str]:
        return await anyio.to_thread.run_sync(_folders, self._folder)


def _folders(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir() if path.is_dir()} if parent.is_dir() else set()


def _bare(name: str) -> str:
    """What names of a node and of its repository have in common: ``comfyui-pack``, ``ComfyUI_Pack`` and ``pack``."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("comfyui").removesuffix("comfyui")


def _is_complaint(line: str) -> bool:
    """The client says so of a node that it does not know, and ends with exit code 0 all the same."""
    return line.lstrip().startswith("ERROR:")

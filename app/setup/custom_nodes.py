"""Custom nodes of the manifest, one after the other: from the registry by its client, from repositories by git."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from app.setup.git_nodes import GitNodes
from app.setup.git_refs import source_of
from app.setup.manifest import is_url
from app.setup.packages import Packages
from app.setup.programs import Programs, step
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

    async def install(self, nodes: Sequence[str]) -> None:
        """Install them in the order of the manifest, each with its requirements.

        Raises:
            SetupFailed: One cannot be installed; those behind it were not begun.
        """
        for node in nodes:
            if is_url(node):
                source = source_of(node)
                folder, name = await self._git.install(source), source.folder
            else:
                name = node.partition("@")[0]
                folder = self._home / "custom_nodes" / name
                await self._from_registry(node, folder)
            await self._packages.requirements(folder, name)

    async def _from_registry(self, node: str, folder: Path) -> None:
        """Have the registry's client install it; a half of it that a crash left is removed first."""
        key = f"registry:{node.partition('@')[0]}"
        done, begun = self._record.done(key), self._record.begun(key)
        there = await anyio.to_thread.run_sync(folder.exists)
        if done is not None and begun is None and done.get("node") == node and (there or not done.get("folder")):
            return
        async with step("custom node", node):
            if begun is not None and begun.get("fresh") and there:
                await anyio.to_thread.run_sync(shutil.rmtree, folder)
                there = False
            await self._record.begin(key, node=node, fresh=not there)
            options = ["--skip-prompt", "--workspace", str(self._home)]
            await self._programs.run(
                ["comfy", *options, "node", "install", node, "--fast-deps", "--exit-on-fail"], cwd=self._home
            )
            there = await anyio.to_thread.run_sync(folder.exists)
            await self._record.finish(key, node=node, folder=there)
            await self._packages.requirements_met(folder, node.partition("@")[0])

"""Prepared inputs that travel to ComfyUI by its upload, because its folders are not shared.

Used by prepare; may import its folder alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import anyio.to_thread

from app.prepare.holds import Hold
from app.prepare.input_files import file_digest, list_digest
from app.prepare.inputs import FOLDER

__all__ = ["Upload", "UploadedInputs"]

_REMEMBERED: Final = 10_000


class Upload(Protocol):
    """The call of ComfyUI's client that puts a file into its input folder."""

    async def upload(self, path: Path, *, subfolder: str, filename: str, overwrite: bool) -> str:
        """Send one file; returns the value for a node's input. Raises ``InputRefused`` or ``ComfyUnavailable``."""


class UploadedInputs:
    """Prepared inputs in the input folder of a ComfyUI elsewhere; equal content is sent once.

    Nothing is removed there: ComfyUI has no call for it.
    """

    def __init__(self, comfy: Upload) -> None:
        self._comfy = comfy
        self._sent: OrderedDict[str, str] = OrderedDict()

    @asynccontextmanager
    async def hold(self, hold: Hold) -> AsyncIterator[None]:  # noqa: ARG002 - nothing is removed
        """See ``Inputs.hold``."""
        yield

    async def put(self, source: Path, ending: str, hold: Hold, *, digest: str | None = None) -> str:  # noqa: ARG002
        """See ``Inputs.put``."""
        return await self._send(
            source, FOLDER, f"{digest or await anyio.to_thread.run_sync(file_digest, source)}{ending}"
        )

    async def put_directory(self, sources: Sequence[tuple[Path, str]], name: str, hold: Hold) -> str:  # noqa: ARG002
        """See ``Inputs.put_directory``."""
        folder = f"{FOLDER}/{name}/{(await anyio.to_thread.run_sync(list_digest, sources))[:16]}"
        for index, (source, ending) in enumerate(sources):
            await self._send(source, folder, f"{index:05d}{ending}")
        return folder

    def local_path(self, value: str) -> Path | None:  # noqa: ARG002 - there is none
        """See ``Inputs.local_path``."""
        return None

    def forget(self) -> None:
        """See ``Inputs.forget``."""
        self._sent.clear()

    async def _send(self, source: Path, folder: str, filename: str) -> str:
        wanted = f"{folder}/{filename}"
        if wanted not in self._sent:
            # Without leave to overwrite, equal content keeps the name, and a file that was cut off is passed by.
            self._sent[wanted] = await self._comfy.upload(source, subfolder=folder, filename=filename, overwrite=False)
        self._sent.move_to_end(wanted)
        while len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)
        return self._sent[wanted]

"""Whether ComfyUI's folders and ours are the same: proved by a file, not by a path.

Used by app.cli.doctor, app.worker.life, app.worker.worker; may import app.errors.
"""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from app.comfy.client import ComfyClient
from app.errors import OutputMissing

__all__ = ["Shared", "probe_shared"]

_PROBE_BYTES: Final = 64

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Shared:
    """Which of our folders ComfyUI uses too."""

    input: bool
    output: bool


async def probe_shared(client: ComfyClient, input_dir: Path | None, output_dir: Path | None) -> Shared:
    """Write a file of random name and content into each folder and see whether ComfyUI hands it out.

    The file is removed again. A folder that is not given, does not exist or cannot be written counts as not shared.

    Raises:
        ComfyUnavailable: ComfyUI did not answer, so there is no verdict.
    """
    return Shared(
        input=await _is_shared(client, "input", input_dir),
        output=await _is_shared(client, "output", output_dir),
    )


async def _is_shared(client: ComfyClient, folder: str, ours: Path | None) -> bool:
    if ours is None:
        return False
    content = secrets.token_bytes(_PROBE_BYTES)
    probe = ours / f"comfybus-probe-{secrets.token_hex(16)}.bin"
    try:
        await anyio.to_thread.run_sync(probe.write_bytes, content)
    except OSError as exc:
        _log.warning("folder_not_shared", folder=folder, path=str(ours), reason=str(exc))
        return False
    try:
        return await _seen_through_view(client, folder, probe.name, content)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, probe)


async def _seen_through_view(client: ComfyClient, folder: str, name: str, content: bytes) -> bool:
    with tempfile.TemporaryDirectory(prefix="comfybus-") as scratch:
        into = Path(scratch, name)
        try:
            await client.view(name, "", folder, into)
        except OutputMissing:
            _log.warning("folder_not_shared", folder=folder, reason="ComfyUI does not see a file written to it")
            return False
        return await anyio.to_thread.run_sync(into.read_bytes) == content


def _remove(probe: Path) -> None:
    try:
        probe.unlink(missing_ok=True)
    except OSError as exc:
        _log.warning("probe_not_removed", path=str(probe), reason=str(exc))

"""What a stand-in is told when it starts: where its folders are, where it listens, which ComfyUI it plays.

Used by __main__, engine, folders, graph_validation, server; may import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Version = Literal["0.3.64", "new"]

REPORTED_VERSIONS: dict[Version, str] = {"0.3.64": "0.3.64", "new": "0.38.1"}
"""The ``comfyui_version`` that GET /system_stats names for each behaviour the stand-in can play."""

MAX_UPLOAD_BYTES = 100 * 1024 * 1024
"""Largest request body taken, the default of ComfyUI; a bigger one is answered with 413."""


@dataclass(frozen=True)
class StandinConfig:
    """Settings of one stand-in server, fixed for its lifetime.

    ``home`` gets the sub-folders input, output, temp and models, as in a ComfyUI folder. As with ComfyUI's own
    options, ``input_directory`` and ``output_directory`` are used as they are and ``temp_directory`` names the
    PARENT of a folder ``temp``, which is emptied when the server starts. Port 0 takes a free port.
    With ``previews`` KSampler shows a picture at every step, as ComfyUI does when its --preview-method is set.
    ``memory_limit_bytes`` bounds one batch of images, counted as ComfyUI holds it: 12 bytes a pixel.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 0
    version: Version = "0.3.64"
    input_directory: Path | None = None
    output_directory: Path | None = None
    temp_directory: Path | None = None
    memory_limit_bytes: int = 4 * 1024**3
    previews: bool = False

    @property
    def reported_version(self) -> str:
        """The ComfyUI version number the server claims to behave like."""
        return REPORTED_VERSIONS[self.version]

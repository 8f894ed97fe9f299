"""Carries EXIF and ComfyUI's prompt and workflow from one image format into another.

Used by convert; may import nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from PIL import ExifTags, Image

__all__ = ["exif_for"]

# Where ComfyUI's SaveAnimatedWEBP puts them and where its front end finds them: "prompt:{…}" in Model, "workflow:{…}"
# in Make, further entries of extra_pnginfo in the tags below that.
_PROMPT_TAG: Final = int(ExifTags.Base.Model)
_WORKFLOW_TAG: Final = int(ExifTags.Base.Make)
_JPEG_LIMIT_BYTES: Final = 65533
_FURTHER: Final = 4


def exif_for(source: Image.Image, *, limited: bool) -> bytes:
    """EXIF with what the source has of EXIF and of ComfyUI's texts; empty if there is nothing.

    Args:
        source: An open image; orientation is left out, because pixels are turned upright.
        limited: The format takes 64 KiB at most (JPEG): if all is larger, first what is not ComfyUI's prompt is left
            out, then everything.
    """
    texts = {key: value for key, value in source.info.items() if isinstance(key, str) and isinstance(value, str)}
    for chosen in (texts, {key: texts[key] for key in ("prompt",) if key in texts}):
        exif = _exif(source, chosen, own=chosen is texts)
        if not limited or len(exif) <= _JPEG_LIMIT_BYTES:
            return exif
    return b""


def _exif(source: Image.Image, texts: dict[str, str], *, own: bool) -> bytes:
    exif = source.getexif() if own else Image.Exif()
    exif.pop(ExifTags.Base.Orientation, None)
    for tag, text in _tagged(texts):
        exif[tag] = text
    return exif.tobytes() if len(exif) else b""


def _tagged(texts: dict[str, str]) -> Iterator[tuple[int, str]]:
    others = [key for key in texts if key not in ("prompt", "workflow")][:_FURTHER]
    if "prompt" in texts:
        yield _PROMPT_TAG, f"prompt:{_ascii(texts['prompt'])}"
    if "workflow" in texts:
        yield _WORKFLOW_TAG, f"workflow:{_ascii(texts['workflow'])}"
    for below, key in enumerate(others, start=1):
        yield _WORKFLOW_TAG - below, f"{_ascii(key)}:{_ascii(texts[key])}"


def _ascii(text: str) -> str:
    """The text for a tag that holds ASCII: JSON says the same with escapes."""
    if text.isascii():
        return text
    try:
        return json.dumps(json.loads(text))
    except ValueError:
        return text.encode("ascii", "replace").decode("ascii")

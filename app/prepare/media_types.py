"""What kind of content bytes are: told by their beginning, and by what the source says only where that is silent.

Used by archives, media; may import its folder alone.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from typing import Final

import puremagic

from app.prepare.nodes import Kind

__all__ = ["DIRECTORY_ENDINGS", "HEAD_BYTES", "Unfit", "ending_for"]

HEAD_BYTES: Final = 64 * 1024
"""How much of a file's beginning is looked at."""

DIRECTORY_ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""Files that nodes find in a directory of images: ComfyUI's ``FolderOfImages.IMG_EXTENSIONS``."""

# A video node may be given an animated picture, an audio node the sound of a video.
_FAMILIES: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.IMAGE: frozenset({"image"}),
    Kind.IMAGES: frozenset({"image"}),
    Kind.VIDEO: frozenset({"video", "image", "audio"}),
    Kind.AUDIO: frozenset({"audio", "video"}),
}
_USUAL_ENDING: Final = {
    ".jfif": ".jpg",
    ".jpe": ".jpg",
    ".jpeg": ".jpg",
    ".tif": ".tiff",
    ".dib": ".bmp",
    ".vob": ".mpg",
    ".aif": ".aiff",
}


class Unfit(ValueError):
    """Content that the node cannot read; the text says what it is instead."""


def ending_for(head: bytes, kind: Kind, name: str = "", media_type: str = "") -> str:
    """The ending, with its dot, that a file of this content should have.

    Args:
        head: The first ``HEAD_BYTES`` of the content, or all of it.
        kind: What the node reads.
        name: File name the source gives, if it gives one; believed only where the content says nothing.
        media_type: Media type the source gives, likewise.

    Raises:
        Unfit: The content is empty, or it is something else, or nothing says what it is.
    """
    if not head:
        raise Unfit("it is empty")
    declared = media_type or mimetypes.guess_type(name, strict=False)[0] or ""
    if kind is Kind.FILE:
        found = _recognised(head)
        return _suffix(name) or (found[0][0] if found else "") or mimetypes.guess_extension(declared) or ".bin"
    wanted = _FAMILIES[kind]
    found = _recognised(head)
    for ending, family in found:
        if family.partition("/")[0] in wanted:
            return ending
    # Findings without a media type are a few bytes that some rare format has too.
    if other := next((media_type for _, media_type in found if media_type), None):
        raise Unfit(f"it is {other}, not {_wanted(kind)}")
    if declared.partition("/")[0] in wanted:
        return _suffix(name) or mimetypes.guess_extension(declared) or ""
    raise Unfit(f"its content is not recognised as {_wanted(kind)}")


def _recognised(head: bytes) -> list[tuple[str, str]]:
    """Ending and media type of the surest findings."""
    try:
        matches = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return []
    surest = max((match.confidence for match in matches), default=0.0)
    return [
        (_USUAL_ENDING.get(match.extension, match.extension), match.mime_type)
        for match in matches
        if match.confidence == surest
    ]


def _suffix(name: str) -> str:
    """The ending of a name if it is a plain one."""
    _, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and ending.isascii() and ending.isalnum() and len(ending) <= 12 else ""


def _wanted(kind: Kind) -> str:
    return {Kind.VIDEO: "a video", Kind.AUDIO: "audio"}.get(kind, "an image")

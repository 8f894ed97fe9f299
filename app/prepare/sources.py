"""Reads the text of a media input: a URL, a data URL, a file of the input folder, a local path, or base64.

Used by jobs, media, prepare, workflow_inputs; may import nothing of ours.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = [
    "Content",
    "LocalFile",
    "Named",
    "NotASource",
    "Outside",
    "Places",
    "Source",
    "Url",
    "is_url",
    "read_source",
    "unwrap",
]

# Those of OUTPUT_STORE too: outputs of one prompt may be inputs of the next. What may be read there, the stores say.
_URL: Final = re.compile(r"(https?|s3|hf|nats|file)://", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s+")
_ANNOTATIONS: Final = (" [input]", " [output]", " [temp]")
_LONGEST_NAME: Final = 4096
# Shorter than any picture, sound or film; longer words are rarely base64 by chance and whole media never.
_SHORTEST_CONTENT_BYTES: Final = 24


@dataclass(frozen=True)
class Url:
    """Content to fetch."""

    url: str


@dataclass(frozen=True)
class Content:
    """Content that came in the request itself, with the media type it claims, if it claims one."""

    data: bytes
    media_type: str = ""
    certain: bool = True
    """False for bare base64, which is base64 only if its content is media."""


@dataclass(frozen=True)
class Named:
    """A file or directory in one of ComfyUI's own folders.

    Attributes:
        value: What a node takes for it.
        path: Where it is; None where that folder is not seen from here, so that only ComfyUI knows whether it is there.
    """

    value: str
    path: Path | None


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine that lies outside the input folder."""

    path: Path


Source = Url | Content | Named | LocalFile


class NotASource(ValueError):
    """The text is none of these; the text of the exception says what is wrong."""


class Outside(NotASource):
    """The text names a path outside the input folder, and that is not allowed."""


def is_url(text: str) -> bool:
    """Whether the text is a URL that inputs may have; schemes in any case, blanks around it do not matter."""
    return bool(_URL.match(text.strip()))


def unwrap(value: object) -> object:
    """The value as ComfyUI sees it: an object ``{"__value__": x}`` stands for x."""
    return value["__value__"] if isinstance(value, Mapping) and "__value__" in value else value


@dataclass(frozen=True)
class Places:
    """Where names are looked up.

    Attributes:
        input_dir: ComfyUI's input folder, if it is shared.
        output_dir: ComfyUI's output folder likewise, for names that end in ``[output]``.
        local_paths: Paths outside these folders are allowed.
    """

    input_dir: Path | None = None
    output_dir: Path | None = None
    local_paths: bool = False


def read_source(text: str, places: Places, *, directory: bool = False) -> Source:
    """Tell what a text stands for; looks at the disk, so call it in a thread.

    A file of the input folder goes before base64, and both before a path: a JPEG in base64 begins with ``/9j/``.

    Args:
        text: The value of the input.
        places: Where names are looked up.
        directory: A name means a directory, not a file.

    Raises:
        Outside: A path outside that is not allowed.
        NotASource: Neither content nor the name of anything that is there.
    """
    # Nodes strip blanks and quotes from paths, so what is judged here has none either.
    bare = text.strip()
    if is_url(bare):
        return Url(bare)
    if bare[:5].lower() == "data:":
        return _data_url(bare)
    name = bare.strip('"').strip()
    can_be_name = 0 < len(name) <= _LONGEST_NAME and "\0" not in name
    named = _named(name, places) if can_be_name else None
    if named is not None and named.path is not None and _is_there(named.path, directory=directory):
        return named
    content = _base64(bare)
    if content is not None and len(content) >= _SHORTEST_CONTENT_BYTES:
        return Content(content, certain=False)
    if can_be_name and named is None:
        return _local(name, directory=directory, allowed=places.local_paths)
    if named is not None and named.path is None:
        return named
    what = "directory" if directory else "file"
    raise NotASource(f"there is no such {what} in ComfyUI's folder, and it is no URL, data URL or base64 either")


def _data_url(text: str) -> Content:
    head, comma, body = text[5:].partition(",")
    if not comma:
        raise NotASource("the data URL has no comma before its content")
    media_type, *parameters = (part.strip().lower() for part in head.split(";"))
    if "base64" not in parameters:
        return Content(unquote_to_bytes(body), media_type)
    content = _base64(unquote_to_bytes(body).decode("ascii", "replace") if "%" in body else body)
    if content is None:
        raise NotASource("the content of the data URL is not valid base64")
    return Content(content, media_type)


def _base64(text: str) -> bytes | None:
    """The bytes, if the text is base64 in the usual or the URL alphabet, with or without padding and line breaks."""
    try:
        packed = _SPACE.sub("", text).encode("ascii").rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        return binascii.a2b_base64(packed + b"=" * (-len(packed) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return None


def _named(name: str, places: Places) -> Named | None:
    """The name as one in ComfyUI's folders, whether it is there or not; None if it leads out of them."""
    annotation = next((ending for ending in _ANNOTATIONS if name.endswith(ending)), "")
    relative = name.removesuffix(annotation)
    base = {" [output]": places.output_dir, " [temp]": None}.get(annotation, places.input_dir)
    if base is not None:
        # os.path, since Path keeps "..": an absolute path into the folder and "a/../b" are names in it too.
        root = os.path.abspath(base)  # noqa: PTH100
        relative = os.path.relpath(os.path.join(root, relative), root)  # noqa: PTH118
    if _leads_out(relative):
        return None
    return Named(f"{relative}{annotation}", base / relative if base is not None else None)


def _leads_out(relative: str) -> bool:
    parts = re.split(r"[\\/]", os.path.normpath(relative))
    return relative.startswith(("/", "\\", "~")) or ".." in parts or bool(re.match(r"[A-Za-z]:", relative))


def _is_there(path: Path, *, directory: bool) -> bool:
    try:
        return path.is_dir() if directory else path.is_file()
    except (OSError, ValueError):
        return False


def _local(name: str, *, directory: bool, allowed: bool) -> LocalFile:
    path = Path(name)
    if not allowed:
        raise Outside(
            "it is a path outside ComfyUI's input folder; send the content or a URL, put the file into the input "
            "folder, or let the operator set ALLOW_LOCAL_PATHS"
        )
    if not _is_there(path, directory=directory):
        raise NotASource("there is no such file on the worker's machine")
    return LocalFile(path)

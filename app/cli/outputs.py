"""Outputs of a ``prompt.complete`` event to files of a folder.

Used by submit, app.cli.demo.story; may import its folder alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from app.cli.outcome import CommandFailed

__all__ = ["Fetch", "plain_name", "save_outputs"]

Fetch = Callable[[str, Path], Awaitable[None]]
"""Writes the object at a ``nats://`` URL to a path."""

NAME_LIMIT = 200
_NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f:*?\"<>|]")


async def save_outputs(event: Mapping[str, Any], folder: Path, fetch: Fetch) -> list[str]:
    """Save every file of the event and return where each is.

    That is a path, or the file's URL when it lies in the caller's own target or on another machine. Names are taken as
    plain names of this folder. A file of the same name with other content stays: the new one gets a number. What is
    saved is compared with the event's SHA-256.

    Raises:
        CommandFailed: An inline image is no base64, or a file is not what the event says.
        BrokerError: An object cannot be fetched.
        OSError: The folder cannot be written.
    """
    images: list[str] = event.get("images") or []
    names: list[str] = event.get("filenames") or []
    hashes = {
        output["image"]: output["sha256"]
        for output in event.get("outputs") or []
        if output.get("image") is not None and output.get("sha256")
    }
    if images:
        await anyio.to_thread.run_sync(lambda: folder.mkdir(parents=True, exist_ok=True))
    saved = []
    for index, image in enumerate(images):
        name = plain_name(names[index] if index < len(names) else "", index)
        saved.append(await _save(image, name, folder, hashes.get(index), fetch))
    return saved


def plain_name(filename: str, index: int) -> str:
    """The last part of a name, without what a file system may take for more than a name."""
    last = re.split(r"[/\\]", filename)[-1]
    name = _NOT_IN_A_NAME.sub("_", last).strip(" ")
    if name.strip(".") == "":
        return f"output-{index}"
    stem, dot, ending = name.rpartition(".")
    return name if len(name) <= NAME_LIMIT else f"{(stem or ending)[: NAME_LIMIT - 20]}{dot}{ending[:19]}"


async def _save(image: str, name: str, folder: Path, sha256: str | None, fetch: Fetch) -> str:
    scheme = urlsplit(image[:4096]).scheme if "://" in image[:64] else ""
    if scheme not in ("", "nats", "file"):
        return image
    local = Path(unquote(urlsplit(image).path)) if scheme == "file" else None
    if local is not None and not await anyio.Path(local).exists():
        return image  # on the worker's machine, which is not this one
    with tempfile.TemporaryDirectory(prefix=".comfybus-", dir=folder) as scratch:
        part = Path(scratch, "part")
        if scheme == "nats":
            await fetch(image, part)
        elif local is not None:
            await anyio.to_thread.run_sync(shutil.copyfile, local, part)
        else:
            await anyio.to_thread.run_sync(part.write_bytes, _decoded(image, name))
        return str(await anyio.to_thread.run_sync(_keep, part, folder, name, sha256))


def _decoded(image: str, name: str) -> bytes:
    try:
        return base64.b64decode(image.encode(), validate=True)
    except binascii.Error as exc:
        raise CommandFailed(f"the event holds {name} neither as base64 nor as a URL; submit the request again") from exc


def _keep(part: Path, folder: Path, name: str, sha256: str | None) -> Path:
    """Move a file to its place, or to the next free one when another stands there."""
    found = _sha256(part)
    if sha256 and found != sha256:
        raise CommandFailed(f"{name} is not what the worker stored (its SHA-256 differs); fetch it again")
    stem, dot, ending = name.rpartition(".")
    for number in range(1, 10_000):
        numbered = name if number == 1 else f"{stem}-{number}{dot}{ending}" if stem else f"{name}-{number}"
        place = folder / numbered
        try:
            with part.open("rb") as source, place.open("xb") as target:
                shutil.copyfileobj(source, target)
        except FileExistsError:
            if place.is_file() and _sha256(place) == found:
                return place
        else:
            return place
    raise CommandFailed(f"{folder} holds 10 000 files called {name}; choose another folder with --out")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

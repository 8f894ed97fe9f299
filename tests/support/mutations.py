"""Graphs and inputs made by chance: content of every kind, broken or whole, in every input of every node."""

from __future__ import annotations

import base64
import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

from PIL import Image

from app.prepare.nodes import NODES

__all__ = ["mutated", "value"]

# The first bytes are what tells.
MP4 = bytes.fromhex("00000020667479706d703432000000006d70343269736f6d") + bytes(64)
FLAC = b"fLaC\x00\x00\x00\x22\x10\x00\x10\x00" + bytes(64)
HOST = "https://host"
CLASSES = [*NODES, "SaveImage", "KSampler", "NobodyKnows", "MyImage", "MyLoader"]
SOURCES = ["good.png", "bad.png", "frames.zip", "m.safetensors", "gone", "%00", ".."]
FIELDS = [
    "image",
    "mask",
    "file",
    "video",
    "audio",
    "directory",
    "filename_prefix",
    "ckpt_name",
    "lora_name",
    "picture",
]


def picture(kind: str, color: str = "red") -> bytes:
    """A small picture in a format of Pillow."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(out, kind)
    return out.getvalue()


def png(color: str = "red") -> bytes:
    return picture("PNG", color)


def zipped(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """With gzip."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def broken(chance: random.Random, content: bytes) -> bytes:
    """Content with some bytes changed, cut off or doubled."""
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed[: chance.randrange(1, len(changed))] if chance.random() < 0.3 else changed)


def text(chance: random.Random, host: str) -> str:
    """A text for an input: content, a URL, a path or rubbish."""
    archive = {"a.png": png(), "../x.png": png()} if chance.random() < 0.3 else {"a.png": png(), "b/c.jpg": png("blue")}
    content = chance.choice(
        [png(), picture("JPEG"), picture("GIF"), MP4, FLAC, zipped(archive), tarred(archive), b"<html></html>"]
    )
    content = broken(chance, content) if chance.random() < 0.6 else content
    return chance.choice(
        [
            b64(content),
            f"data:image/png;base64,{b64(content)}",
            f"data:{chance.choice(['', ',', ';', 'a/b;c'])}{b64(content)}",
            b64(content)[chance.randrange(9) :],
            f"{host}/{chance.choice(SOURCES)}",
            chance.choice(["/etc/passwd", "../../secret", "sub/../../secret", "~root/x", "C:\\x", "\\\\h\\x", "a\0b"]),
            "".join(chance.choice("aZ09+/=._-:[] \"'\\\n\t\0é😀%") for _ in range(chance.randrange(200))),
            chance.choice(["mine.png", "mine.png [input]", "x [output]", ".", "..", "", "comfybus", "NUL", "x" * 5000]),
        ]
    )


def value(chance: random.Random, host: str = HOST, depth: int = 0) -> Any:
    """Any JSON value, most often a text."""
    kind = chance.randrange(12)
    if kind == 0 and depth < 3:
        return [value(chance, host, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 1 and depth < 3:
        return {chance.choice(["__value__", "a", ""]): value(chance, host, depth + 1)}
    if kind == 2:
        return chance.choice([None, True, 0, -1, 1.5, 10**30, ["1", 0], ["1", 0.5], [0, "1"]])
    return text(chance, host)


def mutated(chance: random.Random, host: str = HOST) -> dict[str, Any]:
    """A graph of a few nodes with the inputs they have and some they have not; URLs begin with ``host``."""
    graph = {}
    for number in range(chance.randrange(1, 5)):
        class_type = chance.choice(CLASSES)
        names = [*NODES.get(class_type, ()), *chance.sample(FIELDS, 2)]
        inputs = {chance.choice(names): value(chance, host) for _ in range(chance.randrange(1, 4))}
        graph[chance.choice([str(number), f"{number}:{number}", "../..", "a.b", ""])] = {
            "class_type": class_type,
            "inputs": inputs,
        }
    return graph

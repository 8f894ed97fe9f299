"""Images of every kind that outputs may be, and what becomes of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import anyio
from PIL import Image, ImageCms, PngImagePlugin

from app.images import Converter
from schemas.prompt import ConvertOutput

SIZE = (96, 64)


def gradient(mode: str = "RGB") -> Image.Image:
    """Smooth colours with some detail, so that quality shows."""
    width, height = SIZE
    image = Image.new("RGB", SIZE)
    image.putdata(
        [
            (x * 255 // width, y * 255 // height, (x * 2 + y * 3) * 255 // (2 * width + 3 * height))
            for y in range(height)
            for x in range(width)
        ]
    )
    return image.convert(mode)


def with_alpha() -> Image.Image:
    """The gradient, whose left half cannot be seen."""
    image = gradient("RGBA")
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(0, (0, 0, SIZE[0] // 2, SIZE[1]))
    image.putalpha(alpha)
    return image


def deep_grey() -> Image.Image:
    """Grey of 16 bit from black to white."""
    width, height = SIZE
    values = [x * 65535 // (width - 1) for _ in range(height) for x in range(width)]
    return Image.frombytes("I;16", SIZE, struct.pack(f"<{len(values)}H", *values))


def frames(count: int, mode: str = "RGB") -> list[Image.Image]:
    """Pictures of different colours."""
    return [Image.new("RGB", SIZE, (number * 255 // count, 80, 0)).convert(mode) for number in range(count)]


def profile(name: Any = "sRGB") -> bytes:
    """A colour profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def texts(**entries: str) -> PngImagePlugin.PngInfo:
    """Text chunks as ComfyUI's SaveImage writes them."""
    info = PngImagePlugin.PngInfo()
    for key, text in entries.items():
        info.add_text(key, text)
    return info


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size it has no pixels for."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def folder_for(path: Path, kind: str, options: Any) -> Path:
    """A folder of its own for one conversion of a file."""
    into = path.parent / f"into-{kind}-{abs(hash(str(options)))}"
    into.mkdir(exist_ok=True)
    return into


def files_below(folder: Path) -> set[Path]:
    """All files, however deep."""
    return {path for path in folder.rglob("*") if path.is_file()}


async def converted(path: Path, kind: Any, **options: Any) -> Path | None:
    """The converted file; the one it is from must not change."""
    before = await anyio.Path(path).read_bytes()
    wanted = ConvertOutput(format=kind, options=options)
    made = await Converter().convert(path, wanted, folder_for(path, kind, options))
    assert await anyio.Path(path).read_bytes() == before
    return made


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures' values, 0 to 255."""
    first, second = one.convert("RGB").tobytes(), other.convert("RGB").tobytes()
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)

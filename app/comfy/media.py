"""What a file is, by the end of its name.

Used by outputs; may import schemas.
"""

from __future__ import annotations

import mimetypes
from typing import Final

from schemas.events import Kind

__all__ = ["describe"]

# What the standard library does not know, or knows only on machines with a mime.types file.
_MORE_TYPES: Final = {
    "aac": "audio/aac",
    "avif": "image/avif",
    "bin": "application/octet-stream",
    "bmp": "image/bmp",
    "ckpt": "application/octet-stream",
    "exr": "image/x-exr",
    "fbx": "application/octet-stream",
    "flac": "audio/flac",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "gif": "image/gif",
    "gguf": "application/octet-stream",
    "hdr": "image/vnd.radiance",
    "heic": "image/heic",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jxl": "image/jxl",
    "ksplat": "application/octet-stream",
    "latent": "application/octet-stream",
    "m4a": "audio/mp4",
    "m4v": "video/x-m4v",
    "md": "text/markdown",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "npy": "application/octet-stream",
    "npz": "application/zip",
    "obj": "model/obj",
    "ogg": "audio/ogg",
    "ogv": "video/ogg",
    "opus": "audio/ogg",
    "ply": "application/octet-stream",
    "png": "image/png",
    "safetensors": "application/octet-stream",
    "spz": "application/octet-stream",
    "splat": "application/octet-stream",
    "srt": "application/x-subrip",
    "stl": "model/stl",
    "svg": "image/svg+xml",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "ts": "video/mp2t",
    "txt": "text/plain",
    "usdz": "model/vnd.usdz+zip",
    "vtt": "text/vtt",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "zip": "application/zip",
}
_UNKNOWN: Final = "application/octet-stream"


def describe(filename: str) -> tuple[Kind, str]:
    """Kind and media type of a file; a saved text is a ``file``, since ``text`` means a value in the event itself."""
    ending = filename.rpartition(".")[2].lower() if "." in filename else ""
    media_type = _MORE_TYPES.get(ending)
    if media_type is None:
        guessed, encoding = mimetypes.guess_type(filename)
        # The type of `x.tar.gz` is that of what is inside.
        media_type = guessed if guessed and not encoding else _UNKNOWN
    match media_type.partition("/")[0]:
        case "image":
            return "image", media_type
        case "video":
            return "video", media_type
        case "audio":
            return "audio", media_type
        case _:
            return "file", media_type

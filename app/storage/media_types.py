"""File endings and media types, both ways, as the ComfyUI API world uses them.

Used by most of its folder, app.worker; may import nothing of ours.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

__all__ = ["ending_for", "ending_of_name", "ending_of_url", "media_type_for", "safe_filename"]

# comfyui-api's list, and formats that have come since.
_TYPES: Final = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "heic": "image/heic",
    "svg": "image/svg+xml",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "tif": "image/tiff",
    "ico": "image/x-icon",
    "exr": "image/x-exr",
    "mp4": "video/mp4",
    "m4v": "video/x-m4v",
    "mpeg": "video/mpeg",
    "webm": "video/webm",
    "mov": "video/quicktime",
    "avi": "video/x-msvideo",
    "mkv": "video/x-matroska",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
    "weba": "audio/webm",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "pdf": "application/pdf",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "txt": "text/plain",
    "csv": "text/csv",
    "html": "text/html",
    "css": "text/css",
    "js": "application/javascript",
    "json": "application/json",
    "xml": "application/xml",
    "rtf": "application/rtf",
    "zip": "application/zip",
    "tar": "application/x-tar",
    "gz": "application/gzip",
    "7z": "application/x-7z-compressed",
    "rar": "application/vnd.rar",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "obj": "model/obj",
    "pt": "application/x-pytorch",
    "pb": "application/x-tensorflow",
    "bin": "application/octet-stream",
}
_DEFAULT: Final = "application/octet-stream"
_ENDINGS: Final = {
    "text/xml": "xml",
    "text/javascript": "js",
    "image/vnd.microsoft.icon": "ico",
    "audio/x-wav": "wav",
    "application/x-zip-compressed": "zip",
    **{media_type: ending for ending, media_type in reversed(_TYPES.items())},
}
_ENDING: Final = re.compile(r"\.[A-Za-z0-9]{1,15}")
# Control characters, separators of any system, and what Windows refuses.
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\u202a-\u202e\u2066-\u2069]')
_LONGEST_NAME_BYTES: Final = 200


def media_type_for(filename: str) -> str:
    """The type that a file name's ending stands for; ``application/octet-stream`` if none."""
    return _TYPES.get(filename.rpartition(".")[2].lower(), _DEFAULT) if "." in filename else _DEFAULT


def ending_for(media_type: str | None) -> str:
    """The ending for a media type, with its dot; empty if it says nothing."""
    ending = _ENDINGS.get((media_type or "").partition(";")[0].strip().lower())
    return f".{ending}" if ending else ""


def ending_of_name(filename: str | None) -> str:
    """A file name's ending with its dot: at most 15 letters and digits, not digits alone (``v1.5`` has none)."""
    stem, dot, ending = (filename or "").rpartition(".")
    found = f"{dot}{ending}"
    return found if stem and _ENDING.fullmatch(found) and not ending.isdigit() else ""


def ending_of_url(url: str) -> str:
    """The ending of a URL's path."""
    rest = url.partition("://")[2]
    verbatim = url.partition("://")[0].lower() in ("s3", "nats")
    path = rest if verbatim else unquote(re.split(r"[?#]", rest, maxsplit=1)[0])
    _, slash, after = path.partition("/")
    return ending_of_name(after.rpartition("/")[2]) if slash else ""


def safe_filename(name: str | None) -> str | None:
    """A foreign name as one harmless path segment: its last part, without control characters; None if nothing is left.

    At most 200 bytes, its ending kept.
    """
    last = re.split(r"[/\\]", name or "")[-1]
    cleaned = _UNSAFE.sub("_", last).strip(" .")
    if not cleaned:
        return None
    encoded = cleaned.encode(errors="replace")
    if len(encoded) > _LONGEST_NAME_BYTES:
        ending = ending_of_name(cleaned)
        encoded = encoded[: _LONGEST_NAME_BYTES - len(ending)] + ending.encode()
    return encoded.decode(errors="ignore")

"""Makes the files that recorded uploads carried: a recording tells only their names and sizes."""

from __future__ import annotations

import io
import re

import aiohttp
from PIL import Image

_FILE = re.compile(r"^(?P<name>.+) \((?P<size>\d+) bytes\)$")


def form_data(form: dict[str, str], upload_name: str) -> aiohttp.FormData:
    """Return a multipart body; the same name and size always give the same content, other sizes another one."""
    content = aiohttp.FormData()
    for field, value in form.items():
        described = _FILE.match(value)
        if described is None:
            content.add_field(field, value)
        else:
            name = described["name"].replace("up-name", upload_name)
            content.add_field(field, _content(name, int(described["size"])), filename=name)
    return content


def _content(name: str, size: int) -> bytes:
    if not name.startswith("up_"):
        return b"this is no image." * (size // 17)
    target = io.BytesIO()
    Image.new("RGB", (48, 32), (size, size // 2, 255 - size)).save(target, format="PNG")
    return target.getvalue()

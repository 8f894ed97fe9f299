"""Routes that hand files out and take uploads.

Used by server; may import its folder alone.
"""

from __future__ import annotations

import asyncio
import io
import json
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.comfy.standin.engine import ENGINE
from app.comfy.standin.folders import Folders

routes = web.RouteTableDef()

_NEVER_SHOWN = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
mimetypes.add_type("image/webp", ".webp")


@routes.get("/view")
async def view(request: web.Request) -> web.StreamResponse:
    """Answer a file, or a converted copy when the query has ``preview`` or ``channel``."""
    query = request.rel_url.query
    if "filename" not in query:
        return web.Response(status=404)
    found = locate(request.app[ENGINE].folders, query)
    if isinstance(found, int):
        return web.Response(status=found)
    headers = {"Content-Disposition": f'filename="{found.name}"'}
    channel = query.get("channel", "rgba")
    if "preview" in query:
        body, kind = await asyncio.to_thread(_preview, found, query["preview"], query.get("channel", ""))
        return web.Response(body=body, content_type=kind, headers=headers)
    if channel in ("rgb", "a"):
        body = await asyncio.to_thread(_channel, found, channel)
        return web.Response(body=body, content_type="image/png", headers=headers)
    kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
    if kind in _NEVER_SHOWN:
        kind = "application/octet-stream"
    return web.FileResponse(found, headers={**headers, "Content-Type": kind})


def locate(folders: Folders, reference: Mapping[str, str]) -> Path | int:
    """Find the file named by ``filename``, ``type`` and ``subfolder``, or the status that refuses it.

    400 for a name or type that is not allowed, 403 for a sub-folder that leads out, 404 for no such file.
    """
    name, folder = folders.split_annotation(reference["filename"])
    if not name or name[0] == "/" or ".." in name:
        return 400
    folder = folder or folders.by_type(reference.get("type", "output"))
    if folder is None:
        return 400
    if "subfolder" in reference:
        inner = os.path.join(folder, reference["subfolder"])  # noqa: PTH118 - an absolute sub-folder must be seen
        if os.path.commonpath((os.path.abspath(inner), folder)) != str(folder):  # noqa: PTH100
            return 403
        folder = Path(inner)
    path = folder / Path(name).name
    return path if path.is_file() else 404


@routes.post("/upload/image")
async def upload_image(request: web.Request) -> web.Response:
    """Store an uploaded file."""
    return await _upload(request, masked=False)


@routes.post("/upload/mask")
async def upload_mask(request: web.Request) -> web.Response:
    """Store the picture that ``original_ref`` names with the transparency of the uploaded one."""
    return await _upload(request, masked=True)


async def _upload(request: web.Request, *, masked: bool) -> web.Response:
    """Store an upload below input, or the folder its field ``type`` names, and answer what it is called there.

    A name that is taken gets " (1)", " (2)" and so on, unless the content is the same or ``overwrite`` is set.
    """
    folders = request.app[ENGINE].folders
    form = await request.post()
    kind = str(form.get("type", "input"))
    base = {"input": folders.input, "temp": folders.temp, "output": folders.output}[kind]
    upload = form.get("image")
    if not upload:
        return web.Response(status=400)
    if not isinstance(upload, FileField):
        raise TypeError("the field image is not a file")
    subfolder = str(form.get("subfolder", ""))
    target = _target(base, subfolder, upload.filename)
    if target is None:
        return web.Response(status=400)
    overwrite = form.get("overwrite") in ("true", "1")
    content = upload.file.read()
    if masked:
        reference = json.loads(str(form["original_ref"]))
        original = locate(folders, reference)
        content = await asyncio.to_thread(_with_mask, original, content) if isinstance(original, Path) else b""
    name = await asyncio.to_thread(_store, target, content, overwrite=overwrite)
    return web.json_response({"name": name, "subfolder": subfolder, "type": kind})


def _target(base: Path, subfolder: str, name: str) -> Path | None:
    """Return where an upload goes, None when that is outside ``base``."""
    folder = os.path.join(base, os.path.normpath(subfolder))  # noqa: PTH118 - an absolute sub-folder must be seen
    target = os.path.abspath(os.path.join(folder, name))  # noqa: PTH100, PTH118
    return Path(target) if name and os.path.commonpath((base, target)) == str(base) else None


def _store(target: Path, content: bytes, *, overwrite: bool) -> str:
    """Write ``content``, nothing when it is empty or there already, and return the name it has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stem, ending = target.stem, target.suffix
    count = 1
    while not overwrite and target.exists():
        if target.read_bytes() == content:
            return target.name
        target = target.with_name(f"{stem} ({count}){ending}")
        count += 1
    if content:
        target.write_bytes(content)
    return target.name


def _with_mask(original: Path, mask: bytes) -> bytes:
    """Return the original as PNG, its texts kept, with the alpha channel of ``mask``."""
    with Image.open(original) as picture:
        texts = PngInfo()
        for key, value in getattr(picture, "text", {}).items():
            texts.add_text(key, value)
        merged = picture.convert("RGBA")
    with Image.open(io.BytesIO(mask)) as drawn:
        merged.putalpha(drawn.convert("RGBA").getchannel("A"))
    target = io.BytesIO()
    merged.save(target, format="PNG", compress_level=4, pnginfo=texts)
    return target.getvalue()


def _preview(path: Path, wish: str, channel: str) -> tuple[bytes, str]:
    """Return a picture in the form ``format;quality``, webp unless jpeg is asked for, and its content type."""
    parts = wish.split(";")
    encoding = parts[0] if parts[0] in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(parts[-1]) if parts[-1].isdigit() else 90
    target = io.BytesIO()
    with Image.open(path) as picture:
        shown = picture.convert("RGB") if encoding == "jpeg" or channel == "rgb" else picture
        shown.save(target, format=encoding, quality=quality)
    return target.getvalue(), f"image/{encoding}"


def _channel(path: Path, channel: str) -> bytes:
    """Return a picture without its transparency, or a transparent picture that has nothing else."""
    target = io.BytesIO()
    with Image.open(path) as picture:
        if channel == "rgb":
            picture.convert("RGB").save(target, format="PNG")
        else:
            alpha = picture.getchannel("A") if picture.mode == "RGBA" else Image.new("L", picture.size, 255)
            empty = Image.new("RGBA", picture.size)
            empty.putalpha(alpha)
            empty.save(target, format="PNG")
    return target.getvalue()

"""Routes that tell about the server: its page, its state, its node classes, its models, and its websocket.

Used by server; may import its folder alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aiohttp import web

from app.comfy.standin.catalogue import NODE_CLASSES, describe
from app.comfy.standin.engine import ENGINE
from app.comfy.standin.folders import MODEL_FOLDERS
from app.comfy.standin.wire import SERVER_FEATURES

routes = web.RouteTableDef()

NOTICE = "comfybus stand-in: not ComfyUI. It speaks the protocol and runs a few nodes with Pillow, for tests and demos."
"""What the stand-in says of itself."""

_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>comfybus stand-in (not ComfyUI)</title></head>
<body><h1>This is a stand-in, not ComfyUI</h1><p>{NOTICE}</p>
<p>See <a href="object_info">object_info</a>, <a href="system_stats">system_stats</a>, <a href="queue">queue</a>,
<a href="history">history</a>, <a href="standin/stats">standin/stats</a>.</p></body></html>
"""


@routes.get("/")
async def page(_: web.Request) -> web.Response:
    """Answer a page that says what this is."""
    headers = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"}
    return web.Response(text=_PAGE, content_type="text/html", headers=headers)


@routes.get("/ws")
async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Serve one listening client."""
    engine = request.app[ENGINE]
    return await engine.wire.serve(request, engine.queue_state())


@routes.get("/features")
async def features(_: web.Request) -> web.Response:
    """Answer the server's feature flags."""
    return web.json_response(SERVER_FEATURES)


@routes.get("/system_stats")
async def system_stats(request: web.Request) -> web.Response:
    """Answer ComfyUI's fields, with plain words wherever a machine with models would show itself."""
    total, free = _memory()
    engine = request.app[ENGINE]
    system = {
        "os": os.name,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": engine.config.reported_version,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "python_version": sys.version,
        "pytorch_version": "none (comfybus stand-in)",
        "embedded_python": False,
        "argv": sys.argv,
        "standin": True,
        "notice": NOTICE,
    }
    device = {
        "name": "comfybus stand-in (no GPU, no models)",
        "type": "cpu",
        "index": None,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total,
        "torch_vram_free": free,
    }
    return web.json_response({"system": system, "devices": [device]})


@routes.get("/object_info")
async def object_info(request: web.Request) -> web.Response:
    """Answer every node class."""
    folders = request.app[ENGINE].folders
    return web.json_response({name: describe(node, folders) for name, node in NODE_CLASSES.items()})


@routes.get("/object_info/{node_class}")
async def one_object_info(request: web.Request) -> web.Response:
    """Answer one node class under its name, or an empty object."""
    name = request.match_info["node_class"]
    folders = request.app[ENGINE].folders
    return web.json_response({name: describe(NODE_CLASSES[name], folders)} if name in NODE_CLASSES else {})


@routes.get("/models")
async def model_types(_: web.Request) -> web.Response:
    """Answer the names of all model types."""
    return web.json_response(list(MODEL_FOLDERS))


@routes.get("/models/{kind}")
async def models(request: web.Request) -> web.Response:
    """Answer the files of one model type, 404 for an unknown type."""
    kind = request.match_info["kind"]
    if kind not in MODEL_FOLDERS:
        return web.Response(status=404)
    return web.json_response(request.app[ENGINE].folders.model_files(kind))


@routes.get("/experiment/models")
async def model_folders(request: web.Request) -> web.Response:
    """Answer the folders of each model type but configs and custom nodes."""
    home = request.app[ENGINE].folders
    shown = [kind for kind in MODEL_FOLDERS if kind not in {"configs", "custom_nodes"}]
    listed = [{"name": kind, "folders": [str(path) for path in home.model_folders(kind)]} for kind in shown]
    return web.json_response(listed)


@routes.get("/embeddings")
async def embeddings(request: web.Request) -> web.Response:
    """Answer the embeddings without their file endings."""
    files = request.app[ENGINE].folders.model_files("embeddings")
    return web.json_response([str(Path(file).with_suffix("")) for file in files])


@routes.get("/extensions")
async def extensions(_: web.Request) -> web.Response:
    """Answer that there are no extensions of the browser interface."""
    return web.json_response([])


async def nothing_here(request: web.Request) -> web.FileResponse:
    """Answer 404 in the form that ComfyUI's static files give it."""
    return web.FileResponse(request.app[ENGINE].folders.home / "no" / "such" / "file")


def _memory() -> tuple[int, int]:
    """Return the machine's memory and its free part in bytes, zeros where the system does not tell."""
    sizes = {"MemTotal": 0, "MemAvailable": 0}
    source = Path("/proc/meminfo")
    if source.exists():
        for line in source.read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] = int(rest.split()[0]) * 1024
    return sizes["MemTotal"], sizes["MemAvailable"]

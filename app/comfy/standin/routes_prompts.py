"""Routes that take prompts and show or change the queue and the history.

Used by server; may import its folder alone.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from aiohttp import web

from app.comfy.standin.engine import ENGINE, Engine
from app.comfy.standin.graph_validation import validate
from app.comfy.standin.node_types import JsonObject
from app.comfy.standin.prompt_ids import is_canonical

routes = web.RouteTableDef()


@routes.get("/prompt")
async def show_remaining(request: web.Request) -> web.Response:
    """Answer how many prompts wait or run."""
    return web.json_response(request.app[ENGINE].queue_state())


@routes.post("/prompt")
async def take_prompt(request: web.Request) -> web.Response:
    """Validate a prompt and queue it.

    Anything that is not the JSON expected raises and becomes ComfyUI's plain-text 500. A number of the counter is
    used up even by a prompt that is refused. ``extra_data`` is taken unseen, as there: null kills the execution
    thread when the prompt's turn comes.
    """
    engine = request.app[ENGINE]
    body = await request.json()
    number: float
    if "number" in body:
        number = float(body["number"])
    else:
        number = engine.take_number(front="front" in body and bool(body["front"]))
    if "prompt" not in body:
        return _refusal("no_prompt", "No prompt provided", "No prompt provided")
    prompt_id = _prompt_id(body, engine)
    if prompt_id is None:
        details = (
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one"
        )
        return _refusal("invalid_prompt_id", "prompt_id must be a valid UUID", details)
    targets = body.get("partial_execution_targets")
    verdict = validate(body["prompt"], engine.folders, targets, engine.config.version)
    extra: JsonObject = body.get("extra_data", {})
    if "client_id" in body:
        extra["client_id"] = body["client_id"]
    if verdict.error is not None:
        return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
    if engine.config.version == "new":
        extra["create_time"] = int(time.time() * 1000)
    engine.queue.put((number, prompt_id, body["prompt"], extra, verdict.good_outputs))
    return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})


@routes.get("/queue")
async def show_queue(request: web.Request) -> web.Response:
    """Answer the running prompt and the waiting ones, the latter in the heap's order."""
    queue = request.app[ENGINE].queue
    return web.json_response({"queue_running": queue.running(), "queue_pending": queue.waiting()})


@routes.post("/queue")
async def change_queue(request: web.Request) -> web.Response:
    """Drop all waiting prompts, or those named."""
    queue = request.app[ENGINE].queue
    body = await request.json()
    if _field(body, "clear"):
        queue.clear()
    for prompt_id in _field(body, "delete", []):
        queue.delete(prompt_id)
    return web.Response(status=200)


@routes.post("/interrupt")
async def interrupt(request: web.Request) -> web.Response:
    """Interrupt whatever runs, or one prompt if it is the running one; a body that is no JSON counts as empty."""
    engine = request.app[ENGINE]
    try:
        body: Any = await request.json()
    except json.JSONDecodeError:
        body = {}
    prompt_id = body.get("prompt_id")
    if not prompt_id or any(item[1] == prompt_id for item in engine.queue.running()):
        engine.interruption.ask()
    return web.Response(status=200)


@routes.get("/history")
async def show_history(request: web.Request) -> web.Response:
    """Answer the history, oldest first, or a part of it."""
    query = request.rel_url.query
    max_items = int(query["max_items"]) if "max_items" in query else None
    offset = int(query["offset"]) if "offset" in query else -1
    return web.json_response(request.app[ENGINE].queue.history(max_items, offset))


@routes.get("/history/{prompt_id}")
async def show_one(request: web.Request) -> web.Response:
    """Answer one history entry under its id, or an empty object."""
    return web.json_response(request.app[ENGINE].queue.history_of(request.match_info["prompt_id"]))


@routes.post("/history")
async def change_history(request: web.Request) -> web.Response:
    """Forget the whole history, or the prompts named."""
    queue = request.app[ENGINE].queue
    body = await request.json()
    if _field(body, "clear"):
        queue.clear_history()
    for prompt_id in _field(body, "delete", []):
        queue.delete_history(prompt_id)
    return web.Response(status=200)


@routes.post("/free")
async def free(request: web.Request) -> web.Response:
    """Forget kept results if asked to free memory; there are no models to unload."""
    body = await request.json()
    if body.get("free_memory", False):
        request.app[ENGINE].thread.forget_results()
    return web.Response(status=200)


def _field(body: Any, name: str, default: Any = None) -> Any:
    """Return a field of a body that may also be a list, which then simply does not have it."""
    return body[name] if name in body else default  # noqa: SIM401 - a list has no get


def _prompt_id(body: JsonObject, engine: Engine) -> str | None:
    """Take the client's id or make one. 0.3.64 takes anything verbatim, even null as the text "None".

    Newer releases take null as absent, and refuse (None) what is not a canonical UUID.
    """
    if engine.config.version == "0.3.64":
        return str(body.get("prompt_id", uuid.uuid4()))
    wanted = body.get("prompt_id")
    if wanted is None:
        return str(uuid.uuid4())
    return wanted if is_canonical(wanted) else None


def _refusal(kind: str, message: str, details: str) -> web.Response:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return web.json_response({"error": error, "node_errors": {}}, status=400)

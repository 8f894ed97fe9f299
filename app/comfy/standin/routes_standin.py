"""Routes that ComfyUI does not have: the fault switches and the counts, for tests.

Used by server; may import its folder alone.
"""

from __future__ import annotations

from aiohttp import web

from app.comfy.standin.engine import ENGINE, Engine

routes = web.RouteTableDef()


@routes.get("/standin/faults")
async def show_faults(request: web.Request) -> web.Response:
    """Answer all fault switches."""
    return web.json_response(request.app[ENGINE].faults.shown())


@routes.post("/standin/faults")
async def set_faults(request: web.Request) -> web.Response:
    """Set the switches named in the body and answer all of them; 400 for an unknown one."""
    engine = request.app[ENGINE]
    try:
        engine.faults.change(await request.json())
    except ValueError as failure:
        return web.json_response({"error": str(failure)}, status=400)
    _apply(engine)
    return web.json_response(engine.faults.shown())


@routes.delete("/standin/faults")
async def clear_faults(request: web.Request) -> web.Response:
    """Set all switches back and answer them. A dead execution thread stays dead."""
    engine = request.app[ENGINE]
    engine.faults.reset()
    _apply(engine)
    return web.json_response(engine.faults.shown())


@routes.get("/standin/stats")
async def stats(request: web.Request) -> web.Response:
    """Answer counts since the start of the process.

    ``executions``: prompt id to ``begun`` and ``ended``; ``total``: the sums; ``frames_sent``: websocket messages
    that left; ``sockets``: open now; ``execution_thread_alive``; ``standin``: true.
    """
    engine = request.app[ENGINE]
    return web.json_response(
        {
            "standin": True,
            **engine.log.counts(),
            "frames_sent": engine.wire.frames_sent,
            "sockets": engine.wire.sockets_open,
            "execution_thread_alive": engine.thread.alive,
        }
    )


def _apply(engine: Engine) -> None:
    """Carry out what a switch does at once."""
    faults = engine.faults
    if faults.socket == "deaf":
        engine.wire.deafen()
    if faults.socket == "closed":
        engine.wire.cut()
    if faults.socket in ("deaf", "closed"):
        faults.socket = "ok"
    engine.queue.keeps_history = not faults.drop_history
    if faults.drop_history:
        engine.queue.clear_history()
    engine.queue.wake()

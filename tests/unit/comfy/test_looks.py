"""The looking loop: one look for all prompts, at its own pace, however many are followed."""

from __future__ import annotations

import anyio
import pytest
from aiohttp import web
from small_server import Connect, Serve

from app.comfy.followed import Followed
from app.comfy.looks import Looks

pytestmark = pytest.mark.anyio


def followed(prompt_id: str) -> Followed:
    one = Followed(prompt_id, {}, lambda _: None, lambda: None, lambda _: None)
    one.is_submitted = True
    return one


@pytest.mark.parametrize("count", [0, 1, 500])
async def test_looks_keep_their_pace(serve: Serve, connect: Connect, count: int) -> None:
    """About one look a second for one prompt as for five hundred, fewer for none, and none of the history."""
    asked = {"queue": 0, "history": 0, "glance": 0}
    ids = [f"p{number}" for number in range(count)]

    async def queue(_: web.Request) -> web.Response:
        asked["queue"] += 1
        return web.json_response({"queue_running": [], "queue_pending": [[0, one, {}, {}, []] for one in ids]})

    async def history(_: web.Request) -> web.Response:
        asked["history"] += 1
        return web.json_response({})

    async def glance(_: web.Request) -> web.Response:
        asked["glance"] += 1
        return web.json_response({"exec_info": {"queue_remaining": 0}})

    client = connect(
        await serve(web.get("/queue", queue), web.get("/history/{id}", history), web.get("/prompt", glance))
    )
    looks = Looks(client, {one: followed(one) for one in ids}, lambda *_: None)
    with anyio.move_on_after(3.5):
        await looks.run()
    assert asked["history"] == 0
    if count:
        assert 2 <= asked["queue"] <= 5
        assert asked["glance"] == 0
    else:
        assert asked["queue"] == 0
        assert 1 <= asked["glance"] <= 2
    assert looks.up

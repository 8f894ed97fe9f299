"""The client's calls, against small servers that answer as ComfyUI was recorded to, or badly."""

from __future__ import annotations

import gzip
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from small_server import Connect, Serve, names

from app.comfy import transport
from app.errors import (
    ComfyUnavailable,
    InputRefused,
    InputUnavailable,
    InvalidPrompt,
    OutputMissing,
)

pytestmark = pytest.mark.anyio

_ID = "5a3c5f0e-53a4-5d0c-9a0f-0c6f1d7f2f5b"
_GRAPH = {"1": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "cfg": 7.5, "text": "ä€😀"}}}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _answers(document: Any, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(document, status=status)

    return handler


async def test_a_graph_arrives_unchanged_with_our_ids(serve: Serve, connect: Connect) -> None:
    """Big seeds, floats and any text reach ComfyUI as they are, and no Origin header does."""
    seen: list[Any] = []

    async def prompt(request: web.Request) -> web.Response:
        seen.append((await request.json(), request.headers))
        return web.json_response({"prompt_id": _ID, "number": 3, "node_errors": {}})

    client = connect(await serve(web.post("/prompt", prompt)) + "/")
    accepted = await client.submit(_GRAPH, prompt_id=_ID, client_id="me")
    assert accepted.node_errors == {}
    document, headers = seen[0]
    assert document == {"prompt": _GRAPH, "prompt_id": _ID, "client_id": "me"}
    assert "Origin" not in headers
    assert headers["Content-Type"] == "application/json"


async def test_a_prompt_without_a_websocket_gets_a_client_id_of_its_own(serve: Serve, connect: Connect) -> None:
    """ComfyUI is told a random client id each time, never none."""
    seen: list[str] = []

    async def prompt(request: web.Request) -> web.Response:
        seen.append((await request.json())["client_id"])
        return web.json_response({"prompt_id": _ID, "number": 3, "node_errors": {}})

    client = connect(await serve(web.post("/prompt", prompt)))
    for _ in range(2):
        await client.submit(_GRAPH, prompt_id=_ID, client_id=None)
    assert uuid.UUID(seen[0]) != uuid.UUID(seen[1])


async def test_a_partial_acceptance_is_returned_with_its_findings(serve: Serve, connect: Connect) -> None:
    """One good and one bad output is accepted; what ComfyUI skips is told."""
    findings = {"3": {"errors": [], "class_type": "SaveImage"}}
    url = await serve(web.post("/prompt", _answers({"prompt_id": _ID, "number": 1, "node_errors": findings})))
    assert (await connect(url).submit(_GRAPH, prompt_id=_ID, client_id=None)).node_errors == findings


async def test_a_refusal_is_an_invalid_prompt(serve: Serve, connect: Connect) -> None:
    """ComfyUI's 400 reaches the caller as the error that carries its findings."""
    url = await serve(web.post("/prompt", _answers({"error": {"message": "No"}, "node_errors": {}}, 400)))
    with pytest.raises(InvalidPrompt, match="No"):
        await connect(url).submit(_GRAPH, prompt_id=_ID, client_id=None)


async def test_a_server_that_uses_another_id_is_too_old(serve: Serve, connect: Connect) -> None:
    """Without our own prompt id nothing else works, so it is said at once."""
    url = await serve(web.post("/prompt", _answers({"prompt_id": str(uuid.uuid4()), "number": 1})))
    with pytest.raises(ComfyUnavailable, match=r"0\.3\.64"):
        await connect(url).submit(_GRAPH, prompt_id=_ID, client_id=None)


async def test_an_unreachable_comfyui_is_unavailable(connect: Connect) -> None:
    """A refused connection becomes our error, with the foreign one as its cause and no credentials in it."""
    client = connect("http://user:secret@127.0.0.1:9")
    with pytest.raises(ComfyUnavailable) as caught:
        await client.queue()
    assert caught.value.__cause__ is not None
    assert "secret" not in str(caught.value)
    assert not await client.alive()


async def test_a_hanging_comfyui_is_unavailable_after_the_deadline(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call waits for ever."""
    monkeypatch.setattr("app.comfy.client._LOOK_S", 0.1)
    released = anyio.Event()

    async def hang(request: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    client = connect(await serve(web.get("/queue", hang)))
    with anyio.fail_after(5), pytest.raises(ComfyUnavailable, match="in time"):
        await client.queue()
    released.set()


async def test_a_server_that_is_no_comfyui_is_unavailable(serve: Serve, connect: Connect) -> None:
    """HTML, another JSON or a redirect in place of the queue is named as what it is."""

    async def html(request: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://example.invalid/")

    for handler in (html, elsewhere, _answers([1]), _answers({}), _answers({}, 404), _answers({}, 500)):
        client = connect(await serve(web.get("/queue", handler)))
        with pytest.raises(ComfyUnavailable):
            await client.queue()


async def test_an_answer_without_end_is_cut_off(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON answers are bounded, so that a mad server does not take our memory."""
    monkeypatch.setattr(transport, "_JSON_LIMIT_BYTES", 1000)
    client = connect(await serve(web.get("/queue", _answers({"queue_running": ["x" * 2000]}))))
    with pytest.raises(ComfyUnavailable, match="256 MiB"):
        await client.queue()


async def test_a_compressed_answer_is_refused_unread(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """A kilobyte of it may be a gigabyte; nothing of it is unpacked, neither JSON nor a file."""

    async def packed(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b" " * 1_000_000), headers={"Content-Encoding": "gzip"})

    client = connect(await serve(web.get("/queue", packed), web.get("/view", packed)))
    with pytest.raises(ComfyUnavailable, match="compressed"):
        await client.queue()
    with pytest.raises(ComfyUnavailable, match="compressed"):
        await client.view("a.png", "", "output", tmp_path / "a.png")
    assert names(tmp_path) == []


async def test_an_answer_of_millions_of_values_is_not_decoded(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets weigh seventy times as much in memory."""
    monkeypatch.setattr(transport, "_MOST_VALUES", 1000)
    client = connect(await serve(web.get("/queue", _answers({"queue_running": [[]] * 2000, "queue_pending": []}))))
    with pytest.raises(ComfyUnavailable, match="no JSON"):
        await client.queue()


async def test_half_characters_do_not_hide_an_answer(serve: Serve, connect: Connect) -> None:
    """A file whose name is no UTF-8 makes Python write half a character, which is no JSON for anybody else."""

    async def said(_: web.Request) -> web.Response:
        # As json.dumps has it.
        text = json.dumps({_ID: {"outputs": {"9": {"text": ["a\udcff", "\ud83d\ude00", "\\ud800", "😀\ud800"]}}}})
        return web.Response(text=text, content_type="application/json")

    entry = await connect(await serve(web.get(f"/history/{_ID}", said))).history(_ID)
    assert entry is not None
    assert entry.outputs == {"9": {"text": ["a�", "😀", "\\ud800", "😀�"]}}


async def test_the_queue_gives_the_ids_that_run_and_wait(serve: Serve, connect: Connect) -> None:
    """Odd items, such as those of another version, are passed over."""
    document = {
        "queue_running": [[1, "a", {}, {}, []]],
        "queue_pending": [[3, "c", {}, {}, [], "more"], [2.5, "b"], [], [4], [5, 6], "x", None],
    }
    view = await connect(await serve(web.get("/queue", _answers(document)))).queue()
    assert (view.running, view.pending) == (("a",), ("c", "b"))


async def test_a_bulky_queue_is_read_by_the_jobs_api(serve: Serve, connect: Connect) -> None:
    """Graphs of thousands of waiting prompts are fetched once, then only ids, until the queue is short again."""
    asked: list[str] = []
    jobs = [{"id": str(number), "status": "pending"} for number in range(300)] + [{"id": "r", "status": "in_progress"}]

    async def queue(request: web.Request) -> web.Response:
        asked.append("queue")
        return web.json_response({"queue_running": [], "queue_pending": [[1, "a", {"text": "x" * 2**21}]]})

    async def list_jobs(request: web.Request) -> web.Response:
        asked.append("jobs")
        assert request.query["status"] == "pending,in_progress"
        return web.json_response({"jobs": jobs, "pagination": {}})

    client = connect(await serve(web.get("/queue", queue), web.get("/api/jobs", list_jobs)))
    await client.queue()
    view = await client.queue()
    assert (view.running, len(view.pending)) == (("r",), 300)
    jobs[:] = jobs[-2:]
    await client.queue()
    await client.queue()
    assert asked == ["queue", "jobs", "jobs", "queue"]


@pytest.mark.parametrize(("status", "times"), [(404, 1), (405, 1), (500, 3)])
async def test_without_a_usable_jobs_api_the_queue_is_read(
    serve: Serve, connect: Connect, status: int, times: int
) -> None:
    """A version without it is asked once; one that breaks on somebody's odd prompt is asked again."""
    asked: list[int] = []

    async def list_jobs(request: web.Request) -> web.Response:
        asked.append(status)
        return web.Response(status=status, text="no")

    big = {"queue_running": [], "queue_pending": [[1, "a", {"text": "x" * 2**21}]]}
    client = connect(await serve(web.get("/queue", _answers(big)), web.get("/api/jobs", list_jobs)))
    for _ in range(4):
        assert (await client.queue()).pending == ("a",)
    assert len(asked) == times


@pytest.mark.parametrize(
    "listed",
    [
        {"jobs": [{"id": "x", "status": "pending"}], "pagination": {"has_more": True}},
        {"jobs": "odd"},
        {"error": "no"},
        [],
    ],
)
async def test_a_job_list_that_is_not_whole_is_not_believed(serve: Serve, connect: Connect, listed: Any) -> None:
    """A prompt that is missing on the first of several pages is not gone."""
    big = {"queue_running": [], "queue_pending": [[1, "a", {"text": "x" * 2**21}]]}
    client = connect(await serve(web.get("/queue", _answers(big)), web.get("/api/jobs", _answers(listed))))
    for _ in range(2):
        assert (await client.queue()).pending == ("a",)


async def test_a_job_in_an_unknown_state_is_still_there(serve: Serve, connect: Connect) -> None:
    """A state that a later version invents does not make a prompt vanish."""
    big = {"queue_running": [], "queue_pending": [[1, "a", {"text": "x" * 2**21}]]}
    jobs = {"jobs": [{"id": "a", "status": "being_prepared"}, {"status": "pending"}, None]}
    client = connect(await serve(web.get("/queue", _answers(big)), web.get("/api/jobs", _answers(jobs))))
    for _ in range(2):
        assert (await client.queue()).pending == ("a",)


async def test_a_stranger_at_the_address_of_the_jobs_api_is_not_believed(serve: Serve, connect: Connect) -> None:
    """An answer that does not speak of cancelling has cancelled nothing."""
    server = _Server("pending")
    routes = [route for route in server.routes() if "jobs" not in route.path]
    client = connect(await serve(*routes, web.post("/api/jobs/{id}/cancel", _answers("hello"))))
    await client.stop(_ID)
    assert server.told == [("/queue", {"delete": [_ID]})]


async def test_a_prompt_without_history_has_no_entry(serve: Serve, connect: Connect) -> None:
    """ComfyUI's empty object means that there is none."""
    assert await connect(await serve(web.get("/history/{id}", _answers({})))).history(_ID) is None


class _Server:
    """The queue part of ComfyUI with one prompt in it, which heeds a stop only the given number of times later."""

    def __init__(self, place: str, *, jobs_api: int = 405, deaf_to: int = 0) -> None:
        self.place, self.jobs_api, self.deaf_to = place, jobs_api, deaf_to
        self.told: list[Any] = []

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/queue", self.queue),
            web.post("/queue", self.stop),
            web.post("/interrupt", self.stop),
            web.post("/api/jobs/{id}/cancel", self.cancel),
        ]

    async def queue(self, request: web.Request) -> web.Response:
        item = [[1, _ID, {}, {}, []]]
        return web.json_response(
            {
                "queue_running": item if self.place == "running" else [[0, "neighbour", {}, {}, []]],
                "queue_pending": item if self.place == "pending" else [[2, "other", {}, {}, []]],
            }
        )

    async def stop(self, request: web.Request) -> web.Response:
        self.told.append((request.path, json.loads(await request.read() or b"null")))
        self._heed()
        return web.Response()

    async def cancel(self, request: web.Request) -> web.Response:
        self.told.append(("cancel", request.match_info["id"]))
        if self.jobs_api != 200:
            return web.Response(status=self.jobs_api, text="405: Method Not Allowed")
        self._heed()
        return web.json_response({"cancelled": True})

    def _heed(self) -> None:
        self.deaf_to -= 1
        if self.deaf_to < 0:
            self.place = "gone"


@pytest.mark.parametrize(
    ("place", "call"),
    [("pending", ("/queue", {"delete": [_ID]})), ("running", ("/interrupt", {"prompt_id": _ID}))],
)
async def test_stopping_without_a_jobs_api_deletes_or_interrupts_by_id(
    serve: Serve, connect: Connect, place: str, call: tuple[str, Any]
) -> None:
    """A waiting prompt is deleted, a running one interrupted, always by its own id; the jobs API is tried once."""
    server = _Server(place)
    client = connect(await serve(*server.routes()))
    await client.stop(_ID)
    assert server.told == [("cancel", _ID), call]
    server.place = place
    await client.stop(_ID)
    assert server.told == [("cancel", _ID), call, call]


@pytest.mark.parametrize("place", ["pending", "running"])
async def test_stopping_with_a_jobs_api_cancels(serve: Serve, connect: Connect, place: str) -> None:
    """Where ComfyUI can cancel atomically, that is used."""
    server = _Server(place, jobs_api=200)
    await connect(await serve(*server.routes())).stop(_ID)
    assert server.told == [("cancel", _ID)]


@pytest.mark.parametrize("jobs_api", [200, 405])
async def test_a_stop_that_is_lost_is_told_again(serve: Serve, connect: Connect, jobs_api: int) -> None:
    """ComfyUI loses an interrupt that comes just before the prompt begins, also when it says it cancelled."""
    server = _Server("running", jobs_api=jobs_api, deaf_to=2)
    await connect(await serve(*server.routes())).stop(_ID)
    assert server.place == "gone"
    assert sum(name in {"cancel", "/interrupt"} for name, _ in server.told) == (3 if jobs_api == 200 else 4)


async def test_stopping_what_is_not_there_touches_nothing(serve: Serve, connect: Connect) -> None:
    """A finished or unknown prompt is left alone, and so are the others."""
    server = _Server("gone")
    await connect(await serve(*server.routes())).stop(_ID)
    assert server.told == []


async def test_a_node_that_heeds_nothing_does_not_hold_the_stop(serve: Serve, connect: Connect) -> None:
    """After three requests it returns; the end shows in the history."""
    server = _Server("running", deaf_to=100)
    with anyio.fail_after(5):
        await connect(await serve(*server.routes())).stop(_ID)
    assert server.told.count(("/interrupt", {"prompt_id": _ID})) == 3


async def test_models_leave_out_what_comfyui_will_not_list(serve: Serve, connect: Connect) -> None:
    """A folder that answers 404, or with something odd, is no error."""

    async def folder(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == "odd":
            return web.json_response({"a": 1})
        return web.json_response(["a.safetensors", 3]) if name == "my loras" else web.Response(status=404)

    url = await serve(web.get("/models", _answers(["my loras", "gone", "odd"])), web.get("/models/{name}", folder))
    assert await connect(url).models() == {"my loras": ["a.safetensors"]}


async def test_a_file_is_fetched_to_disk_and_hashed(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """Name, subfolder and folder are passed on as they are; size and hash are those of the bytes."""
    content = b"\x00picture" * 500_000
    seen: list[dict[str, str]] = []

    async def view(request: web.Request) -> web.Response:
        seen.append(dict(request.query))
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=content)

    client = connect(await serve(web.get("/view", view)))
    stored = await client.view("a b&ü#.png", "sub dir/x", "temp", tmp_path / "f")
    assert (stored.size_bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / "f").read_bytes() == content
    assert seen == [{"filename": "a b&ü#.png", "subfolder": "sub dir/x", "type": "temp"}]


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_file_that_is_not_there_is_missing(serve: Serve, connect: Connect, tmp_path: Path, status: int) -> None:
    """ComfyUI's ways to say no are one retryable error, and nothing is left on disk."""

    async def view(request: web.Request) -> web.Response:
        return web.Response(status=status)

    with pytest.raises(OutputMissing) as caught:
        await connect(await serve(web.get("/view", view))).view("a.png", "", "output", tmp_path / "f")
    assert caught.value.retryable
    assert names(tmp_path) == []


async def test_a_file_that_breaks_off_leaves_nothing(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """Half a file is never taken for a whole one."""

    async def view(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b"x" * 1000)
        assert request.transport is not None
        request.transport.abort()
        return response

    with pytest.raises(ComfyUnavailable):
        await connect(await serve(web.get("/view", view))).view("a.png", "", "output", tmp_path / "f")
    assert names(tmp_path) == []


async def test_a_disk_error_is_not_taken_for_comfyuis(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """A place that cannot be written is the caller's trouble and keeps its own type."""

    async def view(request: web.Request) -> web.Response:
        return web.Response(body=b"x")

    with pytest.raises(FileNotFoundError):
        await connect(await serve(web.get("/view", view))).view("a", "", "output", tmp_path / "no" / "f")


async def test_an_upload_streams_the_file_and_gives_the_name_for_a_node(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    """Name and subfolder arrive as given, and the answer's name is the one to use."""
    seen: dict[str, Any] = {}

    async def upload(request: web.Request) -> web.Response:
        post = await request.post()
        image = post["image"]
        assert isinstance(image, web.FileField)
        seen.update(post, image=(image.filename, image.file.read()))
        return web.json_response({"name": "pic (1).png", "subfolder": post["subfolder"], "type": "input"})

    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    client = connect(await serve(web.post("/upload/image", upload)))
    name = await client.upload(tmp_path / "f", subfolder="comfybus/a b", filename='pic "ü".png', overwrite=False)
    assert name == "comfybus/a b/pic (1).png"
    assert seen == {"type": "input", "subfolder": "comfybus/a b", "image": ('pic "ü".png', b"x" * 3_000_000)}
    assert await client.upload(tmp_path / "f", subfolder="", filename="a.png", overwrite=True) == "pic (1).png"
    assert seen["overwrite"] == "true"


@pytest.mark.parametrize("status", [400, 413])
async def test_an_upload_that_is_refused_is_not_tried_again(
    serve: Serve, connect: Connect, tmp_path: Path, status: int
) -> None:
    """Too large or outside the folder stays so."""

    async def upload(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status)

    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(InputRefused) as caught:
        await connect(await serve(web.post("/upload/image", upload))).upload(
            tmp_path / "f", subfolder="", filename="a", overwrite=True
        )
    assert not caught.value.retryable


async def test_an_upload_of_a_lost_file_is_an_unavailable_input(connect: Connect, tmp_path: Path) -> None:
    """A prepared input that is gone can be prepared again."""
    with pytest.raises(InputUnavailable) as caught:
        await connect("http://127.0.0.1:9").upload(tmp_path / "no", subfolder="", filename="a", overwrite=True)
    assert caught.value.retryable


async def test_a_call_that_is_cancelled_stays_cancelled(serve: Serve, connect: Connect) -> None:
    """Cancellation passes through every layer and is never taken for a failure."""
    asked = anyio.Event()

    async def hang(request: web.Request) -> web.Response:
        asked.set()
        await anyio.sleep_forever()
        return web.Response()

    client = connect(await serve(web.get("/queue", hang)))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.queue)
            await asked.wait()
            tasks.cancel_scope.cancel()
    assert tasks.cancel_scope.cancelled_caught


async def test_small_calls_say_what_comfyui_expects(serve: Serve, connect: Connect) -> None:
    """Forgetting, freeing, statistics, node classes and the sign of life use ComfyUI's own forms."""
    seen: list[Any] = []

    async def post(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json()))
        return web.Response()

    stats = {"system": {"comfyui_version": "0.3.64"}}
    client = connect(
        await serve(
            web.post("/history", post),
            web.post("/free", post),
            web.get("/system_stats", _answers(stats)),
            web.get("/object_info", _answers({"SaveImage": {}})),
            web.get("/prompt", _answers({"exec_info": {"queue_remaining": 4}})),
        )
    )
    await client.forget(_ID)
    await client.free()
    assert seen == [("/history", {"delete": [_ID]}), ("/free", {"unload_models": True, "free_memory": True})]
    assert await client.system_stats() == stats
    assert await client.object_info() == {"SaveImage": {}}
    assert await client.queue_remaining() == 4
    assert await client.alive()

"""Pictures in, conversions and uploads out, through the real worker; secrets stay where they were."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from PIL import Image

from tests.support.stack import Stack, graph, run_stack

pytestmark = pytest.mark.anyio

CANARY = "canary-5f1c9d2e7b"


def png(size: tuple[int, int] = (48, 32), color: tuple[int, int, int] = (200, 30, 60)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


@functools.cache
def noise() -> bytes:
    """A picture that no compression makes smaller: about 6 MiB."""
    out = io.BytesIO()
    Image.frombytes("RGB", (1448, 1448), os.urandom(1448 * 1448 * 3)).save(out, "PNG", compress_level=0)
    return out.getvalue()


@dataclass
class FileServer:
    """A file host that remembers what it was asked with."""

    url: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    authorizations: list[str | None] = field(default_factory=list)

    async def get(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append(request.headers.get("Authorization"))
        if request.path.startswith("/slow/"):
            return await self._slowly(request)
        return web.Response(body=png(), content_type="image/png")

    async def _slowly(self, request: web.Request) -> web.StreamResponse:
        """A picture of some MiB, one MiB every 150 ms."""
        picture = noise()
        response = web.StreamResponse(headers={"Content-Length": str(len(picture)), "Content-Type": "image/png"})
        await response.prepare(request)
        for at in range(0, len(picture), 1024 * 1024):
            await response.write(picture[at : at + 1024 * 1024])
            await anyio.sleep(0.15)
        return response

    async def put(self, request: web.Request) -> web.Response:
        if request.path.startswith("/closed/"):
            await request.read()
            return web.Response(status=403)
        self.authorizations.append(request.headers.get("Authorization"))
        self.stored[request.path] = await request.read()
        return web.Response(status=201)


@pytest.fixture(scope="module")
async def files() -> AsyncIterator[FileServer]:
    """An HTTP host on loopback that takes and gives files."""
    server = FileServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.get)
    app.router.add_put("/{path:.*}", server.put)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture(scope="module", params=["shared", "remote"])
async def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A worker that may reach hosts on loopback, with and without ComfyUI's folders."""
    folder = tmp_path_factory.mktemp("lab")
    async with run_stack(folder, ALLOWED_PRIVATE_HOSTS="127.0.0.1", CACHE_DIR=folder / "cache") as stack:
        await stack.worker(await stack.comfy(), shared=request.param == "shared").start()
        yield stack


def invert(image: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inv"}},
    }


async def run(stack: Stack, request_id: str, **request: Any) -> dict[str, Any]:
    await stack.outside.send({"id": request_id, **request})
    return (await stack.outside.terminal(request_id)).body


def first_image(body: dict[str, Any]) -> Image.Image:
    assert body["type"] == "prompt.complete", body
    return Image.open(io.BytesIO(base64.b64decode(body["images"][0])))


async def test_pictures_come_as_base64_data_url_and_url(lab: Stack, files: FileServer) -> None:
    """The same picture inline, as a data URL and behind a URL: inverted pixels come back each time."""
    data = base64.b64encode(png()).decode()
    for number, image in enumerate([data, f"data:image/png;base64,{data}", f"{files.url}/in/picture"]):
        found = first_image(await run(lab, f"pic-{number}", prompt=invert(image)))
        assert found.size == (48, 32)
        assert found.convert("RGB").getpixel((5, 5)) == (55, 225, 195)


async def test_an_input_that_cannot_be_had_is_named(lab: Stack) -> None:
    """A picture that is no picture, and a file nobody has, fail at their field before anything runs."""
    body = await run(lab, "bad-1", prompt=invert("nobody-has-this.png"))
    assert body["location"] == "prompt.1.inputs.image"
    assert body["code"] in ("invalid_request", "input_unavailable", "invalid_prompt")
    body = await run(lab, "bad-2", prompt=invert("/etc/passwd"))
    assert body["location"] == "prompt.1.inputs.image"
    assert body["code"] in ("invalid_request", "input_unavailable")


async def test_outputs_are_converted(lab: Stack) -> None:
    """convert_output gives JPEG and WebP; a wrong option is refused before the run."""
    for form, known in (("jpeg", "JPEG"), ("webp", "WEBP")):
        body = await run(
            lab, f"conv-{form}", prompt=graph(), convert_output={"format": form, "options": {"quality": 60}}
        )
        assert first_image(body).format == known
        assert body["filenames"][0].endswith(f".{form}")
        assert body["outputs"][0]["media_type"] == f"image/{form}"
    body = await run(lab, "conv-bad", prompt=graph(), convert_output={"format": "jpeg", "options": {"quality": 500}})
    assert (body["code"], body["location"]) == ("invalid_request", "convert_output.options.quality")


async def test_outputs_go_where_the_request_wants_them(lab: Stack, files: FileServer) -> None:
    """http_upload: the file arrives, the event has its URL, and the secrets of the request are in no event."""
    lab.outside.events.clear()
    secret = {"type": "bearer", "token": CANARY}
    body = await run(
        lab,
        "up-1",
        prompt=invert(f"{files.url}/private/in.png?sig={CANARY}"),
        http_upload={"url_prefix": f"{files.url}/out/"},
        credentials=[{"url_pattern": f"{files.url}/**", "auth": secret}],
        metadata={"m": 1},
    )
    name = body["filenames"][0]
    assert body["images"] == [f"{files.url}/out/{name}"]
    assert body["outputs"][0]["url"] == body["images"][0]
    assert Image.open(io.BytesIO(files.stored[f"/out/{name}"])).size == (48, 32)
    assert f"Bearer {CANARY}" in files.authorizations
    assert "credentials" not in body
    told = json.dumps([[event.headers, {k: str(v) for k, v in event.body.items()}] for event in lab.outside.events])
    assert CANARY not in told
    log = Path(lab.workers[0].process.log).read_text() if lab.workers[0].process else ""
    assert CANARY not in log
    storage = [event.body["type"] for event in lab.outside.heard(channel="storage")]
    assert {"storage.file_downloaded", "storage.file_uploaded"} <= set(storage)
    async with aiohttp.ClientSession() as session, session.get(f"{lab.workers[0].url}/metrics") as response:
        counted = await response.text()
    for name in ("transfers", "transfer_bytes", "transfer_seconds"):
        for event in ("downloaded", "uploaded"):
            assert f'comfybus_{name}_total{{backend="http",event="{event}"}}' in counted


async def test_a_target_that_refuses_after_the_run_is_a_failure(lab: Stack, files: FileServer) -> None:
    """The run went well and its file is taken nowhere: prompt.failed says so, never a URL of nothing."""
    body = await run(lab, "refused-1", prompt=graph(), http_upload={"url_prefix": f"{files.url}/closed"})
    assert (body["type"], body["code"]) == ("prompt.failed", "upload_failed")
    assert "images" not in body
    assert any(event.body.get("status") == "storing" for event in lab.outside.heard("refused-1"))


async def test_the_progress_of_a_download_is_the_prompts(lab: Stack, files: FileServer) -> None:
    """While a large input comes, progress says how much of it is here, in MiB, and for which node."""
    body = await run(lab, "slow-1", prompt=invert(f"{files.url}/slow/{lab.workers[0].http_port}.png"))
    assert body["type"] == "prompt.complete", body
    heard = [event.body for event in lab.outside.heard("slow-1", "prompt.progress")]
    coming = [one["progress"] for one in heard if one["status"] == "preparing" and "step" in one["progress"]]
    assert len(coming) >= 3
    assert {(one["current_node"], one["current_node_class"], one["steps"]) for one in coming} == {("1", "LoadImage", 7)}
    steps = [one["step"] for one in coming]
    assert steps == sorted(steps)
    assert 0 < steps[0] < 7
    later = [one["progress"] for one in heard if one["status"] == "queued"]
    assert not any("step" in one or "current_node" in one for one in later)
    assert [one["sequence"] for one in heard] == list(range(len(heard)))


async def test_outputs_of_one_name_do_not_overwrite_each_other(lab: Stack, files: FileServer) -> None:
    """Two nodes save files of one name into different folders: a target gets both, each under its own name."""
    nodes = graph(prefix="a/same", color=0xFF0000)
    nodes["8"] = {"class_type": "EmptyImage", "inputs": {**nodes["1"]["inputs"], "color": 0x0000FF}}
    nodes["10"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "b/same"}}
    body = await run(lab, "same-1", prompt=nodes, http_upload={"url_prefix": f"{files.url}/same"})
    first, second = body["filenames"]
    name = min(body["filenames"], key=len)
    (other,) = {first, second} - {name}
    assert other in (name.replace(".png", "-9.png"), name.replace(".png", "-10.png"))
    pictures = [Image.open(io.BytesIO(files.stored[f"/same/{one}"])).convert("RGB") for one in (first, second)]
    assert {picture.getpixel((0, 0)) for picture in pictures} == {(255, 0, 0), (0, 0, 255)}
    assert body["images"] == [f"{files.url}/same/{first}", f"{files.url}/same/{second}"]
    assert [output["filename"] for output in body["outputs"]] == [first, second]
    inline = await run(lab, "same-2", prompt=nodes)
    assert len(set(inline["filenames"])) == 1


async def test_addresses_inside_are_not_reached(tmp_path: Path, files: FileServer) -> None:
    """Without ALLOWED_PRIVATE_HOSTS a URL that resolves to loopback is refused, as an input and as a target."""
    async with run_stack(tmp_path, CACHE_DIR=tmp_path / "cache") as stack:
        await stack.worker(await stack.comfy()).start()
        body = await run(stack, "ssrf-1", prompt=invert(f"{files.url}/a.png"))
        assert (body["code"], body["retryable"]) == ("input_unavailable", False)
        assert "ALLOWED_PRIVATE_HOSTS" in body["error"]
        body = await run(stack, "ssrf-2", prompt=graph(), http_upload={"url_prefix": f"{files.url}/out"})
        assert body["code"] in ("upload_failed", "invalid_request")


async def test_a_request_may_come_as_a_reference(lab: Stack) -> None:
    """A body in the output store, referred to by an event in binary or structured form, runs like any other."""
    request = {"id": "ref-1", "prompt": graph(), "metadata": {"big": "x" * 3000}}
    url = await lab.outside.put_output("requests/ref-1", json.dumps(request).encode())
    await lab.outside.send(b"", {"ce-dataref": url, "ce-id": "ref-1"})
    body = (await lab.outside.terminal("ref-1")).body
    assert body["type"] == "prompt.complete", body
    await lab.outside.send(b"", {"ce-dataref": url.replace("/ref-1", "/none"), "ce-id": "ref-2"})
    body = (await lab.outside.terminal("ref-2")).body
    assert (body["code"], body["location"]) == ("input_unavailable", "ce_dataref")
    event = {
        "specversion": "1.0",
        "id": "ref-3",
        "type": "prompt.request",
        "source": "/tests",
        "dataref": await lab.outside.put_output("requests/nameless", json.dumps({"prompt": graph()}).encode()),
    }
    await lab.outside.send(json.dumps(event).encode(), {"content-type": "application/cloudevents+json"})
    body = (await lab.outside.terminal("ref-3")).body
    assert body["type"] == "prompt.complete", body


async def test_a_drain_does_not_wait_for_a_reference(tmp_path: Path) -> None:
    """A worker that is asked to end while the host of a reference is silent hands the request back at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with run_stack(
            tmp_path, CACHE_DIR=tmp_path / "cache", ALLOWED_PRIVATE_HOSTS="127.0.0.1", DRAIN_TIMEOUT_S=60
        ) as stack:
            worker = stack.worker(await stack.comfy())
            await worker.start()
            reference = f"http://127.0.0.1:{silent.getsockname()[1]}/request"
            await stack.outside.send(b"", {"ce-dataref": reference, "ce-id": "ref-4"})
            connection, _ = await anyio.to_thread.run_sync(silent.accept)
            with connection:
                began = time.monotonic()
                assert worker.process is not None
                assert await worker.process.terminate() == 0
                assert time.monotonic() - began < 30
            assert await stack.outside.unsettled() == 1


async def test_a_named_workflow_runs_and_its_faults_name_the_field(tmp_path: Path) -> None:
    """workflow and input in place of a prompt; a wrong input, an unknown workflow and a bad picture are named."""
    folder = tmp_path / "workflows" / "pics"
    folder.mkdir(parents=True)
    (folder / "invert.py").write_text(
        "from pydantic import BaseModel, Field\n\n\n"
        "class Input(BaseModel):\n"
        '    image: str = Field(description="A picture.")\n'
        "    size: int = Field(default=64, ge=8, le=512)\n\n\n"
        "def generate(input: Input) -> dict:\n"
        "    return {\n"
        '        "1": {"class_type": "LoadImage", "inputs": {"image": input.image}},\n'
        '        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bilinear",\n'
        '              "width": input.size, "height": input.size, "crop": "disabled"}},\n'
        '        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "wf"}},\n'
        "    }\n"
    )
    async with run_stack(tmp_path, WORKFLOW_DIR=tmp_path / "workflows", CACHE_DIR=tmp_path / "cache") as stack:
        await stack.worker(await stack.comfy()).start()
        data = base64.b64encode(png()).decode()
        body = await run(stack, "wf-1", workflow="pics/invert", input={"image": data, "size": 100})
        assert first_image(body).size == (100, 100)
        assert (body["workflow"], body["input"]["size"]) == ("pics/invert", 100)
        body = await run(stack, "wf-2", workflow="pics/invert", input={"image": data, "size": 5})
        assert (body["code"], body["location"]) == ("invalid_request", "input.size")
        body = await run(stack, "wf-3", workflow="pics/none", input={})
        assert (body["code"], body["location"]) == ("workflow_not_found", "workflow")
        body = await run(stack, "wf-4", workflow="pics/invert", input={"image": "/etc/passwd"})
        assert body["location"] == "input.image"

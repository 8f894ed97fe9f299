"""The warm-up prompt: read at the start, run through the same preparation, and without a trace afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from app.comfy.client import ComfyClient
from app.comfy.outputs import OutputReader
from app.comfy.run import Runs
from app.comfy.watch import Watch
from app.errors import ComfyUnavailable, ConfigurationError
from app.prepare.prepare import Folders, PrepareConfig, Preparer
from app.settings import load_settings
from app.settings.setup import warm_up_prompt
from app.setup.warmup import WarmUp, checkpoint_of, read_warm_up, warm_up
from app.storage.config import StorageConfig
from app.storage.stores import Stores
from schemas.prompt import Graph, parse_request
from tests.integration.setup.sources import Sources
from tests.support.processes import StandIn, free_port
from tests.support.stack import graph

pytestmark = pytest.mark.anyio


class Side:
    """Our side of one ComfyUI."""

    def __init__(self, comfy: StandIn, client: ComfyClient, watch: Watch, stores: Stores) -> None:
        self.comfy = comfy
        self.client = client
        self.runs = Runs(client, watch, 1)
        home = comfy.home
        self.reader = OutputReader(client, output_dir=home / "output")
        folders = Folders(home / "input", home / "output")
        self.preparer = Preparer(client, stores.fetch, folders, PrepareConfig())

    async def warm_up(self, prompt: dict[str, Any], timeout_s: float = 30) -> Graph:
        found = WarmUp(parse_request({"prompt": prompt}), "WARMUP_PROMPT_FILE=w.json")
        return await warm_up(found, self.preparer, self.runs, self.reader, timeout_s=timeout_s)

    async def history(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.comfy.url}/history") as response:
            found: dict[str, Any] = await response.json()
            return found


@pytest.fixture
async def side(tmp_path: Path, sources: Sources) -> AsyncIterator[Side]:
    comfy = StandIn(tmp_path / "home", free_port())
    await comfy.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(comfy.kill)
        session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        client = ComfyClient(comfy.url, session)
        watch = Watch(client)
        storage = StorageConfig(tmp_path / "cache", allowed_private_hosts=("127.0.0.1",))
        stores = await stack.enter_async_context(Stores(storage).open())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(watch.run)
        yield Side(comfy, client, watch, stores)
        tasks.cancel_scope.cancel()


async def test_it_runs_and_leaves_nothing_behind(side: Side, sources: Sources) -> None:
    """Inputs are prepared as for requests; outputs and history are clean afterwards, each time anew."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    sources.files["in.png"] = out.getvalue()
    prompt = graph(prefix="deep/warm")
    prompt["1"] = {"class_type": "LoadImage", "inputs": {"image": f"{sources.url}/files/in.png"}}
    for runs in (1, 2):
        ran = await side.warm_up(prompt)
        assert "://" not in ran["1"]["inputs"]["image"]
        assert sum(side.comfy.executions().values()) == runs
    assert await side.history() == {}
    assert [path for path in (side.comfy.home / "output").rglob("*") if path.is_file()] == []
    view = await side.client.queue()
    assert not view.running
    assert not view.pending


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "NoSuchNode"),
        ({**graph(), "9": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "x"}}}, "9"),
        (graph(seconds=30, steps=300), "ran longer than"),
        ({"1": {"class_type": "LoadImage", "inputs": {"image": "/etc/passwd"}}}, r"prompt.1.inputs.image"),
    ],
)
async def test_a_wrong_prompt_is_a_wrong_setting(side: Side, prompt: dict[str, Any], words: str) -> None:
    """What no second try would heal ends the start with one line that names the variable."""
    with pytest.raises(ConfigurationError, match=rf"WARMUP_PROMPT_FILE=w.json cannot be run.*{words}"):
        await side.warm_up(prompt, timeout_s=0.3)


@pytest.mark.full
async def test_a_comfyui_that_dies_is_no_wrong_setting(side: Side) -> None:
    """Another try may succeed, after its restart."""
    async with anyio.create_task_group() as tasks:

        async def kill() -> None:
            with anyio.fail_after(20):
                while not side.comfy.executions():
                    await anyio.sleep(0.02)
            await side.comfy.kill()

        tasks.start_soon(kill)
        with pytest.raises(ComfyUnavailable):
            await side.warm_up(graph(seconds=60, steps=600))
    await side.comfy.start()
    await side.warm_up(graph())


async def test_cancelled_it_is_interrupted(side: Side) -> None:
    """Nothing runs on in ComfyUI after a worker that was told to end in its warm-up."""
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(side.warm_up, graph(seconds=60, steps=600))
            while not side.comfy.executions():
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert not (await side.client.queue()).running


async def test_it_is_read_from_a_file_or_a_url(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes first; the URL may lead to a private host, for the operator wrote it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    assert await warm_up_prompt(load_settings()) is None
    sources.files["w.json"] = json.dumps(graph(prefix="url")).encode()
    monkeypatch.setenv("WARMUP_PROMPT_URL", f"{sources.url}/files/w.json?token=secret-word-1")
    found = await warm_up_prompt(load_settings())
    assert found is not None
    assert (found.request.prompt or {})["9"]["inputs"]["filename_prefix"] == "url"
    (tmp_path / "w.json").write_text(json.dumps(graph(prefix="file")))
    monkeypatch.setenv("WARMUP_PROMPT_FILE", "w.json")
    found = await warm_up_prompt(load_settings())
    assert found is not None
    assert (found.request.prompt or {})["9"]["inputs"]["filename_prefix"] == "file"
    sources.files.clear()
    monkeypatch.delenv("WARMUP_PROMPT_FILE")
    with pytest.raises(ConfigurationError, match=r"WARMUP_PROMPT_URL=.*/files/w.json is wrong: .*404") as wrong:
        await warm_up_prompt(load_settings())
    assert "secret-word-1" not in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "should be"),
        ("{}", "the graph has no nodes"),
        ('{"nodes": [], "links": []}', "nodes: "),
        ('{"3": {"inputs": {}}}', "3.class_type: it must be the name of a node class"),
    ],
)
async def test_what_is_no_graph_is_refused_at_the_start(tmp_path: Path, text: str | None, words: str) -> None:
    """One line with the variable and the place, before anything is launched."""
    path = tmp_path / "w.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"WARMUP_PROMPT_FILE={path} is wrong: .*{words}"):
        await read_warm_up(path, None, StorageConfig(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([], None),
        ([("a", "LoraLoader", "x")], None),
        ([("b", "CheckpointLoaderSimple", "first"), ("a", "CheckpointLoaderSimple", "second")], "first"),
        ([("a", "CheckpointLoaderSimple", "text"), ("10", "CheckpointLoaderSimple", "ten")], "ten"),
        ([("10", "CheckpointLoaderSimple", "ten"), ("9", "CheckpointLoaderSimple", "nine")], "nine"),
        ([("1", "CheckpointLoaderSimple", ["2", 0])], None),
    ],
)
def test_the_warm_up_checkpoint(nodes: list[tuple[str, str, Any]], wanted: str | None) -> None:
    """That of the first CheckpointLoaderSimple: numbered nodes in their order, then the others in the file's."""
    found = {name: {"class_type": kind, "inputs": {"ckpt_name": ckpt}} for name, kind, ckpt in nodes}
    assert checkpoint_of(found) == wanted

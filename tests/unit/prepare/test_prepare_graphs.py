"""Preparing whole graphs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import anyio
import pytest
from prepare_doubles import MP4, World, b64, node, picture, png, tarred, zipped

from app.errors import InputRefused, InputUnavailable, InvalidRequest, PromptError

pytestmark = pytest.mark.anyio


async def refused(world: World, graph: dict[str, Any], **fields: Any) -> PromptError:
    """The error that preparing ends in; nothing may be left behind."""
    before = world.everything()
    with pytest.raises(PromptError) as caught:
        await world.prepare(graph, **fields)
    assert world.everything() == before
    assert list(world.work.iterdir()) == []
    return caught.value


async def test_the_request_is_not_mutated(world: World) -> None:
    """A retry or the echo in an event sees the graph as it came; untouched nodes are shared."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": b64(png())}, "_meta": {"title": "x"}, "more": [1]},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "y"}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 1}},
    }
    before = copy.deepcopy(graph)
    ready = await world.prepare(graph, attempt=2, replay=1)
    assert graph == before
    assert ready["1"] | {"inputs": None} == graph["1"] | {"inputs": None}
    assert ready["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": "id-1-a2-r1_y"}
    assert ready["3"] is graph["3"]
    assert list(ready) == list(graph)


@pytest.mark.parametrize("value", [["4", 0], ["4", 1.0], None, 5, 1.5, True, "", "  ", {"a": 1}])
@pytest.mark.parametrize("class_type", ["LoadImage", "LoadVideo", "LoadAudio", "CheckpointLoaderSimple"])
async def test_left_alone(world: World, value: Any, class_type: str) -> None:
    """Links, numbers and empty texts of known inputs are ComfyUI's to judge."""
    name = {"LoadImage": "image", "LoadVideo": "file", "LoadAudio": "audio"}.get(class_type, "ckpt_name")
    graph = node(class_type, **{name: value})
    assert await world.prepare(graph) == graph


@pytest.mark.parametrize("text", ["https://host/x.png", "a cat", "/etc/passwd", "x" * 500, "data:,x", b64(png())])
async def test_text_fields_of_other_nodes(world: World, text: str) -> None:
    """A text called ``image`` is a text unless ComfyUI says that it is a file."""
    world.comfy.info["Caption"] = {"input": {"required": {"image": ["STRING", {}], "other": [["a", "b"], {}]}}}
    graph = node("Caption", image=text)
    assert await world.prepare(graph) == graph
    graph = node("NobodyKnows", image=text)
    assert await world.prepare(graph) == graph
    assert world.source.asked == []


async def test_a_wrapped_value_is_no_way_around(world: World) -> None:
    """ComfyUI unwraps ``__value__``, so what is in it is prepared and refused alike."""
    ready = await world.prepare(node("LoadImage", image={"__value__": b64(png())}))
    assert ready["1"]["inputs"]["image"].startswith("comfybus/")
    error = await refused(world, node("LoadImage", image={"__value__": "/etc/passwd"}))
    assert isinstance(error, InvalidRequest)


@pytest.mark.parametrize(
    "value",
    ["/etc/passwd", "../../x.png", "missing.png", "data:image/png;base64,!!", b64(b"just words, no image at all")],
)
async def test_the_place_of_a_fault(world: World, value: str) -> None:
    """An unusable value is the request's fault and the error says where it stands."""
    graph = {"7": {"class_type": "LoadImage", "inputs": {"image": value}}}
    error = await refused(world, graph)
    assert isinstance(error, InvalidRequest)
    assert error.location == "prompt.7.inputs.image"
    assert not error.retryable


@pytest.mark.parametrize("failure", [InputUnavailable("The server answers 503."), InputRefused("HTTP 404.")])
async def test_a_source_that_fails(world: World, failure: PromptError) -> None:
    """What the source says is passed on with the place in the request."""
    world.source.content["https://host/x"] = failure
    error = await refused(world, node("LoadImage", image="https://host/x"))
    assert error is failure
    assert error.location == "prompt.1.inputs.image"


async def test_a_page_in_the_place_of_an_image(world: World) -> None:
    """A login page is refused here and not by a node minutes later."""
    world.source.content["https://host/x.png"] = b"<!DOCTYPE html><html><body>Log in</body></html>"
    error = await refused(world, node("LoadImage", image="https://host/x.png"))
    assert isinstance(error, InputRefused)
    assert "text/html" in str(error)


async def test_credentials_go_to_the_source(world: World) -> None:
    """The request's credentials are handed on for media as for models."""
    world.source.content["https://host/x.png"] = png()
    credentials = [{"url_pattern": "https://host/**", "auth": {"type": "bearer", "token": "s3cret"}}]
    await world.prepare(node("LoadImage", image="https://host/x.png"), credentials=credentials)
    assert [credential.url_pattern for credential in world.source.credentials] == ["https://host/**"]


async def test_side_by_side_and_bounded(tmp_path: Path) -> None:
    """Inputs are fetched side by side, at most ``parallel`` at a time."""
    world = World(tmp_path, parallel=3)
    graph = {}
    for number in range(10):
        url = f"https://host/{number}"
        world.source.content[url] = png(size=(number + 1, 4))
        graph[str(number)] = node("LoadImage", image=url)["1"]
    go = anyio.Event()

    def gate(_: str) -> anyio.Event:
        # The third opens it; were they fetched one by one, this would wait for ever.
        if world.source.at_once == 3:
            go.set()
        return go

    world.source.gate = gate
    with anyio.fail_after(5):
        await world.prepare(graph)
    assert world.source.most_at_once == 3
    assert len(world.source.asked) == 10


async def test_the_first_failure_stops_the_others(world: World) -> None:
    """A request that fails anyway does not wait for its other inputs."""
    never = anyio.Event()
    world.source.gate = lambda url: never if url.endswith("slow") else None
    graph = {
        "1": node("LoadImage", image="https://host/slow")["1"],
        "2": node("LoadImage", image="https://host/missing")["1"],
    }
    with anyio.fail_after(5):
        error = await refused(world, graph)
    assert error.location == "prompt.2.inputs.image"


async def test_a_source_that_hangs(tmp_path: Path) -> None:
    """Every input has a deadline; another try may help."""
    world = World(tmp_path, deadline_s=0.05)
    never = anyio.Event()
    world.source.gate = lambda _: never
    error = await refused(world, node("LoadImage", image="https://host/x"))
    assert isinstance(error, InputUnavailable)
    assert error.retryable
    assert error.location == "prompt.1.inputs.image"


async def test_a_cancellation_leaves_nothing(world: World) -> None:
    """Cancelled at any moment, nothing is left but what the cache has."""
    world.source.content["https://host/x.zip"] = zipped({f"{n}.png": png(size=(n + 1, 9)) for n in range(20)})
    graph = {
        "1": node("VHS_LoadImages", directory="https://host/x.zip")["1"],
        "2": node("LoadImage", image=b64(picture("BMP", size=(300, 300))))["1"],
    }
    for number in range(40):
        with anyio.move_on_after(number * 0.0007):
            await world.prepare(graph)
        assert list(world.work.iterdir()) == []
    async with world.preparer.hold():
        pass
    assert world.prepared() == []


async def test_a_list_of_media_becomes_a_directory(world: World) -> None:
    """URLs, base64, files and archives may stand side by side; the order is kept."""
    world.source.content["https://host/a"] = png("red")
    (world.input / "mine.jpg").write_bytes(picture("JPEG"))
    archive = zipped({"2.png": png("blue"), "1.png": png("green")})
    graph = node("VHS_LoadImages", directory=["https://host/a", b64(archive), "mine.jpg"], image_load_cap=3)
    async with world.holding(graph) as ready:
        folder = world.input / ready["1"]["inputs"]["directory"]
        assert folder.parent == world.input / "comfybus" / "id-1"
        found = [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]
        assert found == [
            (".png", png("red")),
            (".png", png("green")),
            (".png", png("blue")),
            (".jpg", picture("JPEG")),
        ]
        assert ready["1"]["inputs"]["image_load_cap"] == 3


@pytest.mark.parametrize("how", ["url", "base64", "data url"])
@pytest.mark.parametrize("kind", ["zip", "w", "w:gz"])
async def test_an_archive_becomes_a_directory(world: World, how: str, kind: str) -> None:
    """One archive in the place of a list will do."""
    members = {"a.png": png("red"), "b.png": png("blue")}
    content = zipped(members) if kind == "zip" else tarred(members, kind)
    world.source.content["https://host/frames"] = content
    value = {"url": "https://host/frames", "base64": b64(content), "data url": f"data:;base64,{b64(content)}"}[how]
    async with world.holding(node("VHS_LoadImages", directory=value)) as ready:
        folder = world.input / ready["1"]["inputs"]["directory"]
        assert [path.read_bytes() for path in sorted(folder.iterdir())] == [png("red"), png("blue")]


async def test_directories_that_are_there(world: World) -> None:
    """The name of a directory of the input folder stays; one that leads out does not."""
    (world.input / "frames").mkdir()
    graph = node("VHS_LoadImages", directory="frames")
    assert await world.prepare(graph) == graph
    ready = await world.prepare(node("VHS_LoadImagesPath", directory="frames"))
    assert ready["1"]["inputs"]["directory"] == str(world.input / "frames")
    for bad in ("../frames", "/tmp", "nothing"):
        assert (await refused(world, node("VHS_LoadImages", directory=bad))).location == "prompt.1.inputs.directory"


@pytest.mark.parametrize(
    "value", [[], [1], ["a", 5, "b"], [""], [["a"]], [b64(MP4)], [b64(picture("GIF"))], [b64(zipped({"a.txt": b"x"}))]]
)
async def test_lists_that_are_none(world: World, value: list[Any]) -> None:
    """A list of other things than images is refused with its place."""
    error = await refused(world, node("VHS_LoadImages", directory=value))
    assert isinstance(error, InvalidRequest | InputRefused)
    assert error.location == "prompt.1.inputs.directory"


async def test_the_id_stays_one_folder(world: World) -> None:
    """A replay has a directory of its own, and two requests never share one."""
    graph = node("VHS_LoadImages", directory=[b64(png())])
    async with world.holding(graph, request_id="a") as one, world.holding(graph, request_id="a", replay=2) as two:
        assert one["1"]["inputs"]["directory"].split("/")[1] == "a"
        assert two["1"]["inputs"]["directory"].split("/")[1] == "a.r2"


async def test_local_paths_by_leave(tmp_path: Path) -> None:
    """With ALLOW_LOCAL_PATHS a file of the machine is copied to where ComfyUI may read it."""
    (tmp_path / "elsewhere.png").write_bytes(png())
    world = World(tmp_path, local_paths=True)
    async with world.holding(node("LoadImage", image=str(tmp_path / "elsewhere.png"))) as ready:
        assert (world.input / ready["1"]["inputs"]["image"]).read_bytes() == png()


async def test_a_disk_that_is_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room is a failure of the surroundings with the place of the input."""
    (world.input / "comfybus").write_bytes(b"in the way")
    error = await refused(world, node("LoadImage", image=b64(png())))
    assert isinstance(error, InputUnavailable)
    assert error.location == "prompt.1.inputs.image"

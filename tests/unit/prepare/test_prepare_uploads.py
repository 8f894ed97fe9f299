"""Inputs for a ComfyUI whose folders are not shared."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepare_doubles import World, b64, node, png, zipped

from app.errors import InputRefused, InvalidRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
def remote(tmp_path: Path) -> World:
    """A ComfyUI elsewhere."""
    return World(tmp_path, shared=False)


async def test_content_is_sent_once(remote: World) -> None:
    """Equal content travels once, whichever way it came, until ComfyUI has started anew."""
    remote.source.content["https://host/x"] = png()
    for value in (b64(png()), "https://host/x", f"data:image/png;base64,{b64(png())}"):
        ready = await remote.prepare(node("LoadImage", image=value))
        assert remote.comfy.uploads[ready["1"]["inputs"]["image"]] == png()
    assert len(remote.comfy.uploads) == len(remote.comfy.asked) == 1
    remote.preparer.comfy_restarted()
    await remote.prepare(node("LoadImage", image=b64(png())))
    assert len(remote.comfy.asked) == 2
    assert list(remote.work.iterdir()) == []


async def test_directories_are_sent_file_by_file(remote: World) -> None:
    """The files of a directory lie below the request's id, in order."""
    archive = zipped({"a.png": png("red"), "b.png": png("blue")})
    ready = await remote.prepare(node("VHS_LoadImages", directory=[b64(archive), b64(png("green"))]))
    folder = ready["1"]["inputs"]["directory"]
    assert folder.startswith("comfybus/id-1/")
    assert [remote.comfy.uploads[f"{folder}/{n:05d}.png"] for n in range(3)] == [png("red"), png("blue"), png("green")]


@pytest.mark.parametrize("value", ["there.png", "sub/there.png [input]", "made.png [output]", "x.png [temp]"])
async def test_names_are_believed(remote: World, value: str) -> None:
    """Only ComfyUI knows what it has."""
    graph = node("LoadImage", image=value)
    assert await remote.prepare(graph) == graph


async def test_a_long_name_like_base64(remote: World) -> None:
    """A name without an ending that could be base64 is a name if it is no media."""
    graph = node("LoadImage", image="a1b2c3d4" * 8)
    assert await remote.prepare(graph) == graph


@pytest.mark.parametrize("value", ["/etc/passwd", "../x.png", '"/etc/passwd"'])
async def test_no_path_leads_out(remote: World, value: str) -> None:
    """Not even where this process does not see the folders."""
    with pytest.raises(InvalidRequest):
        await remote.prepare(node("LoadImage", image=value))


async def test_nodes_that_open_paths(remote: World) -> None:
    """They cannot work without shared folders, which the error says."""
    remote.source.content["https://host/x"] = png()
    for value in ("https://host/x", "name.png"):
        with pytest.raises(InputRefused, match="INPUT_DIR"):
            await remote.prepare(node("VHS_LoadImagePath", image=value))
        with pytest.raises(InputRefused, match="INPUT_DIR"):
            await remote.prepare(node("VHS_LoadImagesPath", directory=[value]))
    assert remote.source.asked == remote.comfy.asked == []

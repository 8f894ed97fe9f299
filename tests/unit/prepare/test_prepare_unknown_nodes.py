"""Nodes that the table does not know, by what ComfyUI says of them."""

from __future__ import annotations

from typing import Any

import pytest
from prepare_doubles import World, b64, node, png

from app.errors import InvalidRequest
from app.prepare.catalogue import folder_of_choices

pytestmark = pytest.mark.anyio

URL = "https://host/styles/nice.safetensors"


def loader(options: list[str], *, v3: bool, name: str = "lora_name", **flags: Any) -> dict[str, Any]:
    """A node class that chooses, described in the older or the newer way."""
    spec = ["COMBO", {"options": options, **flags}] if v3 else [options, flags]
    return {"input": {"required": {"text": ["STRING"]}, "optional": {name: spec}}}


@pytest.mark.parametrize("v3", [True, False])
async def test_a_loader_by_its_choices(world: World, v3: bool) -> None:
    """A URL in a list of files is a model of the folder that has these files."""
    world.comfy.files["loras"] = ["a.safetensors", "b.safetensors"]
    world.comfy.files["vae"] = ["c.safetensors"]
    world.comfy.info["MyLoader"] = loader(["None", "a.safetensors", "b.safetensors"], v3=v3, name="style")
    world.source.content[URL] = b"weights"
    ready = await world.prepare(node("MyLoader", style=URL, text=URL))
    name = ready["1"]["inputs"]["style"]
    assert (world.comfy.root / "loras" / name).read_bytes() == b"weights"
    assert ready["1"]["inputs"]["text"] == URL


async def test_an_empty_folder_by_the_inputs_name(world: World) -> None:
    """Where no file tells the folders apart, the name of the input may."""
    world.comfy.info["MyLoader"] = loader(["None"], v3=True, name="lora_name")
    world.source.content[URL] = b"weights"
    ready = await world.prepare(node("MyLoader", lora_name=URL))
    assert (world.comfy.root / "loras" / ready["1"]["inputs"]["lora_name"]).exists()


async def test_a_folder_that_cannot_be_told(world: World) -> None:
    """It is said rather than guessed, with the place and a cure."""
    world.comfy.info["MyLoader"] = loader([], v3=True, name="thing")
    with pytest.raises(InvalidRequest, match="install one model") as caught:
        await world.prepare(node("MyLoader", thing=URL))
    assert caught.value.location == "prompt.1.inputs.thing"


@pytest.mark.parametrize("v3", [True, False])
@pytest.mark.parametrize("how", ["url", "base64", "data url"])
async def test_an_upload_button(world: World, v3: bool, how: str) -> None:
    """An input with an upload button takes media like LoadImage does."""
    world.comfy.info["MyImage"] = loader(["x.png"], v3=v3, name="picture", image_upload=True)
    world.source.content["https://host/x"] = png(size=(64, 64))
    value = {"url": "https://host/x", "base64": b64(png(size=(64, 64))), "data url": f"data:;base64,{b64(png())}"}[how]
    ready = await world.prepare(node("MyImage", picture=value))
    assert ready["1"]["inputs"]["picture"].startswith("comfybus/")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../x.png", "~/x.png"])
async def test_an_upload_button_is_no_way_out(world: World, path: str) -> None:
    """Paths outside are refused there too."""
    world.comfy.info["MyImage"] = loader([], v3=False, name="picture", image_upload=True)
    with pytest.raises(InvalidRequest) as caught:
        await world.prepare(node("MyImage", picture=path))
    assert caught.value.location == "prompt.1.inputs.picture"


async def test_comfyui_is_asked_seldom(world: World) -> None:
    """Known nodes ask nothing; unknown ones once for many prompts, and again after ComfyUI has started anew."""
    await world.prepare(node("KSampler", seed=1, text="a long text " * 50))
    assert world.comfy.asked == []
    for _ in range(5):
        await world.prepare({"1": node("A", image=URL)["1"], "2": node("B", image="data:,x")["1"]})
    assert world.comfy.asked == ["object_info"]
    world.preparer.comfy_restarted()
    await world.prepare(node("A", image=URL))
    assert world.comfy.asked == ["object_info"] * 2


@pytest.mark.parametrize(
    ("options", "name", "folder"),
    [
        (("a.pt", "b.pt"), "x", "one"),
        (("c.gguf",), "x", "two"),
        (("a.pt",), "x", "one"),
        ((), "ones_name", None),
        ((), "thing_name", "things"),
        ((), "ckpt_name", None),
        (("new.pt",), "x", None),
        (("None",), "thing", "things"),
    ],
)
def test_which_folder(options: tuple[str, ...], name: str, folder: str | None) -> None:
    """Exactly the files of a folder, else some of them, else its name among the empty ones."""
    models = {"one": ["a.pt", "b.pt"], "two": ["c.gguf"], "things": [], "others": []}
    assert folder_of_choices(options, name, models) == folder


@pytest.mark.parametrize("spec", [None, [], "STRING", [None], [5, {}], ["COMBO"], ["COMBO", {"options": 5}], {"a": 1}])
async def test_odd_answers(world: World, spec: Any) -> None:
    """Whatever a custom node says of itself, a text stays a text."""
    world.comfy.info["Odd"] = {"input": {"required": {"image": spec}}}
    world.comfy.info["Odder"] = {"input": [1]}
    graph = {"1": node("Odd", image=URL)["1"], "2": node("Odder", image=URL)["1"]}
    assert await world.prepare(graph) == graph

"""Model URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepare_doubles import World, node

from app.errors import InputRefused

pytestmark = pytest.mark.anyio


async def loaded(world: World, url: str, class_type: str = "CheckpointLoaderSimple", name: str = "ckpt_name") -> str:
    """The name that the loader gets."""
    ready = await world.prepare(node(class_type, **{name: url}))
    value = ready["1"]["inputs"][name]
    assert isinstance(value, str)
    return value


async def test_names_are_of_the_content(world: World) -> None:
    """Equal content under changing signatures keeps its name; other content under one name gets another."""
    for url in ("https://h/m.safetensors?sig=1", "https://h/m.safetensors?sig=2"):
        world.source.content[url] = b"same"
    world.source.content["https://other/m.safetensors"] = b"other"
    names = [await loaded(world, url) for url in world.source.content]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("m-") and name.endswith(".safetensors") for name in names)


async def test_the_source_names_the_file(world: World) -> None:
    """Where the URL has no name of a model, that of the source counts."""
    url = "https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor"
    world.source.content[url] = b"x"
    world.source.names[url] = "dreamshaper_8.safetensors"
    assert (await loaded(world, url)).startswith("dreamshaper_8-")


@pytest.mark.parametrize("name", ["page", "page.html", "model.exe", "..", "x.safetensors.html", ".safetensors/"])
async def test_no_model_file(world: World, name: str) -> None:
    """What ComfyUI would not list is refused with its place."""
    world.source.content[f"https://h/{name}"] = b"x"
    with pytest.raises(InputRefused, match="not called like a model") as caught:
        await loaded(world, f"https://h/{name}")
    assert caught.value.location == "prompt.1.inputs.ckpt_name"
    assert [path for path in world.comfy.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name", ["%2e%2e%2f%2e%2e%2fevil.safetensors", "a%2fb%5c..%5cevil.pt", "evil%00.pt", "-rf.pt", "....pt", "%0a.ckpt"]
)
async def test_names_are_harmless(world: World, name: str) -> None:
    """Whatever the URL spells, the file lies in its folder under a plain name."""
    world.source.content[f"https://h/{name}"] = b"x"
    made = await loaded(world, f"https://h/{name}")
    assert (world.comfy.root / "checkpoints" / made).read_bytes() == b"x"
    assert made.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert not made.startswith(("-", "."))


@pytest.mark.parametrize(
    ("class_type", "name", "ending", "folder"),
    [
        ("CLIPLoaderGGUF", "clip_name", "gguf", "clip_gguf"),
        ("CLIPLoaderGGUF", "clip_name", "safetensors", "text_encoders"),
        ("WanVideoModelLoader", "model", "gguf", "unet_gguf"),
    ],
)
async def test_gguf(world: World, class_type: str, name: str, ending: str, folder: str) -> None:
    """A node that takes both kinds gets each into its own folder."""
    url = f"https://h/m.{ending}"
    world.source.content[url] = b"x"
    made = await loaded(world, url, class_type, name)
    assert (world.comfy.root / folder / made).exists()


async def test_the_folder_of_its_own_name(world: World, tmp_path: Path) -> None:
    """Of several places for a folder the one that people use is taken; MODEL_DIR says where this process sees it."""
    world.source.content["https://h/m.safetensors"] = b"x"
    unet, diffusion = tmp_path / "models/unet", tmp_path / "models/diffusion_models"
    unet.mkdir()

    world.comfy.paths = {"diffusion_models": [str(unet), str(diffusion)], "checkpoints": ["/comfy/models/checkpoints"]}
    made = await loaded(world, "https://h/m.safetensors", "UNETLoader", "unet_name")
    assert (diffusion / made).exists()
    with pytest.raises(InputRefused, match="set MODEL_DIR"):
        await loaded(world, "https://h/m.safetensors")


async def test_configs_lie_beside_checkpoints(world: World) -> None:
    """ComfyUI's list of folders leaves out that of configurations."""
    del world.comfy.paths["configs"]
    world.source.content["https://h/v1.yaml"] = b"model: {}"
    made = await loaded(world, "https://h/v1.yaml", "CheckpointLoader", "config_name")
    assert (world.comfy.root / "configs" / made).exists()


async def test_model_dir(tmp_path: Path) -> None:
    """With MODEL_DIR ComfyUI's own paths only tell the folder's name."""
    world = World(tmp_path, model_dir=tmp_path / "mounted")
    world.source.content["https://h/m.safetensors"] = b"x"
    made = await loaded(world, "https://h/m.safetensors")
    assert (tmp_path / "mounted" / "checkpoints" / made).exists()


async def test_a_folder_that_comfyui_has_not(world: World) -> None:
    """The model of a node that is not installed is refused with the cure."""
    world.source.content["https://h/m.safetensors"] = b"x"
    world.comfy.paths = {"custom_nodes": ["/x"]}
    with pytest.raises(InputRefused, match="no model folder 'ipadapter'"):
        await loaded(world, "https://h/m.safetensors", "IPAdapterModelLoader", "ipadapter_file")


async def test_without_shared_folders(tmp_path: Path) -> None:
    """A model cannot be put into a ComfyUI elsewhere; the error says what to set."""
    world = World(tmp_path, shared=False)
    with pytest.raises(InputRefused, match="COMFY_HOME") as caught:
        await loaded(world, "https://h/m.safetensors")
    assert not caught.value.retryable
    assert caught.value.location == "prompt.1.inputs.ckpt_name"
    assert world.source.asked == []

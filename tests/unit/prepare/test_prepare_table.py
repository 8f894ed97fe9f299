"""The table of nodes: every row is prepared, and says what real ComfyUI servers say."""

from __future__ import annotations

from typing import Any

import pytest
from prepare_doubles import FLAC, LATENT, MP4, RECORDED, World, b64, node, png

from app.prepare.catalogue import _choice, _inputs
from app.prepare.nodes import NODES, Kind, Media, Model

pytestmark = pytest.mark.anyio

ROWS = [(class_type, name, row) for class_type, inputs in NODES.items() for name, row in inputs.items()]
MEDIA = [(class_type, name, row) for class_type, name, row in ROWS if isinstance(row, Media)]
MODELS = [(class_type, name, row) for class_type, name, row in ROWS if isinstance(row, Model)]
CONTENT = {Kind.IMAGE: png(), Kind.IMAGES: png(), Kind.VIDEO: MP4, Kind.AUDIO: FLAC, Kind.FILE: LATENT}
RECORDED_ROWS = [
    (version, class_type, name, NODES[class_type][name])
    for version, classes in RECORDED.items()
    for class_type, described in classes.items()
    for name, _ in _inputs(described)
    if name in NODES.get(class_type, {})
]


@pytest.mark.parametrize(("class_type", "name", "row"), MEDIA, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("how", ["url", "base64", "data url", "file"])
async def test_media(world: World, class_type: str, name: str, row: Media, how: str) -> None:
    """Each media input takes a URL, base64, a data URL and a file of the input folder, and the node finds the bytes."""
    content = CONTENT[row.kind]
    world.source.content["https://host/media"] = content
    (world.input / "mine").write_bytes(content)
    value: Any = {
        "url": "https://host/media",
        "base64": b64(content),
        "data url": f"data:application/octet-stream;base64,{b64(content)}",
        "file": "mine",
    }[how]
    graph = node(class_type, **{name: [value] if row.kind is Kind.IMAGES else value, "other": ["7", 1]})
    async with world.holding(graph) as ready:
        made = ready["1"]["inputs"][name]
        found = world.input / made
        if row.kind is Kind.IMAGES:
            (found,) = found.iterdir()
        assert found.read_bytes() == content
        assert made.startswith(str(world.input)) if row.by_path else not made.startswith("/")
        assert ready["1"]["inputs"]["other"] == ["7", 1]
    assert world.prepared() == []


@pytest.mark.parametrize(("class_type", "name", "row"), MODELS, ids=lambda value: str(value)[:40])
async def test_model(world: World, class_type: str, name: str, row: Model) -> None:
    """Each model input takes a URL and finds the file in the folder of the table."""
    if row.repository:
        pytest.skip("repositories have tests of their own")
    url = "https://host/files/My Model%20v1.safetensors?download=true"
    world.source.content[url] = b"weights"
    ready = await world.prepare(node(class_type, **{name: url}))
    made = ready["1"]["inputs"][name]
    assert made.startswith("My_Model_v1-")
    assert (world.comfy.root / row.folder / made).read_bytes() == b"weights"


@pytest.mark.parametrize(("class_type", "name", "row"), MODELS, ids=lambda value: str(value)[:40])
async def test_names_of_models_stay(world: World, class_type: str, name: str, row: Model) -> None:
    """A model that is named and not addressed is ComfyUI's business."""
    graph = node(class_type, **{name: "sub/installed.safetensors"})
    assert await world.prepare(graph) == graph
    assert world.source.asked == world.comfy.asked == []


@pytest.mark.parametrize(("version", "class_type", "name", "row"), RECORDED_ROWS, ids=lambda value: str(value)[:40])
def test_what_comfyui_says(version: str, class_type: str, name: str, row: Media | Model) -> None:
    """Real servers of three versions list the folder of the row as its choices, or show its upload button."""
    spec = dict(_inputs(RECORDED[version][class_type]))[name]
    choice = _choice(spec)
    if isinstance(row, Model):
        probes = [option for option in choice.options or () if option.startswith("probe-")]
        assert [probe.rpartition(".")[0] or probe for probe in probes] == [f"probe-{row.folder}"]
    elif class_type != "LoadLatent":
        assert choice.upload is row.kind


def test_the_table_is_covered() -> None:
    """Every class of ComfyUI itself has been seen in a recording."""
    seen = {class_type for classes in RECORDED.values() for class_type in classes}
    others = ("VHS_", "GGUF", "ADE_", "ACN_", "IPAdapter", "InstantID", "Pulid", "WanVideo", "ControlNetLoaderAdv")
    assert [name for name in NODES if name not in seen and not any(mark in name for mark in others)] == []

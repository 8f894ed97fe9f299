"""The workflows that come with the product, against what real ComfyUI servers say of their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prepare_doubles import RECORDED, World

from app.prepare.catalogue import _inputs
from app.prepare.context import ContextSource
from app.prepare.workflows import Workflows

pytestmark = pytest.mark.anyio

WORKFLOWS = Workflows.load(Path(__file__).parents[3] / "workflows")
SHIPPED = [
    "flux/img2img",
    "flux/txt2img",
    "sd15/img2img",
    "sd15/txt2img",
    "sdxl/img2img",
    "sdxl/txt2img",
    "sdxl/txt2img_with_refiner",
]
NUMBERS = {"INT": int, "FLOAT": (int, float)}


def problems(graph: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """What ComfyUI's validation would find: the rules of its execution.py on constants and links."""
    for node_id, node in graph.items():
        described = known.get(node["class_type"])
        if described is None:
            yield f"{node_id}: no class {node['class_type']}"
            continue
        declared = dict(_inputs(described))
        required = described["input"].get("required", {})
        yield from (f"{node_id}: {name} is missing" for name in required if name not in node["inputs"])
        for name, value in node["inputs"].items():
            yield from (f"{node_id}.{name}: {fault}" for fault in wrong(value, declared.get(name), graph, known))


def wrong(value: Any, spec: Any, graph: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one value."""
    if spec is None:
        yield "there is no such input"
        return
    kind, options = (*spec, {})[:2]
    if isinstance(value, list):
        given = known[graph[value[0]]["class_type"]]["output"][value[1]]
        if given != kind:
            yield f"{given} is linked to {kind}"
    elif isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options["options"]
        if value not in choices and not options.get("image_upload"):
            yield f"{value!r} is not in the list"
    elif kind in NUMBERS:
        if not isinstance(value, NUMBERS[kind]) or not options.get("min", value) <= value <= options.get("max", value):
            yield f"{value!r} is no {kind} in its bounds"
    elif kind == "STRING" and not isinstance(value, str):
        yield f"{value!r} is no text"


def given_to(name: str) -> dict[str, Any]:
    """The least that a workflow needs."""
    return {"prompt": "a cat", "image": "cat.png"} if name.endswith("img2img") else {"prompt": "a cat"}


def test_all_are_found() -> None:
    """The seven, each with a line of description and a table of inputs."""
    assert [name for name in WORKFLOWS.names() if not name.startswith("demo/")] == SHIPPED
    for name in SHIPPED:
        info = WORKFLOWS.describe(name)
        assert info.summary.endswith(".")
        assert all(field.description for field in info.fields)


@pytest.mark.parametrize("version", sorted(RECORDED))
@pytest.mark.parametrize("name", SHIPPED)
async def test_valid_for_comfyui(name: str, version: str) -> None:
    """With the least input and with all its bounds, a workflow fits the node classes of every supported version."""
    known = RECORDED[version]
    assert list(problems(await WORKFLOWS.generate(name, given_to(name), seed=5), known)) == []
    schema = WORKFLOWS.describe(name).schema["properties"]
    for bound in ("minimum", "maximum"):
        extreme = {field: spec[bound] for field, spec in schema.items() if bound in spec}
        assert list(problems(await WORKFLOWS.generate(name, given_to(name) | extreme, seed=5), known)) == []


@pytest.mark.parametrize("name", SHIPPED)
async def test_choices_of_comfyui(name: str, tmp_path: Path) -> None:
    """The defaults are names that ComfyUI has, and its own lists are what is checked against."""
    world = World(tmp_path)
    for folder, probes in (
        ("checkpoints", ["sd_xl_base_1.0.safetensors", "sd_xl_refiner_1.0.safetensors"]),
        ("diffusion_models", ["flux1-dev.safetensors"]),
        ("text_encoders", ["clip_l.safetensors", "t5xxl_fp16.safetensors"]),
        ("vae", ["ae.safetensors"]),
    ):
        world.comfy.files[folder] = probes
    source = ContextSource(world.preparer.catalogue, "warm.safetensors")
    graph = await WORKFLOWS.generate(name, given_to(name), source, seed=5)
    loaders = [node["inputs"]["ckpt_name"] for node in graph.values() if "ckpt_name" in node["inputs"]]
    if "refiner" in name:
        assert loaders == ["sd_xl_base_1.0.safetensors", "sd_xl_refiner_1.0.safetensors"]
    elif not name.startswith("flux/"):
        assert loaders == ["warm.safetensors"]


async def test_seeds(tmp_path: Path) -> None:
    """A seed that is given is used; else that of the request."""
    for seed, expected in ((None, 5), (0, 0), (2**64 - 1, 2**64 - 1)):
        graph = await WORKFLOWS.generate("sd15/txt2img", {"prompt": "x", "seed": seed}, seed=5)
        assert graph["3"]["inputs"]["seed"] == expected

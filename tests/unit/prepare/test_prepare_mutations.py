"""Five hundred graphs and inputs that were made by chance: typed errors, nothing outside, nothing left behind."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prepare_doubles import World, b64, png, zipped

from app.errors import PromptError
from app.prepare.workflows import Workflows
from schemas.base import WrongField
from schemas.prompt import parse_request
from tests.support.mutations import mutated, value

pytestmark = pytest.mark.anyio


async def outcome_of(call: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
    """What a call gives, or the typed error that it raises; any other error passes through and fails the test."""
    try:
        return await call(*arguments, **named)
    except (PromptError, WrongField) as error:
        return error


@pytest.mark.parametrize("shared", [True, False])
async def test_graphs(tmp_path: Path, shared: bool) -> None:
    """Whatever a graph holds, it is prepared or refused by type and place; only the allowed folders are written to."""
    (tmp_path / "secret").write_bytes(png())
    world = World(tmp_path, shared=shared, limit_bytes=0, deadline_s=10.0)
    (world.input / "mine.png").write_bytes(png())
    world.comfy.info["MyImage"] = {"input": {"required": {"picture": [[], {"image_upload": True}]}}}
    world.comfy.info["MyLoader"] = {"input": {"required": {"lora_name": [[]], "ckpt_name": [["a.pt"]]}}}
    chance = random.Random(20 + shared)
    frames = zipped({"a.png": png()})
    world.source.content |= {
        "https://host/good.png": png(),
        "https://host/bad.png": b"<html></html>",
        "https://host/frames.zip": frames,
        "https://host/m.safetensors": b"weights",
    }
    before = world.everything()
    outcomes = {"prepared": 0, "refused": 0}
    for _ in range(250):
        graph = mutated(chance)
        outcome = await outcome_of(world.prepare, graph)
        if isinstance(outcome, PromptError):
            outcomes["refused"] += 1
            assert outcome.code in ("invalid_request", "input_unavailable"), outcome
            assert (outcome.location or "").startswith("prompt."), outcome
            assert str(outcome).endswith(".")
        elif not isinstance(outcome, WrongField):
            # Else it was not even a request.
            outcomes["prepared"] += 1
        models = {path for path in world.everything() if world.comfy.root in path.parents}
        assert world.everything() - models == before
        assert all(path.read_bytes() == b"weights" for path in models)
        assert list(world.work.iterdir()) == []
    assert min(outcomes.values()) > 50
    # A mutated graph harms nobody else.
    ready = await world.prepare({"1": {"class_type": "LoadImage", "inputs": {"image": b64(png())}}})
    assert ready["1"]["inputs"]["image"].startswith("comfybus/")


async def test_inputs_of_workflows() -> None:
    """Whatever the typed input of a workflow holds, it gives a graph or is refused with the field's place."""
    workflows = Workflows.load(Path(__file__).parents[3] / "workflows")
    chance = random.Random(5)
    names = ["prompt", "width", "seed", "steps", "cfg_scale", "image", "checkpoint", "sampler_name", "nothing", "", "é"]
    for number in range(250):
        name = chance.choice([*workflows.names(), *workflows.names(), "none", "../sd15/txt2img", ""])
        given = {chance.choice(names): value(chance) for _ in range(chance.randrange(5))}
        if chance.random() < 0.6:
            given |= {"prompt": "x", "image": "y.png"} if "img2img" in name else {"prompt": "x"}
        outcome = await outcome_of(workflows.generate, name, given, seed=number)
        if isinstance(outcome, PromptError):
            assert outcome.code in ("invalid_request", "workflow_not_found"), outcome
            assert outcome.location is not None
            assert outcome.location == "workflow" or outcome.location.startswith("input.")
        else:
            assert parse_request({"prompt": outcome}).prompt == outcome

"""Five hundred graphs and inputs that were made by chance: typed errors, nothing outside, nothing left behind."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prepare_doubles import FLAC, MP4, World, b64, picture, png, tarred, zipped

from app.errors import PromptError
from app.prepare.nodes import NODES
from app.prepare.workflows import Workflows
from schemas.base import WrongField
from schemas.prompt import parse_request

pytestmark = pytest.mark.anyio

CLASSES = [*NODES, "SaveImage", "KSampler", "NobodyKnows", "MyImage", "MyLoader"]
SOURCES = ["good.png", "bad.png", "frames.zip", "m.safetensors", "gone", "%00", ".."]
FIELDS = [
    "image",
    "mask",
    "file",
    "video",
    "audio",
    "directory",
    "filename_prefix",
    "ckpt_name",
    "lora_name",
    "picture",
]


def broken(chance: random.Random, content: bytes) -> bytes:
    """Content with some bytes changed, cut off or doubled."""
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed[: chance.randrange(1, len(changed))] if chance.random() < 0.3 else changed)


def text(chance: random.Random) -> str:
    """A text for an input: content, a URL, a path or rubbish."""
    archive = {"a.png": png(), "../x.png": png()} if chance.random() < 0.3 else {"a.png": png(), "b/c.jpg": png("blue")}
    content = chance.choice(
        [png(), picture("JPEG"), picture("GIF"), MP4, FLAC, zipped(archive), tarred(archive, "w:gz"), b"<html></html>"]
    )
    content = broken(chance, content) if chance.random() < 0.6 else content
    return chance.choice(
        [
            b64(content),
            f"data:image/png;base64,{b64(content)}",
            f"data:{chance.choice(['', ',', ';', 'a/b;c'])}{b64(content)}",
            b64(content)[chance.randrange(9) :],
            f"https://host/{chance.choice(SOURCES)}",
            chance.choice(["/etc/passwd", "../../secret", "sub/../../secret", "~root/x", "C:\\x", "\\\\h\\x", "a\0b"]),
            "".join(chance.choice("aZ09+/=._-:[] \"'\\\n\t\0é😀%") for _ in range(chance.randrange(200))),
            chance.choice(["mine.png", "mine.png [input]", "x [output]", ".", "..", "", "comfybus", "NUL", "x" * 5000]),
        ]
    )


def value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, most often a text."""
    kind = chance.randrange(12)
    if kind == 0 and depth < 3:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 1 and depth < 3:
        return {chance.choice(["__value__", "a", ""]): value(chance, depth + 1)}
    if kind == 2:
        return chance.choice([None, True, 0, -1, 1.5, 10**30, ["1", 0], ["1", 0.5], [0, "1"]])
    return text(chance)


def mutated(chance: random.Random) -> dict[str, Any]:
    """A graph of a few nodes with the inputs they have and some they have not."""
    graph = {}
    for number in range(chance.randrange(1, 5)):
        class_type = chance.choice(CLASSES)
        names = [*NODES.get(class_type, ()), *chance.sample(FIELDS, 2)]
        inputs = {chance.choice(names): value(chance) for _ in range(chance.randrange(1, 4))}
        graph[chance.choice([str(number), f"{number}:{number}", "../..", "a.b", ""])] = {
            "class_type": class_type,
            "inputs": inputs,
        }
    return graph


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

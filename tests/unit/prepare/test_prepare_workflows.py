"""The registry of named workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from prepare_doubles import PlayedComfy

from app.errors import InvalidRequest, WorkflowFailed, WorkflowNotFound
from app.prepare.catalogue import Catalogue
from app.prepare.context import ContextSource, seed_for
from app.prepare.workflow_code import CodeWorkflow, load_code
from app.prepare.workflow_inputs import Field, markdown_table
from app.prepare.workflows import Workflows, input_location
from brokers.base import RequestKey

pytestmark = pytest.mark.anyio

HEAD = """
from __future__ import annotations
import asyncio, random, sys, time
from enum import Enum
from typing import Any, Literal
from pydantic import BaseModel, ConfigDict, Field
from schemas.base import WrongField
"""
NODE = '{"1": {"class_type": "X", "inputs": {"text": input.prompt}}}'
PLAIN = "class Input(BaseModel):\n    prompt: str = 'a'\n"


class Folder:
    """A WORKFLOW_DIR."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, text: str) -> None:
        """Write a file; Python gets the usual imports."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + text if name.endswith(".py") else text)

    def load(self) -> Workflows:
        """What the worker does at its start."""
        return Workflows.load(self.root)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty WORKFLOW_DIR."""
    return Folder(tmp_path / "workflows")


def context(tmp_path: Path, **files: list[str]) -> ContextSource:
    """A running ComfyUI with these model files."""
    comfy = PlayedComfy(tmp_path / "models")
    comfy.files |= files
    return ContextSource(Catalogue(comfy), "warm.safetensors")


async def test_found_by_path(folder: Folder) -> None:
    """Sub-folders are the name; private files, packages, caches and other endings are passed over."""
    for name in ("a.py", "b/c.py", "b/d/e-f.py", "_private.py", "b/__init__.py", ".hidden/x.py", "__pycache__/y.py"):
        folder.add(name, f"{PLAIN}\ndef generate(input): return {NODE}\n")
    folder.add("b/note.md", "no workflow")
    folder.add("g.json", json.dumps({"1": {"class_type": "X", "inputs": {}}}))
    assert folder.load().names() == ["a", "b/c", "b/d/e-f", "g"]
    assert not list(folder.root.rglob("*.pyc"))


async def test_hyphens(folder: Folder) -> None:
    """Names with hyphens and underscores mean the same file, as clients of comfyui-api write the one."""
    folder.add("x/one_two.py", f"{PLAIN}\ndef generate(input): return {NODE}\n")
    workflows = folder.load()
    assert workflows.describe("x/one-two").name == "x/one_two"
    assert await workflows.generate("x/one-two", {})


@pytest.mark.parametrize(
    "text",
    [
        "this is no Python",
        "raise RuntimeError('at import')",
        "sys.exit(3)",
        "import not_a_module",
        "def generate(input): return {}",
        PLAIN,
        "Input = dict\ndef generate(input): return {}",
        f"{PLAIN}\ngenerate = 5",
        "class Input(BaseModel):\n    x: Nothing\ndef generate(input): return {}",
    ],
)
async def test_a_broken_file(folder: Folder, text: str) -> None:
    """It is one log line that names it, and the others work."""
    folder.add("broken.py", text)
    folder.add("good.py", f"{PLAIN}\ndef generate(input): return {NODE}\n")
    with structlog.testing.capture_logs() as logs:
        workflows = folder.load()
    assert workflows.names() == ["good"]
    assert [Path(line["file"]).name for line in logs] == ["broken.py"]
    assert logs[0]["reason"]
    assert await workflows.generate("good", {"prompt": "b"}) == {"1": {"class_type": "X", "inputs": {"text": "b"}}}


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("arguments", ["input", "input, context", "input, context=None", "input, *, extra=1"])
async def test_shapes_of_generate(folder: Folder, kind: str, arguments: str) -> None:
    """Sync and async, with and without a context."""
    folder.add("w.py", f"{PLAIN}\n{kind} generate({arguments}): return {NODE}\n")
    assert await folder.load().generate("w", {"prompt": "b"}) == {"1": {"class_type": "X", "inputs": {"text": "b"}}}


CONTEXT = """
def generate(input, context):
    inputs = {
        "sampler": context.samplers[0],
        "scheduler": context.schedulers[0],
        "warm": context.warmup_checkpoint,
        "model": context.models["checkpoints"][0],
        "seed": context.seed,
    }
    return {"1": {"class_type": "X", "inputs": inputs}}
"""


async def test_the_context(folder: Folder, tmp_path: Path) -> None:
    """A workflow learns what the running ComfyUI has, the warm-up checkpoint, and a seed that stays for a request."""
    folder.add("w.py", PLAIN + CONTEXT)
    made = await folder.load().generate("w", {}, context(tmp_path, checkpoints=["m.safetensors"]), seed=7)
    assert made["1"]["inputs"] == {
        "sampler": "euler",
        "scheduler": "simple",
        "warm": "warm.safetensors",
        "model": "m.safetensors",
        "seed": 7,
    }


def test_seeds() -> None:
    """Each try of a request gets the same seed, another request or replay another."""
    seeds = [seed_for(key) for key in (RequestKey("a"), RequestKey("a"), RequestKey("a", 1), RequestKey("b"))]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**48 for seed in seeds)


TYPED = """
class Color(Enum):
    red = "red"
    blue = "blue"

class Input(BaseModel):
    prompt: str = Field(min_length=2, description="What it shows.")
    width: int = Field(512, ge=64, le=2048, multiple_of=8)
    color: Color = Color.red
    mode: Literal["a", "b"] = "a"
    words: list[str] = []
    scale: float | None = Field(None, gt=0)
    seed: int = Field(default_factory=lambda: random.randrange(10), description="Seed")
    sampler: str = Field("euler", json_schema_extra={"choices": "samplers"})
    model: str = Field("m.safetensors", json_schema_extra={"choices": "models.checkpoints"})

def generate(input):
    if input.prompt == "odd":
        raise WrongField("prompt", "it is odd")
    return {"1": {"class_type": "X", "inputs": {"text": input.prompt, "seed": input.seed}}}
"""


@pytest.mark.parametrize(
    ("given", "location"),
    [
        ({}, "input.prompt"),
        ({"prompt": "a"}, "input.prompt"),
        ({"prompt": 5}, "input.prompt"),
        ({"prompt": "ab", "width": 65}, "input.width"),
        ({"prompt": "ab", "width": 4096}, "input.width"),
        ({"prompt": "ab", "width": "wide"}, "input.width"),
        ({"prompt": "ab", "color": "green"}, "input.color"),
        ({"prompt": "ab", "mode": "c"}, "input.mode"),
        ({"prompt": "ab", "words": ["x", 5]}, "input.words.1"),
        ({"prompt": "ab", "scale": 0}, "input.scale"),
        ({"prompt": "ab", "heigth": 5}, "input.heigth"),
        ({"prompt": "ab", "sampler": "euler_a"}, "input.sampler"),
        ({"prompt": "ab", "model": "other.safetensors"}, "input.model"),
        ({"prompt": "odd"}, "input.prompt"),
    ],
)
async def test_the_field_at_fault(folder: Folder, tmp_path: Path, given: dict[str, Any], location: str) -> None:
    """Every wrong input is an invalid request that names its field, also what only this ComfyUI lacks."""
    folder.add("w.py", TYPED)
    with pytest.raises(InvalidRequest) as caught:
        await folder.load().generate("w", given, context(tmp_path, checkpoints=["m.safetensors"]))
    assert caught.value.location == location
    assert str(caught.value).endswith(".")


async def test_a_model_may_be_a_url(folder: Folder, tmp_path: Path) -> None:
    """It is fetched later, so it need not be installed."""
    folder.add("w.py", TYPED)
    source = context(tmp_path, checkpoints=[])
    assert await folder.load().generate("w", {"prompt": "ab", "model": "https://h/m.safetensors"}, source)


def test_the_table(folder: Folder) -> None:
    """Types, limits, defaults: a required field says so and a random default is called random."""
    folder.add("w.py", TYPED)
    info = folder.load().describe("w")
    rows = {field.name: field for field in info.fields}
    assert rows["prompt"] == Field("prompt", "string", "What it shows; 2 characters or more", None)
    assert rows["prompt"].required
    assert rows["width"].description == "at least 64; at most 2048; a multiple of 8"
    assert rows["color"].type == "`red`, `blue`"
    assert rows["mode"].type == "`a`, `b`"
    assert rows["words"].type == "string[]"
    assert rows["scale"].type == "number"
    assert rows["seed"].default == "random"
    assert rows["sampler"].choices == "samplers"
    assert "or a URL" in rows["model"].description
    table = markdown_table(info.fields)
    assert "| prompt | string | What it shows; 2 characters or more | **Required** |" in table
    assert "| seed | integer | Seed | `random` |" in table
    assert info.schema["required"] == ["prompt"]
    assert info.schema["additionalProperties"] is False


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('boom')",
        "sys.exit(1)",
        "return 5",
        "return {}",
        "return {'1': {'inputs': {}}}",
        "return {'1': {'class_type': 'X', 'inputs': []}}",
        "return {1: {'class_type': 'X', 'inputs': {}}}",
        "return {'1': {'class_type': 'X', 'inputs': {'x': object()}}}",
        "return {'1': {'class_type': 'X', 'inputs': {'x': float('nan')}}}",
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_code_that_fails(folder: Folder, body: str, kind: str) -> None:
    """What a workflow's own code does wrong is its failure, not the worker's."""
    if kind == "async def" and "sys.exit" in body:
        body = "raise KeyError('x')"
    folder.add("w.py", f"{PLAIN}\n{kind} generate(input):\n    {body}\n")
    with pytest.raises(WorkflowFailed) as caught:
        await folder.load().generate("w", {})
    assert not caught.value.retryable


async def test_tuples_and_numbers(folder: Folder) -> None:
    """A graph comes out as it will travel: tuples are lists, missing inputs are empty."""
    body = "{'1': {'class_type': 'X', 'inputs': {'a': ('2', 0)}}, '2': {'class_type': 'Y'}}"
    folder.add("w.py", f"{PLAIN}\ndef generate(input): return {body}")
    made = await folder.load().generate("w", {})
    assert made == {"1": {"class_type": "X", "inputs": {"a": ["2", 0]}}, "2": {"class_type": "Y", "inputs": {}}}


@pytest.mark.parametrize(
    "body", ["def generate(input): time.sleep(2)", "async def generate(input): await asyncio.sleep(60)"]
)
async def test_code_that_hangs(folder: Folder, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """It is given up after a deadline, while the loop goes on."""
    folder.add("w.py", f"{PLAIN}\n{body}\n")
    loaded = load_code(folder.root / "w.py")
    monkeypatch.setattr("app.prepare.workflow_code._DEADLINE_S", 0.05)
    with anyio.fail_after(1), pytest.raises(WorkflowFailed, match="did not end"):
        await Workflows({"w": loaded}).generate("w", {})
    assert isinstance(loaded, CodeWorkflow)


@pytest.mark.parametrize("name", ["none", "../a", "", "a.py", "A"])
async def test_no_such_workflow(folder: Folder, name: str) -> None:
    """It is said with what there is."""
    folder.add("a.py", f"{PLAIN}\ndef generate(input): return {NODE}\n")
    with pytest.raises(WorkflowNotFound, match="this worker has a") as caught:
        await folder.load().generate(name, {})
    assert caught.value.location == "workflow"


def test_faults_of_the_graph_in_words_of_the_request() -> None:
    """A fault at a place of the generated graph is told as the field whose value stands there."""
    graph = {"10": {"class_type": "LoadImage", "inputs": {"image": "x.png", "n": 1}}}
    assert input_location("prompt.10.inputs.image", graph, {"a": 1, "picture": "x.png"}) == "input.picture"
    assert input_location("prompt.10.inputs.image", graph, {"a": "y.png"}) == "prompt.10.inputs.image"
    assert input_location("prompt.10.inputs.n", graph, {"b": True}) == "prompt.10.inputs.n"
    assert input_location("prompt.9.inputs.image", graph, {"a": "x.png"}) == "prompt.9.inputs.image"
    assert input_location(None, graph, {"a": "x.png"}) is None

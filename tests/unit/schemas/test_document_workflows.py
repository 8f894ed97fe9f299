"""Named workflows in the AsyncAPI document: a message each, whose schema judges as the worker does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.documents.asyncapi import asyncapi_document
from app.errors import InvalidRequest
from app.prepare.workflows import Workflows
from app.settings.tree import SHIPPED_WORKFLOWS

SHIPPED = Workflows.load(SHIPPED_WORKFLOWS)

NESTED = '''"""Points on a picture."""
from pydantic import BaseModel, ConfigDict, Field

class Point(BaseModel):
    x: int = Field(ge=0)

class Input(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"$ref": "#/$defs/Point"}]})
    title: str = "none"
    points: list[Point] = Field(default=[], description="Where.")

def generate(input):
    return {"1": {"class_type": "Points", "inputs": {"title": input.title}}}
'''


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return asyncapi_document(workflows=SHIPPED.describe_all())


def judge(document: dict[str, Any], message: str) -> Draft202012Validator:
    """A validator for the payload of one message, with the document's shared schemas at hand."""
    payload = document["components"]["messages"][message]["payload"]
    return Draft202012Validator({**payload, "components": {"schemas": document["components"]["schemas"]}})


def test_every_shipped_workflow_is_a_message(shipped: dict[str, Any]) -> None:
    """Received on the request channel, beside the request for a graph, and named in its title."""
    keys = {name: "workflow_" + name.replace("/", "_") for name in SHIPPED.names()}
    assert len(keys) == 8
    assert list(shipped["channels"]["request"]["messages"]) == ["promptRequest", *keys.values()]
    received = [one["$ref"].rpartition("/")[2] for one in shipped["operations"]["request"]["messages"]]
    assert received == ["promptRequest", *keys.values()]
    for name, key in keys.items():
        assert shipped["components"]["messages"][key]["title"].endswith(name)
        Draft202012Validator.check_schema(shipped["components"]["schemas"][f"{key}.input"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    "given",
    [
        {"prompt": "a cat"},
        {"prompt": "a cat", "width": 64, "steps": 150, "seed": None},
        {},
        {"prompt": 1},
        {"prompt": "a cat", "width": 63},
        {"prompt": "a cat", "width": 100},
        {"prompt": "a cat", "steps": 151},
        {"prompt": "a cat", "colour": "red"},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("name", ["sd15/txt2img", "sdxl/txt2img", "flux/txt2img"])
async def test_the_schema_judges_as_the_worker_does(shipped: dict[str, Any], name: str, given: dict[str, Any]) -> None:
    """A producer that validates with the schema is told the same as by the worker."""
    try:
        await SHIPPED.generate(name, given)
        accepted = True
    except InvalidRequest:
        accepted = False
    validator = judge(shipped, "workflow_" + name.replace("/", "_"))
    assert validator.is_valid({"workflow": name, "input": given}) == accepted


def test_input_may_be_left_out_where_everything_has_a_default(shipped: dict[str, Any]) -> None:
    """And only there; another workflow's name is another message."""
    demo = judge(shipped, "workflow_demo_image_to_image")
    assert demo.is_valid({"workflow": "demo/image_to_image"})
    assert demo.is_valid({"workflow": "demo/image_to_image", "input": {"image": "https://h/a.png"}})
    assert not demo.is_valid({"workflow": "demo/image_to_image", "input": {"image": 1}})
    assert not demo.is_valid({"workflow": "sd15/txt2img", "input": {"prompt": "a cat"}})
    assert not judge(shipped, "workflow_sd15_txt2img").is_valid({"workflow": "sd15/txt2img"})


def test_blocks_and_names_stay_apart(tmp_path: Path) -> None:
    """Blocks of an input move with it; a field may be called title; names that come to one key are numbered."""
    for name in ("a b", "a-b"):
        (tmp_path / f"{name}.py").write_text(NESTED)
    document = asyncapi_document(workflows=Workflows.load(tmp_path).describe_all())
    schemas = document["components"]["schemas"]
    for key in ("workflow_a_b", "workflow_a_b_2"):
        reference = f"#/components/schemas/{key}.input.Point"
        assert schemas[f"{key}.input"]["properties"]["points"]["items"] == {"$ref": reference}
        assert "title" in schemas[f"{key}.input"]["properties"]
        assert schemas[f"{key}.input"]["examples"] == [{"$ref": "#/$defs/Point"}]
    validator = judge(document, "workflow_a_b")
    name = document["components"]["messages"]["workflow_a_b"]["title"].removeprefix("A request to run the workflow ")
    assert validator.is_valid({"workflow": name, "input": {"points": [{"x": 1}]}})
    assert not validator.is_valid({"workflow": name, "input": {"points": [{"x": -1}]}})


def test_the_command_describes_a_folder(tmp_path: Path) -> None:
    """What cannot be loaded is said on standard error; the document stays a document."""
    (tmp_path / "points.py").write_text(NESTED)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    command = [sys.executable, "-m", "app", "schema", "asyncapi", "--workflows", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "workflow_points:" in done.stdout
    assert "workflow_sd15" not in done.stdout
    assert "nothing_of_that_name" not in done.stdout
    assert "nothing_of_that_name" in done.stderr

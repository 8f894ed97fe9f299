"""One JSON Schema (draft 2020-12) for each message, made from the models and from the rules between their fields.

Used by asyncapi, app.cli.groups; may import schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from schemas.control import ModelDownload, PromptCancel, WorkerDrain
from schemas.events import (
    ComfyEvent,
    Event,
    PromptComplete,
    PromptFailed,
    PromptProgress,
    StorageEvent,
    WorkerModels,
    WorkerState,
)
from schemas.prompt import TARGETS, PromptRequest

__all__ = ["MESSAGES", "json_schema", "json_schemas", "write_json_schemas"]

MESSAGES: Mapping[str, type[BaseModel]] = {
    "prompt-request": PromptRequest,
    "prompt-cancel": PromptCancel,
    "model-download": ModelDownload,
    "worker-drain": WorkerDrain,
    "prompt-complete": PromptComplete,
    "prompt-failed": PromptFailed,
    "prompt-progress": PromptProgress,
    "storage": StorageEvent,
    "comfy": ComfyEvent,
    "worker-state": WorkerState,
    "worker-models": WorkerModels,
}
"""Every message by the name of its schema file."""

# What `PromptRequest` demands of a graph beyond its type.
_GRAPH_RULES = {
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "properties": {
            "class_type": {"type": "string", "minLength": 1},
            "inputs": {"type": "object"},
        },
        "required": ["class_type"],
        "additionalProperties": True,
    },
}


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without the titles it makes of field names, which say nothing more."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def json_schemas() -> dict[str, dict[str, Any]]:
    """The schema of every message by its name in ``MESSAGES``."""
    return {name: json_schema(model) for name, model in MESSAGES.items()}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one message: as it is accepted for requests and commands, as it is written for events."""
    written = issubclass(model, Event)
    schema = model.model_json_schema(mode="serialization" if written else "validation", schema_generator=_Generator)
    schema = _plain(schema)
    schema["$schema"] = GenerateJsonSchema.schema_dialect
    if "const" in schema["properties"].get("type", {}):
        schema["required"] = ["type", *(name for name in schema.get("required", ()) if name != "type")]
    if written:
        schema = _without_null(schema)
    if model is StorageEvent:
        # The one field that the contract wants as null rather than left out.
        schema["properties"]["id"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    if model is PromptRequest:
        schema["properties"]["prompt"]["anyOf"][0].update(_GRAPH_RULES)
        schema.update(_request_rules())
    return dict(sorted(schema.items()))


def write_json_schemas(folder: Path) -> list[Path]:
    """Write ``<name>.json`` for every message into a folder, which is made if need be.

    Raises:
        OSError: The folder or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, schema in json_schemas().items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _plain(node: Any) -> Any:
    """Leave out ``discriminator``, which is OpenAPI's; write code in descriptions as Markdown does."""
    if isinstance(node, dict):
        found = {key: _plain(value) for key, value in node.items() if key != "discriminator"}
        if isinstance(text := found.get("description"), str):
            found["description"] = text.replace("``", "`")
        return found
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _without_null(node: Any) -> Any:
    """Leave out null as a value: an event leaves out the whole field instead."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _without_null(value) for key, value in node.items()}
    if "default" in found and found["default"] is None:
        del found["default"]
    if isinstance(choices := found.get("anyOf"), list):
        kept = [choice for choice in choices if choice != {"type": "null"}]
        found["anyOf"] = kept
        if len(kept) == 1:
            del found["anyOf"]
            found = {**kept[0], **found}
    return found


def _request_rules() -> dict[str, Any]:
    """Exactly one of prompt and workflow, input only beside workflow, at most one target; null counts as absent."""

    def given(*names: str) -> dict[str, Any]:
        return {"required": list(names), "properties": {name: {"not": {"type": "null"}} for name in names}}

    pairs = [given(one, other) for index, one in enumerate(TARGETS) for other in TARGETS[index + 1 :]]
    return {
        "oneOf": [given("prompt"), given("workflow")],
        "allOf": [{"if": given("input"), "then": given("workflow")}, {"not": {"anyOf": pairs}}],
    }

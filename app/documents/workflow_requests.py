"""Requests for named workflows in the AsyncAPI document: one message each, with the schema of its inputs.

Used by asyncapi; may import app.prepare.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from app.prepare.workflows import WorkflowInfo

__all__ = ["add_workflows"]

_SCHEMAS: Final = "#/components/schemas/"
_REQUEST: Final = "promptRequest"
# Values of the author's, in which a key means nothing to us.
_VALUES: Final = frozenset({"default", "const", "enum", "examples"})


def add_workflows(document: dict[str, Any], workflows: Iterable[WorkflowInfo]) -> None:
    """Put the workflows into a document that has the message ``promptRequest`` on the channel ``request``.

    The message ``workflow_sd15_txt2img`` is a request that names the workflow, and whose ``input`` fits the schema
    ``workflow_sd15_txt2img.input``. Where two names come to one key, later ones get a number.
    """
    components = document["components"]
    channel, operation = document["channels"]["request"], document["operations"]["request"]
    for info in workflows:
        key = _free("workflow_" + re.sub(r"[^A-Za-z0-9_]+", "_", info.name), components["messages"])
        for name, schema in _parts(f"{key}.input", info.schema):
            components["schemas"][name] = schema
        components["messages"][key] = _message(components["messages"][_REQUEST], info, f"{key}.input")
        channel["messages"][key] = {"$ref": f"#/components/messages/{key}"}
        operation["messages"].append({"$ref": f"#/channels/request/messages/{key}"})


def _message(request: dict[str, Any], info: WorkflowInfo, schema: str) -> dict[str, Any]:
    """``promptRequest``, narrowed to one workflow."""
    given: dict[str, Any] = {"$ref": f"{_SCHEMAS}{schema}"}
    required = bool(info.schema.get("required"))
    narrowed = {
        "properties": {
            "workflow": {"const": info.name},
            # Null counts as left out, and nothing need be given where everything has a default.
            "input": given if required else {"anyOf": [given, {"type": "null"}]},
        },
        "required": ["workflow", "input"] if required else ["workflow"],
    }
    message = {**request, "title": f"A request to run the workflow {info.name}"}
    if info.description:
        message["description"] = info.description
    message["payload"] = {"allOf": [request["payload"], narrowed]}
    return message


def _parts(name: str, schema: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The schema and the blocks it keeps in ``$defs``, each under a name of its own in the document."""
    rest = {key: value for key, value in schema.items() if key != "$defs"}
    yield name, _moved(rest, name)
    for block, part in schema.get("$defs", {}).items():
        yield f"{name}.{_block(block)}", _moved(part, name)


def _moved(node: Any, name: str) -> Any:
    """Point references at the parts; titles that pydantic makes of names say nothing more."""
    if isinstance(node, list):
        return [_moved(item, name) for item in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        if key in _VALUES:
            found[key] = value
        elif key == "$ref" and isinstance(value, str) and value.startswith("#/$defs/"):
            found[key] = f"{_SCHEMAS}{name}.{_block(value.removeprefix('#/$defs/'))}"
        elif key != "title" or not isinstance(value, str):
            found[key] = _moved(value, name)
    return found


def _block(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)


def _free(key: str, taken: dict[str, Any]) -> str:
    number, found = 1, key
    while found in taken:
        number += 1
        found = f"{key}_{number}"
    return found

"""The generated documents: checked in as generated, true to the models, sound in themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.documents.asyncapi import asyncapi_document, asyncapi_yaml
from app.documents.json_schemas import MESSAGES, json_schemas, write_json_schemas
from app.prepare.workflows import Workflows
from app.settings.tree import SHIPPED_WORKFLOWS
from brokers.channels import Channel, Names
from brokers.nats import NatsConfig
from brokers.nats.layout import wanted_streams
from schemas.base import WrongField
from schemas.prompt import parse_request

ROOT = Path(__file__).parents[3]
GRAPH = {"1": {"class_type": "A"}}


def test_the_checked_in_schemas_are_the_generated_ones(tmp_path: Path) -> None:
    """A changed model without `comfybus schema json schemas/generated` is a failure here."""
    written = {path.name: path.read_text("utf-8") for path in write_json_schemas(tmp_path / "new")}
    checked_in = {path.name: path.read_text("utf-8") for path in (ROOT / "schemas" / "generated").glob("*.json")}
    assert written == checked_in


def test_the_checked_in_asyncapi_document_is_the_generated_one() -> None:
    """A changed channel or model without `comfybus schema asyncapi > docs/asyncapi.yaml` is a failure here."""
    described = Workflows.load(SHIPPED_WORKFLOWS).describe_all()
    assert asyncapi_yaml(workflows=described) == (ROOT / "docs" / "asyncapi.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_schema_is_a_valid_schema(name: str) -> None:
    """Every schema is draft 2020-12, names its dialect and requires the type where there is one."""
    schema = json_schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "discriminator" not in json.dumps(schema)
    if "type" in schema["properties"]:
        assert schema["required"][0] == "type"


REQUESTS: list[dict[str, Any]] = [
    {"prompt": GRAPH},
    {"workflow": "w", "input": {}},
    {"prompt": GRAPH, "workflow": None, "id": None, "s3": None},
    {"prompt": GRAPH, "http_upload": {"url_prefix": "https://h/"}},
    {},
    {"prompt": {}},
    {"prompt": None},
    {"prompt": GRAPH, "workflow": "w"},
    {"prompt": GRAPH, "input": {}},
    {"prompt": {"1": {}}},
    {"prompt": {"1": {"class_type": ""}}},
    {"prompt": {"1": {"class_type": "A", "inputs": []}}},
    {"prompt": GRAPH, "id": "a/b"},
    {"prompt": GRAPH, "x": 1},
    {"prompt": GRAPH, "s3": {"bucket": "b"}, "hf_upload": {"repo": "r"}},
    {"prompt": GRAPH, "s3": {"bucket": "b"}, "hf_upload": None},
    {"prompt": GRAPH, "timeout_s": 0},
    {"prompt": GRAPH, "credentials": [{"url_pattern": "u", "auth": {"type": "bearer"}}]},
]


@pytest.mark.parametrize("document", REQUESTS, ids=json.dumps)
def test_the_request_schema_judges_as_the_worker_does(document: dict[str, Any]) -> None:
    """A producer that validates with the schema is told the same as by the worker."""
    try:
        parse_request(document)
        accepted = True
    except WrongField:
        accepted = False
    assert Draft202012Validator(json_schemas()["prompt-request"]).is_valid(document) == accepted


def references(node: Any) -> Iterator[str]:
    """Every ``$ref`` below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def resolve(document: dict[str, Any], reference: str) -> Any:
    """What a local reference points at; KeyError when it points at nothing."""
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_the_asyncapi_document_is_sound() -> None:
    """It is AsyncAPI 3, every reference resolves, and what is used is what is declared."""
    document = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text("utf-8"))
    assert document["asyncapi"] == "3.0.0"
    assert list(document) == [
        "asyncapi",
        "info",
        "defaultContentType",
        "servers",
        "channels",
        "operations",
        "components",
    ]
    used = set(references(document))
    for reference in used:
        assert resolve(document, reference) is not None
    declared = {
        f"#/components/{kind}/{name}" for kind in ("messages", "schemas") for name in document["components"][kind]
    }
    assert declared <= used
    for channel in document["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel.get("parameters", ()))
    for key, operation in document["operations"].items():
        assert operation["channel"] == {"$ref": f"#/channels/{key}"}
        assert operation["messages"]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_channel_is_in_the_document() -> None:
    """Requests and commands are received, the rest is sent; addresses and streams are those of the broker's layout."""
    names = Names("studio.a")
    document = asyncapi_document("studio.a")
    starts = {names.topic(channel) for channel in Channel}
    assert {channel["address"].partition(".{")[0] for channel in document["channels"].values()} == starts
    received = {key for key, operation in document["operations"].items() if operation["action"] == "receive"}
    assert received == {"request", "control"}
    wanted = wanted_streams(NatsConfig(names=names))
    declared = {stream.name: stream.config.subjects or [] for stream in wanted}
    for channel in document["channels"].values():
        start = channel["address"].partition("{")[0]
        assert any(subject.startswith(start) for subject in declared[channel["x-nats-stream"]])


def test_every_message_is_in_the_document() -> None:
    """Each schema file is the payload of a message, and each message has headers."""
    document = asyncapi_document()
    messages = document["components"]["messages"]
    payloads = set(references([message["payload"] for message in messages.values()]))
    assert payloads == {f"#/components/schemas/{model.__name__}" for model in MESSAGES.values()}
    assert all(message["headers"] and message["contentType"] == "application/json" for message in messages.values())

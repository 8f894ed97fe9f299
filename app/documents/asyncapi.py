"""The AsyncAPI 3 document: every channel with its messages, as seen from the worker.

Used by app.cli.groups, app.worker.http; may import app.prepare, brokers.

FastStream writes channels and operations from stubs declared on a broker that is never connected. What its output
cannot say is put in here: one message per event with its CloudEvents headers, the schemas of ``json_schemas``, the
parameters of subjects, and the stream that keeps a channel.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI

from app.documents.channels import CHANNELS, PARAMETERS, DescribedChannel, DescribedMessage
from app.documents.headers import HEADERS
from app.documents.json_schemas import MESSAGES, json_schemas
from app.documents.kafka import KAFKA_SERVER, kafka_group, kafka_key, kafka_topic
from app.documents.workflow_requests import add_workflows
from app.prepare.workflows import WorkflowInfo
from brokers.channels import Channel, Names

__all__ = ["CONTRACT_VERSION", "asyncapi_document", "asyncapi_yaml"]

CONTRACT_VERSION = "1.0.0"
"""Version of the wire contract: the last part rises with additions, the first with changes that break readers."""

_DESCRIPTION = """\
Runs ComfyUI from a message broker. A request on the request channel ends in exactly one terminal event: on the
complete channel or on the failed one. Everything else is company: progress may be lost, a result may not.

Bodies are plain JSON; CloudEvents 1.0 attributes travel as headers (on NATS `ce-id` and so on, on Kafka `ce_id`), W3C
`traceparent` is carried from the request to every event of it. Everything about one prompt is on the NATS subjects
`{prefix}.prompt.*.<id>`. On Kafka each channel is one topic, named by its binding; records are keyed by the request id,
and readers of terminal events use `isolation_level=read_committed`.
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and an object that stands in two places twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def asyncapi_yaml(prefix: str = "comfyui", workflows: Iterable[WorkflowInfo] = ()) -> str:
    """The document as YAML; takes a second or so of one processor. See ``asyncapi_document``."""
    document = asyncapi_document(prefix, workflows)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def asyncapi_document(prefix: str = "comfyui", workflows: Iterable[WorkflowInfo] = ()) -> dict[str, Any]:
    """The document as JSON data.

    Args:
        prefix: TOPIC_PREFIX.
        workflows: Each becomes a message of the request channel, with the schema of its inputs.
    """
    names = Names(prefix)
    written = AsyncAPI(
        _stubs(names),
        title="Comfybus",
        version=CONTRACT_VERSION,
        description=_DESCRIPTION.format(prefix=prefix),
        license={"name": "MIT"},
        schema_version="3.0.0",
    ).to_specification()
    document: dict[str, Any] = json.loads(written.to_json())
    document["servers"] = {"nats": _server(document["servers"]), "kafka": KAFKA_SERVER}
    # FastStream keeps publishers in a set: the order is ours.
    for part in ("channels", "operations"):
        document[part] = {described.key: document[part][described.key] for described in CHANNELS}
    for described in CHANNELS:
        _complete(document["channels"][described.key], described, names)
        operation = document["operations"][described.key]
        if described.channel is Channel.REQUEST:
            operation["bindings"] = kafka_group(names)
        operation["messages"] = [
            {"$ref": f"#/channels/{described.key}/messages/{name}"} for name in described.message_names
        ]
    document["components"] = {"messages": _messages(), "schemas": _schemas()}
    add_workflows(document, workflows)
    return {"asyncapi": document.pop("asyncapi"), **document}


def _stubs(names: Names) -> NatsBroker:
    """A broker on which every channel is declared; it is never connected."""
    broker = NatsBroker("nats://127.0.0.1:4222")

    async def stub(body: Any) -> None:
        """Stand for the handler, which is no part of the document."""

    for described in CHANNELS:
        subject = names.subject(described.channel, *(f"{{{parameter}}}" for parameter in described.parameters))
        if described.incoming:
            broker.subscriber(subject, title=described.key, description=described.description)(stub)
        else:
            broker.publisher(subject, title=described.key, description=described.description, schema=dict[str, Any])
    return broker


def _server(servers: dict[str, Any]) -> dict[str, Any]:
    (server,) = servers.values()
    return {
        "host": server["host"],
        "protocol": server["protocol"],
        "description": "nats-server 2.11 or newer with JetStream; BROKER_URL names it, this is the default.",
    }


def _complete(channel: dict[str, Any], described: DescribedChannel, names: Names) -> None:
    channel["servers"] = [{"$ref": "#/servers/nats"}, {"$ref": "#/servers/kafka"}]
    channel["messages"] = {name: {"$ref": f"#/components/messages/{name}"} for name in described.message_names}
    if described.parameters:
        channel["parameters"] = {name: {"description": PARAMETERS[name]} for name in described.parameters}
    # AsyncAPI reserves the NATS channel binding and wants it empty; FastStream fills it.
    channel["bindings"] = kafka_topic(names, described.channel)
    channel["x-nats-stream"] = described.stream(names)
    channel["x-kept"] = described.kept


def _messages() -> dict[str, Any]:
    found = {}
    for described in CHANNELS:
        for name, message in described.messages.items():
            found[name] = {
                "name": message.type,
                "title": message.title,
                "contentType": "application/json",
                "headers": {"$ref": f"#/components/schemas/{message.headers}"},
                "payload": _payload(message),
            }
            if (binding := kafka_key(described.channel, correlated=message.correlated)) is not None:
                found[name]["bindings"] = binding
            if message.correlated:
                found[name]["correlationId"] = {"location": "$message.payload#/id"}
    return found


def _payload(message: DescribedMessage) -> dict[str, Any]:
    if not message.schema:
        return {}
    model = MESSAGES[message.schema]
    whole = {"$ref": f"#/components/schemas/{model.__name__}"}
    shared = sum(other.schema == message.schema for described in CHANNELS for other in described.messages.values())
    return {"allOf": [whole, {"properties": {"type": {"const": message.type}}}]} if shared > 1 else whole


def _schemas() -> dict[str, Any]:
    """All schemas side by side: the blocks that one message keeps in ``$defs`` are shared here."""
    found: dict[str, Any] = dict(HEADERS)
    for name, schema in json_schemas().items():
        parts = {**schema.pop("$defs", {}), MESSAGES[name].__name__: schema}
        del schema["$schema"]
        for part_name, part in parts.items():
            moved = _moved(part)
            if found.setdefault(part_name, moved) != moved:
                raise RuntimeError(f"two messages describe {part_name} differently")
    return dict(sorted(found.items()))


def _moved(node: Any) -> Any:
    """Point references at the shared schemas."""
    if isinstance(node, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(value)
            for key, value in node.items()
        }
    return [_moved(item) for item in node] if isinstance(node, list) else node

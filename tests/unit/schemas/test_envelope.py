"""CloudEvents around requests: three forms in, one set of attributes, ids that are the same every time."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from schemas.base import WrongField
from schemas.envelope import (
    attributes,
    derived_id,
    event_attributes,
    open_envelope,
    prompt_id,
    terminal_event_id,
    traceparent_of,
    usable_id,
)

REQUEST = {"workflow": "w"}
BODY = json.dumps(REQUEST).encode()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STRUCTURED = {"content-type": "application/cloudevents+json"}


@pytest.mark.parametrize("name", ["ce-id", "ce_id", "Ce-Id", "CE_ID", "cE-iD"])
def test_attributes_are_read_in_any_spelling(name: str) -> None:
    """Kafka's `ce_` and NATS's `ce-` mean the same, in whatever case a client writes them."""
    assert attributes({name: "a", "other": "b"}) == {"id": "a"}


def test_a_bare_body_is_a_request() -> None:
    """A producer needs no CloudEvents."""
    envelope = open_envelope(BODY, {})
    assert (envelope.document, dict(envelope.attributes), envelope.traceparent) == (REQUEST, {}, None)


def test_the_binary_form_has_its_attributes_in_headers() -> None:
    """Body is the data, headers are the attributes."""
    envelope = open_envelope(BODY, {"ce-id": "a", "ce-type": "t", "content-type": "application/json"})
    assert (envelope.document, dict(envelope.attributes)) == (REQUEST, {"id": "a", "type": "t"})


@pytest.mark.parametrize(
    "headers",
    [
        STRUCTURED,
        {"Content-Type": "application/CloudEvents+JSON; charset=utf-8"},
        {},
    ],
    ids=["by content type", "in another case", "by its looks"],
)
def test_the_structured_form_has_everything_in_the_body(headers: dict[str, str]) -> None:
    """One JSON document with `data`, known by its content type or, without one, by its attributes."""
    event = {"specversion": "1.0", "id": "a", "type": "t", "source": "/s", "traceparent": TRACE, "data": REQUEST}
    envelope = open_envelope(json.dumps(event).encode(), headers)
    assert envelope.document == REQUEST
    assert envelope.attributes["id"] == "a"
    assert "data" not in envelope.attributes
    assert envelope.traceparent == TRACE


def test_structured_data_may_be_base64() -> None:
    """`data_base64` carries the same bytes."""
    event = {"specversion": "1.0", "id": "a", "data_base64": base64.b64encode(BODY).decode()}
    assert open_envelope(json.dumps(event).encode(), STRUCTURED).document == REQUEST


@pytest.mark.parametrize(
    ("body", "headers", "location"),
    [
        ([], STRUCTURED, ""),
        ([1], STRUCTURED, ""),
        ("text", STRUCTURED, ""),
        (5, STRUCTURED, ""),
        (None, STRUCTURED, ""),
        ({}, STRUCTURED, "data"),
        ({"id": "a", "dataref": 5}, STRUCTURED, "data"),
        ({"data_base64": "*"}, STRUCTURED, "data_base64"),
        ({"data_base64": "ÄÄ"}, STRUCTURED, "data_base64"),
        ({"data_base64": base64.b64encode(b"{").decode()}, STRUCTURED, ""),
    ],
)
def test_a_structured_event_without_usable_data_is_an_error(body: Any, headers: dict[str, str], location: str) -> None:
    """Whatever stands in place of the event, it is a wrong field and nothing else."""
    with pytest.raises(WrongField) as caught:
        open_envelope(json.dumps(body).encode(), headers)
    assert caught.value.location == location


def test_a_reference_stands_for_an_empty_body() -> None:
    """`ce-dataref` says where the body is; in a structured event it stands in the document."""
    assert open_envelope(b"", {"CE-DataRef": "nats://b/k"}).dataref == "nats://b/k"
    event = {"specversion": "1.0", "id": "a", "dataref": "nats://b/k"}
    envelope = open_envelope(json.dumps(event).encode(), {})
    assert (envelope.document, envelope.dataref) == (None, "nats://b/k")


def test_a_reference_beside_a_body_does_not_hide_it() -> None:
    """The body that is there is used."""
    assert open_envelope(BODY, {"ce-dataref": "nats://b/k"}).document == REQUEST


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "00",
        TRACE.upper(),
        TRACE.replace("-", "_"),
        TRACE[:-1],
        f" {TRACE}",
        f"{TRACE}\n",
        "00-" + "g" * 32 + TRACE[35:],
        f"{TRACE}-{'a' * 129}",
        f"{TRACE}-a\rX: b",
        f"{TRACE}-é",
    ],
)
def test_a_malformed_trace_parent_is_ignored(wrong: str) -> None:
    """It would break the tracing of every event that carried it on."""
    assert traceparent_of({"traceparent": wrong}) is None
    assert open_envelope(BODY, {"traceparent": wrong}).document == REQUEST


def test_a_trace_parent_is_taken_in_any_case_of_its_name() -> None:
    """Header names are case-insensitive; its companion comes along."""
    envelope = open_envelope(BODY, {"TraceParent": TRACE, "TraceState": "a=b"})
    assert (envelope.traceparent, envelope.tracestate) == (TRACE, "a=b")


@pytest.mark.parametrize("state", ["", "x" * 513, "a=b\nX: c", "a=é"])
def test_a_trace_state_that_no_header_should_carry_is_left_out(state: str) -> None:
    """It goes into every event of the prompt: what is too long for headers would keep them from being sent."""
    assert open_envelope(BODY, {"traceparent": TRACE, "tracestate": state}).tracestate is None


@pytest.mark.parametrize("value", [b"{}", b"[]", b"1", b'""'], ids=["objects", "lists", "numbers", "texts"])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_body_of_millions_of_values_is_not_decoded(value: bytes, encoded: bool) -> None:
    """A few megabytes of brackets would take gigabytes; text of any length is no such thing."""
    body = b'{"prompt": [' + b",".join([value] * 600_000) + b"]}"
    if encoded:
        body = json.dumps({"specversion": "1.0", "data_base64": base64.b64encode(body).decode()}).encode()
    with pytest.raises(WrongField, match="500000 values"):
        open_envelope(body, STRUCTURED if encoded else {})
    picture = json.dumps({"prompt": {"1": {"inputs": {"image": "iVBOR" * 1_000_000}}}}).encode()
    assert open_envelope(picture, {}).document


def test_a_derived_id_is_stable_and_differs_by_place() -> None:
    """A redelivery gets the same id, another message another one; it fits the pattern of ids."""
    origin = ("comfyui-request", "17", "2026-01-01T00:00:00+00:00")
    assert derived_id(*origin) == derived_id(*origin) == "82ed5a0b-28a2-538a-bf89-661d96490fc1"
    assert derived_id(*origin) != derived_id("comfyui-request", "18", origin[2])
    assert derived_id("a", "bc") != derived_id("ab", "c")
    assert usable_id(derived_id(*origin))


def test_a_prompt_id_is_a_canonical_uuid() -> None:
    """ComfyUI gets a lower-case UUIDv5, the same for the same try and another for the next."""
    found = prompt_id("r-1", 0, 1)
    assert found == prompt_id("r-1", 0, 1) == "c0c4a8a0-2298-53da-a065-cf8491d719d8"
    assert (str(uuid.UUID(found)), uuid.UUID(found).version) == (found, 5)
    assert len({prompt_id("r-1", replay, attempt) for replay in range(3) for attempt in (1, 2, 3)}) == 9
    assert prompt_id("r", 11, 1) != prompt_id("r", 1, 11)


@pytest.mark.parametrize(
    ("outcome", "replay", "expected"),
    [("complete", 0, "a/complete"), ("failed", 0, "a/failed"), ("failed", 2, "a/failed/2")],
)
def test_a_terminal_event_id_is_made_of_id_outcome_and_replay(outcome: str, replay: int, expected: str) -> None:
    """Consumers drop a repeat by it."""
    assert terminal_event_id("a", outcome, replay) == expected


def test_an_event_carries_the_attributes_of_cloudevents() -> None:
    """Subject is the request id, and is missing where there is none."""
    found = event_attributes(event_id="e", event_type="prompt.complete", source="/comfybus/w", subject="a")
    assert found.pop("time").endswith("Z")
    assert found == {
        "id": "e",
        "type": "prompt.complete",
        "source": "/comfybus/w",
        "specversion": "1.0",
        "subject": "a",
    }
    assert "subject" not in event_attributes(event_id="e", event_type="worker.started", source="/s", subject=None)


@pytest.mark.parametrize("wrong", ["", "-a", "a" * 129, "a b", "a/b", "a\n", "ä", None, 5, ["a"]])
def test_what_is_no_id_is_not_used_as_one(wrong: object) -> None:
    """A CloudEvents id that does not fit the pattern is passed over."""
    assert not usable_id(wrong)

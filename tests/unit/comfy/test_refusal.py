"""ComfyUI's refusals, as recorded, made into errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.comfy.refusal import refusal
from app.comfy.transport import Answer
from app.errors import ComfyUnavailable, InvalidPrompt


def _answer(status: int, body: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, raw, "POST /prompt", "http://comfy:8188")


_HEAD = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}


def _node_error(kind: str, message: str, details: str, **extra: Any) -> dict[str, Any]:
    error = {"type": kind, "message": message, "details": details, "extra_info": extra}
    return {"errors": [error], "dependent_outputs": ["2"], "class_type": "EmptyImage"}


@pytest.mark.parametrize(
    ("node_errors", "location", "reason"),
    [
        (
            {"1": _node_error("value_smaller_than_min", "Value 0 smaller than min of 1", "width", input_name="width")},
            "prompt.1.inputs.width",
            "node 1 (EmptyImage): Value 0 smaller than min of 1: width",
        ),
        (
            {
                "1": _node_error(
                    "exception_during_inner_validation",
                    "Exception when validating inner node",
                    "'inputs'",
                    input_name="images",
                )
            },
            "prompt.1",
            "node 1 (EmptyImage): Exception when validating inner node: 'inputs'",
        ),
        (
            {"3": _node_error("exception_during_validation", "Exception when validating node", "'99'")},
            "prompt.3",
            "node 3 (EmptyImage): Exception when validating node: '99'",
        ),
    ],
)
def test_the_first_finding_becomes_sentence_and_location(
    node_errors: dict[str, Any], location: str, reason: str
) -> None:
    """The error says which input of which node is at fault, and carries ComfyUI's findings."""
    error = refusal(_answer(400, {"error": _HEAD, "node_errors": node_errors}))
    assert isinstance(error, InvalidPrompt)
    assert error.location == location
    assert reason in str(error)
    assert error.node_errors == node_errors
    assert not error.retryable


def test_further_nodes_are_counted() -> None:
    """The sentence names one node and says how many more there are."""
    found = {str(number): _node_error("x", "Wrong", "a", input_name="a") for number in range(3)}
    assert "(2 more nodes with errors)" in str(refusal(_answer(400, {"error": _HEAD, "node_errors": found})))


@pytest.mark.parametrize(
    ("error", "location"),
    [
        ({"type": "invalid_prompt", "message": "node X does not exist.", "details": "Node ID '#2'"}, "prompt.2"),
        ({"type": "missing_node_type", "message": "Node 'X' not found.", "details": "Node ID '#12:3'"}, "prompt.12:3"),
        ({"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": ""}, None),
        ({}, None),
        ("a text", None),
        (None, None),
    ],
)
def test_a_refusal_without_node_errors_has_the_reason_itself(error: Any, location: str | None) -> None:
    """An unknown class or a graph without outputs is said in ComfyUI's own words."""
    found = refusal(_answer(400, {"error": error, "node_errors": []}))
    assert isinstance(found, InvalidPrompt)
    assert found.location == location
    assert found.node_errors == {}
    message = error.get("message", "") if isinstance(error, dict) else error or ""
    assert message.rstrip(".") in str(found)


def test_a_plain_500_is_a_verdict_on_the_graph() -> None:
    """ComfyUI's own check breaks on a malformed graph; the next try would break too."""
    error = refusal(_answer(500, b"500 Internal Server Error\n\nServer got itself in trouble"))
    assert isinstance(error, InvalidPrompt)
    assert not error.retryable


def test_a_graph_that_is_too_large_is_refused_with_the_cure() -> None:
    """A 413 will not go away by itself."""
    error = refusal(_answer(413, b"413: Request Entity Too Large"))
    assert isinstance(error, InvalidPrompt)
    assert "--max-upload-size" in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"<html>nginx</html>"),
        (502, b"Bad Gateway"),
        (503, b"500 Internal Server Error"),
        (504, b""),
        (401, b""),
        (403, b""),
        (404, b"not here"),
        (302, b""),
        (400, b"<html>bad request</html>"),
    ],
)
def test_other_answers_are_no_verdict(status: int, body: bytes) -> None:
    """A proxy's or a stranger's answer says nothing about the graph, so the prompt may be tried again."""
    error = refusal(_answer(status, body))
    assert isinstance(error, ComfyUnavailable)
    assert error.retryable
    assert str(status) in str(error)

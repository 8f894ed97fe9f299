"""A terminal event always fits; what goes, goes in order."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from app.worker.fitting import Terminal, fit
from schemas.events import (
    ComfyExecution,
    FailedNode,
    Output,
    PromptComplete,
    PromptFailed,
    Stats,
)

COMMON: dict[str, Any] = {"timestamp": "t", "worker": "w", "id": "i", "attempt": 1}
STATS = Stats(
    comfy_execution=ComfyExecution(),
    preprocess_time=0,
    comfy_round_trip_time=0,
    postprocess_time=0,
    upload_time=0,
    total_time=0,
    queue_time=0,
)


def within(limit: int) -> Any:
    return lambda event: len(event.encode()) <= limit


def size(event: Terminal | None) -> int:
    assert event is not None
    return len(event.encode())


def test_an_event_that_fits_is_left_as_it_is() -> None:
    """Long strings too."""
    event = PromptFailed(**COMMON, error="e", code="internal", retryable=False, prompt={"1": {"text": "x" * 9000}})
    assert fit(event, within(20_000)) is event


def test_long_strings_of_prompt_and_input_go_first() -> None:
    """Size and digest stand in their place; short ones stay."""
    text = "ü" * 5000
    event = PromptFailed(
        **COMMON,
        error="e",
        code="internal",
        retryable=False,
        prompt={"1": {"a": text, "b": ["short", text]}},
        input={"c": text},
    )
    found = fit(event, within(4000))
    assert found is not None
    mark = {"omitted": 10_000, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert found.prompt == {"1": {"a": mark, "b": ["short", mark]}}
    assert found.input == {"c": mark}
    assert found.truncated is None


def test_then_values_tracebacks_and_node_errors_are_cut() -> None:
    """The event says that it was truncated; of a traceback its end is kept."""
    lines = [f"line {number} " + "x" * 100 for number in range(100)]
    failed = PromptFailed(
        **COMMON,
        error="e" * 9000,
        code="execution_error",
        retryable=False,
        node=FailedNode(node_id="1", traceback=lines),
        node_errors={"1": {"errors": ["y" * 9000]}},
    )
    found = fit(failed, within(8000))
    assert isinstance(found, PromptFailed)
    assert found.truncated is True
    assert found.node is not None
    assert found.node.traceback is not None
    assert found.node.traceback[-1] == lines[-1]
    assert found.node_errors is not None
    assert "1" in found.node_errors
    output = Output(node_id="1", kind="text", value="z" * 50_000)
    complete = PromptComplete(**COMMON, images=[], filenames=[], outputs=[output], stats=STATS)
    cut = fit(complete, within(8000))
    assert isinstance(cut, PromptComplete)
    assert len(cut.outputs[0].value) < 3000


def test_then_the_prompt_goes_and_at_last_the_echo() -> None:
    """Many small strings cannot be cut: the prompt is dropped, then input and blocks; webhooks of sane size stay."""
    many = {str(number): {"class_type": "x" * 100} for number in range(1000)}
    event = PromptFailed(**COMMON, error="e", code="internal", retryable=False, prompt=many, input={"a": 1})
    found = fit(event, within(2000))
    assert found is not None
    assert found.prompt is None
    assert found.input == {"a": 1}
    event = event.model_copy(update={"input": {str(n): "y" * 100 for n in range(1000)}, "webhook_v2": "https://h"})
    found = fit(event, within(2000))
    assert found is not None
    assert found.input is None
    assert found.webhook_v2 == "https://h"
    assert size(found) <= 2000


def test_what_cannot_be_made_to_fit_is_said() -> None:
    """The caller then has a bare form."""
    event = PromptFailed(**COMMON, error="e", code="internal", retryable=False, metadata={"x": "y" * 9000})
    assert fit(event, within(1000)) is None


@pytest.mark.parametrize("limit", [100_000, 5_000, 2_500, 900])
def test_less_room_never_gives_more(limit: int) -> None:
    """Whatever comes back fits."""
    event = PromptFailed(
        **COMMON, error="e", code="internal", retryable=False, prompt={"1": {"t": "x" * 9000}}, input={"i": "y" * 9000}
    )
    found = fit(event, within(limit))
    assert found is None or size(found) <= limit

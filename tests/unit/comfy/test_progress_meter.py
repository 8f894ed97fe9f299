"""Progress of a prompt, from its frames."""

from __future__ import annotations

from typing import Any

import pytest

from app.comfy.frames import Frame
from app.comfy.progress import ProgressMeter

_GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "SlowProgress", "inputs": {}},
    "3": {"class_type": "SaveImage", "inputs": {}},
    "4": {"class_type": "PreviewImage", "inputs": {}},
}


def _frame(kind: str, **data: Any) -> Frame:
    return Frame(kind, "p", {"prompt_id": "p", **data}, b"")


def _executing(node: str | None) -> Frame:
    return _frame("executing", node=node, display_node=node)


def test_a_run_counts_nodes_and_steps() -> None:
    """The frames of one run give its nodes, classes and steps in turn."""
    meter = ProgressMeter(_GRAPH)
    assert meter.current.model_dump(exclude_none=True) == {"value": 0.0, "nodes_done": 0, "nodes_total": 4}
    assert meter.feed(_frame("execution_start", timestamp=1), 0) is None
    meter.feed(_frame("execution_cached", nodes=["1"]), 0)
    meter.feed(_executing("2"), 1000)
    seen = meter.feed(_frame("progress", node="2", value=5, max=10), 1500)
    assert seen is not None
    assert seen.model_dump() == {
        "value": 0.375,
        "nodes_done": 1,
        "nodes_total": 4,
        "current_node": "2",
        "current_node_class": "SlowProgress",
        "step": 5,
        "steps": 10,
    }
    seen = meter.feed(_executing("3"), 2000)
    assert seen is not None
    assert (seen.value, seen.nodes_done, seen.current_node, seen.step) == (0.5, 2, "3", None)
    assert meter.node_starts_ms == {"2": 1000, "3": 2000}


def test_the_value_is_one_only_after_success() -> None:
    """All nodes being done is not yet a success."""
    meter = ProgressMeter(_GRAPH)
    for node in _GRAPH:
        meter.feed(_frame("executed", node=node), 0)
    assert meter.current.nodes_done == 4
    assert meter.current.value == 0.99
    assert meter.succeeded().model_dump(exclude_none=True) == {"value": 1.0, "nodes_done": 4, "nodes_total": 4}


def test_the_value_never_falls() -> None:
    """A sampler that starts over and a node that runs again do not take progress back."""
    meter = ProgressMeter(_GRAPH)
    values = []
    for frame in (
        _executing("1"),
        _frame("progress", node="1", value=9, max=10),
        _frame("progress", node="1", value=1, max=10),
        _executing("2"),
        _executing("1"),
        _executing("2"),
        _frame("execution_cached", nodes=[]),
    ):
        meter.feed(frame, 0)
        values.append((meter.current.value, meter.current.nodes_done))
    assert values == sorted(values)


def test_a_failure_finishes_no_node() -> None:
    """The last frame of a failed prompt leaves the progress where it was."""
    meter = ProgressMeter(_GRAPH)
    meter.feed(_executing("1"), 0)
    meter.feed(_executing("2"), 0)
    assert meter.feed(_frame("execution_error", node_id="2"), 0) is None
    assert meter.feed(_frame("executing", node=None), 0) is None
    assert (meter.current.nodes_done, meter.current.current_node) == (1, "2")


def test_a_node_made_at_run_time_counts_for_the_one_it_came_from() -> None:
    """The parts of an expanded node do not count by themselves."""
    meter = ProgressMeter(_GRAPH)
    meter.feed(_frame("executing", node="2.0.0.1", display_node="2"), 0)
    assert meter.current.current_node == "2"
    meter.feed(_frame("executed", node="2.0.0.1", display_node="2"), 0)
    meter.feed(_frame("execution_cached", nodes=["2.0.0.2", "9"]), 0)
    assert meter.current.nodes_done == 0


def test_a_whole_account_makes_up_for_lost_frames() -> None:
    """After a reconnection, a progress_state says what was missed."""
    meter = ProgressMeter(_GRAPH)
    nodes = {"1": {"state": "finished"}, "2": {"state": "running"}, "3": {"state": "finished"}, "x": "odd"}
    seen = meter.feed(_frame("progress_state", nodes=nodes), 0)
    assert seen is not None
    assert seen.nodes_done == 2


@pytest.mark.parametrize(
    "frame",
    [
        _frame("progress"),
        _frame("progress", value="5", max="10", node=None),
        _frame("progress", value=1, max=0, node="2"),
        _frame("progress", value=float("nan"), max=float("inf"), node="2"),
        _frame("progress", value=[], max={}, node={}),
        _frame("executing"),
        _frame("executing", node=["1"], display_node={}),
        _frame("executed", node=None),
        _frame("executed", node=[]),
        _frame("execution_cached", nodes=None),
        _frame("execution_cached", nodes=[None, [], {}]),
        _frame("progress_state", nodes=[1, 2]),
        _frame("progress_state", nodes={"1": None}),
        _frame("something_new", value=3),
    ],
)
def test_odd_frames_are_harmless(frame: Frame) -> None:
    """What a frame leaves out or says in another way changes no count."""
    meter = ProgressMeter(_GRAPH)
    meter.feed(frame, 0)
    assert meter.current.nodes_done == 0
    assert meter.current.step is None


def test_steps_beyond_their_number_stay_below_the_next_node() -> None:
    """A node that reports more steps than it announced does not overtake the others."""
    meter = ProgressMeter(_GRAPH)
    meter.feed(_executing("1"), 0)
    meter.feed(_frame("progress", node="1", value=30, max=10), 0)
    assert meter.current.value == 0.25


def test_an_empty_graph_has_no_progress() -> None:
    """Nothing to divide by is no error."""
    meter = ProgressMeter({})
    meter.feed(_executing("1"), 0)
    assert meter.current.value == 0.0

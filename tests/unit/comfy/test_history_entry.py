"""Reading entries of ComfyUI's history, as recorded."""

from __future__ import annotations

from typing import Any

import pytest

from app.comfy.history import read_history

_GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}, "3": {"class_type": "FailingNode", "inputs": {}}}


def _entry(*messages: tuple[str, dict[str, Any]], status: str = "error", **more: Any) -> dict[str, Any]:
    return {
        "prompt": [24, "p", _GRAPH, {"client_id": "c"}, ["3"]],
        "outputs": {"2": {"images": [{"filename": "before_00001_.png", "subfolder": "", "type": "output"}]}},
        "status": {"status_str": status, "completed": status == "success", "messages": [list(m) for m in messages]},
        **more,
    }


_START = ("execution_start", {"prompt_id": "p", "timestamp": 1795333323753})
_ERROR = {
    "prompt_id": "p",
    "node_id": "3",
    "node_type": "FailingNode",
    "executed": ["2", "1"],
    "exception_message": "lab failure on purpose\n",
    "exception_type": "RuntimeError",
    "traceback": ["  File a\n", "  File b\n"],
    "current_inputs": {},
    "timestamp": 1795333323760,
}


def test_a_success_has_times_outputs_and_the_graph() -> None:
    """Everything a result needs is in the entry."""
    end = ("execution_success", {"prompt_id": "p", "timestamp": 1795333323999})
    entry = read_history("p", _entry(_START, ("execution_cached", {"nodes": []}), end, status="success"))
    assert (entry.outcome, entry.start_ms, entry.end_ms, entry.failure) == (
        "success",
        1795333323753,
        1795333323999,
        None,
    )
    assert entry.graph == _GRAPH
    assert list(entry.outputs) == ["2"]


def test_a_failure_names_node_class_exception_and_traceback() -> None:
    """The node's error comes out whole; what was saved before stays listed."""
    entry = read_history("p", _entry(_START, ("execution_error", _ERROR)))
    assert entry.outcome == "error"
    assert entry.failure is not None
    assert entry.failure.node is not None
    assert entry.failure.node.model_dump() == {
        "node_id": "3",
        "class_type": "FailingNode",
        "exception_type": "RuntimeError",
        "traceback": ["  File a\n", "  File b\n"],
    }
    assert entry.failure.message == "lab failure on purpose"
    assert not entry.failure.out_of_memory
    assert list(entry.outputs) == ["2"]


def test_an_interrupt_is_told_from_a_failure() -> None:
    """ComfyUI calls both an error; the last message decides."""
    entry = read_history("p", _entry(_START, ("execution_interrupted", {"node_id": "3", "timestamp": 5})))
    assert (entry.outcome, entry.failure, entry.end_ms) == ("interrupted", None, 5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.OutOfMemoryError", "Allocation on device \nThis error means you ran out of memory on your GPU."),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("torch.AcceleratorError", "CUDA error: out of memory"),
        ("RuntimeError", "HIP out of memory"),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 9.02 GB)"),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_lack_of_memory_is_recognised(kind: str, message: str) -> None:
    """Every backend's way to say it means the same."""
    error = {**_ERROR, "exception_type": kind, "exception_message": message}
    failure = read_history("p", _entry(_START, ("execution_error", error))).failure
    assert failure is not None
    assert failure.out_of_memory


@pytest.mark.parametrize("status", [None, {}, {"messages": None}, {"messages": [1, ["x"], [None, {}]]}, "odd"])
def test_an_entry_without_status_is_a_success(status: Any) -> None:
    """What a version leaves out is not made up into a failure."""
    entry = read_history("p", {"outputs": {}, "status": status})
    assert (entry.outcome, entry.start_ms, entry.end_ms, entry.graph) == ("success", None, None, {})


def test_a_failure_without_details_still_has_a_reason() -> None:
    """A status in words alone is believed."""
    failure = read_history("p", {"status": {"status_str": "error", "messages": []}}).failure
    assert failure is not None
    assert (failure.message, failure.node) == ("ComfyUI gave no reason", None)


def test_odd_fields_are_passed_over() -> None:
    """Another type than expected leaves a field empty."""
    error = {"node_id": 7, "node_type": 8, "traceback": "text", "exception_message": None, "timestamp": "soon"}
    entry = read_history("p", _entry(("execution_error", error), prompt="x", outputs=[]))
    assert entry.failure is not None
    assert entry.failure.node is not None
    assert (entry.failure.node.node_id, entry.failure.node.class_type, entry.failure.node.traceback) == (
        "7",
        None,
        None,
    )
    assert (entry.outputs, entry.graph, entry.end_ms) == ({}, {}, None)

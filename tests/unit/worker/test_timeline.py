"""Where a prompt's time went: stages without gaps, nodes one behind the other, and what is counted of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.comfy.busy import Busy
from app.comfy.ends import Gone, Succeeded
from app.comfy.followed import Followed
from app.comfy.frames import Frame
from app.comfy.history import HistoryEntry
from app.metrics import LONGEST_CLASS, MOST_CLASSES, OTHER, Metrics
from app.prepare.loaded import main_models
from app.worker.job import Times
from app.worker.measure import Swaps
from app.worker.timeline import Stage, node_runs, stages


def followed(graph: dict[str, Any] | None = None, busy: Busy | None = None) -> Followed:
    return Followed("p", graph or {}, lambda _: None, lambda: None, lambda _: None, busy)


def frame(kind: str, **data: Any) -> Frame:
    return Frame(kind, "p", {"prompt_id": "p", **data}, b"")


def entry(**changes: Any) -> HistoryEntry:
    values: dict[str, Any] = {
        "prompt_id": "p",
        "outcome": "success",
        "outputs": {},
        "graph": {},
        "start_ms": 1_000,
        "end_ms": 3_000,
        "failure": None,
        **changes,
    }
    return HistoryEntry(**values)


def shape(found: list[Stage]) -> list[tuple[str, float, float, bool]]:
    return [(one.name, one.begin_s, one.end_s, one.ended_early) for one in found]


def test_the_stages_of_a_complete_prompt_lie_one_behind_the_other() -> None:
    """From the delivery to the settlement, without a gap."""
    run = followed()
    run.began_s, run.ended_s = 15.0, 24.9
    times = Times(10, 11, 13, 25, 26, 28, 28.1, 29)
    found = stages(times, run, 99)
    assert shape(found) == [
        ("claim", 10, 11, False),
        ("prepare", 11, 13, False),
        ("comfyui_queue", 13, 15, False),
        ("run", 15, 25, False),
        ("collect", 25, 26, False),
        ("store", 26, 28, False),
        ("publish", 28, 29, False),
    ]
    assert sum(one.end_s - one.begin_s for one in found) == times.answered - times.received


@pytest.mark.parametrize(
    ("reached", "where"),
    [
        ({}, "prepare"),
        ({"prepared": 12}, "comfyui_queue"),
        ({"prepared": 12, "ended": 14}, "collect"),
        ({"prepared": 12, "ended": 14, "collected": 15}, "store"),
    ],
)
def test_a_failure_is_in_the_stage_that_did_not_end(reached: dict[str, float], where: str) -> None:
    """It lasts until the answer is made."""
    run = followed()
    if "ended" in reached:
        run.began_s = 13
    times = Times(received=10, picked_up=11, answering=20, answered=21, **reached)
    found = stages(times, run, 99)
    assert shape(found)[-2:] == [(where, found[-2].begin_s, 20, True), ("publish", 20, 21, False)]
    assert found[-2].begin_s == max(11, *reached.values(), 0)


def test_a_run_that_failed_and_one_that_goes_on() -> None:
    """What is known of its end counts; else the stage lasts until now."""
    run = followed()
    run.began_s, run.ended_s = 13, 16
    found = stages(Times(received=10, picked_up=11, prepared=12, answering=17, answered=18), run, 99)
    assert ("run", 13, 16, False) in shape(found)
    run.ended_s = None
    assert shape(stages(Times(received=10, picked_up=11, prepared=12), run, 30))[-1] == ("run", 13, 30, True)


def test_results_of_an_earlier_delivery_are_adopted() -> None:
    """Nothing ran then."""
    found = stages(Times(received=10, picked_up=11, ended=12, collected=13, delivered=14), None, 15)
    assert [one.name for one in found] == ["claim", "adopt", "collect", "store"]


def test_a_run_that_nothing_was_heard_of_is_as_long_as_the_history_says() -> None:
    """The websocket may be silent."""
    run = followed()
    assert run.finish(Succeeded(entry()))
    assert run.ended_s is not None
    times = Times(received=run.ended_s - 5, picked_up=run.ended_s - 4, prepared=run.ended_s - 3, ended=run.ended_s)
    (stage,) = [one for one in stages(times, run, run.ended_s) if one.name == "run"]
    assert stage.end_s - stage.begin_s == pytest.approx(2)


def test_each_node_lasts_until_the_next_one() -> None:
    """Also one that ComfyUI comes back to; the last until the end."""
    run = followed({"1": {"class_type": "Load"}, "2": {"class_type": "Sample"}})
    run.hear(frame("execution_start"))
    for node in ("1", "2", "2", "1"):
        run.hear(frame("executing", node=node))
        time.sleep(0.02)
    run.finish(Gone())
    found = list(node_runs(run))
    assert [(one.node_id, one.class_type) for one in found] == [("1", "Load"), ("2", "Sample"), ("1", "Load")]
    assert [one.end_ms for one in found[:-1]] == [one.begin_ms for one in found[1:]]
    assert found[1].seconds >= 0.04
    assert found[2].seconds >= 0.015
    assert not list(node_runs(followed()))


def test_busy_time_is_that_in_which_anything_ran() -> None:
    """It rises while a prompt runs, and counts two at once once."""
    now = 100.0
    busy = Busy(lambda: now)
    one, other = followed(busy=busy), followed(busy=busy)
    other.prompt_id = "q"
    one.begin()
    now = 110
    assert busy.seconds == 10
    other.begin()
    one.finish(Gone())
    now = 115
    with other:
        pass
    now = 200
    assert busy.seconds == 15
    busy.ends("unknown")
    assert busy.seconds == 15


def test_classes_of_nodes_are_bounded() -> None:
    """Beyond a hundred they are counted together, and so is a name without end."""
    metrics = Metrics()
    metrics.ran([(None, 1.0), ("x" * (LONGEST_CLASS + 1), 1.0)])
    metrics.ran((f"Class{number}", 1.0) for number in range(3 * MOST_CLASSES))
    metrics.ran([("Class0", 1.0)])
    text = metrics.exposition()[0].decode()
    counts = [line for line in text.splitlines() if line.startswith("comfybus_node_seconds_count")]
    assert len(counts) == MOST_CLASSES + 1
    assert f'comfybus_node_seconds_count{{class_type="{OTHER}"}} {2 * MOST_CLASSES + 2}.0' in counts
    assert 'comfybus_node_seconds_count{class_type="Class0"} 2.0' in counts


def test_a_swap_is_other_large_models_than_before() -> None:
    """The first load is none, a graph without a model changes nothing, a LoRA swaps nothing."""
    metrics = Metrics()
    swaps = Swaps(metrics)

    def loads(*names: str) -> float:
        graph = {
            str(number): {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}
            for number, name in enumerate(names)
        }
        swaps.loads({**graph, "9": {"class_type": "LoraLoader", "inputs": {"lora_name": names or "none"}}})
        return metrics.model_swaps._value.get()

    assert [loads("a"), loads("a"), loads(), loads("a"), loads("b"), loads("a", "b"), loads("b", "a")] == [
        *(0, 0, 0, 0, 1, 2, 2)
    ]
    odd = {"1": "?", "2": {"class_type": "UNETLoader", "inputs": {"unet_name": ["3", 0]}}, "3": {"class_type": 7}}
    assert main_models(odd) == frozenset()
    assert main_models({"1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux.sft"}}}) == {"flux.sft"}

"""Prompts followed to their ends, one way and another."""

from __future__ import annotations

import time
import uuid

import anyio
import pytest
from comfyui import Comfy, ended, failing, slow, stubborn, until

from app.comfy.ends import Failed, Gone, Interrupted, Succeeded
from app.comfy.frames import Frame
from app.errors import InvalidPrompt
from schemas.events import COMFY_EVENTS, Progress

pytestmark = pytest.mark.anyio


async def test_a_success_is_followed_with_progress(any_comfy: Comfy) -> None:
    """Start, nodes, steps and the end are heard as they happen; the last progress is 1.0."""
    seen: list[Progress] = []
    before_ms = time.time() * 1000
    async with any_comfy.watching() as watch, any_comfy.submitted(watch, slow(0.5), seen.append) as followed:
        with anyio.fail_after(5):
            await followed.started.wait()
        assert followed.end is None
        end = await ended(followed)
        known = time.monotonic()
        assert known - await any_comfy.shown_at(followed.prompt_id) < 0.5
    assert isinstance(end, Succeeded)
    assert end.entry.outputs["3"]["images"][0]["filename"].startswith("watched_")
    assert followed.started_ms is not None
    assert before_ms - 1 <= followed.started_ms == end.entry.start_ms
    assert list(followed.node_starts_ms) == ["1", "2", "3"]
    values = [progress.value for progress in seen]
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert 1.0 not in values[:-1]
    assert {progress.step for progress in seen if progress.current_node_class == "SlowProgress"} >= {1, 10}


async def test_a_failure_carries_the_node(any_comfy: Comfy) -> None:
    """Node, class, exception and traceback come from the history."""
    async with any_comfy.watching() as watch:
        end = await any_comfy.run(watch, failing())
    assert isinstance(end, Failed)
    assert end.node is not None
    assert (end.node.node_id, end.node.class_type, end.node.exception_type) == ("2", "FailingNode", "RuntimeError")
    assert end.node.traceback
    assert end.message == "lab failure on purpose"
    assert not end.out_of_memory


async def test_a_refused_graph_is_not_followed_any_further(any_comfy: Comfy) -> None:
    """The refusal reaches the one who submits, and nothing stays behind."""
    graph = slow(1)
    graph["1"]["inputs"]["width"] = 0
    async with any_comfy.watching() as watch:
        with pytest.raises(InvalidPrompt) as caught:
            await any_comfy.run(watch, graph)
        assert caught.value.location == "prompt.1.inputs.width"
        end = await any_comfy.run(watch, slow(0.1))
    assert isinstance(end, Succeeded)


async def test_many_prompts_share_one_websocket(comfy: Comfy) -> None:
    """Thirty prompts at once end each with its own outputs, over one socket."""
    ends: list[Succeeded] = []

    async def one() -> None:
        graph = slow(0.02, steps=1)
        graph["3"]["inputs"]["filename_prefix"] = prefix = uuid.uuid4().hex
        end = await comfy.run(watch, graph)
        assert isinstance(end, Succeeded)
        assert end.entry.outputs["3"]["images"][0]["filename"].startswith(prefix)
        ends.append(end)

    async with comfy.watching() as watch:
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(one)
        assert (await comfy.stats())["sockets"] == 1
        assert watch.queue_remaining is not None
    assert len(ends) == 30


async def test_a_running_prompt_is_stopped_and_its_neighbour_is_not(any_comfy: Comfy) -> None:
    """The next prompt runs on as if nothing had happened."""
    async with (
        any_comfy.watching() as watch,
        any_comfy.submitted(watch, slow(20, steps=200)) as first,
        any_comfy.submitted(watch, slow(0.3)) as second,
    ):
        with anyio.fail_after(5):
            await first.started.wait()
        await any_comfy.client.stop(first.prompt_id)
        assert isinstance(await ended(first, 3), Interrupted)
        assert isinstance(await ended(second), Succeeded)


async def test_a_waiting_prompt_is_stopped_and_the_running_one_is_not(any_comfy: Comfy) -> None:
    """It vanishes from the queue without ever having run."""
    async with (
        any_comfy.watching() as watch,
        any_comfy.submitted(watch, slow(1)) as first,
        any_comfy.submitted(watch, slow(20)) as second,
    ):
        await any_comfy.client.stop(second.prompt_id)
        assert isinstance(await ended(second, 3), Gone)
        assert second.started_ms is None
        assert second.started.is_set()
        assert isinstance(await ended(first), Succeeded)


async def test_a_stop_lost_at_the_start_is_told_again(any_comfy: Comfy) -> None:
    """An interrupt between leaving the queue and beginning is forgotten by ComfyUI; one call to stop is enough."""
    await any_comfy.faults(start_lag_s=0.25)
    async with any_comfy.watching() as watch, any_comfy.submitted(watch, slow(20, steps=200)) as followed:
        await any_comfy.until_running(followed.prompt_id)
        await any_comfy.client.stop(followed.prompt_id)
        assert isinstance(await ended(followed, 3), Interrupted)


async def test_a_stubborn_node_ends_when_it_will(comfy: Comfy) -> None:
    """The stop returns at once; the end comes when the node is done."""
    async with comfy.watching() as watch, comfy.submitted(watch, stubborn(1.5)) as followed:
        await followed.started.wait()
        began = time.monotonic()
        await comfy.client.stop(followed.prompt_id)
        assert time.monotonic() - began < 1.2
        assert followed.end is None
        assert isinstance(await ended(followed), Interrupted)


async def test_a_finished_prompt_is_adopted(comfy: Comfy) -> None:
    """A prompt that an earlier process ran is found in the history without anything being heard of it."""
    prompt_id = str(uuid.uuid4())
    await comfy.client.submit(slow(0.1), prompt_id=prompt_id, client_id=None)
    await comfy.shown_at(prompt_id)
    async with comfy.watching() as watch:
        with watch.follow(prompt_id, {}) as followed:
            followed.submitted(None)
            end = await ended(followed, 3)
            assert isinstance(end, Succeeded)
            assert followed.started_ms == end.entry.start_ms


async def test_a_running_prompt_is_adopted(comfy: Comfy) -> None:
    """One that still runs is seen to run, and then to end."""
    prompt_id = str(uuid.uuid4())
    seen: list[Progress] = []
    await comfy.client.submit(graph := slow(3), prompt_id=prompt_id, client_id=None)
    async with comfy.watching() as watch:
        with watch.follow(prompt_id, graph, seen.append) as followed:
            followed.submitted(None)
            with anyio.fail_after(3):
                await followed.started.wait()
            assert followed.end is None
            assert [progress.value for progress in seen] == [0.0]
            assert isinstance(await ended(followed), Succeeded)
            assert [progress.value for progress in seen] == [0.0, 1.0]


async def test_a_prompt_is_not_gone_before_it_is_submitted(comfy: Comfy) -> None:
    """Looks that do not find a prompt prove nothing until ComfyUI had the chance to take it."""
    async with comfy.watching() as watch:
        with watch.follow(str(uuid.uuid4()), {}) as followed:
            with pytest.raises(TimeoutError):
                await ended(followed, 2.5)
            followed.submitted(watch.client_id)
            assert isinstance(await ended(followed, 3), Gone)


async def test_a_prompt_is_followed_once_at_a_time(comfy: Comfy) -> None:
    """Following twice is a mistake; after leaving, the id is free."""
    async with comfy.watching() as watch:
        with watch.follow("a", {}), pytest.raises(ValueError, match="followed already"):
            watch.follow("a", {})
        with watch.follow("a", {}):
            pass


async def test_system_events_are_handed_on(comfy: Comfy) -> None:
    """Exactly the wanted types come, in ComfyUI's order, whole."""
    wanted = frozenset({"execution_start", "progress_state", "execution_success", "status"})
    seen: list[Frame] = []
    async with comfy.watching(wanted, seen.append) as watch, comfy.submitted(watch, slow(0.1)) as followed:
        await ended(followed)
        await until(lambda: any(frame.type == "execution_success" for frame in seen))
    types = [frame.type for frame in seen]
    assert set(types) == wanted
    assert types.index("execution_start") < types.index("progress_state") < types.index("execution_success")
    state = next(frame for frame in seen if frame.type == "progress_state")
    assert state.prompt_id == followed.prompt_id
    assert "nodes" in state.data


async def test_a_listener_that_fails_harms_nothing(comfy: Comfy) -> None:
    """Progress and system events may be lost, results may not."""

    def broken(_: object) -> None:
        raise RuntimeError("a listener's own fault")

    async with (
        comfy.watching(frozenset(COMFY_EVENTS), broken) as watch,
        comfy.submitted(watch, slow(0.1), broken) as followed,
    ):
        assert isinstance(await ended(followed), Succeeded)

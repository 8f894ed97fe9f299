"""A run that survives its worker is followed to its end, not run again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import anyio
import pytest

from tests.fault.conftest import running, settled
from tests.support.stack import graph, run_stack

pytestmark = pytest.mark.anyio


async def test_a_worker_killed_at_half_leaves_one_execution(tmp_path: Path) -> None:
    """kill -9 at half of a run, the next worker on the same ComfyUI: 1 execution, one complete event, attempt 1."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=2) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "half", "prompt": graph(seconds=4, steps=40)})
        await running(stack, "half", 15)
        await worker.kill()
        await worker.start()
        event = await stack.outside.terminal("half", 30)
        assert event.body["type"] == "prompt.complete"
        assert event.body["attempt"] == 1
        assert len(event.body["images"]) == 1
        verdict = await settled(stack, ["half"], 20)
        assert (verdict.lost, verdict.doubled, verdict.executions) == ([], [], 1)


async def test_the_timeout_goes_on_over_an_adoption(tmp_path: Path) -> None:
    """The clock of timeout_s runs from the start of execution, also when another worker follows the run."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=1) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "clock", "prompt": graph(seconds=90, steps=900), "timeout_s": 15})
        await running(stack, "clock", 2)
        began = time.monotonic()
        await worker.kill()
        # Nobody looks while the time runs out: a clock that began anew with the next worker would need it again.
        await anyio.sleep(began + 15 - time.monotonic())
        await worker.start()
        ready = time.monotonic()
        body = (await stack.outside.terminal("clock", 60)).body
        assert (body["code"], body["attempt"]) == ("timeout", 1)
        assert time.monotonic() - ready < 14
        assert list(comfy.executions().values()) == [1]


async def test_a_result_that_came_while_nobody_looked_is_collected(tmp_path: Path) -> None:
    """The run ends while no worker lives: its result is delivered from ComfyUI's history, not run again."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=2) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "unseen", "prompt": graph(seconds=1, steps=10)})
        await running(stack, "unseen", 3)
        await worker.kill()
        with anyio.fail_after(20):
            while not list((comfy.home / "output").glob("unseen_*")):
                await anyio.sleep(0.05)
        await worker.start()
        event = await stack.outside.terminal("unseen", 30)
        assert (event.body["type"], event.body["attempt"]) == ("prompt.complete", 1)
        assert sum(comfy.executions().values()) == 1


async def test_outputs_that_vanished_lead_to_a_fresh_run(tmp_path: Path) -> None:
    """Files that are gone when the result is collected are an error and a new attempt, never an empty success."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=2) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "gone", "prompt": graph(seconds=1, steps=10)})
        await running(stack, "gone", 3)
        await worker.kill()
        with anyio.fail_after(20):
            while not (files := list((comfy.home / "output").glob("gone_*"))):
                await anyio.sleep(0.05)
        files[0].unlink()
        await worker.start()
        event = await stack.outside.terminal("gone", 40)
        assert event.body["type"] == "prompt.complete"
        assert event.body["attempt"] == 2
        assert len(event.body["images"]) == 1
        assert sum(comfy.executions().values()) == 2


async def test_a_worker_with_another_comfyui_runs_it_anew(tmp_path: Path) -> None:
    """The other worker cannot see the first one's ComfyUI: a new attempt there, still one terminal event."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=2) as stack:
        first = stack.worker(await stack.comfy())
        await first.start()
        await stack.outside.send({"id": "moved", "prompt": graph(seconds=3, steps=30)})
        await running(stack, "moved", 3)
        await first.kill()
        await stack.worker(await stack.comfy()).start()
        event = await stack.outside.terminal("moved", 30)
        assert event.body["type"] == "prompt.complete"
        assert (event.body["worker"], event.body["attempt"]) == ("w1", 2)
        assert (await settled(stack, ["moved"], 20)).doubled == []


async def test_a_frozen_worker_cannot_answer_twice(tmp_path: Path) -> None:
    """A worker stopped for longer than its lease wakes up after another has answered: still one event."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=1) as stack:
        first = stack.worker(await stack.comfy())
        await first.start()
        await stack.outside.send({"id": "frozen", "prompt": graph(seconds=1.5, steps=15)})
        await running(stack, "frozen", 2)
        assert first.process is not None
        first.process.signal(signal.SIGSTOP)
        second = stack.worker(await stack.comfy())
        await second.start()
        event = await stack.outside.terminal("frozen", 30)
        assert event.body["worker"] == "w1"
        first.process.signal(signal.SIGCONT)
        verdict = await settled(stack, ["frozen"], 20)
        await stack.outside.send({"id": "after", "prompt": graph()})
        await stack.outside.terminal("after", 20)
        assert (verdict.doubled, verdict.outcomes) == ([], {"complete": 1})


@pytest.mark.timeout(150)
async def test_a_lease_outlasts_long_prompts(tmp_path: Path) -> None:
    """A prompt of many ack waits with an idle second worker beside: one execution, one event."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=1) as stack:
        comfy = await stack.comfy()
        for _ in range(2):
            await stack.worker(comfy).start()
        await stack.outside.send({"id": "long", "prompt": graph(seconds=8, steps=40)})
        event = await stack.outside.terminal("long", 40)
        assert event.body["attempt"] == 1
        assert (await settled(stack, ["long"], 20)).executions == 1


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_a_lease_of_five_seconds_outlasts_a_minute(tmp_path: Path) -> None:
    """NATS_ACK_WAIT_S=5 and a prompt of 60 s with two workers: one execution."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=5) as stack:
        for _ in range(2):
            await stack.worker(await stack.comfy()).start()
        await stack.outside.send({"id": "minute", "prompt": graph(seconds=60, steps=120)})
        await stack.outside.terminal("minute", 120)
        assert (await settled(stack, ["minute"], 20)).executions == 1

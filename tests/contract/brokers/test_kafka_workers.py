"""Real workers on a real Kafka: hand-over at a drain, prompts beyond the poll interval, kills with several in hand."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from tests.fault.conftest import settled
from tests.support.kafka_stack import run_kafka_stack
from tests.support.stack import Stack, graph

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


async def status(stack: Stack, request_id: str, wanted: str, worker: str | None = None) -> None:
    """Wait until a prompt has said this of itself."""
    with anyio.fail_after(40):
        while not [
            event
            for event in stack.outside.heard(request_id, "prompt.progress")
            if event.body["status"] == wanted and worker in (None, event.body["worker"])
        ]:
            await anyio.sleep(0.01)


async def test_a_drained_worker_hands_over_within_ten_seconds(tmp_path: Path) -> None:
    """SIGTERM in a prompt longer than the grace: with default sessions another worker runs all of it, unspent."""
    async with run_kafka_stack(tmp_path, NATS_ACK_WAIT_S=45, DRAIN_TIMEOUT_S=2, MAX_IN_FLIGHT=3) as stack:
        first = stack.worker(await stack.comfy())
        await first.start()
        await stack.outside.send({"id": "h-0", "prompt": graph(seconds=6, steps=60)})
        await status(stack, "h-0", "running")
        for number in (1, 2):
            await stack.outside.send({"id": f"h-{number}", "prompt": graph(color=number)})
        await status(stack, "h-2", "queued")
        await stack.worker(await stack.comfy()).start()
        await anyio.sleep(2)
        asked = time.monotonic()
        assert first.process is not None
        first.process.signal(15)
        await status(stack, "h-0", "running", worker="w1")
        took = time.monotonic() - asked
        assert await first.process.wait() == 0
        verdict = await settled(stack, ["h-0", "h-1", "h-2"], 40)
        assert (verdict.lost, verdict.doubled, verdict.outcomes) == ([], [], {"complete": 3})
        found = await stack.outside.terminals()
        assert {found[name][0].body["attempt"] for name in found} == {1}
        print(f"running elsewhere {took:.1f} s after SIGTERM, {took - 2:.1f} s after the end of its grace")
        assert took < 2 + 10


async def test_an_idle_worker_that_ends_hands_over_at_once(tmp_path: Path) -> None:
    """With nothing in hand the other worker has the next request within ten seconds of SIGTERM."""
    async with run_kafka_stack(tmp_path, NATS_ACK_WAIT_S=45) as stack:
        comfy = await stack.comfy()
        first, second = stack.worker(comfy), stack.worker(comfy)
        await first.start()
        await stack.outside.send({"id": "i-0", "prompt": graph()})
        await stack.outside.terminal("i-0")
        await second.start()
        await anyio.sleep(2)
        asked = time.monotonic()
        assert await first.stop() == 0
        await stack.outside.send({"id": "i-1", "prompt": graph(color=1)})
        event = await stack.outside.terminal("i-1", 15)
        took = time.monotonic() - asked
        assert event.body["worker"] == "w1"
        print(f"answered elsewhere {took:.1f} s after SIGTERM")
        assert took < 10


async def test_a_kill_with_four_in_hand_in_one_partition(tmp_path: Path) -> None:
    """kill -9 of the only worker in the middle of four prompts of one partition: each is answered once."""
    async with run_kafka_stack(tmp_path, NATS_ACK_WAIT_S=2, PARTITIONS=1, MAX_IN_FLIGHT=4) as stack:
        worker = stack.worker(await stack.comfy())
        await worker.start()
        ids = [f"p-{number}" for number in range(10)]
        for number, name in enumerate(ids):
            await stack.outside.send({"id": name, "prompt": graph(seconds=0.5, color=number)})
        for number in (1, 4, 7):
            await status(stack, f"p-{number}", "running")
            await worker.kill()
            await worker.start()
        verdict = await settled(stack, ids, 60)
        assert (verdict.lost, verdict.doubled, verdict.outcomes) == ([], [], {"complete": 10})
        # What had finished was adopted or remembered: no more runs than were in ComfyUI when it was killed.
        assert verdict.executions <= 10 + 3


@pytest.mark.parametrize("seconds", [12, pytest.param(60, marks=pytest.mark.full)])
async def test_a_prompt_longer_than_the_poll_interval_runs_once(tmp_path: Path, seconds: int) -> None:
    """KAFKA_MAX_POLL_INTERVAL_MS=5000 and a longer prompt, with a second worker beside: one execution, no rebalance."""
    settings = {"NATS_ACK_WAIT_S": 6, "KAFKA_MAX_POLL_INTERVAL_MS": 5000}
    async with run_kafka_stack(tmp_path, **settings) as stack:
        for _ in range(2):
            await stack.worker(await stack.comfy()).start()
        await stack.outside.send({"id": "long", "prompt": graph(seconds=seconds, steps=seconds * 2)})
        await status(stack, "long", "running")
        divided = joined(stack)
        event = await stack.outside.terminal("long", seconds + 30)
        assert event.body["attempt"] == 1
        verdict = await settled(stack, ["long"], 20)
        assert (verdict.executions, verdict.doubled) == (1, [])
        assert joined(stack) == divided


def joined(stack: Stack) -> int:
    """How often the workers were told which partitions they have."""
    logs = [worker.process.log.read_text() for worker in stack.workers if worker.process is not None]
    return sum(log.count('"partitions assigned"') + log.count('"standing by') for log in logs)

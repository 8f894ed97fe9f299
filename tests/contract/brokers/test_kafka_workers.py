"""Real workers on a real Kafka: hand-over at a drain, prompts beyond the poll interval, kills with several in hand,
and who is in the group."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import anyio
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.fault.conftest import settled
from tests.support.kafka_stack import run_kafka_stack
from tests.support.outsider import request_in
from tests.support.processes import Worker
from tests.support.stack import Stack, graph

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(500)]


async def status(stack: Stack, request_id: str, wanted: str, worker: str | None = None) -> None:
    """Wait until a prompt has said this of itself."""
    with anyio.fail_after(120):
        while not [
            event
            for event in stack.outside.heard(request_id, "prompt.progress")
            if event.body["status"] == wanted and worker in (None, event.body["worker"])
        ]:
            await anyio.sleep(0.01)


async def one_works_the_other_stands_by(stack: Stack) -> tuple[Worker, Worker]:
    """Two workers with a ComfyUI each on one partition, which the first one has."""
    first, second = stack.worker(await stack.comfy()), stack.worker(await stack.comfy())
    await first.start()
    await stack.outside.send({"id": "first", "prompt": graph()})
    assert (await stack.outside.terminal("first", 100)).body["worker"] == "w0"
    await second.start()
    await logged(second, '"standing by')
    return first, second


async def logged(worker: Worker, wanted: str) -> None:
    """Wait until a worker has said this in its log."""
    assert worker.process is not None
    with anyio.fail_after(100):
        while wanted not in worker.process.log.read_text():
            await anyio.sleep(0.05)


async def test_a_drained_worker_hands_over_within_ten_seconds(tmp_path: Path) -> None:
    """SIGTERM in a prompt longer than the grace: with default sessions another worker runs all of it, unspent."""
    async with run_kafka_stack(tmp_path, NATS_ACK_WAIT_S=45, DRAIN_TIMEOUT_S=2, MAX_IN_FLIGHT=3) as stack:
        first, _ = await one_works_the_other_stands_by(stack)
        await stack.outside.send({"id": "h-0", "prompt": graph(seconds=15, steps=150)})
        await status(stack, "h-0", "running")
        for number in (1, 2):
            await stack.outside.send({"id": f"h-{number}", "prompt": graph(color=number)})
        await status(stack, "h-2", "accepted")
        asked = time.monotonic()
        assert first.process is not None
        first.process.signal(15)
        await status(stack, "h-0", "running", worker="w1")
        took = time.monotonic() - asked
        assert await first.process.wait() == 0
        verdict = await settled(stack, ["h-0", "h-1", "h-2"], 120)
        assert (verdict.lost, verdict.doubled, verdict.outcomes) == ([], [], {"complete": 3})
        found = await stack.outside.terminals()
        assert {events[0].body["attempt"] for events in found.values()} == {1}
        print(f"running elsewhere {took:.1f} s after SIGTERM, {took - 2:.1f} s after the end of its grace")
        assert took < 2 + 10


async def test_an_idle_worker_that_ends_hands_over_at_once(tmp_path: Path) -> None:
    """With nothing in hand the other worker has the next request within ten seconds of SIGTERM."""
    async with run_kafka_stack(tmp_path, NATS_ACK_WAIT_S=45) as stack:
        first, _ = await one_works_the_other_stands_by(stack)
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
        verdict = await settled(stack, ids, 200)
        assert (verdict.lost, verdict.doubled, verdict.outcomes) == ([], [], {"complete": 10})
        # What had finished was adopted or remembered: no more runs than were in ComfyUI when it was killed.
        assert verdict.executions <= 10 + 3


@pytest.mark.parametrize("seconds", [12, pytest.param(60, marks=pytest.mark.full)])
async def test_a_prompt_longer_than_the_poll_interval_runs_once(tmp_path: Path, seconds: int) -> None:
    """KAFKA_MAX_POLL_INTERVAL_MS=5000 and a longer prompt, with a second worker beside: run once, no rebalance."""
    settings = {"NATS_ACK_WAIT_S": 6, "KAFKA_MAX_POLL_INTERVAL_MS": 5000}
    async with run_kafka_stack(tmp_path, **settings) as stack:
        await one_works_the_other_stands_by(stack)
        with anyio.fail_after(60):
            # The first one alone, then both anew when the second one came.
            while (divided := joined(stack)) < 3:
                await anyio.sleep(0.05)
        await stack.outside.send({"id": "long", "prompt": graph(seconds=seconds, steps=seconds * 2)})
        event = await stack.outside.terminal("long", seconds + 60)
        assert event.body["attempt"] == 1
        verdict = await settled(stack, ["first", "long"], 20)
        assert (verdict.executions, verdict.doubled) == (2, [])
        assert joined(stack) == divided


def joined(stack: Stack) -> int:
    """How often the workers were told which partitions they have."""
    logs = [worker.process.log.read_text() for worker in stack.workers if worker.process is not None]
    return sum(log.count('"partitions assigned"') + log.count('"standing by') for log in logs)


async def group(stack: Stack) -> str:
    """What ``doctor`` says of the group."""
    async with stack.client() as client:
        return next(one.text for one in await client.check() if one.text.startswith("the group"))


async def test_a_worker_joins_the_group_only_when_warm(tmp_path: Path) -> None:
    """As long as its ComfyUI is not up a worker has no partition; doctor counts workers and partitions."""
    async with run_kafka_stack(tmp_path, PARTITIONS=2) as stack:
        comfy = await stack.comfy()
        await comfy.kill()
        worker = stack.worker(comfy)
        worker.launch()
        assert worker.process is not None
        with anyio.fail_after(60):
            while worker.process.log.read_text().count("waiting for ComfyUI") < 3:
                await anyio.sleep(0.1)
        assert ": 0 workers on 2 partitions" in await group(stack)
        await comfy.start()
        await worker.ready()
        with anyio.fail_after(60):
            while ": 1 worker on 2 partitions" not in await group(stack):
                await anyio.sleep(0.1)
        for _ in range(2):
            await stack.worker(comfy).start()
        with anyio.fail_after(60):
            while "3 workers on 2 partitions, 1 of them stand" not in await group(stack):
                await anyio.sleep(0.1)
        with anyio.fail_after(60):
            while '"standing by' not in "".join(one.process.log.read_text() for one in stack.workers if one.process):
                await anyio.sleep(0.1)


@pytest.mark.timeout(400)
async def test_a_worker_whose_comfyui_is_down_leaves_the_group(tmp_path: Path) -> None:
    """A ComfyUI that hangs in the middle of a prompt for a minute: another worker answers it, unspent."""
    async with run_kafka_stack(tmp_path, NATS_ACK_WAIT_S=10) as stack:
        await one_works_the_other_stands_by(stack)
        comfy = stack.comfys[0]
        await stack.outside.send({"id": "down", "prompt": graph(seconds=15, steps=150)})
        await status(stack, "down", "running")
        assert comfy.process is not None
        comfy.process.signal(signal.SIGSTOP)
        frozen = time.monotonic()
        await stack.outside.send({"id": "behind", "prompt": graph()})
        try:
            for name in ("down", "behind"):
                event = await stack.outside.terminal(name, 200)
                assert (event.body["type"], event.body["worker"]) == ("prompt.complete", "w1")
            print(f"answered elsewhere {time.monotonic() - frozen:.0f} s after ComfyUI stopped")
        finally:
            comfy.process.signal(signal.SIGCONT)
        # With a ComfyUI again it is a worker again.
        with anyio.fail_after(100):
            while ": 2 workers" not in await group(stack):
                await anyio.sleep(0.2)
        assert (await settled(stack, ["down", "behind"], 20)).doubled == []


@pytest.mark.parametrize("static", [False, True])
async def test_only_a_static_member_stays_in_the_group(tmp_path: Path, *, static: bool) -> None:
    """KAFKA_STATIC_MEMBERSHIP keeps the place of a worker that ends, for one of the same id; else it leaves."""
    env = {"NATS_ACK_WAIT_S": 45, "KAFKA_STATIC_MEMBERSHIP": static}
    async with run_kafka_stack(tmp_path, **env) as stack:
        worker = stack.worker(await stack.comfy())
        await worker.start()
        await stack.outside.send({"id": "one", "prompt": graph()})
        await stack.outside.terminal("one")
        assert await worker.stop() == 0
        assert f": {int(static)} worker" in await group(stack)
        await worker.start()
        await stack.outside.send({"id": "two", "prompt": graph(color=1)})
        await stack.outside.terminal("two", 40)
        assert ": 1 worker on" in await group(stack)


async def test_the_body_of_a_letter_without_room_is_kept_and_replayed(tmp_path: Path) -> None:
    """A dead letter topic without extra room: the bytes go to OUTPUT_STORE, and a replay reads them there."""
    async with run_kafka_stack(tmp_path) as stack:
        await without_room(stack)
        await stack.worker(await stack.comfy()).start()
        body = b"{" + b" " * (await stack.outside.request_limit_bytes() - 1)
        await stack.outside.send(body)
        with anyio.fail_after(60):
            while not (letters := await stack.outside.letters()):
                await anyio.sleep(0.05)
        assert letters[0].data == b""
        assert letters[0].headers["ce-dataref"].startswith("file://")
        assert await request_in(stack.outside, letters[0]) == body
        request_id = letters[0].headers["comfybus-id"]
        async with stack.client() as client:
            letter = await client.letter(request_id)
            assert letter is not None
            assert await client.replay(letter) == 1
        event = await stack.outside.terminal(request_id, 60, replay=1)
        assert (event.body["code"], "JSON" in event.body["error"]) == ("invalid_request", True)


async def without_room(stack: Stack) -> None:
    """Make the dead letter topic as somebody would who does not know of the room."""
    admin = stack.outside.admin
    topic = ConfigResource(
        ConfigResourceType.TOPIC, f"{stack.env['TOPIC_PREFIX']}.prompt.request.dlq", {"max.message.bytes": "1048588"}
    )
    await admin.alter_configs([topic])

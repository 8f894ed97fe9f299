"""One id, many submissions: one execution, one answer; a replay of a dead letter is answered once more."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.fault.conftest import settled
from tests.support.stack import graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_two_hundred_submissions_of_one_id_run_once(tmp_path: Path) -> None:
    """The same id 200 times at once to two workers: 1 execution, one terminal event, nothing unsettled."""
    async with run_stack(tmp_path) as stack:
        for _ in range(2):
            await stack.worker(await stack.comfy()).start()
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(stack.outside.send, {"id": "same", "prompt": graph(seconds=0.3, color=number)})
        verdict = await settled(stack, ["same"], 60)
        assert (verdict.lost, verdict.doubled, verdict.executions) == ([], [], 1)


async def test_a_prompt_that_kills_comfyui_while_it_is_submitted_is_given_up(tmp_path: Path) -> None:
    """A crash so quick that the submission is never answered counts as a try too."""
    async with run_stack(tmp_path, MAX_ATTEMPTS=2) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()

        async def keep_comfy() -> None:
            while True:
                if comfy.process is not None and not comfy.process.running:
                    await comfy.start()
                await anyio.sleep(0.1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_comfy)
            async with aiohttp.ClientSession() as session:
                faults = {"http": "lose_answer", "http_paths": ["/prompt"], "drop_history": True}
                await session.post(f"{comfy.url}/standin/faults", json=faults)
            poison = {
                "1": graph()["1"],
                "5": {"class_type": "HardCrash", "inputs": {"image": ["1", 0]}},
                "9": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
            }
            await stack.outside.send({"id": "quick", "prompt": poison})
            body = (await stack.outside.terminal("quick", 60)).body
            tasks.cancel_scope.cancel()
        assert body["code"] == "attempts_exhausted"
        assert body["attempt"] == 2


async def test_a_prompt_that_brings_comfyui_down_every_time_is_given_up(tmp_path: Path) -> None:
    """HardCrash ends as attempts_exhausted with a dead letter; its neighbours complete at attempt 1."""
    async with run_stack(tmp_path, MAX_ATTEMPTS=2, MAX_IN_FLIGHT=4) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()

        async def keep_comfy() -> None:
            while True:
                if comfy.process is not None and not comfy.process.running:
                    await comfy.start()
                await anyio.sleep(0.1)

        poison = graph(prefix="poison", seconds=0.8)
        poison["5"] = {"class_type": "HardCrash", "inputs": {"image": ["2", 0]}}
        poison["9"]["inputs"]["images"] = ["5", 0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_comfy)
            await stack.outside.send({"id": "poison", "prompt": poison, "metadata": {"bad": True}})
            with anyio.fail_after(20):
                while not [e for e in stack.outside.heard("poison") if e.body.get("status") == "running"]:
                    await anyio.sleep(0.01)
            for number in range(3):
                await stack.outside.send({"id": f"good-{number}", "prompt": graph(color=number)})
            event = await stack.outside.terminal("poison", 90)
            for number in range(3):
                good = await stack.outside.terminal(f"good-{number}", 60)
                assert (good.body["type"], good.body["attempt"]) == ("prompt.complete", 1)
            tasks.cancel_scope.cancel()
        assert event.body["code"] == "attempts_exhausted"
        assert event.body["attempt"] == 2
        assert event.body["retryable"] is True
        letter = (await stack.outside.letters())[-1]
        assert letter.body["id"] == "poison"
        assert letter.headers["comfybus-attempts"] == "2"
        assert letter.headers["comfybus-code"] == "attempts_exhausted"

        # The replay: original bytes, its own terminal event, and no third however often it is sent.
        headers = {"comfybus-replay": "1", "Nats-Msg-Id": "poison/replay/1"}
        for number in range(3):
            if number:
                headers = {"comfybus-replay": "1"}
            await stack.outside.send({"id": "poison", "prompt": graph(prefix="cured")}, headers)
        if comfy.process is not None and not comfy.process.running:
            await comfy.start()
        replayed = await stack.outside.terminal("poison", 30, replay=1)
        assert replayed.body["type"] == "prompt.complete"
        assert replayed.headers["ce-id"] == "poison/complete/1"
        await settled(stack, ["poison"], 20)
        events = (await stack.outside.terminals())["poison"]
        assert [event.body.get("replay", 0) for event in events] == [0, 1]

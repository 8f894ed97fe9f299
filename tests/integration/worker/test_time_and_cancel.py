"""Timeouts, expiry, cancels and hand-backs of prompts in every state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from tests.support.stack import Stack, graph, run_stack

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A worker with two slots, so that a third request waits in the broker."""
    async with run_stack(tmp_path_factory.mktemp("slow"), MAX_IN_FLIGHT=2) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        yield stack


async def status(stack: Stack, request_id: str, wanted: str) -> None:
    """Wait until a prompt has this status."""
    with anyio.fail_after(20):
        while wanted not in [e.body["status"] for e in stack.outside.heard(request_id, "prompt.progress")]:
            await anyio.sleep(0.01)


async def test_a_prompt_that_runs_too_long_is_interrupted(slow: Stack) -> None:
    """timeout_s ends the run with code timeout, and the next prompt has ComfyUI for itself."""
    await slow.outside.send({"id": "slow-1", "prompt": graph(seconds=30, steps=300), "timeout_s": 0.8})
    await slow.outside.send({"id": "slow-2", "prompt": graph()})
    body = (await slow.outside.terminal("slow-1", 15)).body
    assert body["code"] == "timeout"
    assert (await slow.outside.terminal("slow-2", 15)).body["type"] == "prompt.complete"


async def test_an_expired_request_never_reaches_comfyui(slow: Stack) -> None:
    """expires_at is checked just before the submission, also for one that expired while it waited."""
    before = sum(slow.comfys[0].executions().values())
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    await slow.outside.send({"id": "old-1", "prompt": graph(), "expires_at": past})
    body = (await slow.outside.terminal("old-1")).body
    assert (body["code"], body["location"]) == ("expired", "expires_at")
    await slow.outside.send({"id": "ahead-1", "prompt": graph(seconds=1.5)})
    await status(slow, "ahead-1", "running")
    soon = (datetime.now(UTC) + timedelta(seconds=0.7)).isoformat()
    await slow.outside.send({"id": "ahead-2", "prompt": graph(seconds=1.0)})
    await slow.outside.send({"id": "old-2", "prompt": graph(), "expires_at": soon})
    assert (await slow.outside.terminal("old-2")).body["code"] == "expired"
    assert (await slow.outside.terminal("ahead-2")).body["type"] == "prompt.complete"
    assert sum(slow.comfys[0].executions().values()) == before + 2


async def test_cancel_of_a_running_pending_and_waiting_prompt_hits_only_it(slow: Stack) -> None:
    """Running, pending in ComfyUI, and still in the broker: each ends as cancelled, the neighbour completes."""
    for number in range(1, 5):
        await slow.outside.send({"id": f"c-{number}", "prompt": graph(seconds=2.5, steps=50, color=number)})
    await status(slow, "c-1", "running")
    await status(slow, "c-2", "queued")
    for number in (1, 2, 3):
        await slow.outside.command({"type": "prompt.cancel", "id": f"c-{number}"})
    for number in (1, 2, 3):
        body = (await slow.outside.terminal(f"c-{number}", 15)).body
        assert body["code"] == "cancelled", body
    assert (await slow.outside.terminal("c-4", 15)).body["type"] == "prompt.complete"


async def test_a_cancel_before_its_request_holds_and_a_late_one_has_no_effect(slow: Stack) -> None:
    """A cancel may come first; one for an answered id changes nothing."""
    await slow.outside.command({"type": "prompt.cancel", "id": "early-1"})
    await slow.outside.command({"type": "nonsense"})
    await slow.outside.send({"id": "before-early", "prompt": graph(seconds=0.3)})
    await slow.outside.terminal("before-early")
    await slow.outside.send({"id": "early-1", "prompt": graph()})
    assert (await slow.outside.terminal("early-1")).body["code"] == "cancelled"
    await slow.outside.send({"id": "late-1", "prompt": graph()})
    await slow.outside.terminal("late-1")
    await slow.outside.command({"type": "prompt.cancel", "id": "late-1"})
    await slow.outside.send({"id": "after-late", "prompt": graph()})
    await slow.outside.terminal("after-late")
    assert [e.channel for e in (await slow.outside.terminals())["late-1"]] == ["prompt.complete"]


async def test_somebody_elses_interrupt_and_delete_are_noticed(slow: Stack) -> None:
    """A prompt interrupted in ComfyUI by others is cancelled; one deleted from its queue is run again."""
    import aiohttp

    from schemas.envelope import prompt_id

    await slow.outside.send({"id": "other-1", "prompt": graph(seconds=20, steps=200)})
    await slow.outside.send({"id": "other-2", "prompt": graph(seconds=0.2)})
    await status(slow, "other-1", "running")
    await status(slow, "other-2", "queued")
    async with aiohttp.ClientSession() as session:
        pending = {"delete": [prompt_id("other-2", 0, 1)]}
        await session.post(f"{slow.comfys[0].url}/queue", json=pending)
        await session.post(f"{slow.comfys[0].url}/interrupt", json={"prompt_id": prompt_id("other-1", 0, 1)})
    body = (await slow.outside.terminal("other-1", 10)).body
    assert body["code"] == "cancelled"
    assert (await slow.outside.terminal("other-2", 20)).body["type"] == "prompt.complete"


async def test_no_more_than_the_slots_are_taken_and_the_stages_overlap(slow: Stack) -> None:
    """With two slots two requests are in hand, and the second is in ComfyUI's queue before the first ends."""
    for number in range(5):
        await slow.outside.send({"id": f"slot-{number}", "prompt": graph(seconds=0.8, color=number)})
    await status(slow, "slot-1", "queued")
    assert await slow.outside.in_hand() <= 2
    assert not [e for e in slow.outside.heard("slot-0") if e.channel == "prompt.complete"]
    for number in range(5):
        await slow.outside.terminal(f"slot-{number}")

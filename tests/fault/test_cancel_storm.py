"""Cancels at random moments, within milliseconds of the end too: one event each, and nobody else is touched."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from tests.fault.conftest import settled
from tests.support.stack import graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


@pytest.mark.parametrize("version", ["0.3.64", "new"])
async def test_a_storm_of_cancels_hits_only_its_prompts(tmp_path: Path, version: str) -> None:
    """100 prompts, 50 cancelled: one terminal event each, cancelled only where it was asked."""
    rng = random.Random(5)
    async with run_stack(tmp_path, MAX_IN_FLIGHT=8) as stack:
        await stack.worker(await stack.comfy(version)).start()
        ids = [f"c-{number}" for number in range(100)]
        doomed = set(rng.sample(ids, 50))

        async def cancel(request: str) -> None:
            """At a random moment of the prompt's life: before it is taken, and up to its very end."""
            moment = rng.choice(["at once", "accepted", "queued", "running", "storing"])
            if moment != "at once":
                with anyio.move_on_after(30):
                    while moment not in {e.body.get("status") for e in stack.outside.heard(request)}:
                        await anyio.sleep(0.002)
            await anyio.sleep(rng.uniform(0, 0.05))
            await stack.outside.command({"type": "prompt.cancel", "id": request})

        async with anyio.create_task_group() as tasks:
            for number, request in enumerate(ids):
                seconds = rng.choice([0, 0.05, 0.1])
                await stack.outside.send({"id": request, "prompt": graph(seconds=seconds, color=number)})
                if request in doomed:
                    tasks.start_soon(cancel, request)
            verdict = await settled(stack, ids, 120)
        found = await stack.outside.terminals()
        assert (verdict.lost, verdict.doubled) == ([], [])
        cancelled = {request for request in ids if found[request][0].body.get("code") == "cancelled"}
        assert cancelled <= doomed
        assert all(found[request][0].channel == "prompt.complete" for request in set(ids) - doomed)
        assert len(cancelled) >= 20
        print(f"{version}: {len(cancelled)} of 50 cancels won the race")

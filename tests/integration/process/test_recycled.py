"""A ComfyUI that holds too much memory is started anew between prompts."""

from __future__ import annotations

import anyio
import pytest
from supervised import Stage, until, up

from app.setup.recycle import Recycling
from app.worker.life import Recycler

pytestmark = pytest.mark.anyio


async def test_no_prompt_is_taken_until_it_is_started_anew(stage: Stage) -> None:
    """Above the limit the reason stands there; the restart comes when nothing is in hand, and not before."""
    in_hand = [1]
    async with stage.running(stage.config("listen")) as supervisor:
        await up(supervisor)
        rule = Recycling(limit_bytes=1, shortest_life_s=0)
        recycler = Recycler(rule, supervisor, lambda: bool(in_hand), look_s=0.05)
        # The next one is busy from its start.
        stage.when_up = lambda: in_hand.append(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recycler.run)
            await until(lambda: "COMFY_MEMORY_LIMIT_GB" in recycler.reason)
            assert (supervisor.starts, stage.exits) == (1, [])
            in_hand.clear()
            await up(supervisor, start=2)
            assert (supervisor.starts, len(stage.exits)) == (2, 1)
            tasks.cancel_scope.cancel()


async def test_below_the_limit_nothing_happens(stage: Stage) -> None:
    """And without a limit nobody looks."""
    async with stage.running(stage.config("listen")) as supervisor:
        await up(supervisor)
        recycler = Recycler(Recycling(1 << 50, 0), supervisor, lambda: False, look_s=0.01)
        with anyio.move_on_after(0.5):
            await recycler.run()
        assert (recycler.reason, supervisor.starts) == ("", 1)
        with anyio.fail_after(30):
            await Recycler(Recycling(0), supervisor, lambda: False).run()

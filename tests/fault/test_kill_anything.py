"""Every request ends in exactly one terminal event, whatever is killed and whenever."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from tests.fault.conftest import Chaos, settled
from tests.support.stack import graph, run_stack

pytestmark = pytest.mark.anyio


async def kill_anything(folder: Path, prompts: int, kills: int, seed: int, within_s: float) -> None:
    """Prompts on two workers with a ComfyUI each; workers, ComfyUIs and the broker are killed at random moments."""
    async with run_stack(folder, MAX_ATTEMPTS=100, NATS_ACK_WAIT_S=2, MAX_IN_FLIGHT=4, PARTITIONS=4) as stack:
        for _ in range(2):
            await stack.worker(await stack.comfy()).start()
        ids = [f"k{seed}-{number}" for number in range(prompts)]
        chaos = Chaos(stack, seed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(chaos.keep_alive)

            async def send() -> None:
                for number, request in enumerate(ids):
                    # In step with the kills, so that every one of them finds prompts on their way.
                    while number * kills > (len(chaos.kills) + 2) * prompts:
                        await anyio.sleep(0.02)
                    seconds = chaos.random.choice([0, 0, 0.1, 0.3])
                    body = {"id": request, "prompt": graph(seconds=seconds, color=number)}
                    while True:
                        try:
                            await stack.outside.send(body)
                            break
                        except Exception:  # noqa: BLE001 - the broker may be dead: a producer tries again
                            await anyio.sleep(0.2)

            tasks.start_soon(send)
            await chaos.run(kills, longest_pause_s=0.6)
            verdict = await settled(stack, ids, within_s)
            tasks.cancel_scope.cancel()
        print(f"seed {seed}: {kills} kills, {verdict}")
        logs = "\n".join(worker.process.tail(15) for worker in stack.workers if worker.process)
        assert verdict.lost == [], logs
        assert verdict.doubled == [], logs
        assert set(verdict.outcomes) == {"complete"}, f"{verdict.outcomes}\n{logs}"


@pytest.mark.timeout(400)
async def test_fifty_prompts_survive_five_kills(tmp_path: Path) -> None:
    """50 prompts, 5 kills over workers, ComfyUIs and the broker: none lost, none answered twice."""
    await kill_anything(tmp_path, 50, 5, seed=1, within_s=300)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_a_thousand_prompts_survive_a_hundred_kills(tmp_path: Path, seed: int) -> None:
    """1,000 prompts, 100 kills over workers, ComfyUIs and the broker: none lost, none answered twice."""
    await kill_anything(tmp_path, 1000, 100, seed=seed, within_s=2000)

"""What the fault suites share: a keeper that restarts whatever was killed, as an orchestrator would."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import anyio

from tests.support.outsider import Event
from tests.support.processes import StandIn, Worker
from tests.support.stack import Server, Stack


@dataclass
class Chaos:
    """Kills by a seed and brings back what died; every choice comes from the seed, so a run can be repeated."""

    stack: Stack
    seed: int
    kills: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def victims(self) -> list[Worker | StandIn | Server]:
        return [*self.stack.workers, *self.stack.comfys, self.stack.broker]

    async def kill_one(self) -> None:
        """kill -9 of one process, and its return a moment later."""
        victim = self.random.choice(self.victims)
        pause = self.random.uniform(0.05, 0.5)
        self.kills.append(type(victim).__name__)
        await victim.kill()
        await anyio.sleep(pause)
        if isinstance(victim, Worker):
            if victim.process is None or not victim.process.running:
                victim.launch()
        else:
            await victim.start()

    async def keep_alive(self) -> None:
        """Bring back workers that ended by themselves."""
        while True:
            for worker in self.stack.workers:
                if worker.process is not None and not worker.process.running:
                    worker.launch()
            await anyio.sleep(0.2)

    async def run(self, count: int, longest_pause_s: float) -> None:
        """Kill ``count`` times at random moments."""
        for _ in range(count):
            await anyio.sleep(self.random.uniform(0.1, longest_pause_s))
            await self.kill_one()


@dataclass(frozen=True)
class Verdict:
    """What became of a set of requests."""

    lost: list[str]
    doubled: list[str]
    outcomes: dict[str, int]
    executions: int


async def settled(stack: Stack, ids: list[str], within_s: float) -> Verdict:
    """Wait until every request has an answer and is settled, then count what is stored."""
    with anyio.move_on_after(within_s):
        while True:
            try:
                found = await stack.outside.terminals()
                if set(ids) <= set(found) and await stack.outside.unsettled() == 0:
                    break
            except Exception:  # noqa: BLE001 - the broker may be dead right now
                await anyio.sleep(0.2)
            await anyio.sleep(0.1)
    return judge(stack, ids, await stack.outside.terminals())


def judge(stack: Stack, ids: list[str], found: dict[str, list[Event]]) -> Verdict:
    outcomes: dict[str, int] = {}
    for request in ids:
        for event in found.get(request, []):
            name: Any = event.body.get("code", "complete")
            outcomes[name] = outcomes.get(name, 0) + 1
    return Verdict(
        lost=[request for request in ids if request not in found],
        doubled=[request for request in ids if len(found.get(request, [])) > 1],
        outcomes=outcomes,
        executions=sum(sum(comfy.executions().values()) for comfy in stack.comfys),
    )


async def running(stack: Stack, request_id: str, step: int = 1) -> None:
    """Wait until a prompt runs and has reached this step."""
    with anyio.fail_after(30):
        while not [
            event
            for event in stack.outside.heard(request_id, "prompt.progress")
            if event.body["progress"].get("step", 0) >= step
        ]:
            await anyio.sleep(0.01)

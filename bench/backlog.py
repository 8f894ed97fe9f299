"""(c) What a prompt costs while many wait in the broker."""

from __future__ import annotations

import time

import anyio

from bench.lanes import trivial
from bench.machine import cpu_seconds
from bench.mailbox import open_mailbox
from bench.place import Place
from bench.table import Table

LENGTHS = (100, 1_000, 10_000, 100_000)
PROMPTS = 300
WARM = 50


async def measure(place: Place) -> Table:
    """Queue so many, then see how fast the worker goes through the first of them."""
    table = Table(
        "Cost against the length of the queue",
        ["broker", "requests waiting", "prompts/s", "CPU, s for 1,000 prompts"],
        notes=[
            f"{PROMPTS} prompts at 16 in flight while the rest waits, after {WARM} to warm up; 100 ends with the queue."
        ],
    )
    for broker in place.brokers:
        for length in LENGTHS:
            async with place.stack(broker, MAX_IN_FLIGHT=16, PREFETCH=15, LOG_LEVEL="warning") as stack:
                worker = stack.worker(await stack.comfy())
                async with open_mailbox(stack) as mailbox:
                    await worker.start()
                    await mailbox.send("first", trivial(0))
                    await mailbox.answer("first")
                    await worker.stop()
                    for number in range(max(length, WARM + 50)):
                        await mailbox.send(f"wait-{number}", trivial(number + 1))
                    await mailbox.flush()
                    await worker.start()
                    count = min(PROMPTS, max(length, WARM + 50) - WARM)
                    while len(mailbox.arrived) < WARM:
                        await mailbox_step()
                    began, before, answered = time.perf_counter(), cpu_seconds(worker), len(mailbox.arrived)
                    while len(mailbox.arrived) < answered + count - 20:
                        await mailbox_step()
                    took, cost, done = (
                        time.perf_counter() - began,
                        cpu_seconds(worker) - before,
                        len(mailbox.arrived) - answered,
                    )
                    table.rows.append([broker, f"{length:,}", f"{done / took:.0f}", f"{1000 * cost / done:.2f}"])
    return table


async def mailbox_step() -> None:
    """Let the client read."""
    await anyio.sleep(0.02)

"""(a, g) What the worker adds to trivial prompts, side by side with ComfyUI driven directly."""

from __future__ import annotations

import statistics

from bench.direct import direct
from bench.lanes import through_worker
from bench.machine import cpu_seconds
from bench.mailbox import open_mailbox
from bench.place import Place
from bench.table import Table, spread


async def measure(place: Place) -> Table:
    """Direct and through each broker in turn, 1 and 16 in flight; then the CPU time of 1,000 prompts."""
    table = Table(
        f"Trivial prompts through the worker and directly ({place.comfyui})",
        ["broker", "in flight", "direct, prompts/s", "worker, prompts/s", "ratio", "added at the median, ms", "CPU, s"],
        notes=[
            (
                f"EmptyImage and SaveImage, {place.prompts} prompts a round, {place.rounds} rounds of each way in turn. A direct client "
                "submits, waits on the websocket, reads the history and fetches the image. CPU: user and system time of the "
                f"worker process for 1,000 prompts, measured with {5 * place.prompts}."
            )
        ],
    )
    for broker in place.brokers:
        async with place.stack(broker, MAX_IN_FLIGHT=16, PREFETCH=15, LOG_LEVEL="warning") as stack:
            comfy = await place.comfy(stack)
            worker = stack.worker(comfy)
            await worker.start()
            async with open_mailbox(stack) as mailbox:
                await through_worker(mailbox, 50, 4)
                await direct(comfy.url, 50, 4)
                for in_flight in (1, 16):
                    rates: list[tuple[float, float]] = []
                    waits: tuple[list[float], list[float]] = ([], [])
                    for _ in range(place.rounds):
                        raw, of_raw = await direct(comfy.url, place.prompts, in_flight)
                        ours, of_ours = await through_worker(mailbox, place.prompts, in_flight)
                        rates.append((raw, ours))
                        waits[0].extend(of_raw)
                        waits[1].extend(of_ours)
                    before = cpu_seconds(worker)
                    await through_worker(mailbox, 5 * place.prompts, in_flight)
                    cost = cpu_seconds(worker) - before
                    added = 1000 * (statistics.median(waits[1]) - statistics.median(waits[0]))
                    table.rows.append(
                        [
                            broker,
                            str(in_flight),
                            spread([raw for raw, _ in rates]),
                            spread([ours for _, ours in rates]),
                            spread([ours / raw for raw, ours in rates], 2),
                            f"{added:.1f}",
                            f"{cost * 200 / place.prompts:.2f}",
                        ]
                    )
    return table

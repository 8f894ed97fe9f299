"""(d) Many workers, each with a ComfyUI of its own that takes a fixed time."""

from __future__ import annotations

import time

import anyio

from bench.mailbox import open_mailbox
from bench.place import Place
from bench.table import Table
from tests.support.stack import graph

WORKERS = (1, 2, 4, 8, 16)
RUN_S = 2.0
EACH = 8


async def measure(place: Place) -> Table:
    """Throughput with so many workers over that of one, times their number."""
    table = Table(
        f"Scaling (runs of {RUN_S:g} s)",
        ["broker", "workers", "prompts/s", "of linear"],
        notes=[
            (
                f"{EACH} prompts for each worker, MAX_IN_FLIGHT=2 and PREFETCH=1; the partitions of the Kafka topic are as "
                "many as the workers. Linear: as many times what one ComfyUI could do without a pause (1 / run time). All "
                "processes share the two cores."
            )
        ],
    )
    for broker in place.brokers:
        for count in WORKERS:
            settings = {"MAX_IN_FLIGHT": 2, "PREFETCH": 1, "LOG_LEVEL": "warning", "PARTITIONS": count}
            async with place.stack(broker, **settings) as stack:
                for _ in range(count):
                    worker = stack.worker(await stack.comfy())
                    await worker.start()
                async with open_mailbox(stack) as mailbox:
                    await anyio.sleep(3)  # a Kafka group divides its partitions
                    began = time.perf_counter()
                    for number in range(count * EACH):
                        await mailbox.send(
                            f"scale-{number}", {"prompt": graph(seconds=RUN_S, steps=4, color=number + 1)}
                        )
                    for number in range(count * EACH):
                        await mailbox.answer(f"scale-{number}")
                    rate = count * EACH / (time.perf_counter() - began)
                table.rows.append([broker, str(count), f"{rate:.2f}", f"{rate * RUN_S / count:.3f}"])
    return table

"""(d) Many workers, each with a ComfyUI of its own that takes a fixed time."""

from __future__ import annotations

import itertools
import time

import anyio
from aiokafka.partitioner import murmur2

from bench.mailbox import Mailbox, open_mailbox
from bench.place import Place
from bench.table import Table
from tests.support.stack import Stack, graph

WORKERS = (1, 2, 4, 8, 16)
RUN_S = 2.0
EACH = 8
PARTITIONS = WORKERS[-1]
# In this time a Kafka group divides its partitions anew.
GROUP_S = 5.0


async def measure(place: Place) -> Table:
    """Throughput with so many workers over that of one, times their number."""
    table = Table(
        f"Scaling (runs of {RUN_S:g} s)",
        ["broker", "workers", "prompts/s", "of linear"],
        notes=[
            (
                f"{EACH} prompts for each worker, MAX_IN_FLIGHT=2 and PREFETCH=1; on Kafka {PARTITIONS} partitions, and ids that "
                "lie evenly in them. Linear: as many times what one ComfyUI could do without a pause (1 / run time). All "
                "processes share the two cores."
            )
        ],
    )
    for broker in place.brokers:
        settings = {"MAX_IN_FLIGHT": 2, "PREFETCH": 1, "LOG_LEVEL": "warning", "PARTITIONS": PARTITIONS}
        async with place.stack(broker, **settings) as stack:
            await _enlarge(stack, 1)  # by which the topics are there
            async with open_mailbox(stack) as mailbox:
                for count in WORKERS:
                    await _enlarge(stack, count)
                    await anyio.sleep(GROUP_S)
                    rate = await _rate(mailbox, count)
                    table.rows.append([broker, str(count), f"{rate:.2f}", f"{rate * RUN_S / count:.3f}"])
    return table


async def _enlarge(stack: Stack, count: int) -> None:
    """Start workers until there are so many."""
    while len(stack.workers) < count:
        await stack.worker(await stack.comfy()).start()


async def _rate(mailbox: Mailbox, count: int) -> float:
    """Prompts a second, from the first request to the last answer."""
    ids = [_in_partition(f"scale-{count}-{number}", number % PARTITIONS) for number in range(count * EACH)]
    began = time.perf_counter()
    for number, request_id in enumerate(ids):
        await mailbox.send(request_id, {"prompt": graph(seconds=RUN_S, steps=4, color=100 * count + number)})
    for request_id in ids:
        await mailbox.answer(request_id)
    return len(ids) / (time.perf_counter() - began)


def _in_partition(name: str, wanted: int) -> str:
    """An id that Kafka's usual partitioner puts there; on NATS it is as good as any."""
    candidates = (f"{name}-{suffix}" for suffix in itertools.count())
    return next(found for found in candidates if (murmur2(found.encode()) & 0x7FFFFFFF) % PARTITIONS == wanted)

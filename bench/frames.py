"""(f) A graph of 300 nodes, whose progress_state frames repeat every node at every step: some 20 MB."""

from __future__ import annotations

from typing import Any

from bench.direct import direct
from bench.lanes import through_worker
from bench.machine import cpu_seconds, peak_mebibytes, reset_peak
from bench.mailbox import open_mailbox
from bench.place import Place
from bench.table import Table, spread

NODES = 300
ROUNDS = 5


async def measure(place: Place) -> Table:
    """The same graph directly and through the worker, one at a time."""
    table = Table(
        f"A graph of {NODES} nodes",
        ["way", "seconds", "CPU of the worker, s", "peak, MiB"],
        notes=[f"{ROUNDS} rounds in turn, one prompt at a time; every node is executed."],
    )
    async with place.stack("NATS", LOG_LEVEL="warning") as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        raw: list[float] = []
        ours: list[float] = []
        cost: list[float] = []
        async with open_mailbox(stack) as mailbox:
            reset_peak(worker)
            for number in range(ROUNDS):
                raw += (await direct(comfy.url, 1, 1, _chain(2 * number)["prompt"]))[1]
                before = cpu_seconds(worker)
                ours += (await through_worker(mailbox, 1, 1, lambda _, number=number: _chain(2 * number + 1)))[1]
                cost.append(cpu_seconds(worker) - before)
        table.rows.append(["direct", spread(raw, 2), "", ""])
        table.rows.append(["worker", spread(ours, 2), spread(cost, 2), f"{peak_mebibytes(worker):.0f}"])
    return table


def _chain(color: int) -> dict[str, Any]:
    nodes: dict[str, Any] = {
        "0": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}}
    }
    for number in range(1, NODES - 1):
        nodes[str(number)] = {"class_type": "ImageInvert", "inputs": {"image": [str(number - 1), 0]}}
    last = [str(NODES - 2), 0]
    nodes["save"] = {"class_type": "SaveImage", "inputs": {"images": last, "filename_prefix": f"chain-{color}"}}
    return {"prompt": nodes}

"""(e) The worker's memory against the size of an output."""

from __future__ import annotations

from bench.lanes import through_worker
from bench.machine import peak_mebibytes, reset_peak
from bench.mailbox import open_mailbox
from bench.place import Place
from bench.table import Table

SIZES_MIB = (1, 16, 64, 256, 1024, 4096)


async def measure(place: Place) -> Table:
    """Peak of the resident set while one output of this size is read, hashed and stored."""
    table = Table(
        "Memory against the size of an output",
        ["ComfyUI's folder", "output, MiB", "peak, MiB", "more than for 1 MiB"],
        notes=["One prompt at a time; the file goes to a folder by OUTPUT_STORE. Not shared: fetched over `/view`."],
    )
    for shared in (True, False):
        async with place.stack("NATS", LOG_LEVEL="warning") as stack:
            store = stack.folder / "store"
            store.mkdir()
            worker = stack.worker(await stack.comfy(), shared=shared, OUTPUT_STORE=f"file://{store}")
            await worker.start()
            first = 0.0
            async with open_mailbox(stack) as mailbox:
                for size in SIZES_MIB:
                    for _ in range(2 if size == 1 else 1):
                        reset_peak(worker)
                        await through_worker(mailbox, 1, 1, lambda number, size=size: _large(number, size))
                    peak = peak_mebibytes(worker)
                    first = first or peak
                    table.rows.append(
                        ["shared" if shared else "not shared", f"{size:,}", f"{peak:.0f}", f"{peak - first:+.0f}"]
                    )
    return table


def _large(number: int, mebibytes: int) -> dict[str, object]:
    return {
        "prompt": {
            "1": {
                "class_type": "SaveLargeFile",
                "inputs": {"mebibytes": mebibytes, "filename_prefix": f"large-{number}"},
            }
        }
    }

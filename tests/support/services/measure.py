"""Moves a file in and out in a process of its own and tells by how much that process grew.

Run as ``python -m tests.support.services.measure``; reads a pickled job from stdin, writes one line of JSON.
"""

from __future__ import annotations

import gc
import json
import pickle
import sys
from pathlib import Path

import anyio

from app.storage.config import StorageConfig
from app.storage.stores import Hold, Stores

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def figure(name: str) -> int:
    """A figure of this process's memory, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def reset_peak() -> int:
    """Begin to measure; returns the memory that is in use."""
    gc.collect()
    CLEAR.write_text("5")
    return figure("VmRSS")


async def measure(config: StorageConfig, warm_up: Path, source: Path, urls: list[str]) -> dict[str, int]:
    """Growth at the peak while a file goes out and comes in, after a small one has gone the same way."""
    async with Stores(config).open() as stores:
        for url in urls[:1]:
            await stores.put(warm_up, url)
            with Hold() as hold:
                await stores.fetch(url, in_use=hold)
        before = reset_peak()
        await stores.put(source, urls[1])
        out = figure("VmHWM") - before
        before = reset_peak()
        with Hold() as hold:
            fetched = await stores.fetch(urls[1], in_use=hold)
            size = fetched.size_bytes
        return {"out": out, "in": figure("VmHWM") - before, "size": size}


if __name__ == "__main__":
    print(json.dumps(anyio.run(measure, *pickle.load(sys.stdin.buffer))))

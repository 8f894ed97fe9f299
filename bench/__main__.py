"""Run the benchmarks side by side and write docs/benchmarks.md with what was measured."""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio

from bench.direct import direct
from bench.through_worker import cpu_seconds, through_worker
from tests.support.stack import Stack, run_stack

ROOT = Path(__file__).parents[1]
Round = Callable[[], Awaitable["Measured"]]
Measured = tuple[float, list[float]]


async def overhead(stack: Stack, url: str, prompts: int, rounds: int) -> list[str]:
    """Trivial prompts straight to ComfyUI and through the worker, in turn; medians of several rounds."""
    lines = [
        "| in flight | direct, prompts/s | worker, prompts/s | ratio | added at the median, ms |",
        "|---|---|---|---|---|",
    ]
    for in_flight in (1, 16):
        ways = {
            "direct": partial(direct, url, prompts, in_flight),
            "worker": partial(through_worker, stack, prompts, in_flight),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        latencies: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                rate, each = await way()
                rates[name].append(rate)
                latencies[name] += each
        ratio = statistics.median(worker / raw for worker, raw in zip(rates["worker"], rates["direct"], strict=True))
        added = 1000 * (statistics.median(latencies["worker"]) - statistics.median(latencies["direct"]))
        spread = {
            name: f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
            for name, found in rates.items()
        }
        lines.append(f"| {in_flight} | {spread['direct']} | {spread['worker']} | {ratio:.2f} | {added:.1f} |")
    return lines


async def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        async with run_stack(Path(folder), MAX_IN_FLIGHT=16, PREFETCH=15, LOG_LEVEL="warning") as stack:
            comfy = await stack.comfy()
            worker = stack.worker(comfy)
            await worker.start()
            await through_worker(stack, 50, 4)
            table = await overhead(stack, comfy.url, options.prompts, options.rounds)
            before = cpu_seconds(worker)
            await through_worker(stack, 1000, 16)
            cost = cpu_seconds(worker) - before
    text = "\n".join(
        [
            "# Benchmarks",
            "",
            f"Measured {datetime.now(UTC):%Y-%m-%d} in {time.time() - began:.0f} s with",
            f"`make bench` ({options.prompts} prompts, {options.rounds} rounds of each, in turn; medians, spread in brackets)",
            f"on {platform.machine()}, Python {platform.python_version()}, 2 shared cores: broker, stand-in ComfyUI, worker and",
            "client all on the same machine, so absolute figures say little; the ratios are what counts.",
            "",
            "## What the worker adds to trivial prompts (EmptyImage 64 x 64, SaveImage)",
            "",
            *table,
            "",
            f"CPU time of the worker process: {cost:.2f} s for 1,000 prompts at 16 in flight.",
            "",
        ]
    )
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    print(text)


anyio.run(main)

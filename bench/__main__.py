"""Run the measurements and write docs/benchmarks.md: ``python -m bench [name …]``.

With names only those are measured and printed; the document, which is of one run, stays as it is.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio

from bench import backlog, busy, frames, memory, overhead, scaling
from bench.place import Place

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MEASUREMENTS = {
    "overhead": overhead.measure,
    "busy": busy.measure,
    "backlog": backlog.measure,
    "scaling": scaling.measure,
    "memory": memory.measure,
    "frames": frames.measure,
}
MARK = "<!-- what follows is written by hand -->"


async def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []])
    parser.add_argument("--prompts", type=int, default=Place.prompts, help="of trivial ones in each round")
    parser.add_argument("--rounds", type=int, default=Place.rounds)
    parser.add_argument("--broker", action="append", choices=["NATS", "Kafka"])
    options = parser.parse_args()
    place = Place(prompts=options.prompts, rounds=options.rounds)
    place.brokers = options.broker or place.brokers
    began = time.time()
    sections = []
    for name in options.names or MEASUREMENTS:
        sections.append((await MEASUREMENTS[name](place)).markdown())
        print(sections[-1], flush=True)
    if options.names:
        return
    head = (
        f"# Benchmarks\n\nMeasured {datetime.now(UTC):%Y-%m-%d} in {time.time() - began:.0f} s with `make bench` on "
        f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} shared cores: broker, ComfyUI, "
        "worker and client are all on the same machine, so absolute figures say little; the ratios are what counts. "
        "Figures are medians, with the smallest and the largest in brackets.\n"
    )
    kept = DOCUMENT.read_text().partition(MARK)[2] if DOCUMENT.exists() else ""
    DOCUMENT.write_text("\n".join([head, *sections, MARK]) + (kept or "\n"))


anyio.run(main)

"""The stand-in as a program of its own: ``python -m app.comfy.standin --port 0 --home DIR``.

Run by ``comfybus demo``, by the tests and by ``python -m app.comfy.standin``; may import its folder alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from app.comfy.standin.config import REPORTED_VERSIONS, StandinConfig
from app.comfy.standin.server import serve


def main() -> None:
    """Serve until SIGINT or SIGTERM, which end the process at once: no farewell to sockets, nothing saved.

    When ready, one line of JSON goes to standard output: ``{"standin": true, "url": ..., "pid": ...}``.
    """
    parser = argparse.ArgumentParser(prog="python -m app.comfy.standin", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder for input, output, temp and models")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--version", choices=list(REPORTED_VERSIONS), default="0.3.64", help="behaviour to play")
    parser.add_argument("--input-directory", type=Path)
    parser.add_argument("--output-directory", type=Path)
    parser.add_argument("--temp-directory", type=Path, help="its sub-folder temp is used, and emptied at the start")
    parser.add_argument("--previews", action="store_true", help="let KSampler show a picture at every step")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    asyncio.run(_serve(StandinConfig(**vars(options))))


async def _serve(config: StandinConfig) -> None:
    async with serve(config) as standin:
        sys.stdout.write(json.dumps({"standin": True, "url": standin.url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def _end(number: int, _: object) -> None:
    """Leave without any clean-up, so that clients see what the death of a real server looks like."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()

"""A stand-in for ComfyUI: it speaks the protocol and really runs a few nodes, in memory, with Pillow.

Used by the tests and the benchmarks; may import its folder alone.

It is for tests, demonstrations and benchmarks on machines without ComfyUI, and it says everywhere that it is a
stand-in: header ``Server``, GET /, GET /system_stats. It behaves as recordings of ComfyUI 0.3.64 show, weaknesses
included, or, with version ``new``, with the rules and the jobs API of newer releases.

As a program: ``python -m app.comfy.standin --port 0 --home DIR`` prints one line of JSON with its ``url`` when it is
ready. In a test::

    async with serve(StandinConfig(home=tmp_path)) as standin:
        ...  # standin.url, standin.home

Besides ComfyUI's routes it has its own:

* ``POST /standin/faults`` sets fault switches, ``GET`` shows them, ``DELETE`` sets them back. See
  :class:`app.comfy.standin.faults.Faults` for what each does.
* ``GET /standin/stats`` counts executions begun and ended per prompt id, and messages sent.
* The file ``HOME/executions.jsonl`` gets a line for each execution begun and survives kill -9.
"""

from __future__ import annotations

from app.comfy.standin.config import StandinConfig
from app.comfy.standin.server import Standin, serve

__all__ = ["Standin", "StandinConfig", "serve"]

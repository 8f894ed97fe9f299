"""What one answered prompt adds to the metrics.

Used by perform; may import app.metrics, app.prepare.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from app.metrics import Metrics
from app.prepare.loaded import main_models
from app.worker.job import Job
from app.worker.timeline import node_runs, stages

__all__ = ["Swaps", "measure"]


class Swaps:
    """Counts when ComfyUI had to load other large models than for the prompt before."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loaded: frozenset[str] = frozenset()

    def loads(self, graph: Mapping[str, Any]) -> None:
        """A graph has run. One that loads nothing large leaves what is loaded in place, and the first is no swap."""
        wanted = main_models(graph)
        if not wanted:
            return
        if self._loaded and wanted != self._loaded:
            self._metrics.model_swaps.inc()
        self._loaded = wanted


def measure(metrics: Metrics, job: Job) -> None:
    """Count where the time of a prompt went that has its answer, whatever that is."""
    times = job.times
    metrics.spent("queue", job.queue_time_ms / 1000)
    for stage in stages(times, job.followed, time.monotonic()):
        metrics.spent(stage.name, stage.end_s - stage.begin_s)
    if times.converted:
        metrics.spent("convert", times.converted)
    metrics.spent("total", times.answered - (times.received or times.picked_up))
    if job.followed is not None:
        metrics.ran((node.class_type, node.seconds) for node in node_runs(job.followed))

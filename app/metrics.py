"""What a worker counts, in its own Prometheus registry. No label is without bound: ids and URLs are none.

Used by app.worker; may import app.exposition, schemas.

Values that somebody else keeps (the broker, ComfyUI's supervisor) are read when they are asked for and cost nothing
before; what is counted here for every prompt has its label looked up once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

from prometheus_client import Counter, Histogram

from app.exposition import Exposition
from schemas.events import ErrorCode

__all__ = ["OTHER", "STAGES", "Metrics"]

STAGE_BUCKETS_S: Final = (0.005, 0.02, 0.1, 0.5, 2, 5, 15, 60, 300, 1800)
NODE_BUCKETS_S: Final = (0.01, 0.1, 0.5, 2, 10, 60, 600)
STAGES: Final = (
    "queue",
    "claim",
    "prepare",
    "comfyui_queue",
    "run",
    "adopt",
    "collect",
    "convert",
    "store",
    "publish",
    "total",
)
# Only classes of nodes that ComfyUI has run are counted, so only those it has; a collection of packs has thousands.
MOST_CLASSES: Final = 100
LONGEST_CLASS: Final = 100
OTHER: Final = "other"


class Metrics(Exposition):
    """All metrics of one worker."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.prompts = Counter("comfybus_prompts", "Prompts answered.", ("outcome", "code"), registry=registry)
        self.attempts = Counter("comfybus_attempts", "Tries that were submitted to ComfyUI.", registry=registry)
        self.retries = Counter("comfybus_retries", "Tries that failed and come back.", registry=registry)
        self.duplicates = Counter("comfybus_duplicates", "Requests settled without a run.", registry=registry)
        self.adopted = Counter("comfybus_adopted", "Runs taken over from an earlier delivery.", registry=registry)
        self.handed_back = Counter("comfybus_handed_back", "Requests handed back to the broker.", registry=registry)
        self.dead_letters = Counter("comfybus_dead_letters", "Requests put into the dead letter.", registry=registry)
        self.outputs = Counter("comfybus_outputs", "Outputs delivered.", registry=registry)
        self.model_swaps = Counter(
            "comfybus_model_swaps", "Prompts that loaded other models than the one before.", registry=registry
        )
        self.cache = Counter(
            "comfybus_cache_requests", "Downloads asked of the cache that worked out.", ("result",), registry=registry
        )
        self.transfers = Counter(
            "comfybus_transfers", "Transfers of files, and hits of the cache.", ("event", "backend"), registry=registry
        )
        self.transfer_bytes = Counter(
            "comfybus_transfer_bytes", "Bytes of finished transfers.", ("event", "backend"), registry=registry
        )
        self.transfer_seconds = Counter(
            "comfybus_transfer_seconds",
            "Time that transfers took, failed ones too.",
            ("event", "backend"),
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "comfybus_stage_seconds",
            "Time a prompt spends in a stage.",
            ("stage",),
            registry=registry,
            buckets=STAGE_BUCKETS_S,
        )
        self.node_seconds = Histogram(
            "comfybus_node_seconds",
            "Time ComfyUI spends in a node, by its class.",
            ("class_type",),
            registry=registry,
            buckets=NODE_BUCKETS_S,
        )
        self._stages = {stage: self.stage_seconds.labels(stage=stage) for stage in STAGES}
        self._classes = {OTHER: self.node_seconds.labels(class_type=OTHER)}
        self._cache = {result: self.cache.labels(result=result) for result in ("hit", "miss")}
        # A rate needs a zero to rise from.
        self._answers = {"": self.prompts.labels(outcome="complete", code="")}
        self._answers |= {code: self.prompts.labels(outcome="failed", code=code) for code in get_args(ErrorCode)}

    def answered(self, code: str) -> None:
        """A prompt has its terminal event: a failure with this code, or complete with an empty one."""
        self._answers[code].inc()

    def spent(self, stage: str, seconds: float) -> None:
        """A prompt was in one of ``STAGES`` for so long."""
        self._stages[stage].observe(seconds)

    def ran(self, nodes: Iterable[tuple[str | None, float]]) -> None:
        """ComfyUI spent so many seconds in nodes of these classes; beyond 100 classes they are ``other``."""
        for class_type, seconds in nodes:
            self._of_class(class_type).observe(seconds)

    def _of_class(self, class_type: str | None) -> Histogram:
        known = self._classes.get(class_type or OTHER)
        if known is not None:
            return known
        if class_type is None or len(class_type) > LONGEST_CLASS or len(self._classes) > MOST_CLASSES:
            return self._classes[OTHER]
        return self._classes.setdefault(class_type, self.node_seconds.labels(class_type=class_type))

    def cached(self, *, hit: bool) -> None:
        """A file was asked of the cache and is there now; ``hit`` if it was there before."""
        self._cache["hit" if hit else "miss"].inc()

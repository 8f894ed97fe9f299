"""What a workflow may know of the ComfyUI that will run it.

Used by workflow_code, workflow_graph, workflow_inputs, workflows, app.worker.inputs; may import brokers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.prepare.catalogue import Catalogue
from brokers.base import RequestKey

__all__ = ["Context", "ContextSource", "seed_for"]

_SEED_LIMIT: Final = 2**48
"""Seeds stay below what every reader of JSON keeps exact (2^53) and every sampler takes (2^64)."""


@dataclass(frozen=True)
class Context:
    """Given to ``generate(input, context)`` of a workflow.

    Attributes:
        samplers: Names that this ComfyUI's KSampler takes.
        schedulers: Likewise.
        models: File names by model folder, e.g. ``models["checkpoints"]``.
        warmup_checkpoint: The checkpoint of the warm-up prompt, if there is one: surely installed, probably loaded.
        seed: A number for where the input gives no seed; the same for every try of one request.
    """

    samplers: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warmup_checkpoint: str | None = None
    seed: int = 0

    def choices(self, source: str) -> tuple[str, ...] | None:
        """What ``samplers``, ``schedulers`` or ``models.<folder>`` stands for; None for another word."""
        folder = source.removeprefix("models.")
        if folder != source:
            return tuple(self.models.get(folder, ()))
        return {"samplers": self.samplers, "schedulers": self.schedulers}.get(source)


class ContextSource:
    """Asks the running ComfyUI, through a catalogue that remembers for a short while."""

    def __init__(self, catalogue: Catalogue, warmup_checkpoint: str | None = None) -> None:
        self._catalogue = catalogue
        self._warmup_checkpoint = warmup_checkpoint

    async def get(self, seed: int) -> Context:
        """The context for one request; raises ``ComfyUnavailable``."""
        samplers = await self._catalogue.choice("KSampler", "sampler_name")
        schedulers = await self._catalogue.choice("KSampler", "scheduler")
        models = await self._catalogue.models()
        return Context(
            samplers=(samplers.options or ()) if samplers else (),
            schedulers=(schedulers.options or ()) if schedulers else (),
            models={folder: tuple(names) for folder, names in models.items()},
            warmup_checkpoint=self._warmup_checkpoint,
            seed=seed,
        )


def seed_for(key: RequestKey) -> int:
    """A seed that every try of one request gets and no other request: 0 to 2^48 - 1."""
    digest = hashlib.sha256(f"{key.id}/{key.replay}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEED_LIMIT

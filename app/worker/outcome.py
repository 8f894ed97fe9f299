"""What has become of a prompt, before its terminal event is written.

Used by perform, pipeline, terminal, app.tracing.prompts; may import app.comfy, brokers, schemas.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.comfy.outputs import OutputRef
from app.comfy.run import Completed
from app.worker import store
from app.worker.settle import Fail, Retry
from brokers.base import Message
from schemas.prompt import Graph

__all__ = ["Complete", "HandBack", "Outcome"]


@dataclass(frozen=True)
class Complete:
    """The prompt ran; its outputs lie here, ready to be put into the event or elsewhere."""

    graph: Graph
    completed: Completed
    refs: list[OutputRef]
    files: dict[int, store.OutputFile]
    delivered: store.Delivered
    event: Message | None = None
    """The terminal event, if it had to be made to see whether the outputs have room in it."""


@dataclass(frozen=True)
class HandBack:
    """The request goes back to the broker, unspent."""


Outcome = Complete | Fail | Retry | HandBack

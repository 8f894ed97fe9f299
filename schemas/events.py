"""Events of a prompt and of a worker: what consumers read.

Used by all of app and brokers; may import its folder alone.

Every model writes itself with ``encode()``; fields that are None are left out, except where the contract names null.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.base import dump_json
from schemas.prompt import Graph, PromptOptions

__all__ = [
    "COMFY_EVENTS",
    "ComfyEvent",
    "ErrorCode",
    "Event",
    "FailedNode",
    "NodeStart",
    "Output",
    "Progress",
    "PromptComplete",
    "PromptEvent",
    "PromptFailed",
    "PromptProgress",
    "RequestSource",
    "Stats",
    "Status",
    "StorageData",
    "StorageEvent",
    "WorkerModels",
    "WorkerState",
]

ErrorCode = Literal[
    "invalid_request",
    "invalid_prompt",
    "workflow_not_found",
    "workflow_failed",
    "input_unavailable",
    "execution_error",
    "cancelled",
    "timeout",
    "expired",
    "comfyui_unavailable",
    "output_missing",
    "upload_failed",
    "attempts_exhausted",
    "internal",
]
COMFY_EVENTS = (
    "status",
    "progress",
    "progress_state",
    "executing",
    "execution_start",
    "execution_cached",
    "executed",
    "execution_success",
    "execution_interrupted",
    "execution_error",
)
"""ComfyUI's own websocket events; on the wire with ``comfy.`` before them."""
Status = Literal["accepted", "preparing", "queued", "running", "storing"]
Kind = Literal["image", "video", "audio", "text", "file"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(_Part):
    """What every event has."""

    type: str
    timestamp: str = Field(description="ISO 8601, UTC, milliseconds, Z.")
    worker: str

    def encode(self) -> bytes:
        """The event as UTF-8 JSON."""
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


class PromptEvent(Event):
    """What every event of a prompt has besides."""

    id: str
    attempt: int = Field(ge=1, description="Tries begun that ended without a terminal event, plus one.")
    replay: int | None = Field(default=None, ge=1, description="Present when a dead letter was run again.")
    metadata: dict[str, Any] | None = None


class Output(_Part):
    """One output of one node: a file, or a text or number."""

    node_id: str
    class_type: str | None = None
    kind: Kind
    filename: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    image: int | None = Field(default=None, description="Index into `images` and `filenames`.")
    url: str | None = Field(default=None, description="Where the file is, when it is not inline.")
    value: Any = Field(default=None, description="The text or number itself.")


class NodeStart(_Part):
    """When one node began, in milliseconds since 1970."""

    start: int


class ComfyExecution(_Part):
    """ComfyUI's own account of a run, in milliseconds since 1970 (duration: milliseconds)."""

    start: int | None = None
    end: int | None = None
    duration: int | None = None
    nodes: dict[str, NodeStart] = Field(default_factory=dict)


class Stats(_Part):
    """Where the time went; all figures in milliseconds."""

    comfy_execution: ComfyExecution
    preprocess_time: int
    comfy_round_trip_time: int
    postprocess_time: int
    upload_time: int
    total_time: int
    queue_time: int = Field(description="From published to picked up.")


class _TerminalOptions(PromptOptions):
    """The echo of a request's other fields; credentials are none of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class PromptComplete(PromptEvent, _TerminalOptions):
    """The prompt ran and its outputs are delivered."""

    type: Literal["prompt.complete"] = "prompt.complete"
    prompt: Graph | None = None
    images: list[str]
    filenames: list[str]
    outputs: list[Output]
    stats: Stats
    node_errors: dict[str, Any] | None = Field(
        default=None, description="ComfyUI's findings on outputs it left out although it ran the others."
    )
    truncated: bool | None = None


class FailedNode(_Part):
    """The node at which ComfyUI failed."""

    node_id: str
    class_type: str | None = None
    exception_type: str | None = None
    traceback: list[str] | None = None


class RequestSource(_Part):
    """Where an unreadable request lay in the broker."""

    stream: str | None = None
    sequence: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


class PromptFailed(PromptEvent, _TerminalOptions):
    """The prompt ended without a result."""

    type: Literal["prompt.failed"] = "prompt.failed"
    error: str = Field(description="A sentence: cause and cure.")
    code: ErrorCode
    location: str | None = None
    node: FailedNode | None = None
    node_errors: dict[str, Any] | None = None
    retryable: bool = Field(description="A replay may succeed.")
    prompt: Graph | None = None
    source: RequestSource | None = None
    truncated: bool | None = None


class Progress(_Part):
    """How far a prompt is."""

    value: float = Field(ge=0, le=1)
    nodes_done: int
    nodes_total: int
    current_node: str | None = None
    current_node_class: str | None = None
    step: int | None = None
    steps: int | None = None


class PromptProgress(PromptEvent):
    """A step of a prompt; may be lost, never delays a result."""

    type: Literal["prompt.progress"] = "prompt.progress"
    sequence: int = Field(ge=0, description="Rises by one within one attempt and worker.")
    status: Status
    progress: Progress


class StorageData(_Part):
    """One transfer; size in bytes, duration in seconds."""

    url: str
    local_path: str | None = None
    size: int | None = None
    duration: float | None = None
    error: str | None = None
    code: str | None = None


class StorageEvent(Event):
    """A file was downloaded, uploaded or deleted, or a download failed; ``id`` is null outside a prompt."""

    type: Literal["storage.file_downloaded", "storage.file_uploaded", "storage.file_deleted", "storage.download_failed"]
    id: str | None
    attempt: int | None = None
    replay: int | None = None
    data: StorageData
    metadata: dict[str, Any] | None = None

    def encode(self) -> bytes:
        """The event as UTF-8 JSON, with ``"id": null`` outside a prompt."""
        document = self.model_dump(mode="json", exclude_none=True)
        document.setdefault("id", None)
        return dump_json(document)


class ComfyEvent(Event):
    """One websocket event of ComfyUI, its prompt ids replaced by request ids."""

    type: str = Field(pattern=r"^comfy\.[a-z_]+$")
    data: dict[str, Any] = Field(description="ComfyUI's whole frame {type, data}.")
    metadata: dict[str, Any] | None = None


class ComfyState(_Part):
    """The ComfyUI behind a worker."""

    version: str | None = None
    url: str
    up: bool


class WorkerState(Event):
    """A worker started, lives (every 10 s) or stopped."""

    type: Literal["worker.started", "worker.heartbeat", "worker.stopped"]
    version: str
    comfyui: ComfyState
    capacity: int
    in_flight: int
    queue_remaining: int | None = Field(default=None, description="Length of ComfyUI's own queue.")


class WorkerModels(Event):
    """The models a worker's ComfyUI lists, at start and on change."""

    type: Literal["worker.models"] = "worker.models"
    models: dict[str, list[str]]

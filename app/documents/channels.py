"""What the AsyncAPI document says of each channel: direction, address, messages, how long it keeps them.

Used by asyncapi; may import brokers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from brokers.channels import Channel, Names

__all__ = ["CHANNELS", "PARAMETERS", "DescribedChannel", "DescribedMessage"]


@dataclass(frozen=True)
class DescribedMessage:
    """One message of a channel.

    Attributes:
        type: The body's ``type``, or a word for bodies without one.
        title: A few words for a reader.
        schema: Name of its JSON Schema; empty when the body is anything.
        headers: Name of the schema of its headers.
        correlated: The body's ``id`` is the request id.
    """

    type: str
    title: str
    schema: str
    headers: str = "EventHeaders"
    correlated: bool = False


@dataclass(frozen=True)
class DescribedChannel:
    """One channel; ``incoming`` as seen from the worker."""

    key: str
    channel: Channel
    description: str
    messages: Mapping[str, DescribedMessage]
    stream: Callable[[Names], str]
    kept: str
    parameters: tuple[str, ...] = ()
    incoming: bool = False

    @property
    def message_names(self) -> tuple[str, ...]:
        """Names of its messages within the document."""
        return tuple(self.messages)


def _prompt_event(name: str, title: str) -> DescribedMessage:
    return DescribedMessage(f"prompt.{name}", title, f"prompt-{name}", correlated=True)


def _command(name: str, title: str) -> DescribedMessage:
    return DescribedMessage(name, title, name.replace(".", "-"), headers="CommandHeaders")


PARAMETERS: Mapping[str, str] = {
    "id": "The request id.",
    "event": "What happened: the last part of the event's type.",
    "worker_id": "The worker's id.",
}

_RETENTION = "RESULT_RETENTION_H, 168 hours by default"

CHANNELS: tuple[DescribedChannel, ...] = (
    DescribedChannel(
        "request",
        Channel.REQUEST,
        "Prompt requests, a work queue: each is answered once, whatever dies in between.",
        {
            "promptRequest": DescribedMessage(
                "prompt.request", "A request to run one prompt", "prompt-request", "RequestHeaders", correlated=True
            )
        },
        lambda names: names.request_stream,
        "until settled",
        incoming=True,
    ),
    DescribedChannel(
        "control",
        Channel.CONTROL,
        "Commands, heard by every worker.",
        {
            "promptCancel": _command("prompt.cancel", "End one prompt"),
            "modelDownload": _command("model.download", "Bring a model to every worker"),
            "workerDrain": _command("worker.drain", "Ask one worker to end"),
        },
        lambda names: names.control_stream,
        "24 hours",
        incoming=True,
    ),
    DescribedChannel(
        "complete",
        Channel.COMPLETE,
        "Terminal events of prompts that ran.",
        {"promptComplete": _prompt_event("complete", "The prompt ran and its outputs are delivered")},
        lambda names: names.result_stream,
        _RETENTION,
        ("id",),
    ),
    DescribedChannel(
        "failed",
        Channel.FAILED,
        "Terminal events of prompts that ended without a result.",
        {"promptFailed": _prompt_event("failed", "The prompt ended without a result")},
        lambda names: names.result_stream,
        _RETENTION,
        ("id",),
    ),
    DescribedChannel(
        "progress",
        Channel.PROGRESS,
        "Progress of prompts; may be lost, never delays a result. Stop at the terminal event.",
        {"promptProgress": _prompt_event("progress", "How far a prompt is")},
        lambda names: names.progress_stream,
        "the last of each prompt, in memory, 1 hour",
        ("id",),
    ),
    DescribedChannel(
        "storage",
        Channel.STORAGE,
        "Files downloaded, uploaded and deleted.",
        {
            "fileDownloaded": DescribedMessage("storage.file_downloaded", "A file was downloaded", "storage"),
            "fileUploaded": DescribedMessage("storage.file_uploaded", "A file was uploaded", "storage"),
            "fileDeleted": DescribedMessage("storage.file_deleted", "A file was deleted", "storage"),
            "downloadFailed": DescribedMessage("storage.download_failed", "A download failed", "storage"),
        },
        lambda names: names.event_stream,
        "24 hours",
        ("event",),
    ),
    DescribedChannel(
        "system",
        Channel.SYSTEM,
        "ComfyUI's own websocket events, those that SYSTEM_EVENTS names.",
        {"comfyEvent": DescribedMessage("comfy.<event>", "One websocket event of ComfyUI", "comfy")},
        lambda names: names.event_stream,
        "24 hours",
        ("event",),
    ),
    DescribedChannel(
        "worker",
        Channel.WORKER,
        "Workers: started, heartbeat every 10 seconds, models, stopped.",
        {
            "workerStarted": DescribedMessage("worker.started", "A worker started", "worker-state"),
            "workerHeartbeat": DescribedMessage("worker.heartbeat", "A worker lives", "worker-state"),
            "workerStopped": DescribedMessage("worker.stopped", "A worker stopped", "worker-state"),
            "workerModels": DescribedMessage("worker.models", "The models a worker has", "worker-models"),
        },
        lambda names: names.event_stream,
        "24 hours",
        ("worker_id", "event"),
    ),
    DescribedChannel(
        "deadLetter",
        Channel.DEAD_LETTER,
        "Requests given up: their original bytes and headers, and why, when and where from.",
        {"deadLetter": DescribedMessage("dead letter", "A request given up", "", headers="LetterHeaders")},
        lambda names: names.dead_letter_stream,
        "30 days",
    ),
)

"""Every message on the wire, field by field and in order: a changed schema shows as a changed snapshot.

UPDATE_SNAPSHOTS=1 writes them anew; the difference is then for a reviewer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.documents.json_schemas import MESSAGES
from schemas.base import load_json
from schemas.control import parse_command
from schemas.events import (
    ComfyEvent,
    ComfyExecution,
    ComfyState,
    Event,
    FailedNode,
    NodeStart,
    Output,
    Progress,
    PromptComplete,
    PromptFailed,
    PromptProgress,
    RequestSource,
    Stats,
    StorageData,
    StorageEvent,
    WorkerModels,
    WorkerState,
)
from schemas.prompt import ConvertOutput, HttpUpload, S3Upload, parse_request

SNAPSHOTS = Path(__file__).parent / "snapshots"
GENERATED = Path(__file__).parents[3] / "schemas" / "generated"

AT = "2026-01-01T00:00:00.123Z"
WORKER = "gpu-host-1a2b3c"
METADATA = {"user": "ä", "n": 2**60 + 1, "nothing": None, "list": [1, 2.5, True, None]}
GRAPH = {
    "10": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}, "_meta": {"title": "Load"}},
    "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "prefix": None}},
}
STATS = Stats(
    comfy_execution=ComfyExecution(
        start=1_767_225_600_000, end=1_767_225_602_500, duration=2500, nodes={"10": NodeStart(start=1_767_225_600_001)}
    ),
    preprocess_time=12,
    comfy_round_trip_time=2600,
    postprocess_time=3,
    upload_time=40,
    total_time=2655,
    queue_time=7,
)
INLINE = Output(
    node_id="11",
    class_type="SaveImage",
    kind="image",
    filename="r-1_00001_.png",
    media_type="image/png",
    size_bytes=4,
    sha256="88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589",
    image=0,
)
TEXT = Output(node_id="12", class_type="PreviewAny", kind="text", value="a cat")

EVENTS: dict[str, tuple[str, Event]] = {
    "prompt-complete-inline": (
        "prompt-complete",
        PromptComplete(
            timestamp=AT,
            worker=WORKER,
            id="r-1",
            attempt=1,
            metadata=METADATA,
            prompt=GRAPH,
            images=["YWJjZA=="],
            filenames=["r-1_00001_.png"],
            outputs=[INLINE, TEXT],
            stats=STATS,
            convert_output=ConvertOutput(format="jpeg", options={"quality": 90}),
            timeout_s=600,
            expires_at="2026-01-01T02:00:00+02:00",
            webhook_v2="https://h/hook",
        ),
    ),
    "prompt-complete-stored": (
        "prompt-complete",
        PromptComplete(
            timestamp=AT,
            worker=WORKER,
            id="r-2",
            attempt=2,
            replay=1,
            workflow="sd15/txt2img",
            input={"prompt": "a cat", "seed": 2**63},
            images=["nats://comfyui-outputs/r-2/88d4266fd4e6/r-2_00001_.png"],
            filenames=["r-2_00001_.png"],
            outputs=[
                INLINE.model_copy(update={"url": "nats://comfyui-outputs/r-2/88d4266fd4e6/r-2_00001_.png"}),
            ],
            stats=STATS,
            s3=S3Upload.model_validate({"bucket": "b", "prefix": "p/", "async": True}),
            truncated=True,
        ),
    ),
    "prompt-failed-execution": (
        "prompt-failed",
        PromptFailed(
            timestamp=AT,
            worker=WORKER,
            id="r-3",
            attempt=1,
            metadata=METADATA,
            error="node 10 (LoadImage) failed: no such file; give an image that exists",
            code="execution_error",
            location="prompt.10",
            node=FailedNode(
                node_id="10", class_type="LoadImage", exception_type="FileNotFoundError", traceback=["line 1\n"]
            ),
            node_errors={"10": {"errors": [{"type": "t", "message": "m"}], "dependent_outputs": ["11"]}},
            retryable=False,
            prompt=GRAPH,
            http_upload=HttpUpload(url_prefix="https://h/"),
        ),
    ),
    "prompt-failed-unreadable": (
        "prompt-failed",
        PromptFailed(
            timestamp=AT,
            worker=WORKER,
            id="82ed5a0b-28a2-538a-bf89-661d96490fc1",
            attempt=1,
            error="the body is not valid JSON (EOF while parsing a value at line 1 column 0)",
            code="invalid_request",
            retryable=False,
            source=RequestSource(stream="comfyui-request", sequence=17),
        ),
    ),
    "prompt-progress": (
        "prompt-progress",
        PromptProgress(
            timestamp=AT,
            worker=WORKER,
            id="r-1",
            attempt=1,
            metadata=METADATA,
            sequence=3,
            status="running",
            progress=Progress(
                value=0.25,
                nodes_done=1,
                nodes_total=4,
                current_node="11",
                current_node_class="KSampler",
                step=5,
                steps=20,
            ),
        ),
    ),
    "storage-file-downloaded": (
        "storage",
        StorageEvent(
            type="storage.file_downloaded",
            timestamp=AT,
            worker=WORKER,
            id=None,
            data=StorageData(url="https://h/m.safetensors", local_path="/m.safetensors", size=5, duration=1.5),
            metadata={"site": "a"},
        ),
    ),
    "storage-download-failed": (
        "storage",
        StorageEvent(
            type="storage.download_failed",
            timestamp=AT,
            worker=WORKER,
            id="r-1",
            attempt=1,
            data=StorageData(url="https://h/cat.png", error="the host answers 404", code="input_unavailable"),
        ),
    ),
    "comfy-executed": (
        "comfy",
        ComfyEvent(
            type="comfy.executed",
            timestamp=AT,
            worker=WORKER,
            data={"type": "executed", "data": {"node": "11", "output": None, "prompt_id": "r-1"}},
        ),
    ),
    "worker-heartbeat": (
        "worker-state",
        WorkerState(
            type="worker.heartbeat",
            timestamp=AT,
            worker=WORKER,
            version="0.1.0",
            comfyui=ComfyState(version="0.3.64", url="http://127.0.0.1:8188", up=True),
            capacity=4,
            in_flight=2,
            queue_remaining=1,
        ),
    ),
    "worker-started-without-comfyui": (
        "worker-state",
        WorkerState(
            type="worker.started",
            timestamp=AT,
            worker=WORKER,
            version="0.1.0",
            comfyui=ComfyState(url="http://127.0.0.1:8188", up=False),
            capacity=4,
            in_flight=0,
        ),
    ),
    "worker-models": (
        "worker-models",
        WorkerModels(timestamp=AT, worker=WORKER, models={"checkpoints": ["a.safetensors"], "loras": []}),
    ),
}

INCOMING: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt-request": (
        "prompt-request",
        {
            "id": "r-1",
            "prompt": GRAPH,
            "convert_output": {"format": "jpeg", "options": {"quality": 90}},
            "s3": {"bucket": "b", "prefix": "p/", "async": False},
            "credentials": [{"url_pattern": "https://hf.co/**", "auth": {"type": "bearer", "token": "t"}}],
            "webhook_v2": "https://h/hook",
            "timeout_s": 600,
            "expires_at": "2026-01-01T00:00:00Z",
            "metadata": METADATA,
        },
    ),
    "prompt-request-workflow": ("prompt-request", {"workflow": "sd15/txt2img", "input": {"prompt": "a cat"}}),
    "prompt-cancel": ("prompt-cancel", {"type": "prompt.cancel", "id": "r-1"}),
    "model-download": (
        "model-download",
        {
            "type": "model.download",
            "id": "d-1",
            "url": "https://h/m.safetensors",
            "model_type": "checkpoints",
            "filename": "m.safetensors",
            "auth": {"type": "query", "query_param": "token", "query_value": "t"},
        },
    ),
    "worker-drain": ("worker-drain", {"type": "worker.drain", "worker": WORKER}),
}


def compare(name: str, document: Any) -> None:
    """Compare with the snapshot of this name, keys in order; or write it, when asked to."""
    path = SNAPSHOTS / f"{name}.json"
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; UPDATE_SNAPSHOTS=1 writes it anew"


def check_schema(name: str, document: Any) -> None:
    """Validate against the checked-in schema of the message."""
    schema = json.loads((GENERATED / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_written_as_ever(name: str) -> None:
    """Fields, their order and their spelling are those of the snapshot, and fit the checked-in schema."""
    schema, event = EVENTS[name]
    document = load_json(event.encode())
    compare(name, document)
    check_schema(schema, document)
    assert isinstance(event, MESSAGES[schema])


@pytest.mark.parametrize("name", INCOMING)
def test_an_incoming_message_is_read_as_ever(name: str) -> None:
    """What producers have written once stays readable, and fits the checked-in schema."""
    schema, document = INCOMING[name]
    compare(name, document)
    check_schema(schema, document)
    parsed = parse_request(document) if schema == "prompt-request" else parse_command(document)
    assert isinstance(parsed, MESSAGES[schema])


def test_every_message_has_a_snapshot() -> None:
    """A new message cannot be forgotten here, and no snapshot outlives its message."""
    assert {schema for schema, _ in (*EVENTS.values(), *INCOMING.values())} == set(MESSAGES)
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == {*EVENTS, *INCOMING}


def test_metadata_comes_back_untouched() -> None:
    """Null, big numbers and other letters inside metadata survive the way through a request and an event."""
    body = json.dumps({"workflow": "w", "metadata": METADATA}).encode()
    request = parse_request(load_json(body))
    event = PromptProgress(
        timestamp=AT,
        worker=WORKER,
        id="r-1",
        attempt=1,
        metadata=request.metadata,
        sequence=0,
        status="accepted",
        progress=Progress(value=0, nodes_done=0, nodes_total=0),
    )
    assert json.loads(event.encode())["metadata"] == METADATA

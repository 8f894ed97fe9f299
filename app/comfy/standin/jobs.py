"""Prompts as the jobs API of newer ComfyUI describes them: one object, whether waiting, running or ended.

Used by routes_jobs; may import its folder alone.
"""

from __future__ import annotations

from typing import Any

from app.comfy.standin.node_types import JsonObject
from app.comfy.standin.prompt_queue import PromptQueue, QueueItem

STATUSES = ["pending", "in_progress", "completed", "failed", "cancelled"]
"""Every status a job can have, in the order in which error messages name them."""

_PREVIEWABLE = {"images", "video", "audio", "3d", "text"}
_LONGEST_TEXT = 1024


def all_jobs(queue: PromptQueue) -> list[JsonObject]:
    """Return every job the server knows, without the outputs themselves."""
    jobs = [_queued(item, "in_progress") for item in queue.running()]
    jobs += [_queued(item, "pending") for item in queue.waiting()]
    jobs += [_ended(prompt_id, entry) for prompt_id, entry in queue.history().items()]
    return jobs


def one_job(queue: PromptQueue, prompt_id: str) -> JsonObject | None:
    """Return one job with its graph, and with its outputs if it ended; None for an unknown id."""
    for known, entry in queue.history_of(prompt_id).items():
        workflow = {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]}
        more = {"outputs": entry["outputs"], "execution_status": entry["status"], "workflow": workflow}
        return _ended(known, entry) | more
    for status, items in (("in_progress", queue.running()), ("pending", queue.waiting())):
        for item in items:
            if item[1] == prompt_id:
                return _queued(item, status)
    return None


def _queued(item: QueueItem, status: str) -> JsonObject:
    return _pruned(
        {
            "id": item[1],
            "status": status,
            "priority": item[0],
            "create_time": item[3].get("create_time"),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(item[3]),
        }
    )


def _ended(prompt_id: str, entry: JsonObject) -> JsonObject:
    times: dict[str, int] = {event: content["timestamp"] for event, content in entry["status"]["messages"]}
    last_event, last = entry["status"]["messages"][-1]
    status = {"execution_success": "completed", "execution_interrupted": "cancelled"}.get(last_event, "failed")
    count, preview = _summary(entry["outputs"])
    extra: JsonObject = entry["prompt"][3]
    return _pruned(
        {
            "id": prompt_id,
            "status": status,
            "priority": entry["prompt"][0],
            "create_time": extra.get("create_time"),
            "execution_start_time": times.get("execution_start"),
            "execution_end_time": last["timestamp"],
            "execution_error": last if last_event == "execution_error" else None,
            "outputs_count": count,
            "previewable_outputs_count": sum(
                len(items) if kind in _PREVIEWABLE - {"text"} else 0
                for shown in entry["outputs"].values()
                for kind, items in shown.items()
            ),
            "preview_output": preview,
            "workflow_id": _workflow_id(extra),
        }
    )


def _summary(outputs: JsonObject) -> tuple[int, JsonObject | None]:
    """Count the files in outputs and choose the one to show: a saved one, else a temporary one, else a text."""
    count = 0
    found: dict[str, JsonObject] = {}
    for node_id, shown in outputs.items():
        for kind, items in shown.items():
            if kind == "animated":
                continue
            for item in items:
                count += isinstance(item, dict)
                rank, view = _view(kind, item)
                found.setdefault(rank, {**view, "nodeId": node_id, "mediaType": kind})
    return count, found.get("output") or found.get("temp") or found.get("text")


def _view(kind: str, item: Any) -> tuple[str, JsonObject]:
    if isinstance(item, dict):
        return ("output" if item.get("type") == "output" else "temp") if kind in _PREVIEWABLE else "none", item
    text = str(item)
    if len(text) <= _LONGEST_TEXT:
        return "text", {"content": text}
    return "text", {"content": text[:_LONGEST_TEXT], "truncated": True}


def _workflow_id(extra: JsonObject) -> Any:
    return ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")


def _pruned(job: JsonObject) -> JsonObject:
    return {key: value for key, value in job.items() if value is not None}

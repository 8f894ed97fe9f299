"""A terminal event always fits the broker: what is left out, in which order. Pure.

Used by terminal; may import schemas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from schemas.base import dump_json
from schemas.events import PromptComplete, PromptFailed

__all__ = ["Terminal", "fit"]

Terminal = PromptComplete | PromptFailed

LONG_STRING_BYTES = 4096
# Room that a cut value or traceback keeps: enough to recognise it by.
CUT_BYTES = 2048


def fit(event: Terminal, fits: Callable[[Terminal], bool]) -> Terminal | None:
    """The event with as little left out as makes it fit, or None when even its bare form does not.

    First long strings in the echoed ``prompt`` and ``input`` give way to their size and digest, then long values,
    tracebacks and node errors are cut, then the prompt goes, at last the rest of the echo.
    """
    for reduce in (_whole, _omit_long_strings, _cut, _drop_prompt, _drop_echo):
        event = reduce(event)
        if fits(event):
            return event
    return None


def _whole(event: Terminal) -> Terminal:
    return event


def _omit_long_strings(event: Terminal) -> Terminal:
    return event.model_copy(update={"prompt": omit_long_strings(event.prompt), "input": omit_long_strings(event.input)})


def omit_long_strings(value: Any) -> Any:
    """Put ``{"omitted": size, "sha256"}`` in the place of every string of more than 4 KiB."""
    if isinstance(value, dict):
        return {key: omit_long_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [omit_long_strings(item) for item in value]
    if isinstance(value, str) and len(data := value.encode()) > LONG_STRING_BYTES:
        return {"omitted": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return value


def _cut(event: Terminal) -> Terminal:
    changes: dict[str, Any] = {"truncated": True}
    if isinstance(event, PromptComplete):
        changes["outputs"] = [
            output.model_copy(update={"value": _cut_value(output.value)}) if output.value is not None else output
            for output in event.outputs
        ]
    else:
        changes["error"] = _cut_text(event.error)
        if event.node_errors is not None and len(dump_json(event.node_errors)) > CUT_BYTES:
            changes["node_errors"] = {node: {"errors": "cut"} for node in list(event.node_errors)[:100]}
        if event.node is not None and event.node.traceback:
            changes["node"] = event.node.model_copy(update={"traceback": _cut_lines(event.node.traceback)})
    return event.model_copy(update=changes)


def _cut_text(text: str) -> str:
    data = text.encode()
    return text if len(data) <= CUT_BYTES else data[:CUT_BYTES].decode(errors="ignore") + "…"


def _cut_value(value: Any) -> Any:
    if isinstance(value, str):
        return _cut_text(value)
    return value if len(dump_json(value)) <= CUT_BYTES else _cut_text(dump_json(value).decode())


def _cut_lines(lines: list[str]) -> list[str]:
    """Keep the end of a traceback: the innermost call says most."""
    kept: list[str] = []
    room = CUT_BYTES
    for line in reversed(lines):
        room -= len(line.encode())
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]


def _drop_prompt(event: Terminal) -> Terminal:
    return event.model_copy(update={"prompt": None, "truncated": True})


def _drop_echo(event: Terminal) -> Terminal:
    """Leave what names the request; the webhooks stay as long as they are no book themselves."""
    gone = dict.fromkeys(("input", "convert_output", "s3", "azure_blob_upload", "hf_upload", "http_upload"))
    long = {
        name: None
        for name in ("webhook", "webhook_v2", "workflow")
        if len(getattr(event, name) or "") > LONG_STRING_BYTES
    }
    changes: dict[str, Any] = {**gone, **long, "truncated": True}
    if isinstance(event, PromptFailed):
        changes["node_errors"] = None
    return event.model_copy(update=changes)

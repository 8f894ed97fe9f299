"""ComfyUI's refusal of a graph, made into the error that says which node and input is at fault.

Used by client; may import app.errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from app.comfy.transport import Answer
from app.errors import InvalidPrompt, PromptError

__all__ = ["refusal"]

# What aiohttp sends when ComfyUI's handler raised; a proxy's own 500 looks different.
_HANDLER_RAISED: Final = b"500 Internal Server Error"
_NODE_IN_DETAILS: Final = re.compile(r"Node ID '#(.+)'")
# Here ComfyUI names the input of the node behind the one at fault.
_INPUT_OF_ANOTHER_NODE: Final = "exception_during_inner_validation"


def refusal(answer: Answer) -> PromptError:
    """The error for an answer to ``POST /prompt`` other than 200.

    ``InvalidPrompt`` when the answer is a verdict on the graph: a 400 with ComfyUI's findings, a graph so malformed
    that ComfyUI's own check raised (a plain-text 500), or one too large. Else ``ComfyUnavailable``.
    """
    if answer.status == 400:
        return _findings(answer)
    if answer.status == 413:
        return InvalidPrompt(
            "The graph is larger than ComfyUI takes; make it smaller, for example by giving images as URLs, "
            "or start ComfyUI with a larger --max-upload-size."
        )
    if answer.status == 500 and answer.body.startswith(_HANDLER_RAISED):
        return InvalidPrompt(
            "ComfyUI's own check broke on the graph; see that every node has class_type and inputs and that every "
            "value has the type its input asks for. ComfyUI's log has the traceback."
        )
    return answer.unusable()


def _findings(answer: Answer) -> PromptError:
    document = answer.object()
    if "error" not in document:
        return answer.unusable()
    error = document["error"]
    found = document.get("node_errors")
    node_errors = found if isinstance(found, dict) else {}
    location, reason = _first_finding(node_errors)
    if reason is None:
        reason = _joined(error) if isinstance(error, dict) else str(error or answer.text)
        node = _NODE_IN_DETAILS.search(reason)
        location = f"prompt.{node[1]}" if node else None
    more = len(node_errors) - 1
    suffix = f" ({more} more node{'s' if more > 1 else ''} with errors)" if more > 0 else ""
    return InvalidPrompt(
        f"ComfyUI refused the graph: {reason}{suffix}. Correct the graph, or install what it needs.",
        location=location,
        node_errors=node_errors,
    )


def _first_finding(node_errors: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Location and sentence of the first error of the first node; ``(None, None)`` when there is none."""
    for node_id, of_node in node_errors.items():
        errors = of_node.get("errors") if isinstance(of_node, dict) else None
        if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
            continue
        extra = errors[0].get("extra_info")
        name = extra.get("input_name") if isinstance(extra, dict) else None
        location = f"prompt.{node_id}"
        if isinstance(name, str) and errors[0].get("type") != _INPUT_OF_ANOTHER_NODE:
            location += f".inputs.{name}"
        return location, f"node {node_id} ({of_node.get('class_type', '?')}): {_joined(errors[0])}"
    return None, None


def _joined(error: Mapping[str, Any]) -> str:
    parts = (str(error.get(key) or "").strip().rstrip(".") for key in ("message", "details"))
    return ": ".join(dict.fromkeys(part for part in parts if part)) or str(error.get("type") or "it gave no reason")

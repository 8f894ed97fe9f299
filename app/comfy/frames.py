"""ComfyUI's websocket messages, read without ever failing on one and without paying for those nobody wants.

Used by followed, progress, watch, websocket, app.worker.system; may import nothing of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import pydantic_core

__all__ = ["END_TYPES", "Frame", "parse_frame"]

END_TYPES: Final = frozenset({"execution_success", "execution_interrupted", "execution_error"})

# ComfyUI writes the type first. `progress_state` repeats every node at every step, 20 MB for one prompt of 302 nodes:
# most texts are told apart by their first bytes and never parsed.
_TYPE_FIRST: Final = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z0-9_.\-]+)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """One websocket message.

    Attributes:
        type: ComfyUI's name for it.
        prompt_id: The prompt it speaks of; None for ``status`` and the like.
        data: Its content; empty when it carried none.
        raw: The text as it came, UTF-8.
    """

    type: str
    prompt_id: str | None
    data: dict[str, Any]
    raw: bytes

    @property
    def is_end(self) -> bool:
        """Whether it says that its prompt is over, one way or another."""
        if self.prompt_id is None:
            return False
        return self.type in END_TYPES or (self.type == "executing" and self.data.get("node", "") is None)


def parse_frame(text: str | bytes, wanted: frozenset[str]) -> Frame | None:
    """Read one message.

    Args:
        text: The message; binary previews are taken too.
        wanted: Types to read; the text of another type is not parsed.

    Returns:
        The frame, or None for an unwanted type, a binary message, and anything that is not JSON of ComfyUI's form.
        Never raises.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    found = _TYPE_FIRST.match(raw, 0, 200)
    if found is not None and found[1].decode() not in wanted:
        return None
    if not raw[:32].lstrip().startswith(b"{"):
        return None
    try:
        document = pydantic_core.from_json(raw)
    except ValueError:
        return None
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in wanted:
        return None
    data = document.get("data")
    data = data if isinstance(data, dict) else {}
    prompt_id = data.get("prompt_id")
    return Frame(kind, prompt_id if isinstance(prompt_id, str) else None, data, raw)

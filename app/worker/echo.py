"""What of a request stands in its events: its own words without its secrets.

Used by terminal; may import app.storage, schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.storage.secrets import Scrubber
from schemas.events import FailedNode
from schemas.prompt import HttpUpload

__all__ = ["Echo"]


# A sentence and a place are for people; names in a request, and what ComfyUI says of them, may be of any length.
_LONGEST_SENTENCE: Final = 4096
_LONGEST_PLACE: Final = 512


class Echo:
    """Cleans everything of one request that is published."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber

    def text(self, text: str) -> str:
        """A sentence."""
        return self._scrubber.text(text)

    def sentence(self, text: str) -> str:
        """What went wrong; of a long one the beginning and the end, which has the cure."""
        text = self.text(text)
        half = _LONGEST_SENTENCE // 2
        return text if len(text) <= _LONGEST_SENTENCE else f"{text[:half]} … {text[-half:]}"

    def place(self, location: str | None) -> str | None:
        """The field at fault."""
        if location is None or len(location) <= _LONGEST_PLACE:
            return location
        return f"{location[: _LONGEST_PLACE - 1]}…"

    def json(self, value: Any) -> Any:
        """A graph, an input, node errors."""
        return self._scrubber.json(value)

    def node(self, node: FailedNode | None) -> FailedNode | None:
        """The failed node with a clean traceback."""
        if node is None or not node.traceback:
            return node
        return node.model_copy(update={"traceback": [self.text(line) for line in node.traceback]})

    def echo(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The request's fields. Webhooks stay verbatim, the bridge has to call them; metadata is the sender's own."""
        found = dict(fields)
        if isinstance(name := found.get("workflow"), str):
            # A URL stands there by mistake only, but what is in it is none the less secret.
            found["workflow"] = self.text(name)
        if "input" in found:
            found["input"] = self.json(found["input"])
        if isinstance(upload := found.get("http_upload"), HttpUpload):
            found["http_upload"] = upload.model_copy(update={"url_prefix": self.text(upload.url_prefix)})
        return found

"""What of a request stands in its events: its own words without its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.storage.secrets import Scrubber
from schemas.events import FailedNode
from schemas.prompt import HttpUpload

__all__ = ["Echo"]


class Echo:
    """Cleans everything of one request that is published."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber

    def text(self, text: str) -> str:
        """A sentence."""
        return self._scrubber.text(text)

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

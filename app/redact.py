"""Keeps secrets out of what is published: the values of a request's credentials, user info and signed parts of URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

from schemas.events import FailedNode
from schemas.prompt import HttpUpload, PromptRequest

__all__ = ["Redactor", "public_url"]

MASK = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_USER_INFO = re.compile(r"(://)[^/@\s?#]*@")
# Parameters by which stores and services sign or authorise a URL.
_SIGNED = re.compile(
    r"([?&;](?:x-amz-[a-z-]+|x-goog-[a-z-]+|sig|signature|se|sp|sv|sr|skoid|sktid|awsaccesskeyid|googleaccessid|expires"
    r"|key-pair-id|policy|token|access_token|auth|authorization|api[_-]?key|key|password|secret|credential)=)[^&#\s]*",
    re.IGNORECASE,
)
# Shorter values occur by chance everywhere.
SHORTEST_SECRET = 4


def public_url(url: str) -> str:
    """A URL without user info and without the values of parameters that sign or authorise it."""
    return _SIGNED.sub(rf"\1{MASK}", _USER_INFO.sub(r"\1", url))


class Redactor:
    """Masks one request's secrets in texts and JSON; URLs lose theirs in any case."""

    def __init__(self, request: PromptRequest | None) -> None:
        values = set(_secrets(request.credentials) if request and request.credentials else ())
        self._values = sorted((value for value in values if len(value) >= SHORTEST_SECRET), key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text without secrets."""
        for value in self._values:
            text = text.replace(value, MASK)
        return _URL.sub(lambda found: public_url(found.group()), text) if "://" in text else text

    def json(self, value: Any) -> Any:
        """A JSON value without secrets in its strings; keys stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item) for item in value]
        return value

    def node(self, node: FailedNode | None) -> FailedNode | None:
        """The failed node with a clean traceback."""
        if node is None or not node.traceback:
            return node
        return node.model_copy(update={"traceback": [self.text(line) for line in node.traceback]})

    def echo(self, echo: Mapping[str, Any]) -> dict[str, Any]:
        """The request's fields for its events. Webhooks stay verbatim: the bridge has to call them."""
        found = dict(echo)
        if "input" in found:
            found["input"] = self.json(found["input"])
        if isinstance(upload := found.get("http_upload"), HttpUpload):
            found["http_upload"] = upload.model_copy(update={"url_prefix": self.text(upload.url_prefix)})
        return found


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item)

"""What the carrier is asked to do, and what it answers.

Used by most of its folder; may import its folder alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from yarl import URL

from app.storage.faults import Fault, status_fault

__all__ = ["CHUNK_BYTES", "Answer", "Call", "Explain", "FilePart", "MakeCall", "Received", "always", "explain"]

CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Call:
    """One request as it goes out.

    Attributes:
        method: GET, HEAD, PUT, POST or DELETE.
        url: With its signature, if it has one.
        headers: For whoever answers.
        secret_headers: For the first origin only.
        follow: Which redirects are followed: none, those within the origin, all.
        expect: Whether the server knows ``Expect: 100-continue``.
    """

    method: str
    url: URL = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    follow: Literal["none", "origin", "all"] = "none"
    expect: bool = False


@dataclass(frozen=True)
class Answer:
    """One whole answer to a small request; body at most 1 MiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Received:
    """What arrived: size and digest of the file, and the last answer's headers and URL."""

    size_bytes: int
    sha256: str
    headers: Mapping[str, str]
    url: URL


@dataclass(frozen=True)
class FilePart:
    """A piece of a file on disk."""

    path: Path
    offset: int
    length: int

    def md5(self) -> str:
        """Its MD5 as Content-MD5 has it; blocks, and is called in a thread."""
        digest = hashlib.md5(usedforsecurity=False)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.length
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
        return base64.b64encode(digest.digest()).decode()


MakeCall = Callable[[], Awaitable[Call]]
Explain = Callable[[Answer], Fault]


def always(call: Call) -> MakeCall:
    """The same call for every try, for what carries no signature of the moment."""

    async def make() -> Call:
        return call

    return make


def explain(answer: Answer) -> Fault:
    """The fault that an answer's status stands for."""
    return status_fault(answer.status, answer.headers)

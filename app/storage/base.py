"""What every storage backend gives: a file in, a file out, a look at whether it may be had, a probe.

Used by most of its folder, app.prepare; may import app.errors, schemas.

One contract suite holds all backends to every sentence here, against real servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.errors import UploadFailed
from schemas.credentials import Auth

__all__ = ["ANY_AUTH", "Downloaded", "Progress", "Storage", "UploadRefused", "Uploaded"]

ANY_AUTH = frozenset({"bearer", "basic", "header", "query", "s3"})

Progress = Callable[[int, int | None], None]
"""Called on the event loop with the bytes moved so far and their total, if it is known; must not block or raise."""


class UploadRefused(UploadFailed):
    """A target will not take the file on a second try either: forbidden, no such bucket, not an address to write to."""

    retryable = False


@dataclass(frozen=True)
class Downloaded:
    """One whole file that was fetched.

    Attributes:
        path: Where it is: the path that was asked for.
        size_bytes: Its size, compared with what the source said.
        sha256: Digest of its content in lower-case hex.
        filename: The name the source gives it, as one harmless path segment; None if it gives none.
        media_type: The type the source gives it, without parameters; None if it gives none.
    """

    path: Path
    size_bytes: int
    sha256: str
    filename: str | None = None
    media_type: str | None = None


@dataclass(frozen=True)
class Uploaded:
    """One whole file that was stored.

    Attributes:
        url: Where it is, without secrets.
        size_bytes: Its size, compared with what the target said where it tells.
    """

    url: str
    size_bytes: int


class Storage(Protocol):
    """One kind of place. ``Stores`` calls these methods and nobody else.

    All raise errors of ``app.errors`` only, in sentences that name cause and cure and carry no secret. Trouble that may
    pass (429, 5xx, broken and silent connections) is tried again within a call with growing delay, a download from
    where it stopped if the source allows. Every wait has a deadline. Bytes stream between disk and network, so that
    memory does not grow with the file. Cancelling a call ends its connections at once.
    """

    name: str
    """Short lower-case name for metrics and ``doctor``."""
    auth_types: frozenset[str]
    """The types of credentials that it can use; others are refused before it is asked."""

    def accepts(self, url: str) -> bool:
        """Whether this backend is the one for the URL; looks at the text only."""

    def uses_operator_credentials(self, url: str) -> bool:
        """Whether the operator's credentials would go out for this URL when the request brings none."""

    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """Fetch a whole file and return when it is on disk, synced.

        Args:
            url: What ``accepts`` said yes to.
            into: A name for the file while it is incomplete: what an earlier, broken call left there is continued if
                the source still has the same file, else overwritten. A second file with ``.state`` behind the name
                holds what is needed for that.
            auth: The request's own credentials; they go to the URL's host only, not to where it redirects.
            progress: Told of the bytes as they come.

        Raises:
            InputUnavailable: Not to be had now: no answer, broken again and again, a full disk.
            InputRefused: Not to be had on a second try either: not found, forbidden, larger than allowed, an address
                that requests must not reach.
        """

    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """Store a whole file; what was there under the URL is replaced at once, never seen half.

        Args:
            path: A file that does not change meanwhile.
            url: What ``accepts`` said yes to.
            media_type: Given to the target where it keeps types.
            auth: The request's own credentials.

        Raises:
            UploadFailed: The target did not take it now.
            UploadRefused: It will not on a second try either.
        """

    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """Ask the source whether these credentials may read the URL, without fetching it.

        Raises:
            InputRefused: They may not, or the file is gone.
            InputUnavailable: The source does not answer.
        """

    async def probe(self) -> str:
        """Look whether what is configured works; returns a sentence on what was found.

        Raises:
            UploadFailed: It does not; the sentence says why and what to do.
        """

"""What went wrong in a transfer, before it is known whether an input or an upload failed by it.

Used by most of its folder, app.bridge, app.prepare, app.settings; may import app.errors.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from app.errors import InputRefused, InputUnavailable, PromptError, UploadFailed
from app.storage.base import UploadRefused
from app.storage.secrets import public_url

__all__ = ["Fault", "as_input", "as_upload", "disk_fault", "status_fault"]


class Fault(Exception):
    """A transfer did not work out.

    Attributes:
        reason: Cause and cure without a subject and without secrets: "the server answers 404; correct the URL".
        passing: The same may work a little later.
        retry_after_s: What the other side asked to be waited for, in seconds.
        status: The HTTP status behind it, if there is one.
    """

    def __init__(
        self, reason: str, *, passing: bool, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.retry_after_s = retry_after_s
        self.status = status


@contextmanager
def as_input(url: str) -> Iterator[None]:
    """Turn faults of a download into the errors of inputs, with the URL in front."""
    try:
        yield
    except PromptError:
        raise
    except Fault as exc:
        kind = InputUnavailable if exc.passing else InputRefused
        raise kind(f"{public_url(url)} cannot be fetched: {exc.reason}.") from exc
    except OSError as exc:
        raise InputUnavailable(f"{public_url(url)} cannot be fetched: {disk_fault(exc).reason}.") from exc


@contextmanager
def as_upload(url: str) -> Iterator[None]:
    """Turn faults of an upload into the errors of uploads, with the URL in front."""
    try:
        yield
    except PromptError:
        raise
    except Fault as exc:
        kind = UploadFailed if exc.passing else UploadRefused
        raise kind(f"{public_url(url)} does not take the file: {exc.reason}.") from exc
    except OSError as exc:
        raise UploadFailed(f"{public_url(url)} does not take the file: {disk_fault(exc).reason}.") from exc


def disk_fault(exc: OSError) -> Fault:
    """The fault behind an error of this machine's disk."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault("the disk is full; make room, or set LRU_CACHE_SIZE_GB below its size", passing=True)
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Fault(f"{exc.filename} may not be read or written; give the worker's user the right", passing=True)
    return Fault(f"the disk reports: {exc.strerror or type(exc).__name__}; see the worker's log", passing=True)


_MEANINGS: Mapping[int, str] = {
    401: "the server wants credentials or refuses those given; correct `credentials`",
    403: "the server forbids it; check the credentials and whether a signed URL has expired",
    404: "there is nothing at this address; correct the URL",
    407: "the proxy wants credentials; put them into HTTPS_PROXY",
    409: "the server reports a conflict; see whether somebody else writes there",
    410: "what was at this address is gone; correct the URL",
    413: "the file is too large for the server; use another target",
}
# 408, 425 and 429 ask for another try by their definition (RFC 9110, RFC 8470, RFC 6585).
_PASSING = frozenset({408, 425, 429})


def status_fault(status: int, headers: Mapping[str, str]) -> Fault:
    """The fault that an HTTP status stands for."""
    passing = status in _PASSING or status >= 500
    cure = "try again later" if passing else "correct the URL or the credentials"
    meaning = _MEANINGS.get(status, cure)
    return Fault(f"HTTP {status}: {meaning}", passing=passing, retry_after_s=_retry_after(headers), status=status)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; the form with a date is not read, growing delays do as well."""
    value = headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 6 else None

"""Which repository a custom node's URL names, at which branch, tag or commit, and in which folder it is installed.

Used by custom_nodes, git_nodes, manifest, app.cli.manifest; may import app.prepare, app.storage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from app.prepare.git_clone import split_revision
from app.storage.secrets import public_url

__all__ = ["GitSource", "NotARepository", "same_repository", "source_of", "split_reference"]

_SCHEMES: Final = ("http", "https", "file")
# How hosts of the Bitbucket and Gitea kind write a revision; `split_revision` knows the others.
_MORE_REVISIONS: Final = (
    re.compile(r"(?P<base>.+?)/src/(?P<revision>[^/]+)(?:/.*)?"),
    re.compile(r"(?P<base>.+?)/commits/(?P<revision>[^/]+)/?"),
)
_SLASHED: Final = re.compile(r"/(?:tree|commit|commits|releases/tag)/[^/]+/.", re.IGNORECASE)
# What `git check-ref-format` refuses, and a dash in front, which programs take for an option.
_BAD_REFERENCE: Final = re.compile(r"^[-./]|[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|\.lock$|[/.]$|^@$")
_FOLDER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,99}")


class NotARepository(ValueError):
    """A URL that cannot be one of a custom node; the sentence says what it should be."""


@dataclass(frozen=True)
class GitSource:
    """A repository to install.

    Attributes:
        base: Address for git, without user info.
        reference: Branch, tag or commit; None for what the repository itself points to.
        folder: Name below ``custom_nodes``.
        user_info: ``user:password`` of the URL, decoded; None if it has none.
    """

    base: str
    reference: str | None
    folder: str
    user_info: str | None = field(default=None, repr=False)


def split_reference(url: str) -> tuple[str, str | None]:
    """The base of a URL and the reference behind it, by the forms that hosts use; pure, nothing is judged.

    ``<base>@R``, ``<base>/-/tree/R``, ``/-/commit/R``, ``/tree/R``, ``/commit/R``, ``/releases/tag/R``, ``/src/R`` with
    anything behind it, ``/commits/R``; the first form that fits, with the shortest base. R has no slash.
    """
    base, revision = split_revision(url.strip())
    if revision is not None:
        return base, revision
    parts = urlsplit(base)
    for pattern in _MORE_REVISIONS:
        if found := pattern.fullmatch(parts.path):
            return urlunsplit(parts._replace(path=found["base"])), found["revision"]
    # A path that begins with the form: there the whole path but the reference is missing.
    if found := re.fullmatch(r"/src/([^/]+)(?:/.*)?", parts.path):
        return urlunsplit(parts._replace(path="")), found[1]
    return base, None


def source_of(url: str) -> GitSource:
    """What to clone for a URL.

    A reference may be percent-encoded, which is how one with a slash is written: ``/tree/feature%2Fx``. Where the form
    would leave a host alone, as in ``https://host/src/name``, the URL is taken as a whole.

    Raises:
        NotARepository: It is no http, https or file URL of a repository, or its reference is none that git has.
    """
    base, reference = split_reference(url)
    parts = urlsplit(base)
    if not parts.path.strip("/"):
        base, reference = url.strip(), None
        parts = urlsplit(base)
    if parts.scheme not in _SCHEMES or not parts.path.strip("/") or (parts.scheme != "file" and not parts.hostname):
        raise NotARepository("it should be http(s)://host/owner/name, with @, /tree/ or /commit/ before a reference")
    if reference is None and _SLASHED.search(parts.path):
        raise NotARepository(
            "a reference with a slash cannot be told from a path; write the slash as %2F, or give a tag or commit"
        )
    reference = unquote(reference) if reference is not None else None
    if reference is not None and _BAD_REFERENCE.search(reference):
        raise NotARepository(f"git has no branch, tag or commit called {reference[:80]!r}")
    folder = unquote(parts.path.rstrip("/").rpartition("/")[2]).removesuffix(".git")
    if not _FOLDER.fullmatch(folder) or folder.endswith((".disabled", ".")):
        raise NotARepository(f"its last part, {folder[:80]!r}, cannot be the name of a folder in custom_nodes")
    user_info, at, host = parts.netloc.rpartition("@")
    address = urlunsplit(parts._replace(netloc=host, query="", fragment=""))
    return GitSource(address.rstrip("/"), reference, folder, unquote(user_info) if at else None)


def same_repository(one: str, other: str) -> bool:
    """Whether two addresses are of one repository: scheme, user info, case of the host and ``.git`` do not count."""
    return _bare(one) == _bare(other)


def _bare(address: str) -> str:
    # The short form of SSH: user@host:path.
    found = re.fullmatch(r"(?:[^@/\s]+@)?([^:/\s]+):(?!//)(.+)", address.strip())
    if found:
        host, path = found[1], found[2]
    else:
        parts = urlsplit(public_url(address.strip()))
        host, path = parts.netloc.rpartition("@")[2], parts.path
    return f"{host.lower()}/{path.strip('/').removesuffix('.git').rstrip('/')}"

"""The Hugging Face Hub: models, datasets and spaces in any revision, by its own library, Xet included.

Used by backends; may import schemas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from typing_extensions import override
from yarl import URL

from app.storage.base import Downloaded, Progress, Storage, Uploaded
from app.storage.calls import Answer, Call, always
from app.storage.carrier import Carrier
from app.storage.config import HuggingFaceConfig, Timings
from app.storage.faults import Fault, as_input, as_upload, status_fault
from app.storage.hub_process import HubProcess
from app.storage.hub_reasons import HUB_REASONS
from app.storage.media_types import media_type_for, safe_filename
from app.storage.retry import retrying
from app.storage.secrets import public_url
from app.storage.threads import disk
from app.storage.turns import Turns
from app.storage.urls import check_path, check_text
from schemas.credentials import Auth, BearerAuth

__all__ = ["HubFile", "HuggingFaceStorage", "hub_file"]

_HOSTS: Final = ("https://huggingface.co/", "https://www.huggingface.co/", "https://hf.co/")
_KINDS: Final = {"datasets": "dataset", "spaces": "space"}
# Words between repository and revision in the Hub's own links.
_WORDS: Final = frozenset({"resolve", "blob", "raw"})
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# Revisions of these forms are written without encoding their slashes.
_REFS: Final = ("pr", "convert")


@dataclass(frozen=True)
class HubFile:
    """One file of one repository.

    Attributes:
        repo: ``owner/name``, or ``name`` alone for the Hub's oldest models.
        kind: model, dataset or space.
        revision: Branch, tag, commit or ``refs/pr/1``, decoded.
        path: In the repository, decoded.
    """

    repo: str
    kind: str
    revision: str
    path: str

    def url(self, hub: str) -> str:
        """Its address on a Hub."""
        kind = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{hub}/{kind}{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(self.path)}"


def hub_file(url: str, endpoint: str) -> HubFile | None:
    """The file that a URL of a Hub names; None if it names none.

    Raises:
        Fault: Its path leads upwards.
    """
    check_text(url)
    base = next((host for host in (f"{endpoint.rstrip('/')}/", *_HOSTS) if url.startswith(host)), None)
    if base is None:
        return None
    parts = re.split(r"[?#]", url[len(base) :], maxsplit=1)[0].split("/")
    kind = _KINDS.get(parts[0], "model")
    if parts[0] in _KINDS:
        parts = parts[1:]
    length = next((index for index in (2, 1) if len(parts) > index + 1 and parts[index] in _WORDS), 0)
    if not length or (length == 1 and kind != "model"):
        return None
    repo, rest = "/".join(parts[:length]), parts[length + 1 :]
    taken = 3 if rest[0] == "refs" and len(rest) > 3 and rest[1] in _REFS else 1
    revision, path = unquote("/".join(rest[:taken])), unquote("/".join(rest[taken:]))
    check_path(path)
    check_path(revision)
    if not path.strip("/") or not revision or not all(_NAME.fullmatch(part) for part in repo.split("/")):
        return None
    return HubFile(repo, kind, revision, path)


@dataclass(frozen=True)
class _Found:
    commit: str | None
    sha256: str | None
    is_xet: bool


class HuggingFaceStorage(Storage):
    """See ``Storage``. A mirror set by HF_ENDPOINT stands for the Hub.

    Downloads go over HTTP by the carrier, so that they can be continued; files in Xet and all uploads by the Hub's own
    library, in processes of its own. It opens its own connections: the Hub's address is the operator's, where the Hub
    sends it to is the Hub's. Uploads to one repository go one after the other, each a commit; repository and branch
    have to exist.
    """

    name = "hf"
    auth_types = frozenset({"bearer"})

    def __init__(
        self, carrier: Carrier, config: HuggingFaceConfig, process: HubProcess, timings: Timings, limit_bytes: int
    ) -> None:
        self._carrier = carrier
        self._endpoint = config.endpoint.rstrip("/")
        self._token = config.token
        self._process = process
        self._timings = timings
        self._limit_bytes = limit_bytes
        self._commits = Turns()

    @override
    def accepts(self, url: str) -> bool:
        """Links to files on the Hub, or on the mirror."""
        try:
            return hub_file(url, self._endpoint) is not None
        except Fault:
            return False

    @override
    def uses_operator_credentials(self, url: str) -> bool:
        """Whether HF_TOKEN is set."""
        return bool(self._token)

    @override
    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """By HTTP, or by the library where the file lies in Xet; see ``Storage``."""
        with as_input(url):
            file = self._file(url)
            found = await self._look(file, auth)
            if found.is_xet:
                job = {**self._job("download", file, auth), "into": str(into), "limit": self._limit_bytes}
                done = await self._run(job, progress)
                size, sha256 = int(done["size"]), str(done["sha256"])
            else:
                call = self._call("GET", replace(file, revision=found.commit or file.revision), auth, follow="all")
                where = file.url(self._endpoint)
                received = await self._carrier.receive(always(call), into, where=where, progress=progress)
                size, sha256 = received.size_bytes, received.sha256
            if found.sha256 not in (None, sha256):
                raise Fault("its content has not the digest that the Hub gives; try again later", passing=True)
        return Downloaded(into, size, sha256, safe_filename(file.path), media_type_for(file.path))

    @override
    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """A commit of one file; see ``Storage``."""
        with as_upload(url):
            file = self._file(url)
            size = (await disk(path.stat)).st_size
            job = {**self._job("upload", file, auth), "path": str(path), "size": size}
            async with self._commits.turn(f"{file.kind}/{file.repo}"):
                await self._run(job)
        return Uploaded(public_url(url), size)

    @override
    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """Ask the Hub for the file's first byte; see ``Storage``."""
        with as_input(url):
            file = self._file(url)
            call = self._call("GET", file, auth, follow="all")
            await self._carrier.may_read(always(call), where=file.url(self._endpoint), explain=_explain)

    @override
    async def probe(self) -> str:
        """Ask the Hub who the token is; see ``Storage``."""
        if not self._token:
            return f"{public_url(self._endpoint)} without a token: public repositories only"
        with as_upload(self._endpoint):
            job = {"do": "probe", "endpoint": self._endpoint, "token": self._token}
            done = await self._run(job)
        return f"{public_url(self._endpoint)} knows the token as {done['name']}"

    def _file(self, url: str) -> HubFile:
        file = hub_file(url, self._endpoint)
        if file is None:
            raise Fault("it is no file of a repository on the Hub; correct the URL", passing=False)
        return file

    async def _look(self, file: HubFile, auth: Auth | None) -> _Found:
        """Ask the Hub for the file's commit, digest and storage; the library insists on the same headers."""
        call = self._call("HEAD", file, auth, follow="origin")
        answer = await self._carrier.ask(always(call), where=file.url(self._endpoint), explain=_explain)
        etag = (answer.headers.get("X-Linked-Etag") or answer.headers.get("ETag", "")).strip('"')
        return _Found(
            commit=answer.headers.get("X-Repo-Commit") or None,
            sha256=etag if _SHA256.fullmatch(etag) else None,
            is_xet="X-Xet-Hash" in answer.headers,
        )

    def _call(self, method: str, file: HubFile, auth: Auth | None, *, follow: Literal["origin", "all"]) -> Call:
        token = self._token_for(auth)
        secret = {"Authorization": f"Bearer {token}"} if token else {}
        return Call(method, URL(file.url(self._endpoint), encoded=True), {}, secret, follow=follow)

    async def _run(self, job: dict[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        # The library tries every step of its own again by itself.
        timings = replace(self._timings, tries=min(self._timings.tries, 2))
        return await retrying(lambda: self._process.run(job, progress), timings, where=self._endpoint)

    def _token_for(self, auth: Auth | None) -> str | None:
        if auth is None:
            return self._token
        if not isinstance(auth, BearerAuth):
            raise TypeError(auth.type)
        return auth.token.get_secret_value()

    def _job(self, what: str, file: HubFile, auth: Auth | None) -> dict[str, Any]:
        return {
            "do": what,
            "endpoint": self._endpoint,
            "repo_id": file.repo,
            "repo_type": file.kind,
            "revision": file.revision,
            "filename": file.path,
            # False: not even a token that lies about on this machine.
            "token": self._token_for(auth) or False,
        }


def _explain(answer: Answer) -> Fault:
    fault = status_fault(answer.status, answer.headers)
    reason = HUB_REASONS.get(answer.headers.get("X-Error-Code", ""))
    return Fault(reason, passing=False, status=answer.status) if reason else fault

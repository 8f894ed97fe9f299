"""A double of the Hugging Face Hub for huggingface_hub 1 and 2: repositories, commits, LFS (basic, multipart) and Xet.

It answers what the library asks, with the headers it insists on; everything is kept in memory, except for Xet, whose
store is a folder that hf_xet itself reads and writes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.services.hub_xet import xet_hash
from tests.support.services.in_thread import serve

TOKEN = "hf_testtoken0123456789abcdef"
# Larger files go by LFS or Xet.
REGULAR_BYTES = 1 << 20
TYPED = "/api/{type:models|datasets|spaces}/{ns}/{name}"
NAMED = "/{pre:(?:datasets/|spaces/)?}{ns}/{name}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Stored:
    """One file of a repository."""

    kind: str
    etag: str
    data: bytes


@dataclass
class Repo:
    """One repository: its files now, its commits, its branches."""

    files: dict[str, Stored] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    gated: bool = False


class Hub:
    """The double. ``multipart`` is the size of a part for LFS in parts, ``xet`` the folder of a Xet store."""

    def __init__(self, *, token: str = TOKEN, multipart: int | None = None, xet: Path | None = None) -> None:
        self.token = token
        self.multipart = multipart
        self.xet = xet
        self.port = 0
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.seen: list[tuple[str, str]] = []
        self.foreign_tokens = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def create(self, kind: str, name: str) -> Repo:
        """A repository with one commit."""
        first = hashlib.sha1(name.encode()).hexdigest()
        return self.repos.setdefault((kind, name), Repo(commits=[first]))

    def add(self, kind: str, name: str, path: str, data: bytes) -> None:
        """A file, as if somebody had committed it; large ones by LFS."""
        repo = self.create(kind, name)
        if len(data) > REGULAR_BYTES:
            digest = hashlib.sha256(data).hexdigest()
            self.blobs[digest] = data
            repo.files[path] = Stored("lfs", digest, data)
        else:
            repo.files[path] = _regular(data)

    def application(self) -> web.Application:
        """All routes."""
        application = web.Application(middlewares=[self._guard()], client_max_size=1 << 40)
        routes = application.router
        routes.add_get("/api/whoami-v2", self._whoami)
        for path in (TYPED, f"{TYPED}/revision/{{rev}}"):
            routes.add_get(path, self._info)
        routes.add_post(f"{TYPED}/paths-info/{{rev}}", self._paths_info)
        routes.add_post(f"{TYPED}/preupload/{{rev}}", self._preupload)
        routes.add_post(f"{TYPED}/commit/{{rev}}", self._commit)
        routes.add_get(f"{TYPED}/xet-{{mode:read|write}}-token/{{rev}}", self._xet_token)
        routes.add_post(f"{NAMED}.git/info/lfs/objects/batch", self._batch)
        routes.add_route("*", f"{NAMED}/resolve/{{rev}}/{{path:.*}}", self._resolve)
        routes.add_put("/_store/{oid}", self._put_blob)
        routes.add_put("/_store/{oid}/{n}", self._put_part)
        routes.add_post("/_store/{oid}/complete", self._complete)
        routes.add_post("/_verify", self._verify)
        routes.add_route("*", "/_store/{oid}", self._get_blob)
        return application

    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.seen.append((request.method, request.path_qs))
            given = request.headers.get("Authorization")
            if request.path.startswith("/_store/"):
                # Another host in real life: a token that arrives here has leaked.
                self.foreign_tokens += given is not None
            elif given != f"Bearer {self.token}":
                raise _refusal(web.HTTPUnauthorized, "RepoNotFound", "Invalid username or password.")
            return await handler(request)

        return guard

    def _repo(self, request: web.Request) -> tuple[str, str, Repo]:
        info = request.match_info
        kind = info.get("type") or info.get("pre", "").strip("/") or "models"
        name = f"{info['ns']}/{info['name']}"
        repo = self.repos.get((kind, name))
        if repo is None:
            raise _refusal(web.HTTPNotFound, "RepoNotFound", "Repository not found")
        if repo.gated:
            raise _refusal(web.HTTPForbidden, "GatedRepo", "Access to this repository is restricted")
        revision = info.get("rev", "main")
        if revision != "main" and revision not in repo.commits:
            raise _refusal(web.HTTPNotFound, "RevisionNotFound", f"Invalid rev id: {revision}")
        return kind, name, repo

    async def _whoami(self, request: web.Request) -> web.Response:
        return web.json_response({"type": "user", "name": "tester", "orgs": []})

    async def _info(self, request: web.Request) -> web.Response:
        _, name, repo = self._repo(request)
        return web.json_response({"_id": "0", "id": name, "modelId": name, "sha": repo.commits[-1], "private": False})

    async def _paths_info(self, request: web.Request) -> web.Response:
        _, _, repo = self._repo(request)
        form = "form" in request.content_type
        wanted: Any = (await request.post()).getall("paths") if form else (await request.json())["paths"]
        return web.json_response([_entry(path, repo.files[path]) for path in wanted if path in repo.files])

    async def _preupload(self, request: web.Request) -> web.Response:
        _, _, repo = self._repo(request)
        files = []
        for one in (await request.json())["files"]:
            known = repo.files.get(one["path"])
            mode = "lfs" if one["size"] > REGULAR_BYTES else "regular"
            oid = known.etag if known else None
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return web.json_response({"files": files})

    async def _batch(self, request: web.Request) -> web.Response:
        self._repo(request)
        base = f"{request.scheme}://{request.host}"
        objects = [self._object(base, one["oid"], one["size"]) for one in (await request.json())["objects"]]
        return web.json_response({"transfer": "multipart" if self.multipart else "basic", "objects": objects})

    def _object(self, base: str, oid: str, size: int) -> dict[str, Any]:
        if oid in self.blobs:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{base}/_store/{oid}"}
        if self.multipart and size > self.multipart:
            count = -(-size // self.multipart)
            urls = {f"{number:05d}": f"{base}/_store/{oid}/{number}" for number in range(1, count + 1)}
            upload = {"href": f"{base}/_store/{oid}/complete", "header": {"chunk_size": str(self.multipart), **urls}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{base}/_verify"}}}

    async def _put_blob(self, request: web.Request) -> web.Response:
        return self._keep(request.match_info["oid"], await request.read())

    async def _put_part(self, request: web.Request) -> web.Response:
        data = await request.read()
        self.parts.setdefault(request.match_info["oid"], {})[int(request.match_info["n"])] = data
        return web.Response(headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    async def _complete(self, request: web.Request) -> web.Response:
        oid = request.match_info["oid"]
        parts = self.parts.pop(oid)
        document = await request.json()
        return self._keep(oid, b"".join(parts[one["partNumber"]] for one in document["parts"]))

    def _keep(self, oid: str, data: bytes) -> web.Response:
        if hashlib.sha256(data).hexdigest() != oid:
            return web.Response(status=400)
        self.blobs[oid] = data
        return web.json_response({})

    async def _verify(self, request: web.Request) -> web.Response:
        document = await request.json()
        whole = len(self.blobs.get(document["oid"], b"")) == document["size"]
        return web.json_response({}, status=200 if whole else 404)

    async def _commit(self, request: web.Request) -> web.Response:
        kind, name, repo = self._repo(request)
        for line in (await request.text()).splitlines():
            step = json.loads(line) if line.strip() else {"key": "", "value": {}}
            value = step["value"]
            if step["key"] == "file":
                repo.files[value["path"]] = _regular(base64.b64decode(value["content"]))
            elif step["key"] == "lfsFile":
                data = self.blobs.get(value["oid"])
                if data is None and self.xet is None:
                    return web.json_response({"error": "LFS pointer to an unknown object"}, status=400)
                # What Xet stores the double never sees; it knows the size.
                repo.files[value["path"]] = Stored("lfs", value["oid"], data or bytes(value.get("size") or 0))
        commit = hashlib.sha1(f"{name}{time.time_ns()}{len(repo.commits)}".encode()).hexdigest()
        repo.commits.append(commit)
        url = f"{request.scheme}://{request.host}/{'' if kind == 'models' else kind + '/'}{name}/commit/{commit}"
        return web.json_response({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    async def _xet_token(self, request: web.Request) -> web.Response:
        if self.xet is None:
            return web.json_response({"error": "Xet is off"}, status=404)
        store, expires = f"local://{self.xet}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": store, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": str(expires)}
        return web.json_response({"casUrl": store, "accessToken": "x", "exp": expires}, headers=headers)

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        kind, name, repo = self._repo(request)
        commit = repo.commits[-1]
        file = repo.files.get(request.match_info["path"])
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if file is None:
            raise _refusal(web.HTTPNotFound, "EntryNotFound", "Entry not found", headers)
        if file.kind == "regular":
            return _body(request, file.data, {**headers, "ETag": f'"{file.etag}"'})
        # Another host name, as the Hub's CDN is: the library follows only that of the Hub by itself.
        elsewhere = f"{request.scheme}://{request.host.replace('127.0.0.1', 'localhost')}/_store/{file.etag}"
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.data)), "Location": elsewhere}
        if self.xet is not None and (found := xet_hash(self.xet, file.etag)):
            headers["X-Xet-Hash"] = found
            refresh = f"{request.scheme}://{request.host}/api/{kind}/{name}/xet-read-token/{commit}"
            headers["Link"] = f'<{refresh}>; rel="xet-auth"'
        return web.Response(status=302, headers=headers)

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        data = self.blobs.get(request.match_info["oid"])
        if data is None:
            return web.Response(status=404)
        return _body(request, data, {"ETag": f'"{request.match_info["oid"]}"'})


def _regular(data: bytes) -> Stored:
    return Stored("regular", hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), data)


def _entry(path: str, file: Stored) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(file.data), "oid": file.etag[:40]}
    if file.kind == "lfs":
        entry["lfs"] = {"oid": file.etag, "size": len(file.data), "pointerSize": 134}
    return entry


def _body(request: web.Request, data: bytes, headers: dict[str, str]) -> web.Response:
    wanted = request.http_range
    if wanted.start is None:
        return web.Response(body=data, headers=headers)
    if wanted.start >= len(data):
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    last = (wanted.stop or len(data)) - 1
    headers = {**headers, "Content-Range": f"bytes {wanted.start}-{last}/{len(data)}"}
    return web.Response(status=206, body=data[wanted.start : last + 1], headers=headers)


def _refusal(
    kind: type[web.HTTPError], code: str, message: str, headers: dict[str, str] | None = None
) -> web.HTTPError:
    return kind(headers={"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}, text="{}")


@contextmanager
def run_hub(**options: Any) -> Iterator[Hub]:
    """Run a double until the block ends."""
    hub = Hub(**options)
    with serve(hub.application()) as port:
        hub.port = port
        yield hub

"""Cloning models by Git, from a real Git server on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from prepare_doubles import World

from app.errors import InputRefused, InputUnavailable
from app.prepare.git_address import AddressCheck
from app.prepare.git_clone import GitClone, split_revision
from app.prepare.repositories import Repositories
from app.storage.faults import Fault
from app.storage.guard import Guard
from app.storage.stores import Hold
from schemas.credentials import Credential

pytestmark = pytest.mark.anyio

BACKEND = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())


class GitServer:
    """Git's own HTTP server behind a small web server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = ""
        self.headers: list[str | None] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request by ``git http-backend``, as CGI has it."""
        self.headers.append(request.headers.get("Authorization"))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_0": "true",
        }
        body = await request.read()
        done = await anyio.run_process([str(BACKEND / "git-http-backend")], input=body, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ")[::2] for line in head.decode().splitlines()]
        status = next((int(value.split()[0]) for name, value in lines if name == "Status"), 200)
        headers = {name: value for name, value in lines if name not in ("Status", "Content-Length")}
        return web.Response(status=status, body=content, headers=headers)

    def add(self, name: str, files: dict[str, str]) -> str:
        """A repository with one commit on ``main``, a tag ``v1``, and a second commit; returns the first commit."""
        work = self.root / f"{name}-work"
        git(self.root, "init", "-q", "-b", "main", str(work))
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "first")
        git(work, "tag", "v1")
        (work / "second").write_text("second")
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "second")
        git(self.root, "clone", "-q", "--bare", str(work), str(self.root / f"{name}.git"))
        return git(work, "rev-parse", "v1").strip()


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody."""
    config = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *config, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    """A server with a model, on a free port."""
    server = GitServer(tmp_path / "repositories")
    server.root.mkdir()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = str(runner.addresses[0] and f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield server
    await runner.cleanup()


async def anywhere(url: str) -> None:
    """Every host may be reached."""


async def unread(url: str, credentials: object = None, *, limit_bytes: int) -> bytes:
    """Nothing is read from the Hub."""
    raise AssertionError(url)


MODEL = {"model_index.json": "{}", "unet/diffusion_pytorch_model.safetensors": "weights"}


async def test_a_repository(server: GitServer, world: World) -> None:
    """The files of the newest commit appear as a whole, without Git's own."""
    server.add("model", MODEL)
    clone = Repositories(world.source, unread, GitClone(anywhere, limit_bytes=10**9))
    name = await clone(f"{server.url}/model.git", (), folder=world.root / "d", in_use=Hold())
    root = world.root / "d" / name
    assert name.startswith("model-")
    assert {path.name for path in root.iterdir()} == {"model_index.json", "unet", "second"}
    assert [path.name for path in root.parent.iterdir()] == [name]
    asked = len(server.headers)
    assert await clone(f"{server.url}/model.git", (), folder=world.root / "d", in_use=Hold()) == name
    assert len(server.headers) == asked


@pytest.mark.parametrize(
    "shape", ["{url}@v1", "{url}/tree/v1", "{url}/-/tree/v1", "{url}@{commit}", "{url}/commit/{commit}"]
)
async def test_revisions(server: GitServer, tmp_path: Path, shape: str) -> None:
    """A branch, a tag or a commit, in the ways that hosts write it."""
    commit = server.add("model", MODEL)
    url = shape.format(url=f"{server.url}/model.git", commit=commit)
    await GitClone(anywhere, limit_bytes=10**9).into(url, (), tmp_path / "target")
    assert not (tmp_path / "target" / "second").exists()
    assert (tmp_path / "target" / "model_index.json").exists()


@pytest.mark.parametrize(
    "url", ["{url}/none.git", "{url}/model.git@none", "{url}/model.git@--upload-pack=touch x", "{url}/model.git@-x"]
)
async def test_what_is_not_there(server: GitServer, tmp_path: Path, url: str) -> None:
    """No such repository or revision is refused, a revision is never an option, and nothing is left."""
    server.add("model", MODEL)
    with pytest.raises(InputRefused):
        await GitClone(anywhere, limit_bytes=10**9).into(url.format(url=server.url), (), tmp_path / "d" / "target")
    assert list((tmp_path / "d").iterdir()) == []


async def test_credentials(server: GitServer, tmp_path: Path) -> None:
    """The request's credentials for the URL are used."""
    server.add("model", MODEL)
    credential = Credential.model_validate(
        {"url_pattern": f"{server.url}/**", "auth": {"type": "basic", "username": "u", "password": "p"}}
    )
    await GitClone(anywhere, limit_bytes=10**9).into(f"{server.url}/model.git", [credential], tmp_path / "target")
    assert set(server.headers) == {"Basic dTpw"}


async def test_user_info(server: GitServer, tmp_path: Path) -> None:
    """A name and a password in the URL are used, and the place is named without them."""
    server.add("model", MODEL)
    url = server.url.replace("://", "://u:p%40@")
    await GitClone(anywhere, limit_bytes=10**9).into(f"{url}/model.git", (), tmp_path / "target")
    assert set(server.headers) == {"Basic dTpwQA=="}
    with pytest.raises(InputRefused) as caught:
        await GitClone(anywhere, limit_bytes=10**9).into(f"{url}/none.git", (), tmp_path / "other")
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "url", "fine"),
    [
        ([], "http://127.0.0.1:1/x", False),
        ([], "http://localhost:1/x", False),
        ([], "http://169.254.169.254/x", False),
        ([], "file:///etc", False),
        ([], "http://8.8.8.8/x", True),
        (["127.0.0.0/8", "::1/128"], "http://localhost:1/x", True),
        (["localhost"], "http://localhost:1/x", True),
        ([], "http://nowhere.invalid/x", False),
    ],
)
async def test_which_addresses(allowed: list[str], url: str, fine: bool) -> None:
    """Public addresses and those that the operator names, after the name is resolved."""
    check = AddressCheck(Guard(allowed))
    if fine:
        await check(url)
    else:
        with pytest.raises(Fault):
            await check(url)


async def test_addresses_behind_a_proxy() -> None:
    """A proxy resolves names itself; literal addresses and this machine's names are judged all the same."""
    check = AddressCheck(Guard(), proxied=True)
    await check("http://nowhere.invalid/x")
    for url in ("http://localhost/x", "http://10.0.0.1/x"):
        with pytest.raises(Fault):
            await check(url)


async def test_forbidden_addresses(server: GitServer, tmp_path: Path) -> None:
    """The address is judged before git is started."""

    async def nowhere(url: str) -> None:
        raise Fault(f"{url} is not at a public address", passing=False)

    with pytest.raises(InputRefused, match="public address"):
        await GitClone(nowhere, limit_bytes=10**9).into(f"{server.url}/model.git", (), tmp_path / "target")
    assert server.headers == []


@pytest.mark.parametrize("url", ["file:///etc", "ext::sh -c touch% x", "ssh://git@127.0.0.1/x", "git://127.0.0.1/x"])
async def test_other_protocols(tmp_path: Path, url: str) -> None:
    """Only http and https are spoken."""
    with pytest.raises(InputRefused):
        await GitClone(anywhere, limit_bytes=10**9).into(url, (), tmp_path / "target")


async def test_large_file_storage(server: GitServer, tmp_path: Path) -> None:
    """Pointers to weights elsewhere are not taken for weights."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    server.add("model", {**MODEL, "unet/diffusion_pytorch_model.safetensors": pointer})
    with pytest.raises(InputRefused, match="Git LFS"):
        await GitClone(anywhere, limit_bytes=10**9).into(f"{server.url}/model.git", (), tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_symbolic_links_stay_texts(server: GitServer, tmp_path: Path) -> None:
    """A link in the repository becomes a file with its text, so that it leads nowhere."""
    server.add("model", MODEL)
    work = server.root / "model-work"
    (work / "link").symlink_to("/etc/passwd")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "link")
    git(work, "push", "-q", str(server.root / "model.git"), "main")
    await GitClone(anywhere, limit_bytes=10**9).into(f"{server.url}/model.git", (), tmp_path / "target")
    assert not (tmp_path / "target" / "link").is_symlink()
    assert (tmp_path / "target" / "link").read_text() == "/etc/passwd"


async def test_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said with the cure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputUnavailable, match="install"):
        await GitClone(anywhere, limit_bytes=10**9).into("https://example.com/x", (), tmp_path / "target")


@pytest.mark.parametrize(
    ("url", "base", "revision"),
    [
        ("https://github.com/u/r", "https://github.com/u/r", None),
        ("https://github.com/u/r.git", "https://github.com/u/r.git", None),
        ("https://github.com/u/r.git@main", "https://github.com/u/r.git", "main"),
        ("https://github.com/u/r/tree/v1.0.0", "https://github.com/u/r", "v1.0.0"),
        ("https://github.com/u/r/commit/abc", "https://github.com/u/r", "abc"),
        ("https://github.com/u/r/releases/tag/v2", "https://github.com/u/r", "v2"),
        ("https://gitlab.com/g/s/r/-/tree/develop", "https://gitlab.com/g/s/r", "develop"),
        ("https://gitlab.com/u/r/-/commit/abc", "https://gitlab.com/u/r", "abc"),
        ("https://user:tok@github.com/o/r", "https://user:tok@github.com/o/r", None),
        ("https://github.com/u/r/tree/feature/x", "https://github.com/u/r/tree/feature/x", None),
    ],
)
def test_how_hosts_write_revisions(url: str, base: str, revision: str | None) -> None:
    """The address of the repository and what is wanted of it."""
    assert split_revision(url) == (base, revision)

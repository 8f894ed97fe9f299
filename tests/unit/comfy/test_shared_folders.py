"""Whether ComfyUI's folders are ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from small_server import Connect, Serve, names

from app.comfy.client import ComfyClient
from app.comfy.folders import Shared, probe_shared
from app.errors import ComfyUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(serve: Serve, connect: Connect, tmp_path: Path) -> ComfyClient:
    """A ComfyUI with its folders below ``tmp_path/comfy``."""
    for name in ("input", "output"):
        (tmp_path / "comfy" / name).mkdir(parents=True)

    async def view(request: web.Request) -> web.Response:
        path = tmp_path / "comfy" / request.query["type"] / request.query["filename"]
        return web.Response(body=path.read_bytes()) if path.exists() else web.Response(status=404)

    return connect(await serve(web.get("/view", view)))


async def test_the_same_folders_are_shared_and_left_clean(client: ComfyClient, tmp_path: Path) -> None:
    """A file written on our side is seen on ComfyUI's, and removed again."""
    comfy = tmp_path / "comfy"
    assert await probe_shared(client, comfy / "input", comfy / "output") == Shared(input=True, output=True)
    assert [path for path in comfy.rglob("*") if path.is_file()] == []


async def test_other_folders_are_not_shared(client: ComfyClient, tmp_path: Path) -> None:
    """Equal names on two machines prove nothing; nor does the input folder given as the output folder."""
    other = tmp_path / "other"
    other.mkdir()
    assert await probe_shared(client, other, tmp_path / "comfy" / "input") == Shared(input=False, output=False)
    assert names(other) == []


async def test_folders_that_cannot_be_written_are_not_shared(client: ComfyClient, tmp_path: Path) -> None:
    """Missing folders, files in place of folders and none at all are answers, not errors."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert await probe_shared(client, tmp_path / "no", file) == Shared(input=False, output=False)
    assert await probe_shared(client, None, None) == Shared(input=False, output=False)
    assert not (tmp_path / "no").exists()


async def test_without_an_answer_there_is_no_verdict(connect: Connect, tmp_path: Path) -> None:
    """A ComfyUI that is down is not a ComfyUI elsewhere; the probe goes all the same."""
    with pytest.raises(ComfyUnavailable):
        await probe_shared(connect("http://127.0.0.1:9"), tmp_path, None)
    assert names(tmp_path) == []

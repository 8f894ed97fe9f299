"""Bringing outputs here and cleaning up behind them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from aiohttp import web
from small_server import Connect, Serve, names

from app.comfy.client import ComfyClient
from app.comfy.outputs import OutputReader, OutputRef
from app.errors import ComfyUnavailable, OutputMissing

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(serve: Serve, connect: Connect) -> ComfyClient:
    """A ComfyUI whose /view hands out one file, whatever is asked for, and none called ``gone``."""

    async def view(request: web.Request) -> web.Response:
        if "gone" in request.query["filename"]:
            return web.Response(status=404)
        return web.Response(body=f"over view: {request.query['type']}".encode())

    return connect(await serve(web.get("/view", view)))


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    """An output folder with one file in a subfolder."""
    folder = tmp_path / "output"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "sub dir" / "a.png").write_bytes(b"in the folder")
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def _ref(filename: str, subfolder: str = "", folder: str = "output") -> OutputRef:
    return OutputRef("1", "SaveImage", "image", filename=filename, subfolder=subfolder, folder=folder)


async def test_a_shared_file_is_used_where_it_lies(client: ComfyClient, output_dir: Path, scratch: Path) -> None:
    """Nothing is copied from a shared folder."""
    found = await OutputReader(client, output_dir=output_dir).fetch(_ref("a.png", "sub dir"), scratch)
    assert (found.path, found.owned, found.size_bytes) == (output_dir / "sub dir" / "a.png", False, 13)
    assert found.sha256 == hashlib.sha256(b"in the folder").hexdigest()
    assert names(scratch) == []


async def test_without_a_shared_folder_files_come_over_view(client: ComfyClient, scratch: Path) -> None:
    """Each gets a name of its own in the scratch folder, with the same ending."""
    reader = OutputReader(client)
    first = await reader.fetch(_ref("a.png", "x"), scratch)
    second = await reader.fetch(_ref("a.png", "y"), scratch)
    assert first.owned
    assert first.path.read_bytes() == b"over view: output"
    assert first.path != second.path
    assert first.path.suffix == ".png"


async def test_temp_files_come_over_view(client: ComfyClient, output_dir: Path, scratch: Path) -> None:
    """A temp file is never looked for in the output folder."""
    ref = _ref("a.png", "sub dir", "temp")
    over_view = await OutputReader(client, output_dir=output_dir).fetch(ref, scratch)
    assert over_view.path.read_bytes() == b"over view: temp"


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("secret", "../outside"),
        ("../outside/secret", ""),
        ("secret", "link"),
        ("link2", ""),
        ("a\x00b", ""),
        ("sub dir", ""),
    ],
)
async def test_nothing_outside_the_shared_folder_is_read(
    client: ComfyClient, output_dir: Path, scratch: Path, filename: str, subfolder: str
) -> None:
    """Paths that lead out, by dots or by links, are left to ComfyUI to refuse or hand out."""
    outside = output_dir.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (output_dir / "link").symlink_to(outside)
    (output_dir / "link2").symlink_to(outside / "secret")
    found = await OutputReader(client, output_dir=output_dir).fetch(_ref(filename, subfolder), scratch)
    assert found.path.read_bytes() == b"over view: output"


async def test_a_listed_file_that_is_nowhere_is_missing(client: ComfyClient, output_dir: Path, scratch: Path) -> None:
    """Neither the folder nor ComfyUI has it: a retryable failure that says the cure."""
    with pytest.raises(OutputMissing, match="deletes or moves"):
        await OutputReader(client, output_dir=output_dir).fetch(_ref("gone.png"), scratch)


async def test_a_missing_file_with_comfyui_down_is_unavailable(
    connect: Connect, output_dir: Path, scratch: Path
) -> None:
    """That ComfyUI cannot be asked is not held against the file."""
    with pytest.raises(ComfyUnavailable):
        await OutputReader(connect("http://127.0.0.1:9"), output_dir=output_dir).fetch(_ref("b.png"), scratch)


async def test_a_value_has_no_file(client: ComfyClient, scratch: Path) -> None:
    """Asking for one is a mistake of the caller."""
    with pytest.raises(ValueError, match="no file"):
        await OutputReader(client).fetch(OutputRef("1", None, "text", value="x"), scratch)


@pytest.mark.parametrize(
    ("filename", "subfolder", "goes"),
    [
        ("req-1_ComfyUI_00001_.png", "", True),
        ("req-1.png", "", True),
        ("req-1_00001_.png", "by day", True),
        ("x_00001_.png", "req-1", True),
        ("x_00001_.png", "req-1/deep/er", True),
        ("x_00001_.png", "req-1_more", True),
        ("x_00001_.png", "", False),
        ("req-12_00001_.png", "", False),
        ("req-1-2_00001_.png", "", False),
        ("my_req-1_00001_.png", "", False),
        ("x_00001_.png", "by day/req-1", False),
        ("x_00001_.png", "req-12", False),
    ],
)
async def test_only_files_that_carry_the_request_are_removed(
    client: ComfyClient, output_dir: Path, filename: str, subfolder: str, *, goes: bool
) -> None:
    """The id stands at the beginning of the name or of the first subfolder; a longer id is another request."""
    path = output_dir / subfolder / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    await OutputReader(client, output_dir=output_dir).remove([_ref(filename, subfolder)], "req-1")
    assert path.exists() is not goes
    assert (output_dir / "sub dir" / "a.png").exists()


async def test_empty_folders_of_the_request_go_with_its_last_file(client: ComfyClient, output_dir: Path) -> None:
    """A folder with something else in it stays, and so does every folder that is not the request's."""
    deep = output_dir / "req-1" / "deep"
    deep.mkdir(parents=True)
    (deep / "a.png").write_bytes(b"x")
    (deep / "b.png").write_bytes(b"x")
    reader = OutputReader(client, output_dir=output_dir)
    await reader.remove([_ref("a.png", "req-1/deep")], "req-1")
    assert deep.exists()
    await reader.remove([_ref("b.png", "req-1/deep")], "req-1")
    assert names(output_dir) == ["sub dir"]


@pytest.mark.parametrize(
    "ref",
    [
        _ref("req-1_a.png", folder="temp"),
        _ref("req-1_a.png", folder="input"),
        _ref("req-1_secret", "../outside"),
        _ref("secret", "req-1/../../outside"),
        _ref("secret", "req-1_link"),
        _ref("req-1_gone.png"),
        _ref("req-1_\x00.png"),
        _ref("req-1_folder"),
        _ref("req-2_a.png", "req-1_folder/.."),
        _ref("req-2_a.png", "req-1_here"),
        OutputRef("1", None, "text", value="req-1"),
    ],
)
async def test_nothing_else_is_removed_and_nothing_is_raised(
    client: ComfyClient, output_dir: Path, ref: OutputRef
) -> None:
    """Temp files, files outside, other requests' files, what is not there and what is no file are left alone."""
    outside = output_dir.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    (outside / "req-1_secret").write_bytes(b"x")
    (output_dir / "req-1_a.png").write_bytes(b"x")
    (output_dir / "req-1_folder").mkdir()
    (output_dir / "req-2_a.png").write_bytes(b"x")
    (output_dir / "req-1_link").symlink_to(outside)
    (output_dir / "req-1_here").symlink_to(output_dir)
    before = sorted(output_dir.parent.rglob("*"))
    await OutputReader(client, output_dir=output_dir).remove([ref], "req-1")
    assert sorted(output_dir.parent.rglob("*")) == before


async def test_without_a_shared_folder_nothing_is_removed(client: ComfyClient) -> None:
    """What lies on ComfyUI's machine stays there."""
    await OutputReader(client).remove([_ref("req-1_a.png")], "req-1")

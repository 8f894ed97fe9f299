"""Outputs of a complete event become files of one folder, whatever their names say."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.cli.outcome import CommandFailed
from app.cli.outputs import plain_name, save_outputs

pytestmark = pytest.mark.anyio


async def no_fetch(url: str, into: Path) -> None:
    """Nothing lies in the broker."""
    raise AssertionError(f"{url} must not be fetched")


async def fetch_bytes(url: str, into: Path) -> None:
    """The broker's store holds the URL itself."""
    await anyio.Path(into).write_bytes(url.encode())


def inline(*files: tuple[str, bytes]) -> dict[str, Any]:
    """Make an event with these files inline."""
    return {
        "images": [base64.b64encode(content).decode() for _, content in files],
        "filenames": [name for name, _ in files],
        "outputs": [
            {"image": index, "sha256": hashlib.sha256(content).hexdigest()} for index, (_, content) in enumerate(files)
        ],
    }


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_inline_images_become_files(tmp_path: Path) -> None:
    """The folder is made, each file gets its name and its bytes."""
    out = tmp_path / "a" / "b"
    saved = await save_outputs(inline(("x.png", b"1"), ("y.webp", b"2")), out, no_fetch)
    assert saved == [str(out / "x.png"), str(out / "y.webp")]
    assert [(out / "x.png").read_bytes(), (out / "y.webp").read_bytes()] == [b"1", b"2"]
    assert names(out) == ["x.png", "y.webp"]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\passwd",
        "C:\\passwd",
        "sub/folder/passwd",
        "passwd",
    ],
)
async def test_a_name_with_a_path_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    """Names come from elsewhere and are taken as plain names."""
    out = tmp_path / "out"
    await save_outputs(inline((name, b"1")), out, no_fetch)
    assert names(tmp_path) == ["out", "out/passwd"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "output-3"),
        (".", "output-3"),
        ("..", "output-3"),
        ("a/", "output-3"),
        ("a\0b.png", "a_b.png"),
        ("a\nb.png", "a_b.png"),
        ("con:aux?.png", "con_aux_.png"),
        (" a.png ", "a.png"),
        (".hidden", ".hidden"),
        ("ä 猫.png", "ä 猫.png"),
        ("x" * 300 + ".png", "x" * 180 + ".png"),
        ("x" * 300, "x" * 180 + "x" * 19),
    ],
)
async def test_odd_names_become_usable_ones(name: str, expected: str) -> None:
    """Nothing a file system or a terminal takes for more than a name is left, and it is not too long."""
    assert plain_name(name, 3) == expected


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Another file of the name stays; the same file again is not written twice."""
    (tmp_path / "x.png").write_bytes(b"precious")
    first = await save_outputs(inline(("x.png", b"1"), ("x.png", b"2")), tmp_path, no_fetch)
    again = await save_outputs(inline(("x.png", b"1"), ("x.png", b"2")), tmp_path, no_fetch)
    assert first == again == [str(tmp_path / "x-2.png"), str(tmp_path / "x-3.png")]
    assert (tmp_path / "x.png").read_bytes() == b"precious"
    assert names(tmp_path) == ["x-2.png", "x-3.png", "x.png"]


async def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """A dangling link with the name of an output does not lead the bytes elsewhere."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.png").symlink_to(tmp_path / "elsewhere")
    assert await save_outputs(inline(("x.png", b"1")), out, no_fetch) == [str(out / "x-2.png")]
    assert not (tmp_path / "elsewhere").exists()


async def test_objects_are_fetched_through_the_broker(tmp_path: Path) -> None:
    """A `nats://` URL goes to the client, which writes the file."""
    event = {"images": ["nats://b/r/x.png"], "filenames": ["x.png"]}
    assert await save_outputs(event, tmp_path, fetch_bytes) == [str(tmp_path / "x.png")]
    assert (tmp_path / "x.png").read_bytes() == b"nats://b/r/x.png"


async def test_files_of_a_shared_folder_are_copied(tmp_path: Path) -> None:
    """A `file://` URL is percent-encoded; one on another machine is given as it is."""
    source = tmp_path / "ä b.png"
    source.write_bytes(b"1")
    event = {"images": [source.as_uri(), "file:///no/such/y.png"], "filenames": ["x.png", "y.png"]}
    assert await save_outputs(event, tmp_path / "out", no_fetch) == [
        str(tmp_path / "out" / "x.png"),
        "file:///no/such/y.png",
    ]
    assert (tmp_path / "out" / "x.png").read_bytes() == b"1"


async def test_what_lies_in_the_callers_target_is_named_only(tmp_path: Path) -> None:
    """Only the caller has the rights for his own bucket."""
    event = {"images": ["s3://b/p/x.png"], "filenames": ["x.png"]}
    assert await save_outputs(event, tmp_path / "out", no_fetch) == ["s3://b/p/x.png"]


@pytest.mark.parametrize("image", ["not base64!", "YWJ", "ä"])
async def test_broken_base64_is_a_failure(tmp_path: Path, image: str) -> None:
    """Half a picture is not saved as one."""
    with pytest.raises(CommandFailed, match=r"x\.png"):
        await save_outputs({"images": [image], "filenames": ["x.png"]}, tmp_path, no_fetch)
    assert names(tmp_path) == []


async def test_a_file_that_differs_from_its_hash_is_a_failure(tmp_path: Path) -> None:
    """What arrived is not what the worker stored: nothing is left of it."""
    event = inline(("x.png", b"1"))
    event["images"] = [base64.b64encode(b"2").decode()]
    with pytest.raises(CommandFailed, match="SHA-256"):
        await save_outputs(event, tmp_path, no_fetch)
    assert names(tmp_path) == []


async def test_an_event_without_files_makes_no_folder(tmp_path: Path) -> None:
    """A prompt whose outputs are texts leaves nothing behind."""
    assert await save_outputs({"images": [], "filenames": [], "outputs": []}, tmp_path / "out", no_fetch) == []
    assert names(tmp_path) == []

"""What is no image, damaged, or too large passes unchanged, and nothing is left behind."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from image_files import bomb, converted, files_below, frames, gradient

import app.images.convert as convert_module
from app.errors import InvalidRequest
from app.images import Converter
from schemas.prompt import ConvertOutput

pytestmark = pytest.mark.anyio

JPEG = ConvertOutput(format="jpeg")


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"\x00\x00\x00\x20ftypmp42" + bytes(500), b"fLaC" + bytes(500), b"%!PS-Adobe-3.0\n", b"%PDF-1.4\n"],
)
async def test_no_image(tmp_path: Path, content: bytes, kind: str) -> None:
    """Videos, sound, texts and documents pass unchanged."""
    (tmp_path / "a.png").write_bytes(content)
    assert await converted(tmp_path / "a.png", kind) is None
    assert files_below(tmp_path) == {tmp_path / "a.png"}


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 10_000), (10_000, 9_500), (2**31 - 1, 1)])
async def test_bombs(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    """A huge canvas is never decoded."""
    (tmp_path / "a.png").write_bytes(bomb(*size))
    with anyio.fail_after(5):
        assert await converted(tmp_path / "a.png", kind) is None


async def test_too_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames together are bounded too."""
    first, *others = frames(10)
    first.save(tmp_path / "a.webp", save_all=True, append_images=others)
    monkeypatch.setattr(convert_module, "MAX_PIXELS_OF_ALL_FRAMES", 9 * first.width * first.height)
    assert await converted(tmp_path / "a.webp", "webp") is None


async def test_beyond_the_format(tmp_path: Path) -> None:
    """A side that the format cannot hold leaves the image as it is: 16,383 for WebP, 65,535 for JPEG."""
    gradient().resize((16_384, 2)).save(tmp_path / "a.png")
    gradient().resize((65_536, 2)).save(tmp_path / "b.png")
    assert await converted(tmp_path / "a.png", "webp") is None
    assert await converted(tmp_path / "a.png", "jpeg") is not None
    assert await converted(tmp_path / "b.png", "jpeg") is None
    assert len(files_below(tmp_path)) == 3


# Pillow also warns of what it reads over.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.tiff"])
async def test_damaged(tmp_path: Path, name: str) -> None:
    """A damaged image passes unchanged or is converted, and never raises or leaves half a file."""
    gradient().save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    chance = random.Random(name)
    for number in range(25):
        content = bytearray(whole[: chance.randrange(10, len(whole))] if number % 2 else whole)
        for _ in range(3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        made = await converted(folder / name, "webp" if number % 3 else "jpeg")
        assert files_below(folder) - {folder / name} == ({made} if made else set())


async def test_wrong_options(tmp_path: Path) -> None:
    """They are refused here too, should nobody have checked them before."""
    gradient().save(tmp_path / "a.png")
    with pytest.raises(InvalidRequest):
        await converted(tmp_path / "a.png", "webp", effort=99)


async def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """Trouble with the disk is not taken for a damaged image."""
    gradient().save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        await Converter().convert(tmp_path / "a.png", JPEG, tmp_path / "missing")
    (tmp_path / "a.jpeg").write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        await Converter().convert(tmp_path / "a.png", JPEG, tmp_path)
    assert (tmp_path / "a.jpeg").read_bytes() == b"somebody else's"


async def test_off_the_loop_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions run in threads, as many at a time as allowed, while the loop goes on."""
    gradient().save(tmp_path / "a.png")
    running, most, threads = 0, 0, set()
    barrier = threading.Barrier(2)
    real = convert_module._convert

    def watched(*arguments: Any) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        threads.add(threading.get_ident())
        barrier.wait(5)
        try:
            return real(*arguments)
        finally:
            running -= 1

    monkeypatch.setattr(convert_module, "_convert", watched)
    converter = Converter(parallel=2)
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            (tmp_path / str(number)).mkdir()
            tasks.start_soon(converter.convert, tmp_path / "a.png", JPEG, tmp_path / str(number))
    assert most == 2
    assert threading.get_ident() not in threads


async def test_a_cancellation_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that is cancelled ends its image and removes it."""
    gradient().save(tmp_path / "a.png")
    (tmp_path / "into").mkdir()
    begun, go_on = threading.Event(), threading.Event()
    real = convert_module._convert

    def held(*arguments: Any) -> bool:
        begun.set()
        assert go_on.wait(5)
        return real(*arguments)

    monkeypatch.setattr(convert_module, "_convert", held)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Converter().convert, tmp_path / "a.png", JPEG, tmp_path / "into")
        await anyio.to_thread.run_sync(begun.wait)
        tasks.cancel_scope.cancel()
        go_on.set()
    assert list((tmp_path / "into").iterdir()) == []

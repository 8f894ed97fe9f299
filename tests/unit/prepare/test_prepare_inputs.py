"""Prepared inputs on disk: named by content, whole or not there, kept while needed and a small while after."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import pytest
from prepare_doubles import png

from app.errors import InputUnavailable
from app.prepare.holds import Hold
from app.prepare.inputs import SharedInputs

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600.0


class Clock:
    """Seconds since 1970 that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Shelf:
    """An input folder, its inputs, and files to put."""

    def __init__(self, root: Path, limit_bytes: int = 1000) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self.clock = Clock()
        self.inputs = self.opened()

    def opened(self) -> SharedInputs:
        """As another start of the worker finds it."""
        return SharedInputs(self.root / "input", limit_bytes=self.limit_bytes, keep_s=DAY_S, now=self.clock)

    def file(self, content: bytes) -> Path:
        """A file with this content, somewhere else."""
        path = self.root / "source" / hashlib.sha256(content).hexdigest()
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
        return path

    async def put(self, content: bytes, hold: Hold, ending: str = ".png") -> str:
        """Put content; returns the value for a node."""
        return await self.inputs.put(self.file(content), ending, hold)

    def names(self) -> list[str]:
        """What is there, below the folder of prepared inputs."""
        root = self.root / "input" / "comfybus"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Room for 1,000 bytes that nobody needs."""
    return Shelf(tmp_path)


def name_of(content: bytes, ending: str = ".png") -> str:
    """The name that content gets."""
    return f"{hashlib.sha256(content).hexdigest()}{ending}"


async def test_named_by_content(shelf: Shelf) -> None:
    """Equal content has one name and one file, whoever puts it; other content another."""
    hold = Hold()
    async with shelf.inputs.hold(hold):
        first, again, other = [await shelf.put(content, hold) for content in (b"a", b"a", b"b")]
        assert first == again == f"comfybus/{name_of(b'a')}"
        assert other == f"comfybus/{name_of(b'b')}"
        assert shelf.names() == sorted([name_of(b"a"), name_of(b"b")])
        assert (shelf.root / "input" / first).read_bytes() == b"a"


async def test_the_time_of_a_file_stays(shelf: Shelf) -> None:
    """A second use leaves the modification time, by which video nodes tell whether to compute anew."""
    hold = Hold()
    async with shelf.inputs.hold(hold):
        path = shelf.root / "input" / await shelf.put(b"a", hold)
        before = path.stat().st_mtime_ns
        shelf.clock.now += 100
        await shelf.put(b"a", hold)
        assert path.stat().st_mtime_ns == before
        assert path.stat().st_atime == shelf.clock.now


async def test_needed_inputs_stay_beyond_the_bound(shelf: Shelf) -> None:
    """What any prompt in hand needs stays whatever its size and age; at the end of its last hold it goes."""
    first, second = Hold(), Hold()
    async with shelf.inputs.hold(first):
        await shelf.put(b"x" * 5000, first)
        async with shelf.inputs.hold(second):
            await shelf.put(b"x" * 5000, second)
            shelf.clock.now += 2 * DAY_S
            await shelf.inputs.sweep()
        assert len(shelf.names()) == 1
    assert shelf.names() == []


async def test_the_bound_on_size(shelf: Shelf) -> None:
    """Beyond the bound the longest unused go first."""
    for content in (b"a" * 400, b"b" * 400, b"a" * 400, b"c" * 400):
        shelf.clock.now += 1
        hold = Hold()
        async with shelf.inputs.hold(hold):
            await shelf.put(content, hold)
    assert shelf.names() == sorted([name_of(b"a" * 400), name_of(b"c" * 400)])


async def test_the_bound_on_age(shelf: Shelf) -> None:
    """What was not used for a day goes with the next sweep."""
    hold = Hold()
    async with shelf.inputs.hold(hold):
        await shelf.put(b"a", hold)
    shelf.clock.now += DAY_S - 1
    await shelf.inputs.sweep()
    assert len(shelf.names()) == 1
    shelf.clock.now += 2
    await shelf.inputs.sweep()
    assert shelf.names() == []


async def test_directories(shelf: Shelf) -> None:
    """A directory has its files in the order given, goes as a whole and takes its empty parent along."""
    hold = Hold()
    files = [(shelf.file(content), ending) for content, ending in ((b"2", ".png"), (b"1", ".jpg"))]
    async with shelf.inputs.hold(hold):
        value = await shelf.inputs.put_directory(files, "id-1", hold)
        again = await shelf.inputs.put_directory(files, "id-1", hold)
        other = await shelf.inputs.put_directory(files[::-1], "id-1", hold)
        assert value == again != other
        folder = shelf.root / "input" / value
        assert [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())] == [
            ("00000.png", b"2"),
            ("00001.jpg", b"1"),
        ]
        assert value.startswith("comfybus/id-1/")
    shelf.clock.now += 2 * DAY_S
    await shelf.inputs.sweep()
    assert shelf.names() == []


async def test_what_an_earlier_process_left(shelf: Shelf) -> None:
    """A new start counts what is there by its last use, reuses it, and removes old halves of files."""
    hold = Hold()
    async with shelf.inputs.hold(hold):
        await shelf.put(b"a" * 600, hold)
        await shelf.inputs.put_directory([(shelf.file(b"b" * 300), ".png")], "id", hold)
    root = shelf.root / "input" / "comfybus"
    (root / ".old.part").write_bytes(b"half")
    os.utime(root / ".old.part", (shelf.clock.now - DAY_S,) * 2)
    os.utime(root / name_of(b"a" * 600), (shelf.clock.now - 60,) * 2)
    shelf.inputs = shelf.opened()
    await shelf.inputs.sweep()
    assert ".old.part" not in shelf.names()
    assert len(shelf.names()) == 4
    async with shelf.inputs.hold(hold):
        await shelf.put(b"c" * 200, hold)
    assert name_of(b"a" * 600) not in shelf.names()
    assert name_of(b"c" * 200) in shelf.names()


async def test_a_file_that_somebody_removed(shelf: Shelf) -> None:
    """It is written again."""
    hold = Hold()
    async with shelf.inputs.hold(hold):
        value = await shelf.put(b"a", hold)
        (shelf.root / "input" / value).unlink()
        await shelf.put(b"a", hold)
        assert (shelf.root / "input" / value).read_bytes() == b"a"


async def test_many_at_once(shelf: Shelf) -> None:
    """Prompts that come and go side by side with the same content never lose it while they need it."""

    async def one(number: int) -> None:
        for turn in range(5):
            hold = Hold()
            async with shelf.inputs.hold(hold):
                content = bytes([(number + turn) % 3]) * 800
                value = await shelf.put(content, hold)
                await anyio.lowlevel.checkpoint()
                assert (shelf.root / "input" / value).read_bytes() == content

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(one, number)
    assert len(shelf.names()) <= 1


async def test_a_cancellation_leaves_no_half(shelf: Shelf) -> None:
    """Whenever a put is cancelled, there is a whole file or none, and no part."""
    for number in range(30):
        hold = Hold()
        with anyio.move_on_after(number * 0.0003):
            async with shelf.inputs.hold(hold):
                await shelf.put(bytes([number]) * 300_000, hold)
    shelf.clock.now += 2 * DAY_S
    assert not [name for name in shelf.names() if name.endswith(".part")]
    await shelf.inputs.sweep()
    assert shelf.names() == []


async def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    """Trouble with the disk is an input that is not to be had now."""
    (tmp_path / "input").write_bytes(b"a file in the place of the folder")
    shelf = Shelf(tmp_path)
    hold = Hold()
    with pytest.raises(InputUnavailable):
        async with shelf.inputs.hold(hold):
            await shelf.put(png(), hold)

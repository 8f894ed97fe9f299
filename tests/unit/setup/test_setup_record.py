"""The record of what is done: whole or not at all, and nobody's notes lost."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from app.setup.programs import SetupFailed
from app.setup.record import Record, environment_id

pytestmark = pytest.mark.anyio


async def test_notes_outlive_the_process(tmp_path: Path) -> None:
    """What was begun and what was done is known to the next one."""
    record = Record(tmp_path / "r")
    await record.begin("a", size=1)
    await record.begin("b")
    await record.finish("a", size=2)
    again = Record(tmp_path / "r")
    await again.load()
    assert (again.done("a"), again.begun("a")) == ({"size": 2}, None)
    assert (again.done("b"), again.begun("b")) == (None, {})


async def test_two_that_write_do_not_lose_each_others_notes(tmp_path: Path) -> None:
    """Every note is added to what is on disk by then."""
    one, other = Record(tmp_path), Record(tmp_path)

    async def note(record: Record, name: str) -> None:
        for number in range(20):
            await record.finish(f"{name}{number}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note, one, "a")
        tasks.start_soon(note, other, "b")
    assert len(json.loads((tmp_path / "setup.json").read_text())["done"]) == 40


@pytest.mark.parametrize("content", ["", "{", "[]", '{"done": {"a": 1}, "begun": {}}', '{"done": null}'])
async def test_a_damaged_record_is_an_empty_one(tmp_path: Path, content: str) -> None:
    """Everything is done again rather than nothing."""
    (tmp_path / "setup.json").write_text(content)
    record = Record(tmp_path)
    await record.load()
    assert record.done("a") is None
    await record.finish("a")
    await record.load()
    assert record.done("a") == {}


async def test_one_installs_at_a_time(tmp_path: Path) -> None:
    """The second waits, sees what the first has done, and gives up after its time."""
    one, other = Record(tmp_path), Record(tmp_path)
    seen = []

    async def second() -> None:
        async with other.alone(20):
            seen.append(other.done("a"))

    async with anyio.create_task_group() as tasks, one.alone(1):
        with pytest.raises(SetupFailed, match="another process has installed for 0 s"):
            async with Record(tmp_path).alone(0):
                pass
        tasks.start_soon(second)
        await one.finish("a", x=1)
    assert seen == [{"x": 1}]


async def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """The failure says where and why."""
    (tmp_path / "file").touch()
    with pytest.raises(SetupFailed, match=r"cannot be kept in .*/file/r \(Not a directory\)"):
        await Record(tmp_path / "file" / "r").load()


def test_the_mark_of_a_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It changes with the container's own layer, the host name and the Python, and with nothing else."""
    mounts = tmp_path / "mountinfo"
    line = "1 0 0:1 / {at} rw - overlay overlay rw,lowerdir=/l,upperdir=/{upper},workdir=/w\n"
    monkeypatch.setattr("app.setup.record._MOUNTS", mounts)

    def mark(upper: str, python: str = "") -> str:
        mounts.write_text(line.format(at="/data", upper="other") + line.format(at="/", upper=upper))
        return environment_id(python)

    first = mark("a")
    assert first == mark("a")
    assert len({first, mark("b"), mark("a", "/opt/python")}) == 3
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert mark("a") != first
    mounts.unlink()
    assert environment_id("")

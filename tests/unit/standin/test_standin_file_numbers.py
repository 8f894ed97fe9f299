"""How saved files get their numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.comfy.standin.file_names import FileNumbers


def _touch(folder: Path, *names: str) -> None:
    """Create files so that the folder's time of change differs from any before."""
    before = folder.stat().st_mtime_ns
    for name in names:
        (folder / name).touch()
    os.utime(folder, ns=(before + 10_000_000, before + 10_000_000))


def test_the_next_number_is_one_above_the_highest(tmp_path: Path) -> None:
    """Gaps are not filled, and other prefixes do not count."""
    _touch(tmp_path, "a_00001_.png", "a_00007_.png", "b_00020_.png", "a_x.png")
    place = FileNumbers().place("a", tmp_path)
    assert (place.folder, place.stem, place.counter, place.subfolder) == (tmp_path, "a", 8, "")


@pytest.mark.parametrize(("prefix", "counter"), [("a", 8), ("a_7", 4), ("a_7_00003", 1), ("c", 1)])
def test_every_underscore_can_end_a_prefix(prefix: str, counter: int, tmp_path: Path) -> None:
    """A name with several numbers counts for each prefix that it may belong to."""
    _touch(tmp_path, "a_7_00003_.png")
    assert FileNumbers().place(prefix, tmp_path).counter == counter


def test_written_files_count_without_a_new_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nobody else touches the folder it is listed once."""
    numbers = FileNumbers()
    listings = []
    real = os.listdir

    def counted(folder: Path) -> list[str]:
        listings.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "listdir", counted)
    for expected in range(1, 6):
        place = numbers.place("p", tmp_path)
        assert place.counter == expected
        name = f"p_{place.counter:05}_.png"
        (tmp_path / name).touch()
        numbers.written(place, [name])
    assert len(listings) == 1


def test_changes_by_others_are_seen(tmp_path: Path) -> None:
    """Files that appear or vanish change the next number, down to 1 for an emptied folder, as in ComfyUI."""
    numbers = FileNumbers()
    place = numbers.place("p", tmp_path)
    (tmp_path / "p_00001_.png").touch()
    numbers.written(place, ["p_00001_.png"])
    _touch(tmp_path, "p_00041_.png")
    assert numbers.place("p", tmp_path).counter == 42
    for file in tmp_path.iterdir():
        file.unlink()
    _touch(tmp_path)
    assert numbers.place("p", tmp_path).counter == 1


def test_sub_folders_are_made_and_words_filled_in(tmp_path: Path) -> None:
    """A prefix may name a folder, and the size of the picture."""
    place = FileNumbers().place("one/two/%width%x%height%", tmp_path, 64, 32)
    assert (place.folder, place.stem, place.subfolder) == (tmp_path / "one" / "two", "64x32", "one/two")
    assert place.folder.is_dir()


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/abs/x"])
def test_a_prefix_must_not_lead_out(prefix: str, tmp_path: Path) -> None:
    """Leaving the folder is refused and nothing is created."""
    base = tmp_path / "output"
    base.mkdir()
    with pytest.raises(RuntimeError, match="outside the output folder"):
        FileNumbers().place(prefix, base)
    assert list(tmp_path.iterdir()) == [base]

"""A download on disk whose source does not say how much will come."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from app.storage.faults import Fault
from app.storage.partial import STATE, PartialFile, Source

MIB = 1024 * 1024


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` tells."""

    total: int
    used: int
    free: int


def test_it_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends while there is room for everything else that lives there."""
    path = tmp_path / "part"
    file = PartialFile(path, 1024**4)
    file.start(None, {})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 200 * MIB - path.stat().st_size))
    with pytest.raises(Fault, match="no room"):
        for _ in range(1000):
            file.write(bytes(MIB))
    file.close()
    assert path.stat().st_size < 140 * MIB


def test_what_cannot_be_continued_is_removed(tmp_path: Path) -> None:
    """The rest of it would take room for nothing; what can be continued stays."""
    useless, useful = PartialFile(tmp_path / "a", MIB), PartialFile(tmp_path / "b", MIB)
    useless.start(None, {})
    useful.start(Source('"etag"', 1000), {})
    for file in (useless, useful):
        file.write(b"some")
        file.discard_if_useless()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", f"b{STATE}"]

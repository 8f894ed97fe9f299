"""Memory does not grow with the file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage.config import StorageConfig
from tests.support.services.places import Place
from tests.support.services.process import need

MIB = 1024 * 1024
MOST_BYTES = 64 * MIB
# NATS has its own test with the broker's: its objects belong to a connection that cannot move to a process.
QUICK = ("http", "s3")
OTHERS = [pytest.param(name, marks=pytest.mark.full) for name in ("azure", "hf-lfs", "hf-xet", "file")]


def random_file(path: Path, size: int) -> Path:
    """A file of random bytes: nothing in it can be left out by a store that knows its blocks."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path


def check(place: Place, tmp_path: Path, size: int) -> None:
    need(Path("/proc/self/clear_refs").exists(), "no /proc/self/clear_refs: memory cannot be measured here")
    access = place.access()
    config = StorageConfig(cache_dir=tmp_path / "cache", **access.settings)
    warm_up = random_file(tmp_path / "warm-up", place.part_bytes)
    job = (config, warm_up, random_file(tmp_path / "large", size), [place.url("warm.bin"), place.url("large.bin")])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.services.measure"],
            input=pickle.dumps(job),
            capture_output=True,
            check=False,
        )
    finally:
        # Folders of tests are kept for a while; gigabytes are not.
        (tmp_path / "large").unlink()
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    grown = json.loads(done.stdout.splitlines()[-1])
    print(place.name, {name: f"{value / MIB:.1f} MiB" for name, value in grown.items()})
    assert grown["size"] == size
    assert grown["out"] < MOST_BYTES, grown
    assert grown["in"] < MOST_BYTES, grown


@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", [*QUICK, *OTHERS], indirect=True)
def test_256_mib(place: Place, tmp_path: Path) -> None:
    """256 MiB out and in again let the process grow by less than 64 MiB."""
    check(place, tmp_path, 256 * MIB)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", ["http", "s3", "azure", "file"], indirect=True)
def test_4_gib(place: Place, tmp_path: Path) -> None:
    """4 GiB out and in again let the process grow by less than 64 MiB."""
    check(place, tmp_path, 4096 * MIB)

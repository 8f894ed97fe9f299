"""Models of the manifest: where they should be, with the content they should have, and not twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.setup.config import SetupConfig
from app.setup.installation import Installation, installation
from app.setup.manifest import Manifest
from app.setup.manifest_file import parse_manifest
from app.setup.programs import SetupFailed
from app.storage.config import StorageConfig
from app.storage.stores import StorageTransfer
from tests.integration.setup.sources import Machine, Sources

pytestmark = pytest.mark.anyio


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Models:
    """One ComfyUI whose manifest has models only."""

    def __init__(self, home: Path, cache: Path, machine: Machine, sources: Sources) -> None:
        self.home = home
        self.cache = cache
        self.machine = machine
        self.sources = sources
        self.heard: list[StorageTransfer] = []
        self.limit_bytes = 0
        self.model_dir: Path | None = None

    def item(self, name: str, path: str, content: bytes | None = None) -> dict[str, Any]:
        checked = {"sha256": sha(content).upper()} if content is not None else {}
        return {"url": f"{self.sources.url}/files/{name}", "local_path": path, **checked}

    @asynccontextmanager
    async def started(self, **models: list[dict[str, Any]]) -> AsyncIterator[Installation]:
        """A start of the worker with this manifest."""
        manifest: Manifest = parse_manifest(json.dumps({"models": models}), json_only=True)
        storage = StorageConfig(self.cache, cache_limit_bytes=self.limit_bytes)
        config = SetupConfig(manifest, storage, self.machine.environment(), self.home, self.model_dir)
        async with installation(config, self.heard.append) as setup:
            yield setup

    async def before_start(self, *items: dict[str, Any]) -> None:
        async with self.started(before_start=list(items)) as setup:
            await setup.before_start()

    def read(self, path: str) -> bytes:
        return (self.home / "models" / path).read_bytes()


@pytest.fixture
def models(home: Path, tmp_path: Path, machine: Machine, sources: Sources) -> Models:
    return Models(home, tmp_path / "cache", machine, sources)


async def test_models_are_there_before_comfyui_starts(models: Models) -> None:
    """Relative and absolute places, folders made; the host on loopback may be reached, for the operator named it."""
    models.sources.files |= {"a.bin": b"model a", "b": b"model b" * 1000}
    wanted = [
        models.item("a.bin", "models/checkpoints/a.safetensors", b"model a"),
        models.item("b", str(models.home / "models/loras/deep/b.safetensors")),
    ]
    await models.before_start(*wanted)
    assert models.read("checkpoints/a.safetensors") == b"model a"
    assert models.read("loras/deep/b.safetensors") == b"model b" * 1000
    assert [transfer.event for transfer in models.heard if transfer.event != "hit"] == ["downloaded", "downloaded"]
    models.heard.clear()
    await models.before_start(*wanted)
    assert set(models.sources.asked.values()) == {1}
    assert models.heard == []


async def test_a_model_that_vanished_comes_back_from_the_cache(models: Models) -> None:
    """The record alone is not believed: a file that is gone is put there again, without a download."""
    models.sources.files["a"] = b"model a"
    item = models.item("a", "models/vae/a.pt")
    await models.before_start(item)
    (models.home / "models/vae/a.pt").unlink()
    await models.before_start(item)
    assert models.read("vae/a.pt") == b"model a"
    assert models.sources.asked["/files/a"] == 1


async def test_a_wrong_digest_stops_the_start(models: Models) -> None:
    """Nothing of wrong content appears; the sentence has both digests, and never the signature of the URL."""
    models.sources.files["a"] = b"something else"
    item = models.item("a", "models/vae/a.pt", b"model a")
    item["url"] += "?X-Amz-Signature=0123456789abcdef"
    with pytest.raises(SetupFailed, match=f"{sha(b'something else')}, not {sha(b'model a')}") as failed:
        await models.before_start(item)
    assert "0123456789abcdef" not in str(failed.value)
    assert list((models.home / "models/vae").iterdir()) == []


async def test_content_that_changed_behind_a_url_is_fetched_anew(models: Models) -> None:
    """A new digest in the manifest wins over what the cache has for the URL."""
    models.sources.files["a"] = b"version 1"
    await models.before_start(models.item("a", "models/vae/a.pt", b"version 1"))
    models.sources.files["a"] = b"version 2"
    await models.before_start(models.item("a", "models/vae/a.pt", b"version 2"))
    assert models.read("vae/a.pt") == b"version 2"
    assert [path.name for path in (models.home / "models/vae").iterdir()] == ["a.pt"]


async def test_another_url_takes_the_place_of_our_own_file_only(models: Models) -> None:
    """What the set-up put there follows the manifest; what somebody else put there stays, and is checked if asked."""
    models.sources.files |= {"a": b"model a", "b": b"model b"}
    await models.before_start(models.item("a", "models/vae/x.pt"))
    await models.before_start(models.item("b", "models/vae/x.pt"))
    assert models.read("vae/x.pt") == b"model b"
    theirs = models.home / "models/vae/theirs.pt"
    theirs.write_bytes(b"by hand")
    for _ in range(2):
        with capture_logs() as logs:
            await models.before_start(models.item("a", "models/vae/theirs.pt"))
    assert "left as it is" not in str(logs)
    await models.before_start(models.item("b", "models/vae/theirs.pt"))
    await models.before_start(models.item("a", "models/vae/theirs.pt", b"by hand"))
    with pytest.raises(SetupFailed, match=r"theirs.pt exists with SHA-256 .*remove it"):
        await models.before_start(models.item("a", "models/vae/theirs.pt", b"model a"))
    assert theirs.read_bytes() == b"by hand"
    (models.home / "models/vae/folder").mkdir()
    with pytest.raises(SetupFailed, match="is no file"):
        await models.before_start(models.item("a", "models/vae/folder"))


@pytest.mark.parametrize("path", ["../out.pt", "models/../../out.pt", "/etc/out.pt", "models/x/../../../out.pt"])
async def test_paths_outside_comfyuis_folder_are_refused(models: Models, path: str) -> None:
    """Before anything is installed; MODEL_DIR is a folder of ComfyUI too."""
    models.sources.files["a"] = b"model a"
    with pytest.raises(SetupFailed, match="leads out of"):
        await models.before_start(models.item("a", path))
    assert models.sources.asked == {}
    models.model_dir = models.home.parent / "elsewhere"
    await models.before_start(models.item("a", str(models.model_dir / "vae" / "a.pt")))
    assert (models.model_dir / "vae" / "a.pt").read_bytes() == b"model a"


async def test_a_link_to_another_disk_is_followed(models: Models, tmp_path: Path) -> None:
    """``models`` may be a link that the operator made; what is behind it is still ComfyUI's."""
    (models.home / "models").rmdir()
    (tmp_path / "disk").mkdir()
    (models.home / "models").symlink_to(tmp_path / "disk")
    models.sources.files["a"] = b"model a"
    await models.before_start(models.item("a", "models/vae/a.pt"))
    assert (tmp_path / "disk/vae/a.pt").read_bytes() == b"model a"


async def test_one_failure_stops_the_start_and_what_came_stays(models: Models) -> None:
    """The failure names file and reason; the next start fetches only what is missing."""
    models.sources.files["a"] = b"model a"
    items = [models.item("a", "models/vae/a.pt"), models.item("gone", "models/vae/b.pt")]
    with pytest.raises(SetupFailed, match=r"model .*/models/vae/b.pt: .*/files/gone cannot be fetched: .*404"):
        await models.before_start(*items)
    models.sources.files["gone"] = b"model b"
    await models.before_start(*items)
    assert (models.read("vae/a.pt"), models.read("vae/b.pt")) == (b"model a", b"model b")


async def test_a_failure_after_the_start_is_told_and_harms_nothing(models: Models) -> None:
    """Each failing model is exactly one download_failed transfer, whatever the reason; the others still come."""
    models.sources.files |= {"a": b"model a", "c": b"model c"}
    (models.home / "models/vae").mkdir()
    (models.home / "models/vae/taken.pt").write_bytes(b"by hand")
    async with models.started(
        after_start=[
            models.item("gone", "models/vae/gone.pt"),
            models.item("a", "models/vae/taken.pt", b"model a"),
            models.item("c", "models/vae/bad.pt", b"not c"),
            models.item("c", "models/vae/c.pt"),
        ]
    ) as setup:
        await setup.before_start()
        assert models.sources.asked == {}
        await setup.after_start()
    failed = [transfer for transfer in models.heard if transfer.event == "download_failed"]
    assert [Path(transfer.url).name for transfer in failed] == ["gone", "a", "c"]
    assert {transfer.code for transfer in failed} == {"input_unavailable"}
    assert all(transfer.error and transfer.request_id is None for transfer in failed)
    assert models.read("vae/c.pt") == b"model c"


async def test_models_of_the_manifest_are_not_evicted(models: Models) -> None:
    """They stay in the cache while the worker lives, also after a start that had nothing to fetch."""
    models.sources.files |= {"a": b"a" * 3000, "b": b"b" * 3000}
    models.limit_bytes = 4000
    item = models.item("a", "models/vae/a.pt")
    await models.before_start(item)
    async with models.started(before_start=[item], after_start=[models.item("b", "models/vae/b.pt")]) as setup:
        await setup.before_start()
        await setup.after_start()
        assert models.read("vae/a.pt") == b"a" * 3000
        assert models.read("vae/b.pt") == b"b" * 3000
    assert models.sources.asked == {"/files/a": 1, "/files/b": 1}

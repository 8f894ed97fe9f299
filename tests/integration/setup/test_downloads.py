"""``model.download``: into ComfyUI's folder, and one storage event for each command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from app.comfy.client import ComfyClient
from app.prepare.catalogue import Catalogue
from app.storage.config import StorageConfig
from app.storage.stores import Hold, StorageTransfer, Stores
from app.worker.downloads import Downloads, ModelPlaces
from schemas.control import ModelDownload
from tests.integration.setup.sources import Sources
from tests.support.processes import StandIn, free_port

pytestmark = pytest.mark.anyio


class Fleet:
    """One worker's part of it."""

    def __init__(self, comfy: StandIn, cache: Path, sources: Sources) -> None:
        self.comfy = comfy
        self.sources = sources
        self.answers: list[StorageTransfer] = []
        self.changes = 0
        self.downloads = Downloads(self.answers.append, self._changed)
        config = StorageConfig(cache, allowed_private_hosts=("127.0.0.1",))
        self.stores = Stores(config, on_transfer=self.downloads.heard)
        self.shared = True

    def _changed(self) -> None:
        self.changes += 1

    async def download(self, name: str, **fields: Any) -> StorageTransfer:
        """Send a command and wait for its answer."""
        before = len(self.answers)
        await self.downloads.take(
            ModelDownload.model_validate({"model_type": "checkpoints", "url": f"{self.sources.url}/{name}", **fields})
        )
        await until(lambda: len(self.answers) > before)
        return self.answers[-1]

    def model(self, path: str) -> bytes:
        return (self.comfy.home / "models" / path).read_bytes()


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not met():
            await anyio.sleep(0.01)


@pytest.fixture(scope="module")
async def comfy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("comfy") / "home", free_port())
    await standin.start()
    yield standin
    await standin.kill()


@pytest.fixture
async def fleet(comfy: StandIn, tmp_path: Path, sources: Sources) -> AsyncIterator[Fleet]:
    fleet = Fleet(comfy, tmp_path / "cache", sources)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        await stack.enter_async_context(fleet.stores.open())
        places = ModelPlaces(Catalogue(ComfyClient(comfy.url, session)), fleet.shared, None)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(fleet.downloads.run, fleet.stores.fetch, places)
        yield fleet
        tasks.cancel_scope.cancel()


async def test_a_model_goes_into_the_folder_of_its_type(fleet: Fleet) -> None:
    """One event with the command's id, the model's place, size and time; ComfyUI's list is asked anew."""
    fleet.sources.files["base.safetensors"] = b"weights"
    answer = await fleet.download("files/base.safetensors", id="cmd-1")
    assert fleet.model("checkpoints/base.safetensors") == b"weights"
    place = str(fleet.comfy.home / "models" / "checkpoints" / "base.safetensors")
    assert (answer.event, answer.request_id, answer.local_path, answer.size_bytes) == ("downloaded", "cmd-1", place, 7)
    assert answer.duration_s is not None
    assert answer.backend == "http"
    assert fleet.changes == 1
    # Again, under another name: from the cache, and answered all the same.
    answer = await fleet.download("files/base.safetensors", filename="other.ckpt", model_type="loras")
    assert (answer.event, answer.request_id) == ("downloaded", None)
    assert fleet.model("loras/other.ckpt") == b"weights"
    assert len(fleet.answers) == 2
    assert fleet.sources.asked["/files/base.safetensors"] == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "custom_nodes"}, "Unknown model type 'custom_nodes'; ComfyUI has"),
        ({"model_type": "configs"}, "Unknown model type 'configs'"),
        ({"model_type": "../checkpoints"}, "Unknown model type '../checkpoints'"),
        ({"filename": "../evil.safetensors"}, "cannot be used"),
        ({"filename": "a/b.safetensors"}, "cannot be used"),
        ({"filename": "..\\b.safetensors"}, "cannot be used"),
        ({"filename": ".hidden.safetensors"}, "cannot be used"),
        ({"filename": "evil.py"}, "cannot be used"),
        ({"filename": "evil.yaml"}, "cannot be used"),
        ({"filename": "noending"}, "cannot be used"),
        ({"url": "http://169.254.169.254/x.safetensors"}, "ALLOWED_PRIVATE_HOSTS"),
        ({"url": "ftp://host.example/x.safetensors"}, "no backend takes URLs of this kind"),
    ],
)
async def test_what_must_not_be_is_refused(fleet: Fleet, fields: dict[str, str], words: str) -> None:
    """Types, names and addresses that lead elsewhere: one download_failed each, and no file."""
    fleet.sources.files["x.safetensors"] = b"weights"
    answer = await fleet.download("files/x.safetensors", id="cmd-2", **fields)
    assert (answer.event, answer.code, answer.request_id) == ("download_failed", "input_unavailable", "cmd-2")
    assert words in (answer.error or "")
    assert len(fleet.answers) == 1
    assert not list(fleet.comfy.home.rglob("*evil*"))


async def test_a_download_that_fails_is_answered_once(fleet: Fleet) -> None:
    """A missing file, and a name that another file has; no secret of the command is in the answer."""
    answer = await fleet.download("files/gone.safetensors?token=secret-token-1", id="cmd-3")
    assert (answer.event, answer.backend) == ("download_failed", "http")
    assert "404" in (answer.error or "")
    assert "secret-token-1" not in repr(answer)
    fleet.sources.files |= {"a/taken.pt": b"a", "b/taken.pt": b"b"}
    await fleet.download("files/a/taken.pt")
    auth = {"type": "bearer", "token": "secret-token-2"}
    answer = await fleet.download("files/b/taken.pt", auth=auth)
    assert answer.event == "download_failed"
    assert "is another file" in (answer.error or "")
    assert fleet.model("checkpoints/taken.pt") == b"a"
    assert len(fleet.answers) == 3
    assert "secret-token-2" not in repr(fleet.answers)


async def test_without_shared_folders_it_fails_with_the_cure(comfy: StandIn, tmp_path: Path, sources: Sources) -> None:
    """A remote ComfyUI's models cannot be brought there."""
    fleet = Fleet(comfy, tmp_path / "cache", sources)
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        places = ModelPlaces(Catalogue(ComfyClient(comfy.url, session)), shared=False, model_dir=None)
        tasks.start_soon(fleet.downloads.run, fleet.stores.fetch, places)
        answer = await fleet.download("files/x.safetensors")
        tasks.cancel_scope.cancel()
    assert "set COMFY_HOME" in (answer.error or "")


async def test_other_transfers_pass_and_the_channel_is_never_held_up(fleet: Fleet, sources: Sources) -> None:
    """What prompts fetch is told as ever; a hundred commands wait, more are answered at once."""
    fleet.sources.files["p.png"] = b"picture"
    with Hold("prompt-1") as hold:
        await fleet.stores.fetch(f"{sources.url}/files/p.png", in_use=hold)
    assert [(answer.event, answer.request_id) for answer in fleet.answers] == [("downloaded", "prompt-1")]
    lonely = Downloads(fleet.answers.append)
    command = ModelDownload(url=f"{sources.url}/files/x.pt", model_type="loras", id="late")
    with anyio.fail_after(5):
        for _ in range(101):
            await lonely.take(command)
    assert [answer.request_id for answer in fleet.answers[1:]] == ["late"]
    assert "wait already" in (fleet.answers[-1].error or "")

"""Models that are directories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prepare_doubles import Source, World, node

from app.errors import InputRefused, InputUnavailable
from app.prepare.git_clone import GitClone
from app.prepare.prepare import Folders, Preparer
from app.prepare.repositories import Repositories
from app.storage.stores import Hold
from schemas.credentials import Credential

pytestmark = pytest.mark.anyio

HUB = "https://huggingface.co"
LISTED = [
    "model_index.json",
    "README.md",
    "sd-v1.ckpt",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/pytorch_model.bin",
    "safety_checker/model.safetensors",
]


class Hub:
    """A Hub with one repository."""

    def __init__(self, source: Source, files: Sequence[str], repo: str = "org/sd", revision: str = "main") -> None:
        self.source = source
        self.listings: dict[str, Any] = {
            f"{HUB}/api/models/{repo}/revision/{revision}": {"siblings": [{"rfilename": name} for name in files]}
        }
        for name in files:
            source.content[f"{HUB}/{repo}/resolve/{revision}/{name}"] = name.encode()

    async def read(self, url: str, credentials: Sequence[Credential] | None = None, *, limit_bytes: int) -> bytes:
        if url not in self.listings:
            raise InputRefused(f"{url} cannot be fetched: HTTP 404.")
        return json.dumps(self.listings[url]).encode()


async def nowhere(url: str) -> None:
    """No host may be reached."""
    raise AssertionError(url)


def repositories(hub: Hub) -> Repositories:
    """Repositories of the Hub alone."""
    return Repositories(hub.source, hub.read, GitClone(nowhere, limit_bytes=0))


@pytest.mark.parametrize(
    "url",
    [
        f"{HUB}/org/sd",
        f"{HUB}/org/sd/",
        f"{HUB}/org/sd/tree/main",
        f"{HUB}/org/sd?x=y",
        "hf://org/sd",
        "hf://org/sd@main",
        "HTTPS://huggingface.co/org/sd",
    ],
)
async def test_from_the_hub(world: World, url: str) -> None:
    """Of a repository come exactly the files that ComfyUI's loader opens, the index last."""
    hub = Hub(world.source, LISTED)
    name = await repositories(hub)(url, (), folder=world.root / "diffusers", in_use=Hold())
    root = world.root / "diffusers" / name
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    wanted = [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "model_index.json",
    ]
    assert found == {path: path for path in wanted}
    assert world.source.asked[-1].endswith("model_index.json")
    assert name == await repositories(hub)(f"{HUB}/org/sd", (), folder=world.root / "diffusers", in_use=Hold())
    assert name.startswith("sd-")


async def test_a_revision(world: World) -> None:
    """A branch, tag or commit is fetched under a name of its own."""
    hub = Hub(world.source, LISTED, revision="v2")
    first = await repositories(hub)(f"{HUB}/org/sd/tree/v2", (), folder=world.root / "d", in_use=Hold())
    hub = Hub(world.source, LISTED)
    second = await repositories(hub)(f"{HUB}/org/sd", (), folder=world.root / "d", in_use=Hold())
    assert first != second


@pytest.mark.parametrize("missing", ["model_index.json", "unet", "vae", "text_encoder"])
async def test_no_diffusers_model(world: World, missing: str) -> None:
    """A repository that lacks a part is refused before anything large is fetched."""
    hub = Hub(world.source, [name for name in LISTED if not name.startswith(missing)])
    with pytest.raises(InputRefused, match=missing.split("_", maxsplit=1)[0]):
        await repositories(hub)(f"{HUB}/org/sd", (), folder=world.root / "d", in_use=Hold())
    assert world.source.asked == []


@pytest.mark.parametrize("listing", [5, {}, {"siblings": 5}, {"siblings": [{}]}, None])
async def test_an_odd_hub(world: World, listing: Any) -> None:
    """What is no description of a repository may be one later."""
    hub = Hub(world.source, LISTED)
    hub.listings = dict.fromkeys(hub.listings, listing)
    with pytest.raises(InputUnavailable):
        await repositories(hub)(f"{HUB}/org/sd", (), folder=world.root / "d", in_use=Hold())


async def test_the_loader(world: World, tmp_path: Path) -> None:
    """DiffusersLoader gets the name of the directory in ComfyUI's folder."""
    hub = Hub(world.source, LISTED)
    folders = Folders(world.input)
    world.preparer = Preparer(world.comfy, world.source, folders, world.config, repositories(hub))
    ready = await world.prepare(node("DiffusersLoader", model_path=f"{HUB}/org/sd"))
    name = ready["1"]["inputs"]["model_path"]
    assert (world.comfy.root / "diffusers" / name / "model_index.json").exists()


async def test_a_worker_without_repositories(world: World) -> None:
    """It says so."""
    with pytest.raises(InputRefused, match="does not fetch repositories") as caught:
        await world.prepare(node("DiffusersLoader", model_path=f"{HUB}/org/sd"))
    assert caught.value.location == "prompt.1.inputs.model_path"

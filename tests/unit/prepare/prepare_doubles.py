"""A ComfyUI's answers, a source of URLs, and content of every kind, for the tests of preparation."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from PIL import Image

from app.errors import InputRefused
from app.prepare.prepare import Folders, PrepareConfig, Preparer
from app.storage.stores import Fetched, Hold
from brokers.base import RequestKey
from schemas.credentials import Credential
from schemas.prompt import PromptRequest, parse_request

Graph = dict[str, Any]
RECORDED = json.loads((Path(__file__).parent / "recorded_object_info.json").read_text())
"""What real ComfyUI servers say of the node classes of the table, by version; each model folder has one probe file."""

FOLDERS = (
    *("checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models"),
    *("diffusers", "controlnet", "gligen", "upscale_models", "latent_upscale_models", "hypernetworks", "photomaker"),
    *("model_patches", "audio_encoders", "background_removal", "frame_interpolation", "optical_flow", "detection"),
    *("geometry_estimation", "unet_gguf", "clip_gguf", "ipadapter", "instantid", "pulid", "animatediff_models"),
)


def png(color: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG of one colour."""
    return picture("PNG", color, size)


def picture(kind: str, color: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture in a format of Pillow."""
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind)
    return out.getvalue()


# The first bytes are what tells; each is that of a file made by FFmpeg's muxer of the kind.
MP4 = bytes.fromhex("00000020667479706d703432000000006d70343269736f6d") + bytes(64)
WEBM = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878102428581") + bytes(64)
WAV = b"RIFF\x24\x08\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00" + bytes(64)
FLAC = b"fLaC\x00\x00\x00\x22\x10\x00\x10\x00" + bytes(64)
MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE" + bytes(64)
LATENT = (8).to_bytes(8, "little") + b"{}      " + bytes(64)


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    """A tar file of these members; ``w:gz`` and the like compress it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def b64(content: bytes) -> str:
    """Bare base64."""
    return base64.b64encode(content).decode()


class Source:
    """What lies behind URLs: content, or an error to raise. Keeps count; fetches through a folder like the cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.content: dict[str, bytes | Exception] = {}
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.credentials: list[Credential] = []
        self.at_once = 0
        self.most_at_once = 0
        self.gate: Callable[[str], anyio.Event | None] = lambda _: None

    async def __call__(
        self,
        url: str,
        credentials: Sequence[Credential] | None = None,
        *,
        folder: Path | None = None,
        filename: str | None = None,
        in_use: Hold,
    ) -> Fetched:
        self.asked.append(url)
        self.credentials += credentials or ()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if (gate := self.gate(url)) is not None:
                await gate.wait()
            content = self.content.get(url, InputRefused(f"{url} cannot be fetched: HTTP 404."))
            if isinstance(content, Exception):
                raise content
        finally:
            self.at_once -= 1
        path = self._linked(url, content, folder, filename)
        return Fetched(path, len(content), hashlib.sha256(content).hexdigest(), self.names.get(url), None)

    def _linked(self, url: str, content: bytes, folder: Path | None, filename: str | None) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        cached = self.cache / hashlib.sha256(url.encode()).hexdigest()[:32]
        if not cached.exists() or cached.read_bytes() != content:
            cached.unlink(missing_ok=True)
            cached.write_bytes(content)
        if folder is None:
            return cached
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (filename or cached.name)
        path.unlink(missing_ok=True)
        os.link(cached, path)
        return path


class PlayedComfy:
    """A ComfyUI that has every model folder below ``models`` and says what a real one said of its nodes."""

    def __init__(self, models: Path, version: str = "0.33.0") -> None:
        self.root = models
        self.info: dict[str, Any] = json.loads(json.dumps(RECORDED[version]))
        self.files: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
        self.asked: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.paths = {folder: [str(models / folder)] for folder in FOLDERS}
        for folder in FOLDERS:
            (models / folder).mkdir(parents=True, exist_ok=True)

    async def object_info(self) -> dict[str, Any]:
        self.asked.append("object_info")
        return self.info

    async def models(self) -> dict[str, list[str]]:
        self.asked.append("models")
        return self.files

    async def model_folders(self) -> dict[str, list[str]]:
        self.asked.append("model_folders")
        return self.paths

    async def upload(self, path: Path, *, subfolder: str, filename: str, overwrite: bool) -> str:
        self.asked.append(f"upload {subfolder}/{filename}")
        self.uploads[f"{subfolder}/{filename}"] = await anyio.Path(path).read_bytes()
        return f"{subfolder}/{filename}"


class World:
    """Everything around one preparer, in one folder."""

    def __init__(self, root: Path, *, shared: bool = True, version: str = "0.33.0", **config: Any) -> None:
        self.root = root
        self.input = root / "input"
        self.input.mkdir()
        self.work = root / "work"
        self.work.mkdir()
        self.comfy = PlayedComfy(root / "models", version)
        self.source = Source(root / "cache")
        self.config = PrepareConfig(work_dir=self.work, **config)
        folders = Folders(self.input, root / "output") if shared else Folders()
        self.preparer = Preparer(self.comfy, self.source, folders, self.config)

    async def prepare(self, graph: Graph, *, request_id: str = "id-1", **fields: Any) -> Graph:
        """Prepare a graph and let go of it at once."""
        async with self.holding(graph, request_id=request_id, **fields) as ready:
            return ready

    @asynccontextmanager
    async def holding(
        self,
        graph: Graph,
        *,
        request_id: str = "id-1",
        replay: int = 0,
        attempt: int = 1,
        **fields: Any,
    ) -> AsyncIterator[Graph]:
        """A prepared graph whose inputs are held."""
        request: PromptRequest = parse_request({"prompt": graph, **fields})
        async with self.preparer.hold(request_id) as hold:
            yield await self.preparer.prepare(
                graph, key=RequestKey(request_id, replay), attempt=attempt, request=request, hold=hold
            )

    def prepared(self) -> list[str]:
        """All files below the folder of prepared inputs."""
        root = self.input / "comfybus"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())

    def everything(self) -> set[Path]:
        """All files anywhere, but for the download cache."""
        return {path for path in self.root.rglob("*") if path.is_file() and self.source.cache not in path.parents}


def node(class_type: str, **inputs: Any) -> Graph:
    """A graph of one node, number 1."""
    return {"1": {"class_type": class_type, "inputs": inputs}}

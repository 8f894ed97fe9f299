"""Makes one model input ready: a model URL becomes a file in the folder that ComfyUI's loader reads."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from app.errors import InputRefused
from app.prepare.catalogue import Catalogue
from app.prepare.media import Fetch
from app.prepare.nodes import Model
from app.redact import public_url
from schemas.credentials import Credential

__all__ = ["MODEL_ENDINGS", "FetchRepository", "ModelInputs"]

MODEL_ENDINGS: Final = frozenset(
    {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".yaml", ".task"}
)
"""Endings that ComfyUI or a known node pack lists in some model folder (``folder_paths.supported_pt_extensions``)."""

# What ComfyUI calls a folder in its lists, and what disks from before the renaming still have.
_NEVER: Final = frozenset({"custom_nodes"})
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM: Final = 100


class FetchRepository(Protocol):
    """Brings a repository of model files into a folder."""

    async def __call__(self, url: str, credentials: Sequence[Credential], *, folder: Path, name: str) -> Path:
        """Fetch and return ``folder/name``; raises as ``Fetch`` does."""


class ModelInputs:
    """Model inputs of one worker.

    Args:
        catalogue: Says which folders ComfyUI has.
        fetch: For model files.
        fetch_repository: For models that are directories.
        shared: ComfyUI's folders are shared with this process.
        model_dir: ComfyUI's models folder as this process sees it, where that is not the path ComfyUI itself has.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        fetch: Fetch,
        fetch_repository: FetchRepository | None,
        *,
        shared: bool,
        model_dir: Path | None,
    ) -> None:
        self._catalogue = catalogue
        self._fetch = fetch
        self._fetch_repository = fetch_repository
        self._shared = shared
        self._model_dir = model_dir

    async def prepare(self, url: str, row: Model, credentials: Sequence[Credential]) -> str:
        """Fetch the model of a URL; returns the name that the loader's list has for it.

        Equal URLs get equal names, so that ComfyUI keeps what it has loaded; parameters that sign a URL do not count.

        Raises:
            InputRefused: The folders are not shared, ComfyUI has no such folder, or it is no model file.
            InputUnavailable: It is not to be had now.
        """
        if not self._shared:
            raise InputRefused(
                "A model URL needs a model folder that the worker shares with ComfyUI; set COMFY_HOME (or CMD, so that "
                "the worker starts ComfyUI itself), or install the model there and give its name."
            )
        if row.repository:
            return await self._repository(url, row.folder, credentials)
        name = _file_name(_last_segment(url), url)
        if name is None:
            name = await self._name_by_source(url, credentials)
        use_gguf = row.gguf_folder is not None and name.lower().endswith(".gguf")
        folder = await self._folder(row.gguf_folder if use_gguf and row.gguf_folder else row.folder)
        path = await self._fetch(url, credentials, folder=folder, filename=name)
        self._catalogue.forget()
        return path.name

    async def _repository(self, url: str, folder: str, credentials: Sequence[Credential]) -> str:
        if self._fetch_repository is None:
            raise InputRefused("This worker does not fetch repositories; give the name of an installed model.")
        stem = PurePosixPath(_last_segment(url.rstrip("/"))).name.removesuffix(".git") or "model"
        target = await self._folder(folder)
        path = await self._fetch_repository(url, credentials, folder=target, name=_marked(stem, "", url))
        self._catalogue.forget()
        return path.name

    async def _name_by_source(self, url: str, credentials: Sequence[Credential]) -> str:
        """The name for a URL whose path says none: fetched once to learn it, the second fetch finds it in the cache."""
        with tempfile.TemporaryDirectory(prefix="comfybus-") as scratch:
            path = await self._fetch(url, credentials, folder=Path(scratch), filename=None)
            name = _file_name(path.name, url)
        if name is None:
            raise InputRefused(
                f"What the URL gives is no model file: it is called {path.name[:100]!r}, and ComfyUI lists only files "
                f"that end in {', '.join(sorted(MODEL_ENDINGS))}."
            )
        return name

    async def _folder(self, name: str) -> Path:
        """The directory for a model folder, by the paths ComfyUI has for it."""
        paths = (await self._catalogue.model_folders()).get(name, [])
        if not paths or name in _NEVER:
            raise InputRefused(
                f"ComfyUI has no model folder {name!r}; install the nodes that bring it, or update ComfyUI."
            )
        # Some folders have several places; the one of its own name is where people put files by hand.
        usual = next((path for path in paths if PurePosixPath(path).name == name), paths[0])
        folder = self._model_dir / PurePosixPath(usual).name if self._model_dir else Path(usual)
        if not self._model_dir and not await anyio.to_thread.run_sync(folder.is_dir):
            raise InputRefused(
                f"ComfyUI keeps the models of {name!r} in {usual}, which the worker does not see; set MODEL_DIR."
            )
        return folder


def _last_segment(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _file_name(name: str, url: str) -> str | None:
    """A name for the URL's file that no other URL has, or None if this is no name of a model file."""
    stem, dot, ending = name.rpartition(".")
    ending = f".{ending.lower()}" if dot else ""
    return _marked(stem, ending, url) if ending in MODEL_ENDINGS else None


def _marked(stem: str, ending: str, url: str) -> str:
    mark = hashlib.sha256(public_url(url).encode()).hexdigest()[:10]
    plain = _UNSAFE.sub("_", stem).strip("._-")[:_LONGEST_STEM]
    return f"{plain or 'model'}-{mark}{ending}"

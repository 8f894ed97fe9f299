"""Makes one model input ready: a model URL becomes a file in the folder that ComfyUI's loader reads.

Used by prepare, app.worker.downloads; may import app.errors, app.storage, schemas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from app.errors import InputRefused
from app.prepare.catalogue import Catalogue
from app.prepare.holds import Hold
from app.prepare.media import Fetch
from app.prepare.nodes import Model
from app.storage.stores import Hold as CacheHold
from schemas.credentials import Credential

__all__ = ["MODEL_ENDINGS", "FetchRepository", "ModelInputs"]

MODEL_ENDINGS: Final = frozenset(
    {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".yaml", ".task"}
)
"""Endings that ComfyUI or a known node pack lists in some model folder (``folder_paths.supported_pt_extensions``)."""

_NEVER: Final = frozenset({"custom_nodes"})
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM: Final = 100


class FetchRepository(Protocol):
    """Brings a repository of model files into a folder."""

    async def __call__(self, url: str, credentials: Sequence[Credential], *, folder: Path, in_use: CacheHold) -> str:
        """Fetch, and return the name of the directory in the folder; raises as ``Fetch`` does."""


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

    async def prepare(self, url: str, row: Model, credentials: Sequence[Credential], hold: Hold) -> str:
        """Fetch the model of a URL; returns the name that the loader's list has for it.

        Equal content gets an equal name whichever URL or signature it came by, so that ComfyUI keeps what it has
        loaded; other content never gets a name that is taken.

        Raises:
            InputRefused: The folders are not shared, ComfyUI has no such folder, or it is no model file.
            InputUnavailable: It is not to be had now.
            ComfyUnavailable: ComfyUI does not say where its folders are.
        """
        if not self._shared:
            raise InputRefused(
                "A model URL needs a model folder that the worker shares with ComfyUI; set COMFY_HOME (or CMD, so that "
                "the worker starts ComfyUI itself), or install the model there and give its name."
            )
        if row.repository:
            return await self._repository(url, row.folder, credentials, hold)
        fetched = await self._fetch(url, credentials, in_use=hold.cache)
        name = _file_name((fetched.filename or "", _last_segment(url), fetched.path.name), fetched.sha256)
        use_gguf = row.gguf_folder is not None and name.endswith(".gguf")
        folder = await self._folder(row.gguf_folder if use_gguf and row.gguf_folder else row.folder)
        # From the cache, where it is by now.
        await self._fetch(url, credentials, folder=folder, filename=name, in_use=hold.cache)
        self._catalogue.models_added()
        return name

    async def _repository(self, url: str, folder: str, credentials: Sequence[Credential], hold: Hold) -> str:
        if self._fetch_repository is None:
            raise InputRefused("This worker does not fetch repositories; give the name of an installed model.")
        name = await self._fetch_repository(url, credentials, folder=await self._folder(folder), in_use=hold.cache)
        self._catalogue.models_added()
        return name

    async def _folder(self, name: str) -> Path:
        """The directory for a model folder, by the paths ComfyUI has for it."""
        folders = await self._catalogue.model_folders()
        paths = folders.get(name, [])
        if not paths and name == "configs":
            # ComfyUI's list of folders leaves this one out; it lies beside the checkpoints it is for.
            paths = [str(PurePosixPath(path).parent / name) for path in folders.get("checkpoints", [])[:1]]
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


def _file_name(candidates: Sequence[str], digest: str) -> str:
    """A name for the content, from the first candidate that is one of a model file.

    Raises:
        InputRefused: None is.
    """
    for candidate in candidates:
        stem, dot, ending = candidate.rpartition(".")
        ending = f".{ending.lower()}"
        if dot and ending in MODEL_ENDINGS:
            plain = _UNSAFE.sub("_", stem).strip("._-")[:_LONGEST_STEM]
            return f"{plain or 'model'}-{digest[:10]}{ending}"
    raise InputRefused(
        "What the URL gives is not called like a model file; ComfyUI lists only files that end in "
        f"{', '.join(sorted(MODEL_ENDINGS))}."
    )

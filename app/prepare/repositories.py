"""Models that are directories, for DiffusersLoader: from the Hugging Face Hub file by file, from elsewhere by Git.

Used by app.worker.inputs; may import app.errors, app.storage, schemas.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import anyio.to_thread

from app.errors import InputRefused, InputUnavailable
from app.prepare.git_clone import GitClone, split_revision
from app.prepare.media import Fetch
from app.storage.secrets import public_url
from app.storage.stores import Hold as CacheHold
from schemas.credentials import Credential

__all__ = ["Repositories"]

_INDEX: Final = "model_index.json"
_LIST_BYTES: Final = 4 * 1024 * 1024
# Where ComfyUI's diffusers_load.py looks, in its order; the second text encoder is of SDXL.
_UNET_FILES: Final = (
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.bin",
)
_TEXT_FILES: Final = (
    "model.fp16.safetensors",
    "model.safetensors",
    "pytorch_model.fp16.bin",
    "pytorch_model.bin",
)
_PARTS: Final = (
    ("unet", _UNET_FILES, True),
    ("vae", _UNET_FILES, True),
    ("text_encoder", _TEXT_FILES, True),
    ("text_encoder_2", _TEXT_FILES, False),
)
_HUB: Final = re.compile(
    r"(?P<base>https?://(?:www\.)?(?:huggingface\.co|hf\.co)|hf:/)/(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|resolve|blob)/(?P<revision>[^/?#]+)|@(?P<at>[^/?#]+))?/?(?:[?#].*)?",
    re.IGNORECASE,
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class Read(Protocol):
    """Reads a small file past the cache: ``Stores.read``."""

    async def __call__(self, url: str, credentials: Sequence[Credential] | None = None, *, limit_bytes: int) -> bytes:
        """The bytes; raises ``InputUnavailable`` or ``InputRefused``."""


class Repositories:
    """Fetches a repository into a model folder; see ``FetchRepository``.

    Args:
        fetch: For files of the Hub: cached, with the request's credentials.
        read: For the Hub's list of files.
        clone: For other hosts.
    """

    def __init__(self, fetch: Fetch, read: Read, clone: GitClone) -> None:
        self._fetch = fetch
        self._read = read
        self._clone = clone

    async def __call__(self, url: str, credentials: Sequence[Credential], *, folder: Path, in_use: CacheHold) -> str:
        """The name of the directory in the folder, which has the files that ComfyUI's loader reads.

        A repository keeps its name, so that ComfyUI keeps what it has loaded; what is there is not looked up again at
        the source.

        Raises:
            InputRefused: It is no repository of a diffusers model, or it may not be read.
            InputUnavailable: It cannot be had now.
        """
        found = _HUB.fullmatch(url.strip())
        if found is None:
            base, revision = split_revision(url.strip())
            name = _name(base, revision or "")
            await self._clone.into(url, credentials, folder / name)
            if not await anyio.to_thread.run_sync((folder / name / _INDEX).is_file):
                raise InputRefused(f"The repository is no diffusers model: it has no {_INDEX}.")
            return name
        base = "https://huggingface.co" if found["base"].lower().startswith("hf:") else found["base"].lower()
        revision = found["revision"] or found["at"] or "main"
        name = _name(f"{base}/{found['repo']}", revision)
        for path in await self._chosen(f"{base}/api/models/{found['repo']}/revision/{revision}", credentials):
            part, _, filename = path.rpartition("/")
            await self._fetch(
                f"{base}/{found['repo']}/resolve/{revision}/{path}",
                credentials,
                folder=folder / name / part,
                filename=filename,
                in_use=in_use,
            )
        return name

    async def _chosen(self, url: str, credentials: Sequence[Credential]) -> list[str]:
        """The files to fetch, by the Hub's description of the repository.

        The index is last, for it makes the directory a model in ComfyUI's eyes.
        """
        try:
            document = json.loads(await self._read(url, credentials, limit_bytes=_LIST_BYTES))
            files = {str(sibling["rfilename"]) for sibling in document["siblings"]}
        except (ValueError, KeyError, TypeError) as exc:
            raise InputUnavailable("The Hub answers with something that is no description of a repository.") from exc
        chosen = []
        for part, candidates, needed in _PARTS:
            path = next((f"{part}/{name}" for name in candidates if f"{part}/{name}" in files), None)
            if path is None and needed:
                raise InputRefused(f"The repository is no diffusers model: it has no weights for its {part}.")
            chosen += [path] if path else []
        if _INDEX not in files:
            raise InputRefused(f"The repository is no diffusers model: it has no {_INDEX}.")
        return [*chosen, _INDEX]


def _name(repository: str, revision: str) -> str:
    """A directory's name that no other repository or revision has."""
    stem = _UNSAFE.sub("_", repository.rstrip("/").rpartition("/")[2].removesuffix(".git")).strip("._-")[:100]
    mark = hashlib.sha256(f"{public_url(repository)} {revision}".encode()).hexdigest()[:10]
    return f"{stem or 'model'}-{mark}"

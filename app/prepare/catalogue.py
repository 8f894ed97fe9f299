"""What the running ComfyUI says of its nodes and models, asked when needed and believed for a short while.

Used by context, jobs, models, prepare, app.worker.downloads; may import its folder alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import anyio

from app.prepare.nodes import Kind

__all__ = ["Catalogue", "Choice", "ComfyView", "folder_of_choices"]

T = TypeVar("T")
# Node classes change only when ComfyUI starts anew; new model files come at any time.
_NODES_KEEP_S: Final = 300.0
_MODELS_KEEP_S: Final = 15.0
_UPLOADS: Final = {
    "image_upload": Kind.IMAGE,
    "animated_image_upload": Kind.VIDEO,
    "video_upload": Kind.VIDEO,
    "audio_upload": Kind.AUDIO,
    "file_upload": Kind.FILE,
}


class ComfyView(Protocol):
    """The calls of ComfyUI's client that say what is installed; all raise ``ComfyUnavailable``."""

    async def object_info(self) -> dict[str, Any]:
        """Every node class with its inputs."""

    async def models(self) -> dict[str, list[str]]:
        """File names by model folder."""

    async def model_folders(self) -> dict[str, list[str]]:
        """Paths, as ComfyUI sees them, by model folder."""


@dataclass(frozen=True)
class Choice:
    """What ComfyUI says of one input.

    Attributes:
        options: The values to choose from; None if it is not chosen from a list.
        upload: The kind of media that its upload button takes, if it has one.
    """

    options: tuple[str, ...] | None = None
    upload: Kind | None = None


class _Kept(Generic[T]):
    """One answer of ComfyUI with an age; who asks while it is under way waits for the same one."""

    def __init__(self, ask: Callable[[], Awaitable[T]], keep_s: float) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._answer: T | None = None
        self._asked_at = 0.0
        self._forgotten = 0
        self._lock = anyio.Lock()

    async def get(self) -> T:
        async with self._lock:
            if self._answer is None or time.monotonic() - self._asked_at > self._keep_s:
                asked_at, forgotten = time.monotonic(), self._forgotten
                answer = await self._ask()
                if forgotten != self._forgotten:
                    # Asked before ComfyUI started anew or got a model: good for this caller, not for later ones.
                    return answer
                self._answer, self._asked_at = answer, asked_at
            return self._answer

    def forget(self) -> None:
        self._answer = None
        self._forgotten += 1


class Catalogue:
    """Node classes, model files and model folders of one ComfyUI. Methods raise ``ComfyUnavailable``."""

    def __init__(self, comfy: ComfyView) -> None:
        self._nodes = _Kept(comfy.object_info, _NODES_KEEP_S)
        self._models = _Kept(comfy.models, _MODELS_KEEP_S)
        self._folders = _Kept(comfy.model_folders, _NODES_KEEP_S)

    def models_added(self) -> None:
        """Ask for the model files anew."""
        self._models.forget()

    def forget(self) -> None:
        """Ask everything anew: ComfyUI has started."""
        for kept in (self._nodes, self._models, self._folders):
            kept.forget()

    async def nodes(self) -> Mapping[str, Any]:
        """Every node class as ``/object_info`` has it."""
        return await self._nodes.get()

    async def models(self) -> Mapping[str, list[str]]:
        """File names by model folder."""
        return await self._models.get()

    async def model_folders(self) -> Mapping[str, list[str]]:
        """Paths, as ComfyUI sees them, by model folder."""
        return await self._folders.get()

    async def choice(self, class_type: str, name: str) -> Choice | None:
        """What ComfyUI says of one input of a node class; None if it has no such class or input."""
        node = (await self.nodes()).get(class_type)
        spec = next((spec for field, spec in _inputs(node) if field == name), None)
        return None if spec is None else _choice(spec)


def folder_of_choices(options: tuple[str, ...], name: str, models: Mapping[str, list[str]]) -> str | None:
    """The model folder that an input chooses from: the one whose files are its options.

    Where several have the same files, or none has any, the input's name has to name the folder: ``lora_name`` is of
    ``loras``. None if that does not decide it.
    """
    # Loaders put "None" and the like before the files.
    chosen = {option for option in options if "." in option}
    fits = [folder for folder, files in models.items() if chosen <= set(files) and (chosen or not files)]
    exact = [folder for folder in fits if chosen == set(models[folder])]
    fits = exact or fits
    if len(fits) == 1 and chosen:
        return fits[0]
    wanted = name.lower().removesuffix("_name").removesuffix("_file").removesuffix("_path").rstrip("s")
    named = [folder for folder in fits if folder.rstrip("s") == _OTHER_NAMES.get(wanted, wanted)]
    return named[0] if len(named) == 1 else None


_OTHER_NAMES: Final = {
    "ckpt": "checkpoint",
    "unet": "diffusion_model",
    "clip": "text_encoder",
    "control_net": "controlnet",
    "upscale": "upscale_model",
}


def _inputs(node: Any) -> Iterator[tuple[str, Any]]:
    sections = node.get("input") if isinstance(node, dict) else None
    for section in ("required", "optional"):
        fields = sections.get(section) if isinstance(sections, dict) else None
        yield from fields.items() if isinstance(fields, dict) else ()


def _choice(spec: Any) -> Choice:
    """Read ``[[…], {…}]`` of older and ``["COMBO", {"options": […]}]`` of newer node classes."""
    kind, options = (*spec, None, None)[:2] if isinstance(spec, list) else (None, None)
    options = options if isinstance(options, dict) else {}
    values = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
    upload = next((media for flag, media in _UPLOADS.items() if options.get(flag) is True), None)
    listed = tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else None
    return Choice(listed, upload)

"""The folders of a ComfyUI home and the rules by which names are turned into files in them.

Used by most of its folder; may import its folder alone.
"""

from __future__ import annotations

import mimetypes
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.comfy.standin.config import StandinConfig

_WEIGHTS = frozenset({".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"})
_ANY = frozenset[str]()

MODEL_FOLDERS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "checkpoints": (("checkpoints",), _WEIGHTS),
    "configs": (("configs",), frozenset({".yaml"})),
    "loras": (("loras",), _WEIGHTS),
    "vae": (("vae",), _WEIGHTS),
    "text_encoders": (("text_encoders", "clip"), _WEIGHTS),
    "diffusion_models": (("unet", "diffusion_models"), _WEIGHTS),
    "clip_vision": (("clip_vision",), _WEIGHTS),
    "style_models": (("style_models",), _WEIGHTS),
    "embeddings": (("embeddings",), _WEIGHTS),
    "diffusers": (("diffusers",), frozenset({"folder"})),
    "vae_approx": (("vae_approx",), _WEIGHTS),
    "controlnet": (("controlnet", "t2i_adapter"), _WEIGHTS),
    "gligen": (("gligen",), _WEIGHTS),
    "upscale_models": (("upscale_models",), _WEIGHTS),
    "custom_nodes": (("custom_nodes",), _ANY),
    "hypernetworks": (("hypernetworks",), _WEIGHTS),
    "photomaker": (("photomaker",), _WEIGHTS),
    "classifiers": (("classifiers",), frozenset({""})),
    "model_patches": (("model_patches",), _WEIGHTS),
    "audio_encoders": (("audio_encoders",), _WEIGHTS),
}
"""Model types in the order GET /models lists them: the folders below models/ and the file endings that count."""

_ANNOTATIONS = {"[output]": "output", "[input]": "input", "[temp]": "temp"}


class Folders:
    """The input, output, temp and models folders of one stand-in; making one creates them and empties temp."""

    def __init__(self, config: StandinConfig) -> None:
        """Create the folders that are missing and, as ComfyUI does at its start, remove what temp held."""
        self.home = _plain(config.home)
        self.input = _plain(config.input_directory or self.home / "input")
        self.output = _plain(config.output_directory or self.home / "output")
        self.temp = _plain(config.temp_directory or self.home) / "temp"
        self.models = self.home / "models"
        shutil.rmtree(self.temp, ignore_errors=True)
        for folder in (self.home, self.input, self.output, self.temp):
            folder.mkdir(parents=True, exist_ok=True)
        for names, _ in MODEL_FOLDERS.values():
            for name in names:
                (self.models / name).mkdir(parents=True, exist_ok=True)

    def by_type(self, kind: str) -> Path | None:
        """Return the folder that the ``type`` of a file names (output, input, temp), None for any other word."""
        return {"output": self.output, "input": self.input, "temp": self.temp}.get(kind)

    def split_annotation(self, name: str) -> tuple[str, Path | None]:
        """Split ``name [output]`` into the name and its folder; a name without such an ending has folder None.

        The blank before the bracket stays part of the name, only the bracket itself and one character go, as in
        ComfyUI: ``a.png [output]`` gives ``a.png``.
        """
        for ending, kind in _ANNOTATIONS.items():
            if name.endswith(ending):
                return name[: -len(ending) - 1], self.by_type(kind)
        return name, None

    def loadable(self, name: str) -> Path:
        """Return the path a loading node opens for ``name``, below the input folder unless annotated otherwise.

        Like ComfyUI 0.3.64 this does NOT refuse names that climb out of the folder: a client that lets such names
        through has to fail against the stand-in as it would against the real one.
        """
        bare, folder = self.split_annotation(name)
        return Path(os.path.join(folder or self.input, bare))  # noqa: PTH118 - an absolute name must win, as there

    def input_files(self, *, images_only: bool) -> list[str]:
        """List the files at the top of the input folder in order, those that look like images if asked."""
        names = [entry.name for entry in os.scandir(self.input) if entry.is_file()]
        if images_only:
            names = [name for name in names if _is_image(name)]
        return sorted(names)

    def model_folders(self, kind: str) -> list[Path]:
        """Name the folders of one model type; KeyError for an unknown type."""
        names, _ = MODEL_FOLDERS[kind]
        return [self.home / "custom_nodes" if kind == "custom_nodes" else self.models / name for name in names]

    def model_files(self, kind: str) -> list[str]:
        """List the files of one model type in order, as paths below its folder; KeyError for an unknown type."""
        _, endings = MODEL_FOLDERS[kind]
        found: set[str] = set()
        for folder in self.model_folders(kind):
            for parent, _, files in os.walk(folder, followlinks=True):
                found.update(os.path.relpath(os.path.join(parent, file), folder) for file in files)  # noqa: PTH118
        return sorted(file for file in found if not endings or Path(file).suffix.lower() in endings)


def _plain(folder: Path) -> Path:
    """Make a path absolute and free of "..", without following links: the checks against escape compare text."""
    return Path(os.path.abspath(folder))  # noqa: PTH100 - Path.absolute keeps ".."


def _is_image(name: str) -> bool:
    kind = "image/webp" if name.endswith(".webp") else mimetypes.guess_type(name, strict=False)[0]
    return bool(kind and kind.startswith("image/"))

"""Nodes that read pictures from the input folder: LoadImage and LoadImageMask.

Used by catalogue; may import its folder alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from PIL import Image, ImageChops, ImageFile, ImageOps, ImageSequence

from app.comfy.standin.folders import Folders
from app.comfy.standin.node_types import ImageBatch, Input, JsonObject, Node, Produced, Workbench, demand_memory

_T = TypeVar("_T")
_NO_MASK_SIZE = (64, 64)


class _FileNode(Node):
    """A node whose input ``image`` names a file: checked for existence, run again when the content changes."""

    category = "image"
    self_checked = frozenset({"image"})

    @classmethod
    def check(cls, folders: Folders, values: JsonObject) -> str | bool:
        """Accept any name whose file exists."""
        return folders.loadable(values["image"]).exists() or f"Invalid image file: {values['image']}"

    @classmethod
    def fingerprint(cls, folders: Folders, values: JsonObject) -> object:
        """Return the SHA-256 of the file in hex."""
        return hashlib.sha256(folders.loadable(values["image"]).read_bytes()).hexdigest()


class LoadImage(_FileNode):
    """All frames of a picture file, and their transparency as masks."""

    class_type = "LoadImage"
    display_name = "Load Image"
    required = {  # noqa: RUF012
        "image": Input(lambda folders: folders.input_files(images_only=True), {"image_upload": True})
    }
    returns = ("IMAGE", "MASK")

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Decode the file upright; frames that differ in size from the first are left out."""
        opened = _patient(lambda: Image.open(str(bench.folders.loadable(given["image"]))))
        with opened:
            demand_memory(bench, getattr(opened, "n_frames", 1), *opened.size)
            frames: list[Image.Image] = []
            masks: list[Image.Image] = []
            for raw in ImageSequence.Iterator(opened):
                frame = _upright(raw)
                picture = frame.convert("RGB")
                if frames and picture.size != frames[0].size:
                    continue
                frames.append(picture)
                masks.append(_mask(frame))
            if opened.format == "MPO":
                frames, masks = frames[:1], masks[:1]
        return Produced((ImageBatch(tuple(frames)), tuple(masks)))


class LoadImageMask(_FileNode):
    """One channel of a picture file as a mask."""

    class_type = "LoadImageMask"
    category = "mask"
    display_name = "Load Image (as Mask)"
    required = {  # noqa: RUF012
        "image": Input(lambda folders: folders.input_files(images_only=False), {"image_upload": True}),
        "channel": Input(["alpha", "red", "green", "blue"]),
    }
    returns = ("MASK",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Take the channel; alpha is inverted, since a mask marks what is transparent."""
        opened = _patient(lambda: Image.open(str(bench.folders.loadable(given["image"]))))
        with opened:
            demand_memory(bench, 1, *opened.size)
            channel = given["channel"][0].upper()
            mask = _upright(opened).convert("RGBA").getchannel(channel)
        return Produced(((ImageChops.invert(mask) if channel == "A" else mask,),))


def _upright(raw: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; 16-bit values are brought into 8 bits."""
    frame = _patient(lambda: ImageOps.exif_transpose(raw))
    return frame.point(lambda value: value * (1 / 255)) if frame.mode == "I" else frame


def _mask(frame: Image.Image) -> Image.Image:
    """Return the inverted transparency of a frame, or an empty 64x64 mask when it has none."""
    if "A" in frame.getbands():
        return ImageChops.invert(frame.getchannel("A"))
    if frame.mode == "P" and "transparency" in frame.info:
        return ImageChops.invert(frame.convert("RGBA").getchannel("A"))
    return Image.new("L", _NO_MASK_SIZE)


def _patient(action: Callable[[], _T]) -> _T:
    """Run a Pillow action, a second time with leave to accept cut-off files when it fails, as ComfyUI does."""
    try:
        return action()
    except (OSError, ValueError):
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return action()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before

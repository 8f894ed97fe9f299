"""Nodes that make or change pictures: EmptyImage, ImageInvert, ImageScale, ImageBlend.

Used by catalogue; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image, ImageChops, ImageMath

from app.comfy.standin.node_types import (
    MAX_RESOLUTION,
    ImageBatch,
    Input,
    JsonObject,
    Node,
    Produced,
    Workbench,
    demand_memory,
)

_METHODS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class EmptyImage(Node):
    """A batch of pictures in one colour."""

    class_type = "EmptyImage"
    category = "image"
    required = {  # noqa: RUF012 - declared ClassVar by Node
        "width": Input("INT", {"default": 512, "min": 1, "max": MAX_RESOLUTION, "step": 1}),
        "height": Input("INT", {"default": 512, "min": 1, "max": MAX_RESOLUTION, "step": 1}),
        "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096}),
        "color": Input("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
    }
    returns = ("IMAGE",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Paint one picture and repeat it, so that a big batch costs no memory."""
        width, height, batch, color = given["width"], given["height"], given["batch_size"], given["color"]
        demand_memory(bench, batch, width, height)
        picture = Image.new("RGB", (width, height), (color >> 16 & 0xFF, color >> 8 & 0xFF, color & 0xFF))
        return Produced((ImageBatch((picture,) * batch),))


class ImageInvert(Node):
    """The negative of every picture."""

    class_type = "ImageInvert"
    category = "image"
    display_name = "Invert Image"
    required = {"image": Input("IMAGE")}  # noqa: RUF012
    returns = ("IMAGE",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Invert each channel."""
        return Produced((_each(ImageChops.invert, given["image"]),))


class ImageScale(Node):
    """Pictures in another size."""

    class_type = "ImageScale"
    category = "image/upscaling"
    display_name = "Upscale Image"
    required = {  # noqa: RUF012
        "image": Input("IMAGE"),
        "upscale_method": Input(list(_METHODS)),
        "width": Input("INT", {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 1}),
        "height": Input("INT", {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 1}),
        "crop": Input(["disabled", "center"]),
    }
    returns = ("IMAGE",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Scale to width and height; one of them 0 keeps the proportions, both 0 leaves the pictures alone."""
        images: ImageBatch = given["image"]
        width, height = given["width"], given["height"]
        if width == 0 and height == 0:
            return Produced((images,))
        old_width, old_height = images.size
        if width == 0:
            width = max(1, round(old_width * height / old_height))
        elif height == 0:
            height = max(1, round(old_height * width / old_width))
        demand_memory(bench, len(images.frames), width, height)
        return Produced((scaled(images, width, height, given["upscale_method"], given["crop"]),))


class ImageBlend(Node):
    """Two pictures mixed."""

    class_type = "ImageBlend"
    category = "image/postprocessing"
    python_module = "comfy_extras.nodes_post_processing"
    schema_v3 = True
    required = {  # noqa: RUF012
        "image1": Input("IMAGE", {}),
        "image2": Input("IMAGE", {}),
        "blend_factor": Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
        "blend_mode": Input(
            "COMBO",
            {
                "multiselect": False,
                "options": ["normal", "multiply", "screen", "overlay", "soft_light", "difference"],
            },
        ),
    }
    returns = ("IMAGE",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Mix by the mode and its factor; the second picture is scaled and cropped to the first one's size."""
        first: ImageBatch = given["image1"]
        second: ImageBatch = given["image2"]
        if first.size != second.size:
            second = scaled(second, *first.size, "bicubic", "center")
        counts = len(first.frames), len(second.frames)
        if counts[0] != counts[1] and 1 not in counts:
            raise RuntimeError(
                f"The size of tensor a ({counts[0]}) must match the size of tensor b ({counts[1]}) "
                "at non-singleton dimension 0"
            )
        mode, factor = given["blend_mode"], given["blend_factor"]
        total = max(counts)
        pairs = zip(_stretched(first, total), _stretched(second, total), strict=True)
        return Produced((ImageBatch(tuple(_blended(one, two, mode, factor) for one, two in pairs)),))


def scaled(images: ImageBatch, width: int, height: int, method: str, crop: str) -> ImageBatch:
    """Scale a batch; ``crop`` center first cuts the edges so that the proportions stay."""
    old_width, old_height = images.size
    left = top = 0
    if crop == "center":
        old, new = old_width / old_height, width / height
        if old > new:
            left = round((old_width - old_width * (new / old)) / 2)
        elif old < new:
            top = round((old_height - old_height * (old / new)) / 2)
    box = (left, top, old_width - left, old_height - top)
    return _each(lambda picture: picture.resize((width, height), _METHODS[method], box=box), images)


def _each(change: Callable[[Image.Image], Image.Image], images: ImageBatch) -> ImageBatch:
    """Apply ``change`` to a batch, once only for a picture that the batch repeats."""
    done: dict[int, Image.Image] = {}
    for picture in images.frames:
        if id(picture) not in done:
            done[id(picture)] = change(picture)
    return ImageBatch(tuple(done[id(picture)] for picture in images.frames))


def _stretched(images: ImageBatch, total: int) -> tuple[Image.Image, ...]:
    return images.frames if len(images.frames) == total else images.frames * total


def _blended(one: Image.Image, two: Image.Image, mode: str, factor: float) -> Image.Image:
    bands = [_blended_band(a, b, mode, factor) for a, b in zip(one.split(), two.split(), strict=True)]
    return Image.merge("RGB", bands)


def _blended_band(one: Image.Image, two: Image.Image, mode: str, factor: float) -> Image.Image:
    """Mix one channel in floating point, values 0 to 1 as in ComfyUI, rounded to whole steps at the end only."""

    def mix(args: dict[str, Any]) -> Any:
        a, b = args["float"](args["a"]) / 255.0, args["float"](args["b"]) / 255.0
        mixed = a * (1 - factor) + _mode(a, b, mode, args) * factor
        bounded = args["min"](args["max"](mixed, 0.0), 1.0)
        return args["convert"](bounded * 255.0 + 0.5, "L")

    result: Image.Image = ImageMath.lambda_eval(mix, a=one, b=two)
    return result


def _mode(a: Any, b: Any, mode: str, args: dict[str, Any]) -> Any:
    """Return the formula of a blend mode as an ImageMath expression; ValueError for an unknown mode."""
    match mode:
        case "normal":
            return b
        case "multiply":
            return a * b
        case "screen":
            return 1 - (1 - a) * (1 - b)
        case "overlay":
            dark = args["float"](a <= 0.5)
            return dark * (2 * a * b) + (1 - dark) * (1 - 2 * (1 - a) * (1 - b))
        case "soft_light":
            low, dark = args["float"](a <= 0.25), args["float"](b <= 0.5)
            curve = low * (((16 * a - 12) * a + 4) * a) + (1 - low) * (a**0.5)
            return dark * (a - (1 - 2 * b) * a * (1 - a)) + (1 - dark) * (a + (2 * b - 1) * (curve - a))
        case "difference":
            return a - b
        case _:
            raise ValueError(f"Unsupported blend mode: {mode}")

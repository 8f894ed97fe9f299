"""Nodes that write pictures: SaveImage, PreviewImage, SaveAnimatedWEBP, SaveImageWebsocket.

Used by catalogue, nodes_media; may import its folder alone.
"""

from __future__ import annotations

import json
import random
import time

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.comfy.standin.folders import Folders
from app.comfy.standin.node_types import ImageBatch, Input, JsonObject, Node, Preview, Produced, Workbench, file_entry

SAVE_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
"""The hidden inputs of every saving node: the graph and the client's own description of it."""

_EXIF_MODEL = 0x0110
_EXIF_MAKE = 0x010F
_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}


class SaveImage(Node):
    """Pictures as PNG files in the output folder, with the graph in their text chunks."""

    class_type = "SaveImage"
    category = "image"
    display_name = "Save Image"
    description = "Saves the input images to your ComfyUI output directory."
    output_node = True
    required = {  # noqa: RUF012
        "images": Input("IMAGE", {"tooltip": "The images to save."}),
        "filename_prefix": Input(
            "STRING",
            {
                "default": "ComfyUI",
                "tooltip": "The prefix for the file to save. This may include formatting information such as "
                "%date:yyyy-MM-dd% or %Empty Latent Image.width% to include values from nodes.",
            },
        ),
    }
    hidden = SAVE_HIDDEN
    compress_level = 4
    kind = "output"
    suffix = ""

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Write every picture of the batch under the next free numbers."""
        images: ImageBatch = given["images"]
        base = bench.folders.output if self.kind == "output" else bench.folders.temp
        place = bench.numbers.place(given.get("filename_prefix", "ComfyUI") + self.suffix, base, *images.size)
        entries = []
        for index, picture in enumerate(images.frames):
            stem = place.stem.replace("%batch_num%", str(index))
            path = place.folder / f"{stem}_{place.counter + index:05}_.png"
            picture.save(path, pnginfo=_text_chunks(bench), compress_level=self.compress_level)
            entries.append(file_entry(path, place.subfolder, self.kind))
        bench.numbers.written(place, [entry["filename"] for entry in entries])
        return Produced(ui={"images": entries})


class PreviewImage(SaveImage):
    """Pictures as PNG files in the temp folder, under a name that is drawn by lot for each node."""

    class_type = "PreviewImage"
    display_name = "Preview Image"
    required = {"images": Input("IMAGE")}  # noqa: RUF012
    compress_level = 1
    kind = "temp"

    def __init__(self, folders: Folders) -> None:
        super().__init__(folders)
        self.suffix = "_temp_" + "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5))


class SaveAnimatedWEBP(Node):
    """A batch of pictures as one animated WebP file in the output folder."""

    class_type = "SaveAnimatedWEBP"
    category = "image/animation"
    python_module = "comfy_extras.nodes_images"
    output_node = True
    required = {  # noqa: RUF012
        "images": Input("IMAGE"),
        "filename_prefix": Input("STRING", {"default": "ComfyUI"}),
        "fps": Input("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}),
        "lossless": Input("BOOLEAN", {"default": True}),
        "quality": Input("INT", {"default": 80, "min": 0, "max": 100}),
        "method": Input(list(_WEBP_METHODS)),
    }
    hidden = SAVE_HIDDEN

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Write the animation, with the graph in its EXIF tags."""
        images: ImageBatch = given["images"]
        place = bench.numbers.place(given["filename_prefix"], bench.folders.output, *images.size)
        path = place.folder / f"{place.stem}_{place.counter:05}_.webp"
        exif = Image.Exif()
        exif[_EXIF_MODEL] = f"prompt:{json.dumps(bench.graph)}"
        for offset, (key, value) in enumerate((bench.extra_pnginfo or {}).items()):
            exif[_EXIF_MAKE - offset] = f"{key}:{json.dumps(value)}"
        first, *others = images.frames
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=int(1000.0 / given["fps"]),
            exif=exif,
            lossless=given["lossless"],
            quality=given["quality"],
            method=_WEBP_METHODS[given["method"]],
        )
        bench.numbers.written(place, [path.name])
        return Produced(ui={"images": [file_entry(path, place.subfolder, "output")], "animated": [bool(others)]})


class SaveImageWebsocket(Node):
    """Pictures sent to the client as binary PNG frames, written nowhere; runs anew in every prompt."""

    class_type = "SaveImageWebsocket"
    category = "api/image"
    python_module = "custom_nodes.websocket_image_save"
    output_node = True
    required = {"images": Input("IMAGE")}  # noqa: RUF012

    @classmethod
    def fingerprint(cls, folders: Folders, values: JsonObject) -> object:  # noqa: ARG003
        """Return the time, so that no two prompts share a result."""
        return time.time()

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Send every picture with the progress of the batch."""
        images: ImageBatch = given["images"]
        for index, picture in enumerate(images.frames):
            bench.progress(index, len(images.frames), Preview("PNG", picture))
        return Produced()


def _text_chunks(bench: Workbench) -> PngInfo:
    chunks = PngInfo()
    chunks.add_text("prompt", json.dumps(bench.graph))
    for key, value in (bench.extra_pnginfo or {}).items():
        chunks.add_text(key, json.dumps(value))
    return chunks

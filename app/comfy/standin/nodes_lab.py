"""Nodes that provoke a server's behaviours: slow work with and without progress, failure, death.

Used by catalogue; may import its folder alone.
"""

from __future__ import annotations

import os

from PIL import Image

from app.comfy.standin.node_types import (
    ImageBatch,
    Input,
    JsonObject,
    Node,
    Preview,
    Produced,
    Workbench,
    file_entry,
)

_PREVIEW_PIXELS = 512


class _LabNode(Node):
    """A node that hands its picture on; what else it does is its point."""

    category = "lab"
    python_module = "custom_nodes.lab_nodes"
    returns = ("IMAGE",)


class SlowProgress(_LabNode):
    """``steps`` steps over ``seconds`` seconds, with progress after each and an ear for interrupts."""

    class_type = "SlowProgress"
    required = {  # noqa: RUF012
        "image": Input("IMAGE"),
        "steps": Input("INT", {"default": 10, "min": 1, "max": 10000}),
        "seconds": Input("FLOAT", {"default": 2.0, "min": 0.0, "max": 3600.0, "step": 0.01}),
    }

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Wait and report, step by step."""
        for step in range(given["steps"]):
            bench.sleep(given["seconds"] / given["steps"])
            bench.raise_if_interrupted()
            bench.progress(step + 1, given["steps"])
        return Produced((given["image"],))


class PreviewedProgress(_LabNode):
    """Like SlowProgress, with a binary preview frame at every step; known to the stand-in only."""

    class_type = "PreviewedProgress"
    python_module = "comfybus_standin"
    required = SlowProgress.required

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Wait and report, showing the picture ever brighter."""
        images: ImageBatch = given["image"]
        dark = Image.new("RGB", images.size)
        for step in range(given["steps"]):
            bench.sleep(given["seconds"] / given["steps"])
            view = Image.blend(dark, images.frames[0], (step + 1) / given["steps"])
            bench.progress(step + 1, given["steps"], Preview("JPEG", view, _PREVIEW_PIXELS))
        return Produced((images,))


class SaveLargeFile(Node):
    """A file of any size, filled with noise that no compression makes smaller; known to the stand-in only."""

    class_type = "SaveLargeFile"
    category = "lab"
    python_module = "comfybus_standin"
    output_node = True
    required = {  # noqa: RUF012
        "mebibytes": Input("INT", {"default": 1, "min": 0, "max": 65536}),
        "filename_prefix": Input("STRING", {"default": "large"}),
    }

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Write it piece by piece."""
        place = bench.numbers.place(given["filename_prefix"], bench.folders.output, 0, 0)
        path = place.folder / f"{place.stem}_{place.counter:05}_.bin"
        with path.open("wb") as file:
            for _ in range(given["mebibytes"]):
                file.write(os.urandom(1024 * 1024))
        bench.numbers.written(place, [path.name])
        return Produced(ui={"files": [file_entry(path, place.subfolder, "output")]})


class StubbornSleep(_LabNode):
    """Sleep that shows no progress and heeds no interrupt."""

    class_type = "StubbornSleep"
    required = {  # noqa: RUF012
        "image": Input("IMAGE"),
        "seconds": Input("FLOAT", {"default": 2.0, "min": 0.0, "max": 3600.0}),
    }

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Wait."""
        bench.sleep(given["seconds"])
        return Produced((given["image"],))


class FailingNode(_LabNode):
    """A failure with a message of the prompt's choosing."""

    class_type = "FailingNode"
    required = {"image": Input("IMAGE")}  # noqa: RUF012
    optional = {"message": Input("STRING", {"default": "lab failure on purpose"})}  # noqa: RUF012

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Raise RuntimeError."""
        raise RuntimeError(given.get("message", "lab failure on purpose"))


class HardCrash(_LabNode):
    """The end of the server's process, without any goodbye."""

    class_type = "HardCrash"
    required = {"image": Input("IMAGE")}  # noqa: RUF012

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Leave at once with exit code 1."""
        os._exit(1)

"""The node classes that the stand-in knows, and how GET /object_info describes them.

Used by execution_order, graph_validation, output_cache, prompt_execution, routes_about; may import its folder alone.
"""

from __future__ import annotations

from app.comfy.standin import (
    nodes_image,
    nodes_lab,
    nodes_load,
    nodes_media,
    nodes_sampling,
    nodes_save,
    nodes_text,
    nodes_txt2img,
)
from app.comfy.standin.folders import Folders
from app.comfy.standin.node_types import JsonObject, Node

NODE_CLASSES: dict[str, type[Node]] = {
    node.class_type: node
    for node in (
        nodes_sampling.KSampler,
        nodes_txt2img.CheckpointLoaderSimple,
        nodes_txt2img.CLIPTextEncode,
        nodes_txt2img.VAEDecode,
        nodes_txt2img.EmptyLatentImage,
        nodes_save.SaveImage,
        nodes_save.PreviewImage,
        nodes_load.LoadImage,
        nodes_load.LoadImageMask,
        nodes_image.ImageScale,
        nodes_image.ImageInvert,
        nodes_image.EmptyImage,
        nodes_image.ImageBlend,
        nodes_save.SaveAnimatedWEBP,
        nodes_save.SaveImageWebsocket,
        nodes_text.PreviewAny,
        nodes_text.PrimitiveString,
        nodes_text.PrimitiveInt,
        nodes_text.PrimitiveFloat,
        nodes_text.PrimitiveBoolean,
        nodes_media.EmptyAudio,
        nodes_media.SaveAudio,
        nodes_media.CreateVideo,
        nodes_media.SaveVideo,
        nodes_lab.SlowProgress,
        nodes_lab.PreviewedProgress,
        nodes_lab.SaveLargeFile,
        nodes_lab.StubbornSleep,
        nodes_lab.FailingNode,
        nodes_lab.HardCrash,
    )
}
"""Every node class by its ``class_type``."""


def describe(node: type[Node], folders: Folders) -> JsonObject:
    """Return a node class as /object_info shows it; lists of files are read now."""
    inputs: JsonObject = {"required": {name: entry.described(folders) for name, entry in node.required.items()}}
    if node.optional:
        inputs["optional"] = {name: entry.described(folders) for name, entry in node.optional.items()}
    if node.hidden:
        inputs["hidden"] = {name: [kind] if node.schema_v3 else kind for name, kind in node.hidden.items()}
    description: JsonObject = {
        "input": inputs,
        "input_order": {section: list(entries) for section, entries in inputs.items()},
        "output": list(node.returns),
        "output_is_list": [False] * len(node.returns),
        "output_name": list(node.returns),
    }
    if node.schema_v3:
        description["output_tooltips"] = list(node.output_tooltips or [None] * len(node.returns))
    description |= {
        "name": node.class_type,
        "display_name": node.display_name if node.schema_v3 else node.display_name or node.class_type,
        "description": node.description,
        "python_module": node.python_module,
        "category": node.category,
        "output_node": node.output_node,
    }
    if node.schema_v3:
        description |= {"deprecated": False, "experimental": False, "api_node": False}
    elif node.output_tooltips is not None:
        description["output_tooltips"] = list(node.output_tooltips)
    return description

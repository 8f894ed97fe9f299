"""Which outputs a prompt has, and what each is."""

from __future__ import annotations

from typing import Any

import pytest

from app.comfy.media import describe
from app.comfy.outputs import list_outputs

_RECORDED: dict[str, Any] = {
    "12": {"text": ["a text", "and another"]},
    "5": {"images": [{"filename": "d_00001_.png", "subfolder": "sub dir", "type": "output"}]},
    "6": {"images": [{"filename": "ComfyUI_temp_x_00001_.png", "subfolder": "", "type": "temp"}]},
    "8": {"images": [{"filename": f"batch_{n:05}_.png", "subfolder": "", "type": "output"} for n in (5, 6, 7)]},
    "9": {"images": [{"filename": "anim_00003_.webp", "subfolder": "", "type": "output"}], "animated": [True]},
    "10": {"images": [{"filename": "v_00001_.webm", "subfolder": "video", "type": "output"}], "animated": [True]},
    "11": {"audio": [{"filename": "x_00003_.flac", "subfolder": "audio", "type": "output"}]},
    "13": {"latents": [{"filename": "l_00001_.latent", "subfolder": "latents", "type": "output"}]},
    "14": {"gifs": [{"filename": "a.mp4", "subfolder": "", "type": "output", "format": "video/h264-mp4", "fps": 8}]},
    "15": {"3d": [{"filename": "m.glb", "subfolder": "", "type": "output"}]},
}


def test_every_output_comes_in_comfyuis_order() -> None:
    """Nodes, lists and items keep the order of the history; subfolders, temp and batches are all there."""
    found = list_outputs(_RECORDED, {})
    assert [ref.filename or ref.value for ref in found] == [
        "a text",
        "and another",
        "d_00001_.png",
        "ComfyUI_temp_x_00001_.png",
        "batch_00005_.png",
        "batch_00006_.png",
        "batch_00007_.png",
        "anim_00003_.webp",
        "v_00001_.webm",
        "x_00003_.flac",
        "l_00001_.latent",
        "a.mp4",
        "m.glb",
    ]
    assert [(ref.kind, ref.media_type, ref.subfolder, ref.folder) for ref in found[2:]] == [
        ("image", "image/png", "sub dir", "output"),
        ("image", "image/png", "", "temp"),
        ("image", "image/png", "", "output"),
        ("image", "image/png", "", "output"),
        ("image", "image/png", "", "output"),
        ("image", "image/webp", "", "output"),
        ("video", "video/webm", "video", "output"),
        ("audio", "audio/flac", "audio", "output"),
        ("file", "application/octet-stream", "latents", "output"),
        ("video", "video/mp4", "", "output"),
        ("file", "model/gltf-binary", "", "output"),
    ]


def test_an_output_knows_the_class_of_its_node() -> None:
    """A node made at run time is not in the graph and has none."""
    outputs = {"5": {"text": ["a"]}, "5.0.0.1": {"text": ["b"]}, "6": {"text": ["c"]}}
    found = list_outputs(outputs, {"5": {"class_type": "PreviewAny"}, "6": {"class_type": 3}})
    assert [(ref.node_id, ref.class_type) for ref in found] == [("5", "PreviewAny"), ("5.0.0.1", None), ("6", None)]


@pytest.mark.parametrize(
    ("lists", "values"),
    [
        ({"text": "bare"}, ["bare"]),
        ({"text": [""]}, [""]),
        ({"value": [3, 2.5, 0]}, [3, 2.5, 0]),
        ({"value": 7}, [7]),
        ({"text": [["a", "b"]]}, [["a", "b"]]),
        ({"result": ["3d/model.glb", {"camera": 1}, None]}, ["3d/model.glb", {"camera": 1}]),
        ({"images": [{"filename": ""}, {"filename": 4}]}, [{"filename": ""}, {"filename": 4}]),
        ({"animated": [True]}, []),
        ({"images": []}, []),
        ({"images": None}, []),
        ({}, []),
        (["odd"], ["odd"]),
        ("odd", ["odd"]),
        (None, []),
    ],
)
def test_values_and_unknown_shapes_are_kept_as_values(lists: Any, values: list[Any]) -> None:
    """Whatever is no file is a value; nothing that a node put out is lost, nothing raises."""
    found = list_outputs({"1": lists}, {"1": {"class_type": "X"}})
    assert [ref.value for ref in found] == values
    assert all(ref.kind == "text" and ref.filename is None for ref in found)


def test_a_file_without_a_place_lies_in_the_output_folder() -> None:
    """ComfyUI's own default is taken."""
    (ref,) = list_outputs({"1": {"images": [{"filename": "a.png", "subfolder": None}]}}, {})
    assert (ref.folder, ref.subfolder) == ("output", "")


@pytest.mark.parametrize(
    ("name", "kind", "media_type"),
    [
        ("A.PNG", "image", "image/png"),
        ("a.jpg", "image", "image/jpeg"),
        ("a.webp", "image", "image/webp"),
        ("a.mkv", "video", "video/x-matroska"),
        ("a.mov", "video", "video/quicktime"),
        ("a.opus", "audio", "audio/ogg"),
        ("a.mp3", "audio", "audio/mpeg"),
        ("a.wav", "audio", "audio/wav"),
        ("a.safetensors", "file", "application/octet-stream"),
        ("a.txt", "file", "text/plain"),
        ("a.json", "file", "application/json"),
        ("a.tar.gz", "file", "application/octet-stream"),
        ("a.nosuch", "file", "application/octet-stream"),
        ("png", "file", "application/octet-stream"),
        ("", "file", "application/octet-stream"),
    ],
)
def test_kind_and_media_type_follow_the_name(name: str, kind: str, media_type: str) -> None:
    """The ending decides, in any case, also where the standard library knows none."""
    assert describe(name) == (kind, media_type)

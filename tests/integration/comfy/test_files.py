"""Files of every kind on their way to ComfyUI and back."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from random import randrange
from typing import Any

import anyio
import pytest
from comfyui import Comfy
from PIL import Image

from app.comfy.ends import Succeeded
from app.comfy.folders import Shared, probe_shared
from app.comfy.outputs import OutputReader, OutputRef, list_outputs

pytestmark = pytest.mark.anyio


def _all_kinds() -> dict[str, Any]:
    """A picture in a subfolder, a preview, a batch, an animation, a film, a sound and a text."""
    picture = {"width": 32, "height": 32, "batch_size": 1, "color": randrange(1 << 24)}
    animation = {"filename_prefix": "anim", "fps": 4, "lossless": True, "quality": 80, "method": "default"}
    return {
        "1": {"class_type": "EmptyImage", "inputs": picture},
        "2": {"class_type": "EmptyImage", "inputs": {**picture, "batch_size": 3}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub dir/d"}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "batch"}},
        "9": {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["2", 0], **animation}},
        "10": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": 4}},
        "11": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["10", 0], "filename_prefix": "video/v", "format": "mp4", "codec": "h264"},
        },
        "12": {"class_type": "EmptyAudio", "inputs": {"duration": 0.2, "sample_rate": 8000, "channels": 1}},
        "13": {"class_type": "SaveAudio", "inputs": {"audio": ["12", 0], "filename_prefix": "audio/x"}},
        "14": {"class_type": "PrimitiveString", "inputs": {"value": f"a text {randrange(1 << 24)}"}},
        "15": {"class_type": "PreviewAny", "inputs": {"source": ["14", 0]}},
    }


async def _outputs(comfy: Comfy) -> list[OutputRef]:
    graph = _all_kinds()
    async with comfy.watching() as watch:
        end = await comfy.run(watch, graph)
    assert isinstance(end, Succeeded)
    assert end.entry.graph.keys() == graph.keys()
    return list_outputs(end.entry.outputs, end.entry.graph)


async def test_outputs_of_every_kind_are_listed(any_comfy: Comfy) -> None:
    """Each with its node, class, kind and place."""
    refs = await _outputs(any_comfy)
    assert sorted((ref.node_id, ref.class_type, ref.kind, ref.folder, ref.subfolder) for ref in refs) == sorted(
        [
            ("5", "SaveImage", "image", "output", "sub dir"),
            ("6", "PreviewImage", "image", "temp", ""),
            *[("8", "SaveImage", "image", "output", "")] * 3,
            ("9", "SaveAnimatedWEBP", "image", "output", ""),
            ("11", "SaveVideo", "video", "output", "video"),
            ("13", "SaveAudio", "audio", "output", "audio"),
            ("15", "PreviewAny", "text", "output", ""),
        ]
    )
    assert next(ref.value for ref in refs if ref.kind == "text").startswith("a text")
    media_types = {"image/png", "image/webp", "video/mp4", "audio/flac"}
    assert {ref.media_type for ref in refs if ref.filename} == media_types


async def test_outputs_are_the_same_from_the_folder_and_over_view(any_comfy: Comfy, tmp_path: Path) -> None:
    """Size and hash do not depend on the way; only files that came over the wire are ours."""
    refs = [ref for ref in await _outputs(any_comfy) if ref.filename]
    shared = OutputReader(any_comfy.client, output_dir=any_comfy.home / "output")
    over_view = OutputReader(any_comfy.client)
    for ref in refs:
        here, fetched = await shared.fetch(ref, tmp_path), await over_view.fetch(ref, tmp_path)
        assert (here.sha256, here.size_bytes) == (fetched.sha256, fetched.size_bytes)
        assert here.owned is (ref.folder == "temp")
        assert fetched.owned
        content = await anyio.Path(fetched.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == fetched.sha256
        if ref.media_type == "image/png":
            Image.open(io.BytesIO(content)).verify()


async def test_folders_are_proved_to_be_shared(any_comfy: Comfy, tmp_path: Path) -> None:
    """The stand-in's own folders are; another one is not."""
    home = any_comfy.home
    assert await probe_shared(any_comfy.client, home / "input", home / "output") == Shared(input=True, output=True)
    assert await probe_shared(any_comfy.client, tmp_path, tmp_path) == Shared(input=False, output=False)


async def test_an_uploaded_picture_can_be_loaded(any_comfy: Comfy, tmp_path: Path) -> None:
    """The name that an upload gives is the one a LoadImage takes."""
    source = tmp_path / "source"
    await anyio.to_thread.run_sync(
        lambda: Image.new("RGB", (16, 16), (randrange(256), randrange(256), randrange(256))).save(source, "PNG")
    )
    name = await any_comfy.client.upload(source, subfolder="comfybus/up", filename="a b.png", overwrite=True)
    assert name == "comfybus/up/a b.png"
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "uploaded"}},
    }
    async with any_comfy.watching() as watch:
        assert isinstance(await any_comfy.run(watch, graph), Succeeded)


async def test_an_upload_of_a_taken_name_gets_another(any_comfy: Comfy, tmp_path: Path) -> None:
    """The same bytes keep the name, other bytes get a free one, overwriting keeps it."""

    async def upload(content: bytes, *, overwrite: bool) -> str:
        await anyio.Path(tmp_path / "f").write_bytes(content)
        return await any_comfy.client.upload(tmp_path / "f", subfolder="", filename="taken.png", overwrite=overwrite)

    assert await upload(b"one", overwrite=True) == "taken.png"
    assert await upload(b"one", overwrite=False) == "taken.png"
    assert await upload(b"two", overwrite=False) == "taken (1).png"
    assert await upload(b"two", overwrite=True) == "taken.png"

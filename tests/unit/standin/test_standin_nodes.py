"""What the nodes of the stand-in make of their inputs."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from standin_client import Client, empty_image, node, saved

from app.comfy.standin import StandinConfig, flac, mp4, serve
from app.comfy.standin.folders import Folders
from app.comfy.standin.node_types import ImageBatch, Node
from app.comfy.standin.nodes_image import ImageBlend, ImageInvert, ImageScale
from app.comfy.standin.nodes_load import LoadImage, LoadImageMask

pytestmark = pytest.mark.anyio


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Empty folders of a home."""
    return Folders(StandinConfig(home=tmp_path))


def _run(kind: type[Node], folders: Folders, **given: Any) -> tuple[Any, ...]:
    bench: Any = SimpleNamespace(folders=folders, memory_limit_bytes=1 << 20)
    return kind(folders).run(bench, given).outputs


def _plain(color: tuple[int, int, int], size: tuple[int, int] = (4, 4)) -> ImageBatch:
    return ImageBatch((Image.new("RGB", size, color),))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("normal", (40, 240)),
        ("multiply", (31, 113)),
        ("screen", (209, 247)),
        ("overlay", (162, 226)),
        ("soft_light", (170, 168)),
        ("difference", (160, 0)),
    ],
)
def test_blend_modes_follow_the_formulas(mode: str, expected: tuple[int, int], folders: Folders) -> None:
    """Each blend mode at full strength gives the value of its formula, for a light and a dark second picture."""
    one, two = _plain((200, 120, 0)), _plain((40, 240, 0))
    (blended,) = _run(ImageBlend, folders, image1=one, image2=two, blend_factor=1.0, blend_mode=mode)
    assert blended.frames[0].getpixel((0, 0))[:2] == expected


def test_blending_goes_halfway_and_stretches_the_batch(folders: Folders) -> None:
    """A factor of one half mixes evenly; one second picture of another size serves a whole batch."""
    one = ImageBatch((Image.new("RGB", (4, 4)),) * 3)
    two = _plain((100, 200, 50), (9, 5))
    (blended,) = _run(ImageBlend, folders, image1=one, image2=two, blend_factor=0.5, blend_mode="normal")
    assert len(blended.frames) == 3
    assert blended.size == (4, 4)
    assert blended.frames[2].getpixel((0, 0)) == (50, 100, 25)


def test_batches_that_do_not_match_cannot_be_blended(folders: Folders) -> None:
    """Two pictures and three pictures are an error, in torch's words."""
    one, two = (ImageBatch((Image.new("RGB", (4, 4)),) * count) for count in (2, 3))
    with pytest.raises(RuntimeError, match=r"tensor a \(2\) must match the size of tensor b \(3\)"):
        _run(ImageBlend, folders, image1=one, image2=two, blend_factor=0.5, blend_mode="normal")


def test_inverting_turns_every_channel(folders: Folders) -> None:
    """A picture's negative has 255 minus every value."""
    (inverted,) = _run(ImageInvert, folders, image=_plain((0, 100, 255)))
    assert inverted.frames[0].getpixel((1, 1)) == (255, 155, 0)


@pytest.mark.parametrize(
    ("width", "height", "size"), [(20, 10, (20, 10)), (0, 10, (20, 10)), (10, 0, (10, 5)), (0, 0, (8, 4))]
)
def test_scaling_keeps_proportions_for_a_side_of_zero(
    width: int, height: int, size: tuple[int, int], folders: Folders
) -> None:
    """A side of zero follows from the other one; two zeros change nothing."""
    image = _plain((1, 2, 3), (8, 4))
    (scaled,) = _run(
        ImageScale, folders, image=image, upscale_method="bilinear", width=width, height=height, crop="disabled"
    )
    assert scaled.size == size


def test_scaling_with_crop_cuts_the_sides(folders: Folders) -> None:
    """Crop "center" leaves out the left and the right of a picture that is too wide."""
    wide = Image.new("RGB", (12, 4), (255, 0, 0))
    wide.paste((0, 0, 255), (4, 0, 8, 4))
    (scaled,) = _run(
        ImageScale,
        folders,
        image=ImageBatch((wide,)),
        upscale_method="nearest-exact",
        width=4,
        height=4,
        crop="center",
    )
    assert {color for _, color in scaled.frames[0].getcolors()} == {(0, 0, 255)}


def test_loading_gives_all_frames_and_the_transparency(folders: Folders) -> None:
    """An animated picture becomes a batch; its transparency, inverted, the masks."""
    frames = [Image.new("RGBA", (6, 5), (0, 0, 0, 255)), Image.new("RGBA", (6, 5), (255, 255, 255, 55))]
    frames[0].save(folders.input / "two.png", save_all=True, append_images=frames[1:])
    images, masks = _run(LoadImage, folders, image="two.png")
    assert len(images.frames) == 2
    assert images.size == (6, 5)
    assert [mask.getpixel((0, 0)) for mask in masks] == [0, 200]


def test_loading_turns_a_picture_as_its_camera_was_held(folders: Folders) -> None:
    """The EXIF orientation is applied, and a picture without transparency has an empty mask of 64 by 64."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 20)).save(folders.input / "photo.jpg", exif=exif)
    images, masks = _run(LoadImage, folders, image="photo.jpg")
    assert images.size == (20, 10)
    assert masks[0].size == (64, 64)


def test_loading_accepts_a_file_that_was_cut_off(folders: Folders) -> None:
    """A truncated JPEG is decoded as far as it goes."""
    target = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(target, format="JPEG")
    (folders.input / "cut.jpg").write_bytes(target.getvalue()[: len(target.getvalue()) * 2 // 3])
    images, _ = _run(LoadImage, folders, image="cut.jpg")
    assert images.size == (64, 64)


def test_a_mask_is_one_channel_and_alpha_is_inverted(folders: Folders) -> None:
    """The red channel comes as it is, the alpha channel as 255 minus its value."""
    Image.new("RGBA", (3, 3), (10, 20, 30, 200)).save(folders.input / "m.png")
    for channel, value in (("red", 10), ("alpha", 55)):
        (mask,) = _run(LoadImageMask, folders, image="m.png", channel=channel)
        assert mask[0].getpixel((0, 0)) == value


async def test_saved_pictures_carry_the_graph(client: Client) -> None:
    """A PNG has the graph and the client's own entries in its text chunks."""
    graph = saved(0xD60A28, "deep/er/meta")
    entry = await client.run(graph, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    (file,) = entry["outputs"]["2"]["images"]
    assert file == {"filename": "meta_00001_.png", "subfolder": "deep/er", "type": "output"}
    with Image.open(client.standin.home / "output" / file["subfolder"] / file["filename"]) as picture:
        assert picture.getpixel((0, 0)) == (0xD6, 0x0A, 0x28)
        texts: Any = picture.text  # type: ignore[attr-defined]
    assert json.loads(texts["prompt"]) == graph
    assert json.loads(texts["workflow"]) == {"id": "w"}


async def test_an_animation_has_every_frame_of_the_batch(client: Client) -> None:
    """SaveAnimatedWEBP writes one file and says whether it moves."""
    Image.new("RGB", (8, 8), (255, 0, 0)).save(
        client.standin.home / "input" / "anim.gif", save_all=True, append_images=[Image.new("RGB", (8, 8))]
    )
    saver = node(
        "SaveAnimatedWEBP",
        images=["1", 0],
        filename_prefix="a",
        fps=5.0,
        lossless=True,
        quality=80,
        method="fastest",
    )
    shown = (await client.run({"1": node("LoadImage", image="anim.gif"), "2": saver}))["outputs"]["2"]
    assert shown["animated"] == [True]
    with Image.open(client.standin.home / "output" / shown["images"][0]["filename"]) as picture:
        assert picture.format == "WEBP"
        assert getattr(picture, "n_frames", 1) == 2


async def test_films_and_sounds_are_files_too(client: Client) -> None:
    """SaveVideo lists an MP4 under images, SaveAudio a FLAC under audio."""
    graph = {
        "1": empty_image(batch_size=2),
        "2": node("CreateVideo", images=["1", 0], fps=24.0),
        "3": node("SaveVideo", video=["2", 0], filename_prefix="v", format="auto", codec="auto"),
        "4": node("EmptyAudio", duration=0.1, sample_rate=8000, channels=1),
        "5": node("SaveAudio", audio=["4", 0], filename_prefix="s"),
    }
    outputs = (await client.run(graph))["outputs"]
    assert outputs["3"]["images"][0]["filename"] == "v_00001_.mp4"
    assert outputs["3"]["animated"] == [True]
    assert outputs["5"]["audio"][0]["filename"] == "s_00001_.flac"
    film = await client.get("/view?filename=v_00001_.mp4")
    assert film[4:8] == b"ftyp"
    sound = await client.get("/view?filename=s_00001_.flac")
    assert sound.startswith(b"fLaC")


@pytest.mark.parametrize(
    ("source", "text"), [("words", "words"), (2.5, "2.5"), ({"a": [1]}, '{"a": [1]}'), (None, "None")]
)
async def test_any_value_is_shown_as_text(source: object, text: str, client: Client) -> None:
    """PreviewAny shows texts and numbers as they are and the rest as JSON."""
    entry = await client.run({"1": node("PreviewAny", source=source)})
    assert entry["outputs"] == {"1": {"text": [text]}}


async def test_the_same_seed_gives_the_same_noise(client: Client) -> None:
    """The stock text-to-image graph is repeatable, and another seed gives another picture."""
    (client.standin.home / "models" / "checkpoints" / "m.safetensors").touch()
    pictures = [await _text_to_image(client, seed, prefix) for seed, prefix in ((1, "a"), (1, "b"), (2, "c"))]
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize("size", [(4000, 4000, 4096), (16384, 16384, 2)])
async def test_pictures_too_big_for_the_memory_fail_the_prompt(size: tuple[int, int, int], client: Client) -> None:
    """An impossible batch ends in an execution_error that speaks of memory, not in the end of the server."""
    width, height, batch = size
    graph = saved()
    graph["1"] = empty_image(1, width, height, batch)
    entry = await client.run(graph)
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert "can't allocate memory" in entry["status"]["messages"][-1][1]["exception_message"]
    assert (await client.run(saved()))["status"]["completed"] is True


async def test_a_decompression_bomb_fails_the_prompt(client: Client) -> None:
    """A small file that claims to be a huge picture ends in an execution_error."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(4)
    (client.standin.home / "input" / "bomb.png").write_bytes(bomb)
    saver = node("SaveImage", images=["1", 0], filename_prefix="x")
    entry = await client.run({"1": node("LoadImage", image="bomb.png"), "2": saver})
    kind, failure = entry["status"]["messages"][-1]
    assert (kind, failure["node_id"]) == ("execution_error", "1")
    assert failure["exception_type"].startswith("PIL.")


async def test_previews_are_shown_when_switched_on(tmp_path: Path) -> None:
    """With previews on, KSampler sends a JPEG at every step, in the form that names its node if flags ask for it."""
    async with serve(StandinConfig(home=tmp_path, previews=True)) as standin:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            client = Client(standin, session)
            listening = await session.ws_connect(f"{standin.url}/ws?clientId=c")
            await listening.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            await listening.receive(5)
            assert (await listening.receive_json(timeout=5))["type"] == "feature_flags"
            graph = {
                "1": empty_image(width=300, height=600),
                "2": node("PreviewedProgress", image=["1", 0], steps=2, seconds=0.0),
                "3": node("PreviewAny", source=["2", 0]),
            }
            await client.queue(graph, client_id="c")
            frames: list[bytes] = []
            while len(frames) < 2:
                message = await listening.receive(5)
                frames += [message.data] if message.type is aiohttp.WSMsgType.BINARY else []
    kind, length = struct.unpack(">II", frames[0][:8])
    assert kind == 4
    names = json.loads(frames[0][8 : 8 + length])
    assert names["node_id"] == "2"
    with Image.open(io.BytesIO(frames[0][8 + length :])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (256, 512))


async def test_a_large_file_has_its_size_and_no_pattern(tmp_path: Path) -> None:
    """SaveLargeFile writes as many MiB of noise as asked for and lists the file."""
    async with serve(StandinConfig(home=tmp_path)) as standin:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            client = Client(standin, session)
            entry = await client.run({"1": node("SaveLargeFile", mebibytes=2, filename_prefix="big")})
    listed = entry["outputs"]["1"]["files"][0]
    content = (tmp_path / "output" / listed["filename"]).read_bytes()
    assert len(content) == 2 * 1024 * 1024
    assert content[:1024] != content[1024:2048]


def test_silence_is_a_flac_stream_of_the_right_length() -> None:
    """The stream's header tells rate, channels and samples, and a block of samples follows every 4096."""
    stream = flac.silence(10000, 44100, 2)
    packed = int.from_bytes(stream[18:26], "big")
    assert (packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1) == (44100, 2, 10000)
    assert stream.count(b"\xff\xf8\x70") == 3


def test_a_film_points_to_its_pictures() -> None:
    """The table of an MP4 file gives the place of the first picture, which is a JPEG of the right size."""
    film = mp4.movie((Image.new("RGB", (32, 24), (9, 9, 9)),) * 2, 10.0)
    table = film.index(b"stco")
    (start,) = struct.unpack(">I", film[table + 12 : table + 16])
    with Image.open(io.BytesIO(film[start:])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 24))


async def _text_to_image(client: Client, seed: int, prefix: str) -> bytes:
    graph = {
        "3": node(
            "KSampler",
            seed=seed,
            steps=2,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["6", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="m.safetensors"),
        "5": node("EmptyLatentImage", width=32, height=32, batch_size=1),
        "6": node("CLIPTextEncode", text="a lighthouse", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix=prefix),
    }
    file = (await client.run(graph))["outputs"]["9"]["images"][0]["filename"]
    with Image.open(client.standin.home / "output" / file) as picture:
        return picture.tobytes()

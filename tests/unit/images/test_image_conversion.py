"""Converted files, decoded again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from image_files import SIZE, converted, deep_grey, difference, frames, gradient, profile, texts, with_alpha
from PIL import Image, ImageChops

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("kind", "name"), [("jpeg", "JPEG"), ("jpg", "JPEG"), ("webp", "WEBP")])
async def test_format_and_name(tmp_path: Path, kind: str, name: str) -> None:
    """The file is of the format asked for and has its ending as it was asked for."""
    gradient().save(tmp_path / "id_x_00001_.png")
    made = await converted(tmp_path / "id_x_00001_.png", kind)
    assert made is not None
    assert made.name == f"id_x_00001_.{kind}"
    with Image.open(made) as image:
        assert (image.format, image.size, image.mode) == (name, SIZE, "RGB")
        assert difference(image, gradient()) < 20


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_quality(tmp_path: Path, kind: str) -> None:
    """Less quality makes smaller files and larger differences."""
    gradient().save(tmp_path / "a.png")
    sizes, differences = [], []
    for quality in (5, 50, 95):
        made = await converted(tmp_path / "a.png", kind, quality=quality)
        assert made is not None
        sizes.append(made.stat().st_size)
        with Image.open(made) as image:
            differences.append(difference(image, gradient()))
    assert sizes == sorted(sizes)
    assert differences == sorted(differences, reverse=True)


@pytest.mark.parametrize(
    ("options", "progressive"),
    [({}, False), ({"progressive": True}, True), ({"mozjpeg": True}, True), ({"optimizeScans": True}, True)],
)
async def test_progressive(tmp_path: Path, options: dict[str, Any], progressive: bool) -> None:
    """The flag is in the file."""
    gradient().save(tmp_path / "a.png")
    made = await converted(tmp_path / "a.png", "jpeg", **options)
    assert made is not None
    with Image.open(made) as image:
        assert bool(image.info.get("progressive")) is progressive


@pytest.mark.parametrize(("subsampling", "factors"), [("4:2:0", (2, 2)), ("4:4:4", (1, 1))])
async def test_chroma_subsampling(tmp_path: Path, subsampling: str, factors: tuple[int, int]) -> None:
    """The sampling factors of the first component are those asked for."""
    gradient().save(tmp_path / "a.png")
    made = await converted(tmp_path / "a.png", "jpeg", chromaSubsampling=subsampling)
    assert made is not None
    with Image.open(made) as image:
        assert image.layer[0][1:3] == factors


async def test_optimised_coding(tmp_path: Path) -> None:
    """Optimised Huffman tables make the file smaller and leave its pixels."""
    gradient().save(tmp_path / "a.png")
    plain = await converted(tmp_path / "a.png", "jpeg", optimizeCoding=False)
    optimised = await converted(tmp_path / "a.png", "jpeg")
    assert plain is not None
    assert optimised is not None
    assert optimised.stat().st_size < plain.stat().st_size
    with Image.open(plain) as one, Image.open(optimised) as other:
        assert difference(one, other) == 0


@pytest.mark.parametrize("options", [{"lossless": True}, {"nearLossless": True}, {"lossless": True, "quality": 10}])
@pytest.mark.parametrize("alpha", [True, False])
async def test_lossless(tmp_path: Path, options: dict[str, Any], alpha: bool) -> None:
    """Every pixel is the same, also the colour of those that cannot be seen."""
    source = with_alpha() if alpha else gradient()
    source.save(tmp_path / "a.png")
    made = await converted(tmp_path / "a.png", "webp", **options)
    assert made is not None
    with Image.open(made) as image:
        assert image.mode == source.mode
        assert image.tobytes() == source.tobytes()


async def test_alpha_quality(tmp_path: Path) -> None:
    """A lower quality of the alpha channel shows in it."""
    source = gradient("RGBA")
    source.putalpha(gradient("L"))
    source.save(tmp_path / "a.png")
    losses = []
    for quality in (100, 0):
        made = await converted(tmp_path / "a.png", "webp", alphaQuality=quality)
        assert made is not None
        with Image.open(made) as image:
            losses.append(ImageChops.difference(image.getchannel("A"), source.getchannel("A")).getbbox())
    assert losses[0] is None
    assert losses[1] is not None


async def test_effort(tmp_path: Path) -> None:
    """More effort makes no larger files."""
    gradient().save(tmp_path / "a.png")
    sizes = []
    for effort in (0, 6):
        made = await converted(tmp_path / "a.png", "webp", lossless=True, effort=effort)
        assert made is not None
        sizes.append(made.stat().st_size)
    assert sizes[1] <= sizes[0]


@pytest.mark.parametrize(("background", "seen"), [(None, (0, 0, 0)), ("#ff8000", (255, 128, 0))])
async def test_transparency_in_jpeg(tmp_path: Path, background: str | None, seen: tuple[int, int, int]) -> None:
    """What cannot be seen shows the background: black, as comfyui-api has it, or another colour."""
    with_alpha().save(tmp_path / "a.png")
    options = {"background": background} if background else {}
    made = await converted(tmp_path / "a.png", "jpeg", chromaSubsampling="4:4:4", **options)
    assert made is not None
    with Image.open(made) as image:
        assert image.mode == "RGB"
        pixel = image.getpixel((10, 30))
        assert isinstance(pixel, tuple)
        assert all(abs(a - b) < 12 for a, b in zip(pixel, seen, strict=True))
        assert difference(image.crop((50, 0, 96, 64)), gradient().crop((50, 0, 96, 64))) < 20


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_modes(tmp_path: Path, mode: str, kind: str) -> None:
    """Whatever the pixels are kept as, the picture is the same."""
    source = deep_grey() if mode == "I;16" else gradient("RGBA").convert(mode) if mode == "PA" else gradient(mode)
    path = tmp_path / f"a.{'tiff' if mode in ('CMYK', 'PA', 'YCbCr', 'LA') else 'png'}"
    if mode == "PA":
        source = gradient("P")
        source.info["transparency"] = 0
        path = tmp_path / "a.png"
    source.save(path)
    made = await converted(path, kind, quality=95)
    assert made is not None
    expected = source.convert("RGBA").convert("RGB") if mode != "I;16" else None
    with Image.open(made) as image:
        assert image.size == SIZE
        if expected is None:
            row = [image.convert("L").getpixel((x, 30)) for x in (0, 24, 48, 72, 95)]
            assert all(abs(int(value) - x * 255 / 95) < 8 for value, x in zip(row, (0, 24, 48, 72, 95), strict=True))
        elif mode != "PA":
            assert difference(image, expected) < 20
    assert path.exists()


async def test_transparent_palette(tmp_path: Path) -> None:
    """A palette with a transparent colour keeps it in WebP."""
    source = with_alpha().quantize(16)
    source.save(tmp_path / "a.png")
    made = await converted(tmp_path / "a.png", "webp", lossless=True)
    assert made is not None
    with Image.open(made) as image:
        assert image.mode == "RGBA"
        assert image.getpixel((5, 5))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("kind", ["png", "webp", "gif"])
async def test_animations(tmp_path: Path, kind: str) -> None:
    """Frames, times and repetitions of an animation stay in WebP."""
    first, *others = frames(5)
    times = [100, 200, 300, 400, 500]
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others, duration=times, loop=3, lossless=True)
    made = await converted(tmp_path / f"a.{kind}", "webp", lossless=True)
    assert made is not None
    with Image.open(made) as image:
        assert image.n_frames == 5  # type: ignore[attr-defined]
        assert image.info["loop"] == 3
        found = []
        for number, frame in enumerate([first, *others]):
            image.seek(number)
            image.load()
            found.append(image.info["duration"])
            assert difference(image, frame) < 2
        assert found == times


@pytest.mark.parametrize("kind", ["jpeg", "jpg"])
async def test_animations_are_no_jpeg(tmp_path: Path, kind: str) -> None:
    """JPEG has no frames, so the animation passes unchanged instead of losing all but one."""
    first, *others = frames(3)
    first.save(tmp_path / "a.webp", save_all=True, append_images=others)
    assert await converted(tmp_path / "a.webp", kind) is None


async def test_pages_are_no_animation(tmp_path: Path) -> None:
    """A TIFF with pages passes unchanged."""
    first, *others = frames(3)
    first.save(tmp_path / "a.tiff", save_all=True, append_images=others)
    assert await converted(tmp_path / "a.tiff", "webp") is None


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_colour_profiles(tmp_path: Path, kind: str) -> None:
    """A profile goes along with the colours it belongs to."""
    gradient().save(tmp_path / "a.png", icc_profile=profile())
    made = await converted(tmp_path / "a.png", kind)
    assert made is not None
    with Image.open(made) as image:
        assert image.info["icc_profile"] == profile()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_profiles_that_do_not_fit(tmp_path: Path, kind: str) -> None:
    """A profile of another kind of colour, or rubbish, is left out."""
    for number, wrong in enumerate((profile(), b"rubbish")):
        gradient("L").save(tmp_path / f"{number}.png", icc_profile=wrong)
        made = await converted(tmp_path / f"{number}.png", kind)
        assert made is not None
        with Image.open(made) as image:
            assert "icc_profile" not in image.info
            assert difference(image, gradient("L")) < 20


async def test_upright(tmp_path: Path) -> None:
    """A picture that says it lies on its side is turned, since what says so is left out."""
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient().save(tmp_path / "a.jpg", exif=exif, quality=95)
    for keep in (True, False):
        made = await converted(tmp_path / "a.jpg", "webp", keepMetadata=keep)
        assert made is not None
        with Image.open(made) as image:
            assert image.size == (SIZE[1], SIZE[0])
            assert 0x0112 not in image.getexif()


PROMPT = json.dumps({"1": {"class_type": "X", "inputs": {"text": "ein Kätzchen"}}}, ensure_ascii=False)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_metadata_kept(tmp_path: Path, kind: str) -> None:
    """On demand ComfyUI's prompt and workflow stand where its front end finds them."""
    entries = {"prompt": PROMPT, "workflow": '{"nodes": []}', "extra": "more"}
    gradient().save(tmp_path / "a.png", pnginfo=texts(**entries))
    made = await converted(tmp_path / "a.png", kind, keepMetadata=True)
    assert made is not None
    with Image.open(made) as image:
        exif = image.getexif()
        assert exif[0x010F] == 'workflow:{"nodes": []}'
        assert json.loads(exif[0x0110].removeprefix("prompt:")) == json.loads(PROMPT)
        assert exif[0x010E] == "extra:more"


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_metadata_left_out(tmp_path: Path, kind: str) -> None:
    """Else nothing of them is in the file, as with comfyui-api."""
    exif = Image.Exif()
    exif[0x010E] = "secret words"
    gradient().save(tmp_path / "a.jpg", exif=exif, comment="secret words")
    gradient().save(tmp_path / "b.png", pnginfo=texts(prompt="secret words"))
    for name in ("a.jpg", "b.png"):
        made = await converted(tmp_path / name, kind)
        assert made is not None
        assert b"secret" not in made.read_bytes()


async def test_metadata_of_webp(tmp_path: Path) -> None:
    """What ComfyUI's animated WebP carries in EXIF goes on into WebP."""
    exif = Image.Exif()
    exif[0x0110] = "prompt:{}"
    first, *others = frames(3)
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, exif=exif)
    made = await converted(tmp_path / "a.webp", "webp", keepMetadata=True, quality=20)
    assert made is not None
    with Image.open(made) as image:
        assert image.getexif()[0x0110] == "prompt:{}"


async def test_metadata_too_large_for_jpeg(tmp_path: Path) -> None:
    """JPEG takes 64 KiB: then the prompt alone stays, and if that is too large, nothing."""
    for number, (prompt, expected) in enumerate((("small", True), ("x" * 70_000, False))):
        path = tmp_path / f"{number}.png"
        gradient().save(path, pnginfo=texts(prompt=prompt, workflow="y" * 70_000))
        made = await converted(path, "jpeg", keepMetadata=True)
        assert made is not None
        with Image.open(made) as image:
            assert (0x0110 in image.getexif()) is expected
            assert 0x010F not in image.getexif()
        large = await converted(path, "webp", keepMetadata=True)
        assert large is not None
        with Image.open(io.BytesIO(large.read_bytes())) as image:
            assert len(image.getexif()[0x010F]) > 70_000

"""Brings the pixels of any image into a mode that JPEG or WebP can hold: alpha, 16 bit, palettes, colour profiles."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageCms, ImageColor, ImageOps

__all__ = ["Unconvertible", "for_jpeg", "for_webp"]

_DEEP: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_MOST_OF_16_BIT: Final = 65535


class Unconvertible(Exception):
    """The image stays as it is; the text says why."""


def for_jpeg(source: Image.Image, background: str) -> tuple[Image.Image, bytes | None]:
    """Upright pixels in L or RGB and the colour profile that goes with them.

    Transparent pixels are laid over the background (sharp's default, and so comfyui-api's, is black).
    """
    image, profile = _upright(source), _profile(source)
    if image.has_transparency_data:
        seen = Image.new("RGBA", image.size, ImageColor.getrgb(background))
        seen.alpha_composite(image.convert("RGBA"))
        return _with_profile(seen.convert("RGB"), profile)
    image = image.convert("L") if image.mode == "1" else image
    return _with_profile(image if image.mode in ("L", "CMYK") else image.convert("RGB"), profile)


def for_webp(source: Image.Image) -> tuple[Image.Image, bytes | None]:
    """Upright pixels in RGB or RGBA and the colour profile that goes with them."""
    image, profile = _upright(source), _profile(source)
    if image.has_transparency_data:
        return _with_profile(image.convert("RGBA"), profile)
    image = image.convert("L") if image.mode == "1" else image
    ready, kept = _with_profile(image if image.mode in ("L", "CMYK") else image.convert("RGB"), profile)
    if ready.mode == "L" and kept:
        # WebP has no grey, so a profile for grey has to be used up.
        return _to_srgb(ready, kept), None
    return ready.convert("RGB"), kept


def _upright(source: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(source)
    if image.mode in _DEEP:
        return _eight_bit(image)
    if image.mode in ("F", "LAB", "HSV"):
        raise Unconvertible(f"pixels of mode {image.mode} have no counterpart")
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bit scaled to 8; Pillow's own conversion would cut everything above 255 to white."""
    wide = image.convert("I")
    extrema = wide.getextrema()
    low, high = (int(value) for value in extrema if not isinstance(value, tuple))
    if low < 0 or high > _MOST_OF_16_BIT:
        raise Unconvertible("grey of 32 bit has no known range")
    return wide.point(lambda value: value * (255 / _MOST_OF_16_BIT) + 0.5).convert("L")


def _profile(source: Image.Image) -> bytes | None:
    profile = source.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile else None


def _with_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The image and the profile that says how to read its colours; printing colours are brought into sRGB."""
    space = _space(profile)
    if image.mode == "CMYK":
        return (_to_srgb(image, profile) if profile and space == "CMYK" else image.convert("RGB")), None
    fits = (space == "RGB" and image.mode in ("RGB", "RGBA")) or (space == "GRAY" and image.mode == "L")
    return image, profile if fits else None


def _space(profile: bytes | None) -> str:
    if profile is None:
        return ""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        wanted = ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), wanted, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        made = None
    return made if made is not None else image.convert("RGB")

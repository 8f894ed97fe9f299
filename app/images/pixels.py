"""Brings the pixels of any image into a mode that JPEG or WebP can hold: alpha, 16 bit, palettes, colour profiles.

Used by convert; may import nothing of ours.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageCms, ImageOps

__all__ = ["Unconvertible", "for_jpeg", "for_webp"]

_DEEP: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_MOST_OF_16_BIT: Final = 65535


class Unconvertible(Exception):
    """The image stays as it is; the text says why."""


def for_jpeg(source: Image.Image, background: str) -> tuple[Image.Image, bytes | None]:
    """Upright pixels in L or RGB and the colour profile that goes with them; the source may be changed.

    Transparent pixels are laid over the background (sharp's default, and so comfyui-api's, is black).
    """
    image, profile = _upright(source), _profile(source)
    if image.has_transparency_data:
        image = _as(image, "RGBA")
        seen = Image.new("RGB", image.size, background)
        seen.paste(image, mask=image.getchannel("A"))
        return _with_profile(seen, profile)
    return _with_profile(_opaque(image), profile)


def for_webp(source: Image.Image) -> tuple[Image.Image, bytes | None]:
    """Upright pixels in RGB or RGBA and the colour profile that goes with them; the source may be changed."""
    image, profile = _upright(source), _profile(source)
    if image.has_transparency_data:
        return _with_profile(_as(image, "RGBA"), profile)
    ready, kept = _with_profile(_opaque(image), profile)
    if ready.mode == "L" and kept:
        # WebP has no grey, so a profile for grey has to be used up.
        return _to_srgb(ready, kept), None
    return _as(ready, "RGB"), kept


def _upright(source: Image.Image) -> Image.Image:
    # In place, since the largest canvas takes 360 MB each time it is copied.
    ImageOps.exif_transpose(source, in_place=True)
    if source.mode in _DEEP:
        return _eight_bit(source)
    if source.mode in ("F", "LAB", "HSV"):
        raise Unconvertible(f"pixels of mode {source.mode} have no counterpart")
    return source


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "CMYK") else _as(image, "RGB")


def _as(image: Image.Image, mode: str) -> Image.Image:
    """The image in a mode; Pillow would copy it even if it is in that mode already."""
    return image if image.mode == mode else image.convert(mode)


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

"""Conversion of image outputs."""

from app.images.convert import MAX_PIXELS, MAX_PIXELS_OF_ALL_FRAMES, Converter
from app.images.options import JpegOptions, Options, WebpOptions, check_options

__all__ = [
    "MAX_PIXELS",
    "MAX_PIXELS_OF_ALL_FRAMES",
    "Converter",
    "JpegOptions",
    "Options",
    "WebpOptions",
    "check_options",
]

"""Conversion of image outputs.

Used by app.worker.inputs, app.worker.sinks, app.worker.worker; may import its folder alone.
"""

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

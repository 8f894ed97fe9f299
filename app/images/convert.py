"""Converts image outputs to JPEG and WebP, off the event loop and bounded.

Used by its folder's ``__init__``; may import schemas.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog
from PIL import Image, UnidentifiedImageError

from app.images.metadata import exif_for
from app.images.options import JpegOptions, Options, WebpOptions, check_options
from app.images.pixels import Unconvertible, for_jpeg, for_webp
from schemas.prompt import ConvertOutput

__all__ = ["MAX_PIXELS", "MAX_PIXELS_OF_ALL_FRAMES", "Converter"]

MAX_PIXELS: Final = 89_478_485
"""Largest canvas: Pillow's own limit, from which on it suspects a decompression bomb."""
MAX_PIXELS_OF_ALL_FRAMES: Final = 1_000_000_000
"""Largest animation, all frames together: some 480 frames of 1080p, about two minutes of one core."""

# Formats whose frames are moments; the pages of a TIFF are not.
_MOVING: Final = frozenset({"PNG", "WEBP", "GIF", "AVIF"})
# Everything Pillow reads safely and ComfyUI's nodes write; no PostScript, PDF or films.
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "ICO", "PPM", "JPEG2000", "DDS")
_log = structlog.get_logger(__name__)


class Converter:
    """Converts files in threads, a few at a time.

    Args:
        parallel: Conversions at the same time; each takes one core and, for the largest canvas, up to 1 GB.
    """

    def __init__(self, parallel: int = 2) -> None:
        self._limiter = anyio.CapacityLimiter(parallel)

    async def convert(self, path: Path, wanted: ConvertOutput, into: Path) -> Path | None:
        """Convert one file.

        Animations (PNG, WebP, GIF, AVIF) keep their frames and times as WebP. A cancellation waits for the image at
        work; its file is removed.

        Args:
            path: Any file; it is not changed.
            wanted: Format and options; checked before (see ``check_options``).
            into: Folder for the new file, which gets the old name with the ending ``.<format>``.

        Returns:
            The new file; None if the file passes unchanged: it is no image, JPEG cannot hold it because it moves or
            has pages, it is damaged, or its canvas passes ``MAX_PIXELS``, ``MAX_PIXELS_OF_ALL_FRAMES`` or the format.

        Raises:
            InvalidRequest: The options are wrong.
            OSError: The disk took no more.
        """
        options = check_options(wanted)
        target = into / f"{path.stem}.{wanted.format}"
        work = partial(_convert, path, options, target)
        try:
            written = await anyio.to_thread.run_sync(work, limiter=self._limiter)
            # A cancellation that came while the thread ran shows only here.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: target.unlink(missing_ok=True))
            raise
        return target if written else None


def _convert(path: Path, options: Options, target: Path) -> bool:
    """Whether the target was written."""
    try:
        with Image.open(path, formats=_FORMATS) as source:
            encode = _encoder(source, options)
            with target.open("xb") as file:
                encode(file)
    except UnidentifiedImageError:
        return False
    except FileExistsError:
        raise
    except Exception as exc:
        target.unlink(missing_ok=True)
        # They report bad content by an OSError without a number too; the others are the disk's.
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        _log.warning("output is not converted", file=path.name, reason=f"{type(exc).__name__}: {exc}"[:300])
        return False
    return True


def _encoder(source: Image.Image, options: Options) -> Callable[[Any], None]:
    """What writes the image to a file.

    Raises:
        Unconvertible: It has to stay as it is.
    """
    frames = getattr(source, "n_frames", 1)
    pixels = source.width * source.height
    if pixels > MAX_PIXELS or pixels * frames > MAX_PIXELS_OF_ALL_FRAMES:
        raise Unconvertible(f"it has {source.width} x {source.height} pixels and {frames} frames, too many to convert")
    if frames > 1 and (isinstance(options, JpegOptions) or source.format not in _MOVING):
        raise Unconvertible(f"it has {frames} frames, which the format cannot hold")
    if isinstance(options, JpegOptions):
        image, profile = for_jpeg(source, options.background)
        return _saver(image, "JPEG", source, options, icc_profile=profile)
    if frames > 1:
        return _saver(source, "WEBP", source, options, icc_profile=source.info.get("icc_profile"), **_motion(source))
    image, profile = for_webp(source)
    return _saver(image, "WEBP", source, options, icc_profile=profile)


def _saver(
    image: Image.Image, name: str, source: Image.Image, options: JpegOptions | WebpOptions, **further: Any
) -> Callable[[Any], None]:
    exif = exif_for(source, limited=name == "JPEG") if options.keepMetadata else b""
    return partial(image.save, format=name, exif=exif, **options.pillow(), **further)


def _motion(source: Image.Image) -> dict[str, Any]:
    """How long each frame shows, in milliseconds, and how often all of them are repeated."""
    durations = []
    for number in range(getattr(source, "n_frames", 1)):
        source.seek(number)
        source.load()
        durations.append(source.info.get("duration", 0))
    source.seek(0)
    # A GIF that says nothing of repeating is shown once; 0 means for ever.
    loop = source.info.get("loop", 1 if source.format == "GIF" else 0)
    return {"save_all": True, "duration": durations, "loop": loop}

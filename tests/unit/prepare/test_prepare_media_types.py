"""What kind of content bytes are."""

from __future__ import annotations

import pytest
from prepare_doubles import FLAC, LATENT, MP3, MP4, WAV, WEBM, picture, png, zipped

from app.prepare.media_types import Unfit, ending_for
from app.prepare.nodes import Kind


@pytest.mark.parametrize(
    ("content", "kind", "ending"),
    [
        (picture("PNG"), Kind.IMAGE, ".png"),
        (picture("JPEG"), Kind.IMAGE, ".jpg"),
        (picture("WEBP"), Kind.IMAGE, ".webp"),
        (picture("GIF"), Kind.IMAGE, ".gif"),
        (picture("BMP"), Kind.IMAGE, ".bmp"),
        (picture("TIFF"), Kind.IMAGE, ".tiff"),
        (picture("AVIF"), Kind.IMAGE, ".avif"),
        (MP4, Kind.VIDEO, ".mp4"),
        (WEBM, Kind.VIDEO, ".webm"),
        (picture("GIF"), Kind.VIDEO, ".gif"),
        (MP4, Kind.AUDIO, ".mp4"),
        (WAV, Kind.AUDIO, ".wav"),
        (FLAC, Kind.AUDIO, ".flac"),
        (MP3, Kind.AUDIO, ".mp3"),
    ],
)
def test_told_by_content(content: bytes, kind: Kind, ending: str) -> None:
    """The content decides, whatever the source calls it."""
    assert ending_for(content, kind, "page.html", "text/html") == ending


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", Kind.IMAGE),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", Kind.IMAGE),
        (b'{"error": "not found"}', Kind.VIDEO),
        (zipped({"a": b"b"}), Kind.IMAGE),
        (MP4, Kind.IMAGE),
        (png(), Kind.AUDIO),
        (bytes(range(256)), Kind.IMAGE),
    ],
)
def test_unfit(content: bytes, kind: Kind) -> None:
    """Pages, errors and other media are refused, and so is what nothing tells of."""
    with pytest.raises(Unfit):
        ending_for(content, kind)


def test_the_source_is_believed_where_the_content_is_silent() -> None:
    """A name or a media type helps with kinds that have no mark, and never against the content."""
    stream = b"\x47" + bytes(200)
    assert ending_for(stream, Kind.VIDEO, "film.ts.mp4") == ".mp4"
    assert ending_for(bytes(200), Kind.VIDEO, "", "video/mp4") == ".mp4"
    with pytest.raises(Unfit):
        ending_for(png(), Kind.AUDIO, "sound.wav", "audio/wav")


def test_files_of_any_kind() -> None:
    """A node that reads files of its own kind gets them under the name's ending."""
    assert ending_for(LATENT, Kind.FILE, "x.latent") == ".latent"
    assert ending_for(LATENT, Kind.FILE) == ".bin"
    assert ending_for(LATENT, Kind.FILE, "x.../../y") == ".bin"

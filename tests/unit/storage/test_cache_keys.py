"""Names in the cache."""

from __future__ import annotations

import pytest

from app.storage.cache_entries import cache_key
from app.storage.media_types import ending_for, ending_of_name, ending_of_url, media_type_for, safe_filename


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (
            "https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor&size=pruned&fp=fp16",
            "Pk6VSKLStckZydwGhX0bM8TqaqHEW9yt",
        ),
        ("http://127.0.0.1:8901/a.png", "FJRcIrj8rRKoSXiooCtRoe8N7kXL4gq_"),
    ],
)
def test_vectors(url: str, key: str) -> None:
    """Keys are those that comfyui-api computes."""
    assert cache_key(url) == key


def test_every_url_has_a_key() -> None:
    """Also one with characters that no encoding takes."""
    assert len({cache_key(url) for url in ("", "http://h/\ud800", "http://h/ü", "http://h/u")}) == 4


@pytest.mark.parametrize(
    ("url", "ending"),
    [
        ("https://h/a/b.safetensors?x=.png#.gif", ".safetensors"),
        ("https://h/a.b/c", ""),
        ("https://h.png", ""),
        ("https://h/v1.5", ""),
        ("https://h/.hidden", ""),
        ("https://h/a.%70ng", ".png"),
        ("https://h/a.png%2F..%2Fx.sh", ".sh"),
        ("https://h/a.with space", ""),
        ("https://h/a.0123456789abcdefg", ""),
        ("s3://b/k?x.png", ".png"),
        ("s3://b", ""),
        ("nats://b/id/abc/x.7z", ".7z"),
    ],
)
def test_endings_of_urls(url: str, ending: str) -> None:
    """An ending is at most fifteen letters and digits behind the last dot of the last segment, or there is none."""
    assert ending_of_url(url) == ending


def test_endings_and_types() -> None:
    """Both directions of the table, the common ending first."""
    assert ending_for("image/jpeg; charset=x") == ".jpg"
    assert ending_for("IMAGE/PNG") == ".png"
    assert ending_for("text/xml") == ".xml"
    assert ending_for("application/octet-stream") == ".bin"
    assert ending_for("application/x-unheard-of") == ""
    assert ending_for(None) == ""
    assert media_type_for("x.JPEG") == "image/jpeg"
    assert media_type_for("x.safetensors") == "application/octet-stream"
    assert media_type_for("jpeg") == "application/octet-stream"
    assert ending_of_name(None) == ""


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.png", "a.png"),
        ("../../a.png", "a.png"),
        ("C:\\x\\a.png", "a.png"),
        ("a\x00\n.png", "a__.png"),
        ("..", None),
        ("", None),
        (None, None),
        (" . ", None),
        ("a\u202egnp.exe", "a_gnp.exe"),
        ("ü" * 300 + ".png", "ü" * 98 + ".png"),
    ],
)
def test_foreign_names(name: str | None, safe: str | None) -> None:
    """Whatever a stranger calls a file becomes one segment, or nothing."""
    assert safe_filename(name) == safe

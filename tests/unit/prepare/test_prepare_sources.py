"""What the text of a media input stands for."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from prepare_doubles import b64, picture, png

from app.prepare.sources import Content, LocalFile, Named, NotASource, Outside, Places, Url, read_source


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An input folder with a file, one in a sub-folder, and a neighbour that is none of its business."""
    folder = tmp_path / "input"
    (folder / "sub").mkdir(parents=True)
    (folder / "example.png").write_bytes(png())
    (folder / "sub" / "deep.png").write_bytes(png())
    (folder / "word").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "input-other").mkdir()
    (tmp_path / "input-other" / "x.png").write_bytes(png())
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "made.png").write_bytes(png())
    return Places(folder, tmp_path / "output")


@pytest.mark.parametrize(
    "url", ["http://h/a", "https://h/a?b=c", "HTTPS://h/a", "s3://b/k", "hf://o/r/x", " https://h/a\n", "S3://b/k"]
)
def test_urls(places: Places, url: str) -> None:
    """Schemes count in any case and blanks around do not."""
    assert read_source(url, places) == Url(url.strip())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("shape", ["plain", "unpadded", "lines", "url alphabet"])
def test_base64(places: Places, kind: str, shape: str) -> None:
    """Base64 in the usual shapes is content, also that of a small JPEG, which begins like a path."""
    content = picture(kind)
    text = {
        "plain": b64(content),
        "unpadded": b64(content).rstrip("="),
        "lines": base64.encodebytes(content).decode(),
        "url alphabet": base64.urlsafe_b64encode(content).decode(),
    }[shape]
    assert read_source(text, places) == Content(content, certain=False)
    if kind == "JPEG":
        assert text.startswith(("/9j/", "_9j_"))


@pytest.mark.parametrize(
    "head", ["data:image/png;base64,", "DATA:image/png;BASE64,", "data:;base64,", "data:image/png;x=y;base64,"]
)
def test_data_urls(places: Places, head: str) -> None:
    """The part before the comma never gets into the content."""
    source = read_source(head + b64(png()), places)
    assert isinstance(source, Content)
    assert source.data == png()
    assert source.certain


def test_data_url_with_percent_signs(places: Places) -> None:
    """Without the word base64 the content is percent-encoded."""
    assert read_source("data:text/plain,a%20b", places) == Content(b"a b", "text/plain")


@pytest.mark.parametrize("text", ["data:image/png;base64", "data:image/png;base64,###", "data:"])
def test_broken_data_urls(places: Places, text: str) -> None:
    """A data URL without a comma or with wrong content is none."""
    with pytest.raises(NotASource):
        read_source(text, places)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("example.png", "example.png"),
        ("sub/deep.png", "sub/deep.png"),
        ("sub/../example.png", "example.png"),
        ('"example.png"', "example.png"),
        (" example.png ", "example.png"),
        ("word", "word"),
        ("example.png [input]", "example.png [input]"),
        ("made.png [output]", "made.png [output]"),
    ],
)
def test_names(places: Places, text: str, value: str) -> None:
    """What is in ComfyUI's folders is named; the way there is made plain."""
    source = read_source(text, places)
    assert isinstance(source, Named)
    assert source.value == value
    assert source.path is not None
    assert source.path.is_file()


def test_an_absolute_path_into_the_input_folder(places: Places) -> None:
    """It is a name like any other."""
    assert places.input_dir is not None
    source = read_source(str(places.input_dir / "sub" / "deep.png"), places)
    assert source == Named("sub/deep.png", places.input_dir / "sub/deep.png")


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd",
        "../secret.png",
        "sub/../../secret.png",
        "./../secret.png",
        "../input-other/x.png",
        "../secret.png [input]",
        "../secret.png [output]",
        "../x.png [temp]",
        '"/etc/passwd"',
        "~/x.png",
        "..",
        "\\\\server\\x.png",
        "..\\secret.png",
        "C:\\x.png",
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_paths_outside(places: Places, text: str, shared: bool) -> None:
    """No path leads out of ComfyUI's folders, whether they are seen from here or not."""
    with pytest.raises(Outside):
        read_source(text, places if shared else Places())


def test_the_absolute_neighbour(places: Places, tmp_path: Path) -> None:
    """A folder whose name begins like the input folder's is outside."""
    with pytest.raises(Outside):
        read_source(str(tmp_path / "input-other" / "x.png"), places)


def test_local_paths_by_leave(places: Places, tmp_path: Path) -> None:
    """ALLOW_LOCAL_PATHS lets files of the machine in, but nothing that is not there."""
    allowed = Places(places.input_dir, local_paths=True)
    assert read_source(str(tmp_path / "secret.png"), allowed) == LocalFile(tmp_path / "secret.png")
    with pytest.raises(NotASource):
        read_source(str(tmp_path / "nothing.png"), allowed)


@pytest.mark.parametrize("text", ["missing.png", "sub", "a\0b.png", "x" * 5000 + ".png", "###", "grün.png", "sub/"])
def test_nothing(places: Places, text: str) -> None:
    """What is neither content nor there is refused, a directory in a file's place too."""
    with pytest.raises(NotASource):
        read_source(text, places)


def test_directories(places: Places) -> None:
    """Where a directory is wanted a file is none."""
    assert read_source("sub", places, directory=True) == Named("sub", (places.input_dir or Path()) / "sub")
    with pytest.raises(NotASource):
        read_source("example.png", places, directory=True)


def test_names_without_shared_folders() -> None:
    """Only ComfyUI knows whether a name is there; so it is believed, unless it is content."""
    assert read_source("missing.png", Places()) == Named("missing.png", None)
    assert read_source(b64(png()), Places()) == Content(png(), certain=False)
    with pytest.raises(NotASource):
        read_source("x" * 5000 + ".png", Places())

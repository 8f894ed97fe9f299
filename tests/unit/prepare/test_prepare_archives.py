"""Archives of images that nobody vouches for."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from prepare_doubles import png, tarred, zipped

from app.errors import InputRefused
from app.prepare.archives import Limits, extract_images, is_archive

LIMITS = Limits(files=50, total_bytes=1024 * 1024)
PICTURES = {"b/2.png": png("green"), "a/1.PNG": png("red"), "c.jpeg": png("blue")}


def extracted(content: bytes, tmp_path: Path, limits: Limits = LIMITS) -> list[bytes]:
    """The images of an archive in their order; nothing else may appear anywhere."""
    source = tmp_path / "archive"
    source.write_bytes(content)
    before = set(tmp_path.rglob("*"))
    found = extract_images(source, tmp_path / "into", limits)
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "into", *(path for path, _ in found)}
    assert all(path.suffix == ending for path, ending in found)
    return [path.read_bytes() for path, _ in found]


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_images_in_the_order_of_their_names(kind: str, tmp_path: Path) -> None:
    """Zip and tar, compressed or not, give their images sorted by name and nothing else."""
    members = {**PICTURES, "readme.txt": b"no", ".hidden.png": b"no", "__MACOSX/a.png": b"no", "x/.y/z.png": b"no"}
    content = zipped(members) if kind == "zip" else tarred(members, kind)
    assert extracted(content, tmp_path) == [png("red"), png("green"), png("blue")]


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_recognised(kind: str, tmp_path: Path) -> None:
    """Archives are told from images by their content."""
    path = tmp_path / "x"
    path.write_bytes(zipped(PICTURES) if kind == "zip" else tarred(PICTURES, kind))
    assert is_archive(path)


@pytest.mark.parametrize(
    "content", [png(), b"", b"\x1f\x8b", b"\x1f\x8bjunk" * 50, b"BZh9" * 50, b"\xfd7zXZ\x00" * 9, b"PK"]
)
def test_not_recognised(content: bytes, tmp_path: Path) -> None:
    """Images, nothing, and damaged heads are no archives."""
    (tmp_path / "x").write_bytes(content)
    assert not is_archive(tmp_path / "x")


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "..\\x.png", "C:\\x.png", "C:x.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out(name: str, kind: str, tmp_path: Path) -> None:
    """An archive with such a name is refused whole."""
    members = {"a.png": png(), name: png()}
    with pytest.raises(InputRefused):
        extracted(zipped(members) if kind == "zip" else tarred(members), tmp_path)
    assert not (tmp_path.parent / "x.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    """They are refused, and nothing is made of them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputRefused, match="links or devices"):
        extracted(out.getvalue(), tmp_path)


def test_links_in_a_zip(tmp_path: Path) -> None:
    """They are refused by the file type that Unix tools write."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        member = zipfile.ZipInfo("a.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputRefused, match="links or devices"):
        extracted(out.getvalue(), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz"])
def test_too_many_entries(kind: str, tmp_path: Path) -> None:
    """The number of entries is bounded, whatever they are."""
    members = {f"{number}.txt": b"" for number in range(51)}
    with pytest.raises(InputRefused, match="entries"):
        extracted(zipped(members) if kind == "zip" else tarred(members, kind), tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.txt"])
@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_bombs(kind: str, name: str, tmp_path: Path) -> None:
    """What comes out is counted and ends at the bound; what is passed over in a zip is never unpacked at all."""
    members = {name: bytes(4 * 1024 * 1024), "b.png": png()}
    content = zipped(members) if kind == "zip" else tarred(members, kind)
    assert len(content) < 100_000
    if kind == "zip" and name == "a.txt":
        assert extracted(content, tmp_path) == [png()]
        return
    with pytest.raises(InputRefused, match="larger than allowed"):
        extracted(content, tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "into").iterdir()) <= LIMITS.total_bytes


def test_a_zip_that_lies_about_sizes(tmp_path: Path) -> None:
    """Bytes are counted as they come, not as the archive announces them."""
    content = bytearray(zipped({"a.png": bytes(4 * 1024 * 1024)}))
    real = (4 * 1024 * 1024).to_bytes(4, "little")
    while (at := content.find(real)) >= 0:
        content[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(InputRefused):
        extracted(bytes(content), tmp_path)


def test_a_tar_with_huge_headers(tmp_path: Path) -> None:
    """An extended header is not read into memory without bound."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"comment": "x" * (8 * 1024 * 1024)}
        archive.addfile(member)
    with pytest.raises(InputRefused, match="tables"):
        extracted(out.getvalue(), tmp_path, Limits(files=50, total_bytes=64 * 1024 * 1024))


def test_an_encrypted_zip(tmp_path: Path) -> None:
    """It is refused instead of giving rubbish."""
    content = bytearray(zipped({"a.png": png()}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + at] |= 1
    with pytest.raises(InputRefused, match="encrypted"):
        extracted(bytes(content), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_damage_anywhere(kind: str, tmp_path: Path) -> None:
    """A flipped or missing byte ends in a typed error or in images, never in anything else."""
    whole = zipped(PICTURES) if kind == "zip" else tarred(PICTURES, kind)
    for number in range(60):
        content = bytearray(whole[: len(whole) * (number + 20) // 80] if number % 2 else whole)
        content[number * 7919 % len(content)] ^= 0x55
        place = tmp_path / str(number)
        place.mkdir()
        try:
            extracted(bytes(content), place)
        except InputRefused:
            continue


def test_memory_and_time_of_a_zip_directory(tmp_path: Path) -> None:
    """A central directory larger than the bound on tables is refused before it is in memory."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(80):
            archive.writestr(zipfile.ZipInfo(f"{number}-" + "n" * 60_000), b"")
            archive.infolist()[-1].comment = b"c" * 60_000
            archive.infolist()[-1].extra = b"\x99\x99" + (60_000).to_bytes(2, "little") + bytes(60_000)
    content = out.getvalue()
    assert len(content) > 9 * 1024 * 1024
    with pytest.raises(InputRefused):
        extracted(content, tmp_path, Limits(files=10_000, total_bytes=1024**3))

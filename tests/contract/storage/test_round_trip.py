"""What goes into a place comes out of it unchanged, whatever its size and name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import InputRefused, UploadFailed
from app.storage.base import UploadRefused
from app.storage.cache_locks import Hold
from tests.contract.storage.conftest import PLACES, Open
from tests.support.services.places import FilePlace, Place

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("place", PLACES, indirect=True)]

NAMES = (
    "plain.png",
    "with space.png",
    "ünïcödé-日本-🎨.png",
    "ques?tion#hash%41 100%.png",
    "plus+amp&eq=semi;colon:at@comma,.png",
    "quote'tilde~paren(1)!*$.png",
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 70_000, None])
async def test_sizes(place: Place, opened: Open, make_file: Callable[[int], Path], size: int | None) -> None:
    """Files of 0 and 1 bytes, of some, and of so many that they go in parts, come back with their digest."""
    source = make_file(place.part_bytes if size is None else size)
    access = place.access()
    async with opened(access) as stores:
        url = await stores.put(source, place.url("file.bin"), media_type="image/png", request_id="r1")
        with Hold("r2") as hold:
            fetched = await stores.fetch(url, access.credentials, in_use=hold)
            assert fetched.sha256 == digest(source) == digest(fetched.path)
            assert fetched.size_bytes == source.stat().st_size
            assert fetched.filename == "file.bin"
    uploaded, downloaded = stores.told
    assert (uploaded.event, uploaded.request_id, uploaded.size_bytes) == ("uploaded", "r1", source.stat().st_size)
    assert (downloaded.event, downloaded.request_id, downloaded.size_bytes) == ("downloaded", "r2", uploaded.size_bytes)
    assert uploaded.url == downloaded.url == url
    assert Path(str(downloaded.local_path)).name.endswith(".bin")


async def test_names(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """Names with spaces, other scripts and every sign that means something in URLs stay apart and come back."""
    async with opened(place.access()) as stores:
        sources = {name: make_file(100 + index) for index, name in enumerate(NAMES)}
        urls = {name: await stores.put(source, place.url(name)) for name, source in sources.items()}
        assert len(set(urls.values())) == len(NAMES)
        with Hold() as hold:
            for name, url in urls.items():
                fetched = await stores.fetch(url, in_use=hold)
                assert fetched.sha256 == digest(sources[name]), name
                assert fetched.filename is not None
                assert "/" not in fetched.filename


async def test_the_last_upload_wins(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """A second upload to the same URL takes the place of the first."""
    first, second = make_file(50_000), make_file(300)
    async with opened(place.access()) as stores:
        await stores.put(first, place.url("same.bin"))
        url = await stores.put(second, place.url("same.bin"))
        with Hold() as hold:
            assert (await stores.fetch(url, in_use=hold)).sha256 == digest(second)


async def test_wrong_credentials(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """Credentials that are wrong are refused at once in both directions, in a sentence with the cure."""
    access, url = place.wrong()
    async with opened(access) as stores:
        with pytest.raises(UploadFailed) as upload:
            await stores.put(make_file(10), url, credentials=access.credentials)
        assert isinstance(upload.value, UploadRefused)
        with pytest.raises(InputRefused) as download, Hold() as hold:
            await stores.fetch(url, access.credentials, in_use=hold)
    for sentence in (str(upload.value), str(download.value)):
        assert ";" in sentence
        assert sentence.endswith(".")
    assert [one.event for one in stores.told] == ["upload_failed", "download_failed"]
    assert [one.code for one in stores.told] == ["upload_failed", "input_unavailable"]


async def test_what_is_not_there(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """A missing file and a missing bucket, container, repository or folder are refused, not tried again."""
    async with opened(place.access()) as stores:
        for url in (place.url("missing.bin"), place.nowhere()):
            with pytest.raises(InputRefused), Hold() as hold:
                await stores.fetch(url, in_use=hold)
        with pytest.raises(UploadRefused):
            await stores.put(make_file(10), place.nowhere())


async def test_nothing_leaves_the_place(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """A URL that leads upwards is refused in both directions."""
    async with opened(place.access()) as stores:
        base = place.url("x").removesuffix("x")
        for tail in ("../x.bin", "a/../../x.bin", "%2e%2e/x.bin" if place.name not in ("s3", "nats") else "../y"):
            with pytest.raises(UploadFailed):
                await stores.put(make_file(10), base + tail)
            with pytest.raises(InputRefused), Hold() as hold:
                await stores.fetch(base + tail, in_use=hold)


async def test_probe(place: Place, opened: Open) -> None:
    """The probe of what works says so in a sentence."""
    store = place.url("x").removesuffix("/x") if place.name in ("s3", "azure") else None
    if isinstance(place, FilePlace):
        place.folder.mkdir()
    async with opened(place.access(), **({"output_store": store} if store else {})) as stores:
        found = {name: (works, text) async for name, works, text in stores.probe()}
    works, text = found[place.name.partition("-")[0]]
    assert works, text

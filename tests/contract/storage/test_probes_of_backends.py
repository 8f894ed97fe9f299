"""What ``comfybus doctor`` learns of each backend: what works, what does not, and whom that was asked of."""

from __future__ import annotations

import socket

import pytest

from app.storage.config import S3Config, Timings
from tests.contract.storage.conftest import Access, Open
from tests.support.services.places import FilePlace, Place

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("place", ["s3", "azure"], indirect=True)
async def test_probe_without_an_output_store(place: Place, opened: Open) -> None:
    """Keys are shown to their store all the same: right ones are known there, wrong ones are not."""
    wrong, _ = place.wrong()
    for access, right in ((place.access(), True), (wrong, False)):
        async with opened(access) as stores:
            found = {name: (works, text) async for name, works, text in stores.probe()}
        works, text = found[place.name]
        assert works is right, text


@pytest.mark.parametrize("place", ["file"], indirect=True)
async def test_probe_of_a_folder_that_is_not_there(place: Place, opened: Open) -> None:
    """A folder whose disk was not mounted is named, and not made."""
    assert isinstance(place, FilePlace)
    async with opened(place.access()) as stores:
        found = {name: (works, text) async for name, works, text in stores.probe()}
    works, text = found["file"]
    assert not works
    assert "mount" in text
    assert not place.folder.exists()


async def test_a_probe_has_its_deadline(opened: Open) -> None:
    """A store that takes the connection and says nothing is given up and named."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        access = Access({"s3": S3Config(url, "us-east-1", "id", "key"), "timings": Timings(answer_s=60)})
        async with opened(access) as stores:
            found = {name: (works, text) async for name, works, text in stores.probe(0.5)}
    assert found["s3"] == (False, "no answer within 0.5 s; see whether the server runs")
    assert found["http"][0]

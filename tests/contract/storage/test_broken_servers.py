"""Servers that refuse, cut, stall and lie: what may pass is tried again, what is broken is never taken for whole."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import InputUnavailable, UploadFailed
from app.storage.cache_locks import Hold
from tests.contract.storage.conftest import HTTP_PLACES, Open
from tests.support.services.fault_proxy import Break, FaultProxy, run_fault_proxy
from tests.support.services.places import TIMINGS, Place

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("place", HTTP_PLACES, indirect=True)]

SIZE = 3 * 1024 * 1024


@pytest.fixture
def proxy(place: Place) -> Iterator[FaultProxy]:
    """A proxy before the place that breaks what it is told to."""
    assert place.port is not None
    with run_fault_proxy(place.port) as proxy:
        yield proxy


@pytest.fixture
def source(make_file: Callable[[int], Path]) -> Path:
    """A file of some megabytes."""
    return make_file(SIZE)


async def store(place: Place, opened: Open, source: Path, name: str) -> None:
    """Bring a file to the place past the proxy."""
    async with opened(place.access()) as stores:
        await stores.put(source, place.url(name))


def whole(path: Path, source: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()


def no_files(cache: Path) -> bool:
    """Whether no file in the cache is offered as whole."""
    return not any((cache / "records").iterdir()) and not any(path.is_file() for path in cache.iterdir())


@pytest.mark.parametrize(
    "broken",
    [
        [Break(status=429, headers={"Retry-After": "0"}), Break(status=500)],
        [Break(status=503, headers={"Retry-After": "86400"})],
        [Break(head=b"\x00\xff garbage\r\n\r\n")],
    ],
    ids=["429-500", "503-tomorrow", "garbage"],
)
async def test_refusals_that_pass(
    place: Place, opened: Open, proxy: FaultProxy, source: Path, broken: list[Break]
) -> None:
    """429, 5xx and answers that are no HTTP are tried again in both directions; a Retry-After of a day is cut short."""
    access = place.access(proxy.url)
    async with opened(access) as stores:
        proxy.breaks = list(broken)
        await stores.put(source, place.url("recovers.bin", proxy.url))
        proxy.breaks += list(broken)
        with Hold() as hold:
            fetched = await stores.fetch(place.url("recovers.bin", proxy.url), in_use=hold)
            assert whole(fetched.path, source)
    assert not proxy.breaks


async def test_a_refusal_that_stays(place: Place, opened: Open, proxy: FaultProxy, source: Path) -> None:
    """A server that always answers 500 is given up after the configured tries, as trouble that may pass."""
    async with opened(place.access(proxy.url)) as stores:
        proxy.breaks = [Break(status=500) for _ in range(200)]
        with pytest.raises(UploadFailed) as upload:
            await stores.put(source, place.url("never.bin", proxy.url))
        with pytest.raises(InputUnavailable) as download, Hold() as hold:
            await stores.fetch(place.url("never.bin", proxy.url), in_use=hold)
    assert upload.value.retryable
    assert download.value.retryable


async def test_cut_download(place: Place, opened: Open, proxy: FaultProxy, source: Path, tmp_path: Path) -> None:
    """A download that is cut goes on where it stopped, and the whole file arrives."""
    await store(place, opened, source, "cut.bin")
    async with opened(place.access(proxy.url), cache_dir=tmp_path / "fresh") as stores:
        # Where the Hub redirects to is what is to be cut.
        path = "/_store/" if place.name == "hf-lfs" else ""
        proxy.breaks = [Break(cut_after=2 * 1024 * 1024, method="GET", path=path)]
        with Hold() as hold:
            fetched = await stores.fetch(place.url("cut.bin", proxy.url), in_use=hold)
            assert whole(fetched.path, source)
    if place.name != "hf-xet":
        last = next(one for one in reversed(proxy.seen) if one.method == "GET")
        assert "range: bytes=" in last.head.lower()


async def test_download_cut_for_ever(
    place: Place, opened: Open, proxy: FaultProxy, source: Path, tmp_path: Path
) -> None:
    """A download that never gets through is given up; nothing half is offered, and a later one succeeds."""
    await store(place, opened, source, "cut.bin")
    cache = tmp_path / "fresh"
    async with opened(place.access(proxy.url), cache_dir=cache) as stores:
        proxy.breaks = [Break(cut_after=100) for _ in range(200)]
        with pytest.raises(InputUnavailable), Hold() as hold:
            await stores.fetch(place.url("cut.bin", proxy.url), in_use=hold)
        assert no_files(cache)
        proxy.breaks = []
        with Hold() as hold:
            assert whole((await stores.fetch(place.url("cut.bin", proxy.url), in_use=hold)).path, source)


async def test_stalled_download(place: Place, opened: Open, proxy: FaultProxy, source: Path, tmp_path: Path) -> None:
    """A server that falls silent in the middle is left after the stall limit, every time it does."""
    await store(place, opened, source, "stall.bin")
    cache = tmp_path / "fresh"
    quick = replace(TIMINGS, answer_s=5, stall_s=1, tries=2)
    async with opened(place.access(proxy.url), cache_dir=cache, timings=quick) as stores:
        proxy.breaks = [Break(stall_after=100, method="GET") for _ in range(50)]
        began = time.monotonic()
        with pytest.raises(InputUnavailable), Hold() as hold:
            await stores.fetch(place.url("stall.bin", proxy.url), in_use=hold)
        assert time.monotonic() - began < 20
    assert no_files(cache)


async def test_silent_server(place: Place, opened: Open, proxy: FaultProxy, source: Path, tmp_path: Path) -> None:
    """A server that takes a request and says nothing is left after the limit for answers, in both directions."""
    await store(place, opened, source, "silent.bin")
    # The Hub's library needs a moment to begin.
    limit_s = 2 if place.name.startswith("hf") else 1
    quick = replace(TIMINGS, connect_s=1, answer_s=limit_s, stall_s=limit_s, tries=2)
    async with opened(place.access(proxy.url), cache_dir=tmp_path / "fresh", timings=quick) as stores:
        proxy.silent = True
        began = time.monotonic()
        with pytest.raises(InputUnavailable), Hold() as hold:
            await stores.fetch(place.url("silent.bin", proxy.url), in_use=hold)
        if not place.name.startswith("hf"):
            with pytest.raises(UploadFailed):
                await stores.put(source, place.url("silent.bin", proxy.url))
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("lie", [1000, -1000], ids=["promises more", "promises less"])
async def test_lies_about_the_length(
    place: Place, opened: Open, proxy: FaultProxy, source: Path, tmp_path: Path, lie: int
) -> None:
    """A length that is not the body's never gives a file of another length than the server said."""
    await store(place, opened, source, "lie.bin")
    cache = tmp_path / "fresh"
    async with opened(place.access(proxy.url), cache_dir=cache) as stores:
        proxy.breaks = [Break(lie=lie, method="GET") for _ in range(50)]
        try:
            with Hold() as hold:
                fetched = await stores.fetch(place.url("lie.bin", proxy.url), in_use=hold)
                size = fetched.path.stat().st_size
        except InputUnavailable:
            assert no_files(cache)
        else:
            # The Hub's own length wins where it gives one; elsewhere less is all that was promised.
            assert size == SIZE if place.name.startswith("hf") else size == SIZE + lie
            assert lie < 0 or place.name.startswith("hf")


async def test_cut_upload(place: Place, opened: Open, proxy: FaultProxy, make_file: Callable[[int], Path]) -> None:
    """An upload that is cut is made again, and what is there then is the whole file."""
    source = make_file(place.part_bytes)
    async with opened(place.access(proxy.url)) as stores:
        proxy.breaks = [Break(cut_upload_after=1024 * 1024, method="PUT")]
        url = await stores.put(source, place.url("up.bin", proxy.url))
        with Hold() as hold:
            assert whole((await stores.fetch(url, in_use=hold)).path, source)


async def test_upload_cut_for_ever(
    place: Place, opened: Open, proxy: FaultProxy, make_file: Callable[[int], Path]
) -> None:
    """An upload that never gets through is a failure, never a success, and leaves no half file under the URL."""
    if place.name == "hf-xet":
        pytest.skip("the double's Xet store is a folder: nothing to cut")
    source = make_file(place.part_bytes)
    async with opened(place.access(proxy.url)) as stores:
        proxy.breaks = [Break(cut_upload_after=100_000, method="PUT") for _ in range(200)]
        with pytest.raises(UploadFailed):
            await stores.put(source, place.url("half.bin", proxy.url))
        assert [one.event for one in stores.told] == ["upload_failed"]
    async with opened(place.access()) as stores:
        with pytest.raises(InputUnavailable), Hold() as hold:
            await stores.fetch(place.url("half.bin"), in_use=hold)

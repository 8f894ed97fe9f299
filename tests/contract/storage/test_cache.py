"""The cache: one download for many askers, whole files only, nobody gets what is another's."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from app.errors import InputRefused, InputUnavailable, PromptError
from app.storage.cache_entries import CacheFolder, cache_key
from app.storage.cache_locks import Hold
from app.storage.transfers import Fetched
from schemas.credentials import BearerAuth, Credential, HeaderAuth
from tests.contract.storage.conftest import Access, Open, Opened
from tests.support.services.places import TIMINGS
from tests.support.services.raw_server import run_raw
from tests.support.services.web_files import SECRET, WebFiles

pytestmark = pytest.mark.anyio

LOOPBACK = Access({"allowed_private_hosts": ("127.0.0.1",)})
SIZE = 4 * 1024 * 1024


def put(web: WebFiles, name: str, size: int = SIZE) -> bytes:
    """Give the web server a file."""
    data = os.urandom(size)
    (web.folder / name).write_bytes(data)
    return data


def bearer(token: str) -> list[Credential]:
    return [Credential(url_pattern="http://127.0.0.1:*/**", auth=BearerAuth(type="bearer", token=token))]


async def taken(semaphore: threading.Semaphore) -> None:
    """Wait until the server says so."""
    with anyio.fail_after(20):
        while not semaphore.acquire(blocking=False):
            await anyio.sleep(0.01)


async def joined(stores: Opened, url: str, askers: int) -> None:
    """Wait until so many wait for one download: those who look for the file on the disk first take their time."""
    running = stores._cache._running
    with anyio.fail_after(60):
        while (found := running.get(cache_key(url))) is None or found.askers != askers:
            await anyio.sleep(0.01)


async def test_fifty_askers_one_get(web: WebFiles, opened: Open) -> None:
    """Fifty who ask for one URL at once get one download, each with its progress and its own name for the file."""
    data = put(web, "model.bin")
    found: list[Fetched] = []
    last: dict[int, tuple[int, int | None]] = {}
    async with opened(LOOPBACK) as stores:

        async def ask(index: int) -> None:
            with Hold(f"r{index}") as hold:
                fetched = await stores.fetch(
                    f"{web.url}/gated/model.bin",
                    folder=web.folder.parent / "models",
                    filename=f"{index}.bin",
                    in_use=hold,
                    progress=lambda size, total: last.__setitem__(index, (size, total)),
                )
                found.append(fetched)

        async with anyio.create_task_group() as tasks:
            for index in range(50):
                tasks.start_soon(ask, index)
            await taken(web.halves_sent)
            await joined(stores, f"{web.url}/gated/model.bin", 50)
            web.gate.set()
    assert web.gets("model.bin") == 1
    assert len({fetched.path.stat().st_ino for fetched in found}) == 1
    assert found[0].path.read_bytes() == data
    assert [one.event for one in stores.told].count("downloaded") == 1
    assert last == dict.fromkeys(range(50), (SIZE, SIZE))


async def test_the_first_asker_leaves(web: WebFiles, opened: Open) -> None:
    """A download goes on when the one who began it leaves and another still waits."""
    put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    async with opened(LOOPBACK) as stores, anyio.create_task_group() as tasks:
        first = anyio.CancelScope()

        async def begin() -> None:
            with first, Hold() as hold:
                await stores.fetch(url, in_use=hold)

        async def join() -> None:
            with Hold() as hold:
                await stores.fetch(url, in_use=hold)

        tasks.start_soon(begin)
        await taken(web.halves_sent)
        tasks.start_soon(join)
        await joined(stores, url, 2)
        first.cancel()
        await joined(stores, url, 1)
        web.gate.set()
    assert web.gets("model.bin") == 1


async def test_the_last_asker_leaves(web: WebFiles, opened: Open) -> None:
    """A download that nobody waits for is ended at once, and the next asker continues it."""
    data = put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    async with opened(LOOPBACK) as stores:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with Hold() as hold:
                    await stores.fetch(url, in_use=hold)

            for _ in range(3):
                tasks.start_soon(ask)
            await taken(web.halves_sent)
            await until(lambda: partial_bytes(stores) >= 1024 * 1024)
            tasks.cancel_scope.cancel()
        # Long before the server would be called stalled.
        with anyio.fail_after(5):
            await taken(web.left)
        web.gate.set()
        with Hold() as hold:
            assert (await stores.fetch(url, in_use=hold)).path.read_bytes() == data
    assert web.gets("model.bin") == 2
    assert web.seen[-1].headers["Range"].startswith("bytes=")


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not true():
            await anyio.sleep(0.01)


def partial_bytes(stores: Opened) -> int:
    """How much of incomplete files lies in the cache."""
    folder = stores._cache.folder.partials
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".state")


async def test_a_failure_is_everybodys(opened: Open) -> None:
    """Who waits for a download that fails gets the failure, each a copy of its own, without asking anew."""
    errors: list[PromptError] = []
    gate, asked = threading.Event(), list[bytes]()

    async def answer(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(head)
        while not gate.is_set():
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with run_raw(answer) as port:
        url = f"http://127.0.0.1:{port}/missing.bin"
        async with opened(LOOPBACK) as stores, anyio.create_task_group() as tasks:

            async def ask() -> None:
                try:
                    with Hold() as hold:
                        await stores.fetch(url, in_use=hold)
                except PromptError as exc:
                    errors.append(exc)

            for _ in range(20):
                tasks.start_soon(ask)
            await joined(stores, url, 20)
            gate.set()
    assert len(asked) == 1
    assert len({id(error) for error in errors}) == 20
    assert {str(error) for error in errors} == {
        f"{url} cannot be fetched: HTTP 404: there is nothing at this address; correct the URL."
    }


async def test_private_files(web: WebFiles, opened: Open) -> None:
    """What a request's credentials brought is given to others only with credentials that the source accepts."""
    data = put(web, "private.bin")
    url = f"{web.url}/closed/private.bin"
    async with opened(LOOPBACK) as stores, opened(LOOPBACK) as restarted:
        with Hold() as hold:
            await stores.fetch(url, bearer(SECRET), in_use=hold)
        for credentials in (None, bearer("wrong")):
            for asked in (stores, restarted):
                with pytest.raises(InputRefused), Hold() as hold:
                    await asked.fetch(url, credentials, in_use=hold)
        key = HeaderAuth(type="header", header_name="X-Api-Key", header_value=SECRET)
        for credentials in (bearer(SECRET), [Credential(url_pattern="**", auth=key)]):
            with Hold() as hold:
                assert (await restarted.fetch(url, credentials, in_use=hold)).path.read_bytes() == data
    full = [one for one in web.seen if one.headers.get("Range") != "bytes=0-0"]
    assert len(full) == 1


async def test_joining_a_private_download(web: WebFiles, opened: Open) -> None:
    """Who joins a running download without the right credentials does not get its file, and does not spoil it."""
    put(web, "private.bin")
    url = f"{web.url}/closed-gated/private.bin"
    results: list[Any] = []
    async with opened(LOOPBACK) as stores, anyio.create_task_group() as tasks:

        async def ask(credentials: list[Credential] | None) -> None:
            try:
                with Hold() as hold:
                    await stores.fetch(url, credentials, in_use=hold)
                    results.append("file")
            except InputRefused:
                results.append("refused")

        tasks.start_soon(ask, bearer(SECRET))
        await taken(web.halves_sent)
        tasks.start_soon(ask, None)
        tasks.start_soon(ask, bearer("wrong"))
        tasks.start_soon(ask, bearer(SECRET))
        await joined(stores, url, 4)
        web.gate.set()
    assert sorted(results) == ["file", "file", "refused", "refused"]


async def test_wrong_credentials_do_not_fail_the_right_ones(web: WebFiles, opened: Open) -> None:
    """A download that began with wrong credentials fails for its asker alone."""
    put(web, "private.bin")
    url = f"{web.url}/closed/private.bin"
    results: list[str] = []
    async with opened(LOOPBACK) as stores, anyio.create_task_group() as tasks:

        async def ask(token: str) -> None:
            try:
                with Hold() as hold:
                    await stores.fetch(url, bearer(token), in_use=hold)
                    results.append(token)
            except InputRefused:
                results.append("refused")

        for token in ("wrong", SECRET, "wrong", SECRET):
            tasks.start_soon(ask, token)
    assert sorted(results) == sorted(["refused", "refused", SECRET, SECRET])


async def test_damage_in_the_cache(web: WebFiles, opened: Open) -> None:
    """A file in the cache that is gone or has another size is fetched again, never served."""
    data = put(web, "model.bin")
    url = f"{web.url}/open/model.bin"
    async with opened(LOOPBACK) as stores:
        for harm in (Path.unlink, lambda path: path.write_bytes(b"short")):
            with Hold() as hold:
                path = (await stores.fetch(url, in_use=hold)).path
            harm(path)
            with Hold() as hold:
                assert (await stores.fetch(url, in_use=hold)).path.read_bytes() == data
    assert web.gets("model.bin") == 3


async def test_a_hit_lists_no_folder(web: WebFiles, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there is found without a listing, however many others there are, and without the source."""
    put(web, "model.bin")
    url = f"{web.url}/open/model.bin"
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            await stores.fetch(url, in_use=hold)

    def forbidden(*_: object) -> None:
        raise AssertionError("a folder was listed")

    async with opened(LOOPBACK) as restarted:
        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, forbidden)
        with Hold() as hold:
            await restarted.fetch(url, in_use=hold)
        monkeypatch.undo()
    assert web.gets("model.bin") == 1
    assert [one.event for one in (*stores.told, *restarted.told)] == ["downloaded", "hit"]


async def test_strange_things_in_the_cache(
    web: WebFiles, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files and folders that somebody else put into CACHE_DIR, whatever they are, stop nothing."""
    put(web, "model.bin", 100)
    folder = CacheFolder(tmp_path / "cache")
    folder.create()
    for place in (folder.root, folder.records, folder.links, folder.partials, folder.locks, folder.readings):
        (place / ("x" * 32)).mkdir()
        (place / os.fsdecode(b"\xff\xfe" * 16)).write_bytes(b"\xff")
        (place / "dangling").symlink_to(tmp_path / "nowhere")
        (place / ".hidden").write_bytes(b"[]")
    key = cache_key(f"{web.url}/open/model.bin")
    (folder.records / key).write_bytes(b'{"file": 7}')
    (folder.partial(key)).mkdir()
    (folder.partial(f"{key}.state")).mkdir()
    async with opened(LOOPBACK, cache_limit_bytes=1) as stores:
        for name in ("model.bin", "model.bin?again"):
            with Hold() as hold, suppress(InputUnavailable):
                await stores.fetch(f"{web.url}/open/{name}", in_use=hold)
        assert [one.event for one in stores.told if one.event != "deleted"][-1] == "downloaded"


async def test_endings(web: WebFiles, opened: Open) -> None:
    """A file's name in the cache is the URL's key with the ending of the path, else of what the server says."""
    put(web, "image.PNG", 10)
    put(web, "bare", 10)
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            for path, ending in (("open/image.PNG?x=1", ".PNG"), ("open/bare", ".bin")):
                url = f"{web.url}/{path}"
                assert (await stores.fetch(url, in_use=hold)).path.name == cache_key(url) + ending


async def test_resumes_only_the_same_file(web: WebFiles, opened: Open) -> None:
    """A file that changed at its source between two tries is fetched anew: no mixture is ever made."""
    put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    quick = replace(TIMINGS, stall_s=1, tries=1)
    async with opened(LOOPBACK, timings=quick) as stores:
        with pytest.raises(InputUnavailable), Hold() as hold:
            await stores.fetch(url, in_use=hold)
        assert partial_bytes(stores) >= 1024 * 1024
    data = put(web, "model.bin", SIZE + 1)
    web.gate.set()
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            fetched = await stores.fetch(url, in_use=hold)
            assert fetched.sha256 == hashlib.sha256(data).hexdigest()


async def test_read_and_save(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """Small references are read past the cache up to a limit; a file is saved whole or not at all."""
    data = put(web, "request.json", 5000)
    url = f"{web.url}/open/request.json"
    async with opened(LOOPBACK) as stores:
        assert await stores.read(url, limit_bytes=5000) == data
        with pytest.raises(InputRefused, match="4999 bytes"):
            await stores.read(url, limit_bytes=4999)
        await stores.save(url, tmp_path / "saved.json")
        assert (tmp_path / "saved.json").read_bytes() == data
        with pytest.raises(InputRefused):
            await stores.save(f"{web.url}/open/missing", tmp_path / "missing.json")
        assert not list(stores._cache.folder.readings.iterdir())
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["saved.json"]
    assert not list(tmp_path.glob(".*"))

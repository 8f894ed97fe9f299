"""Several processes with one cache, and processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from app.storage.cache_entries import CacheFolder
from app.storage.cache_locks import Hold
from tests.contract.storage.conftest import Access, Open
from tests.contract.storage.test_cache import SIZE, put, taken, until
from tests.support.services.process import end
from tests.support.services.web_files import WebFiles

pytestmark = pytest.mark.anyio

LOOPBACK = Access({"allowed_private_hosts": ("127.0.0.1",)})
CHILD = """
import json, sys
from pathlib import Path
import anyio
from app.storage.config import StorageConfig
from app.storage.stores import Hold, Stores

async def main(cache, url):
    config = StorageConfig(cache_dir=Path(cache), allowed_private_hosts=("127.0.0.1",))
    async with Stores(config).open() as stores:
        with Hold() as hold:
            fetched = await stores.fetch(url, in_use=hold)
            print(json.dumps({"path": str(fetched.path), "sha256": fetched.sha256}), flush=True)
            await anyio.to_thread.run_sync(sys.stdin.read)

anyio.run(main, *sys.argv[1:])
"""


@contextmanager
def child(cache: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that fetches a URL, says so, and holds it until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        end(process)  # type: ignore[arg-type]
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


async def said(process: subprocess.Popen[str]) -> dict[str, str]:
    """What the child has to say."""
    assert process.stdout is not None
    with anyio.fail_after(30):
        return dict(json.loads(await anyio.to_thread.run_sync(process.stdout.readline)))


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9, and wait until it is gone."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


async def test_kill_9_in_mid_download(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """What a killed process left is never served; the next one continues it and gets the whole file."""
    data = put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    cache = CacheFolder(tmp_path / "cache")
    with child(cache.root, url) as process:
        await taken(web.halves_sent)
        await until(lambda: partial_size(cache) >= 1024 * 1024)
        kill(process)
    assert not list(cache.records.iterdir())
    assert not [path for path in cache.root.iterdir() if path.is_file()]
    left = partial_size(cache)
    assert 0 < left < SIZE
    web.gate.set()
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            assert (await stores.fetch(url, in_use=hold)).path.read_bytes() == data
    assert web.seen[-1].headers["Range"] == f"bytes={left}-"


def partial_size(cache: CacheFolder) -> int:
    if not cache.partials.is_dir():
        return 0
    return sum(path.stat().st_size for path in cache.partials.iterdir() if path.suffix != ".state")


async def test_kill_9_where_nothing_can_be_continued(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """After a power cut, or where the state of a download is lost or torn, it starts again."""
    data = put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    cache = CacheFolder(tmp_path / "cache")

    def other_boot(state: Path) -> None:
        state.write_text(json.dumps({**json.loads(state.read_text()), "boot": "another"}))

    harms: list[Callable[[Path], object]] = [Path.unlink, lambda state: state.write_text('{"val'), other_boot]
    for number, harm in enumerate(harms):
        target = f"{url}?{number}"
        web.gate.clear()
        with child(cache.root, target) as process:
            await taken(web.halves_sent)
            await until(lambda: partial_size(cache) >= 1024 * 1024)
            kill(process)
        [state] = cache.partials.glob("*.state")
        harm(state)
        web.gate.set()
        async with opened(LOOPBACK) as stores:
            with Hold() as hold:
                assert (await stores.fetch(target, in_use=hold)).path.read_bytes() == data
        assert "Range" not in web.seen[-1].headers
        assert not list(cache.partials.iterdir())


async def test_two_processes_one_download(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """While another process downloads a file this one waits for it instead of asking too."""
    put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    with child(tmp_path / "cache", url) as process:
        await taken(web.halves_sent)
        async with opened(LOOPBACK) as stores, anyio.create_task_group() as tasks:

            async def ask() -> None:
                with Hold() as hold:
                    await stores.fetch(url, in_use=hold)

            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            web.gate.set()
        await said(process)
    assert web.gets("model.bin") == 1


async def test_a_killed_downloader_is_succeeded(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """When the process that downloads is killed, the one that waits for it takes over and continues."""
    data = put(web, "model.bin")
    url = f"{web.url}/gated/model.bin"
    cache = CacheFolder(tmp_path / "cache")
    with child(cache.root, url) as process:
        await taken(web.halves_sent)
        await until(lambda: partial_size(cache) >= 1024 * 1024)
        async with opened(LOOPBACK) as stores, anyio.create_task_group() as tasks:

            async def ask() -> None:
                with Hold() as hold:
                    assert (await stores.fetch(url, in_use=hold)).path.read_bytes() == data

            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            kill(process)
            await taken(web.halves_sent)
            web.gate.set()
    assert web.gets("model.bin") == 2


async def test_holds_of_other_processes(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """What a prompt of another process needs is not evicted here, and is when that process was killed."""
    for name in ("theirs.bin", "a.bin", "b.bin"):
        put(web, name, 100_000)
    with child(tmp_path / "cache", f"{web.url}/open/theirs.bin") as process:
        theirs = Path((await said(process))["path"])
        async with opened(LOOPBACK, cache_limit_bytes=50_000) as stores:
            for name, stays in (("a.bin", True), ("b.bin", False)):
                with Hold() as hold:
                    await stores.fetch(f"{web.url}/open/{name}", in_use=hold)
                if stays:
                    assert theirs.exists()
                    kill(process)
                else:
                    await until(lambda: not theirs.exists())

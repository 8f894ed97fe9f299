"""Who is cancelled lets go at once, and leaves no process and no connection behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from app.storage.cache_locks import Hold
from app.storage.config import StorageConfig
from app.storage.stores import Stores
from tests.contract.storage.conftest import HTTP_PLACES, Access, Open
from tests.support.services.fault_proxy import FaultProxy, run_fault_proxy
from tests.support.services.places import Place
from tests.support.services.web_files import WebFiles

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy(place: Place) -> Iterator[FaultProxy]:
    """A proxy before the place that takes requests and answers none."""
    assert place.port is not None
    with run_fault_proxy(place.port) as proxy:
        proxy.silent = True
        yield proxy


def children() -> list[str]:
    """Commands of the library's processes that still run."""
    tasks = Path("/proc/self/task").glob("*/children")
    pids = [pid for task in tasks for pid in task.read_text().split()]
    commands = [(Path("/proc") / pid / "cmdline").read_bytes().decode().replace("\0", " ") for pid in pids]
    return [command for command in commands if "hub_child" in command]


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
@pytest.mark.parametrize("place", HTTP_PLACES, indirect=True)
async def test_cancelled_transfers(
    place: Place, opened: Open, proxy: FaultProxy, make_file: Callable[[int], Path], upload: bool
) -> None:
    """A transfer whose server is silent ends within a moment when its asker is cancelled."""
    source = make_file(place.part_bytes)
    async with opened(place.access(proxy.url)) as stores:

        async def work() -> None:
            if upload:
                await stores.put(source, place.url("x.bin", proxy.url))
            else:
                with Hold() as hold:
                    await stores.fetch(place.url("x.bin", proxy.url), in_use=hold)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            with anyio.fail_after(20):
                while not proxy.seen:
                    await anyio.sleep(0.01)
            began = time.monotonic()
            # Multipart uploads are aborted first, which the server may take its time for.
            proxy.silent = False
            tasks.cancel_scope.cancel()
        assert time.monotonic() - began < 3
    assert not children()


async def test_closing_ends_downloads(web: WebFiles, opened: Open) -> None:
    """When the stores are closed a download that runs for nobody any more is ended."""
    (web.folder / "x.bin").write_bytes(bytes(4_000_000))
    async with opened(Access({"allowed_private_hosts": ("127.0.0.1",)})) as stores:
        with anyio.move_on_after(0.5), Hold() as hold:
            await stores.fetch(f"{web.url}/gated/x.bin", in_use=hold)
    with anyio.fail_after(10):
        while not web.left.acquire(blocking=False):
            await anyio.sleep(0.01)


async def test_what_happens_inside_comes_out_as_it_is(tmp_path: Path) -> None:
    """An exception of the block around open stores is not wrapped into a group."""
    with pytest.raises(KeyError, match="mine"):
        async with Stores(StorageConfig(cache_dir=tmp_path / "cache")).open():
            raise KeyError("mine")


async def test_connections_go_to_the_address_that_was_judged(
    web: WebFiles, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is resolved once for a connection: what it would resolve to a moment later is never asked."""
    (web.folder / "x.bin").write_bytes(b"x")
    asked: list[str] = []

    async def resolve(_: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr("app.storage.guard.ThreadedResolver.resolve", resolve)
    async with opened(Access({"allowed_private_hosts": ("127.0.0.1/32",)})) as stores:
        with Hold() as hold:
            await stores.fetch(f"http://rebinding.example:{web.port}/open/x.bin", in_use=hold)
    assert asked == ["rebinding.example"]

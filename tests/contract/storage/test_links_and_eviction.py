"""Names for files of the cache, and what goes when room is short."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import anyio
import pytest

from app.errors import InputRefused, UploadFailed
from app.storage.cache_entries import CacheFolder, Record, cache_key
from app.storage.cache_eviction import tidy
from app.storage.cache_links import LinkWish, link
from app.storage.cache_locks import Hold, try_lock
from app.storage.file import file_url
from app.storage.threads import disk
from tests.contract.storage.conftest import Access, Open, Opened
from tests.support.services.web_files import WebFiles

pytestmark = pytest.mark.anyio

LOOPBACK = Access({"allowed_private_hosts": ("127.0.0.1",)})
SIZE = 100_000


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder as ComfyUI has one for models."""
    return tmp_path / "models" / "loras"


def put(web: WebFiles, *names: str) -> None:
    for name in names:
        (web.folder / name).write_bytes(os.urandom(SIZE))


async def fetch(stores: Opened, web: WebFiles, name: str, hold: Hold, **wish: object) -> Path:
    fetched = await stores.fetch(f"{web.url}/open/{name}", in_use=hold, **wish)  # type: ignore[arg-type]
    return fetched.path


async def test_hard_links(web: WebFiles, opened: Open, models: Path) -> None:
    """A file gets a second name without a copy, and asking again changes nothing."""
    put(web, "a.bin")
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            cached = await fetch(stores, web, "a.bin", hold)
            for _ in range(2):
                linked = await fetch(stores, web, "a.bin", hold, folder=models, filename="ä b.bin")
                assert linked == models / "ä b.bin"
                assert linked.samefile(cached)
                assert linked.lstat().st_nlink == 2
    assert [path.name for path in models.iterdir()] == ["ä b.bin"]


@pytest.mark.parametrize("symlinks", [False, True])
async def test_where_hard_links_cannot_be(
    web: WebFiles, opened: Open, models: Path, monkeypatch: pytest.MonkeyPatch, symlinks: bool
) -> None:
    """Across disks a file is copied once, or linked symbolically where ComfyUI is ours."""
    put(web, "a.bin")
    link = os.link

    def across(source: Path, target: Path, **options: bool) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", across)
    async with opened(LOOPBACK, symlinks=symlinks) as stores:
        with Hold() as hold:
            cached = await fetch(stores, web, "a.bin", hold)
            first = await fetch(stores, web, "a.bin", hold, folder=models, filename="a.bin")
            before = first.lstat()
            assert first.is_symlink() is symlinks
            assert first.read_bytes() == cached.read_bytes()
            again = await fetch(stores, web, "a.bin", hold, folder=models, filename="a.bin")
            assert again.lstat().st_ino == before.st_ino


async def test_equal_names_never_mix(web: WebFiles, opened: Open, models: Path) -> None:
    """A name that another URL's file has is refused, unless it is to be taken over; the other stays what it was."""
    put(web, "a.bin", "b.bin")
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            first = await fetch(stores, web, "a.bin", hold, folder=models, filename="model.bin")
            content = first.read_bytes()
            with pytest.raises(InputRefused, match="another file"):
                await fetch(stores, web, "b.bin", hold, folder=models, filename="model.bin")
            assert first.read_bytes() == content
            await fetch(stores, web, "b.bin", hold, folder=models, filename="model.bin", overwrite=True)
            assert first.read_bytes() == (web.folder / "b.bin").read_bytes()
            assert (await fetch(stores, web, "a.bin", hold)).read_bytes() == content


async def test_files_of_others(web: WebFiles, opened: Open, models: Path) -> None:
    """A file that somebody put there is never lost: refused if it is another, taken for ours if it is the same."""
    put(web, "a.bin")
    models.mkdir(parents=True)
    async with opened(LOOPBACK) as stores:
        with Hold() as hold:
            for theirs in (b"x" * SIZE, b"short"):
                (models / "model.bin").write_bytes(theirs)
                with pytest.raises(InputRefused, match="another file"):
                    await fetch(stores, web, "a.bin", hold, folder=models, filename="model.bin")
                assert (models / "model.bin").read_bytes() == theirs
            (models / "model.bin").unlink()
            (models / "model.bin").symlink_to(models / "nowhere")
            with pytest.raises(InputRefused, match="another file"):
                await fetch(stores, web, "a.bin", hold, folder=models, filename="model.bin")
            (models / "model.bin").unlink()
            (models / "model.bin").write_bytes((web.folder / "a.bin").read_bytes())
            inode = (models / "model.bin").stat().st_ino
            found = await fetch(stores, web, "a.bin", hold, folder=models, filename="model.bin")
            assert found.stat().st_ino == inode


@pytest.mark.parametrize("name", ["../x.py", "a/b", "a\\b", "..", ".", "", "x\x00", "y" * 256])
async def test_names_do_not_lead_out(web: WebFiles, opened: Open, models: Path, name: str) -> None:
    """A file name is one path segment or nothing is written."""
    put(web, "a.bin")
    async with opened(LOOPBACK) as stores:
        with pytest.raises(InputRefused, match="path segment"), Hold() as hold:
            await fetch(stores, web, "a.bin", hold, folder=models, filename=name)
    assert not models.exists()


async def test_links_that_lead_out_of_the_output_folder(opened: Open, tmp_path: Path) -> None:
    """A symbolic link in the folder of OUTPUT_STORE opens nothing outside it, for reading or for writing."""
    store, secret, source = tmp_path / "store", tmp_path / "secret", tmp_path / "source"
    for folder in (store, secret):
        folder.mkdir()
    source.write_bytes(b"x")
    (secret / "key").write_bytes(b"secret")
    (store / "out").symlink_to(secret)
    (store / "key").symlink_to(secret / "key")
    async with opened(Access({"output_store": file_url(store)})) as stores:
        for name in ("out/key", "key"):
            with pytest.raises(InputRefused, match="OUTPUT_STORE"), Hold() as hold:
                await stores.fetch(file_url(store / name), in_use=hold)
        for name in ("out/new", "out/deep/new"):
            with pytest.raises(UploadFailed, match="OUTPUT_STORE"):
                await stores.put(source, file_url(store / name))
        # A link that is a file's name is replaced, not followed.
        await stores.put(source, file_url(store / "key"))
    assert sorted(path.name for path in secret.iterdir()) == ["key"]
    assert (secret / "key").read_bytes() == b"secret"


async def test_the_longest_unused_goes(web: WebFiles, opened: Open, models: Path) -> None:
    """When room is short the file whose last use is the oldest goes, with the names it was given, and is told of."""
    put(web, *(f"{name}.bin" for name in "abcd"))
    async with opened(LOOPBACK, cache_limit_bytes=3 * SIZE) as stores:
        for name in "abc":
            with Hold() as hold:
                await fetch(stores, web, f"{name}.bin", hold, folder=models, filename=f"{name}.bin")
        with Hold() as hold:
            await fetch(stores, web, "a.bin", hold)
        with Hold("r1") as hold:
            await fetch(stores, web, "d.bin", hold)
            await evicted(stores, 1)
    [gone] = [one for one in stores.told if one.event == "deleted"]
    assert gone.url == f"{web.url}/open/b.bin"
    assert gone.size_bytes == SIZE
    assert sorted(path.name for path in models.iterdir()) == ["a.bin", "c.bin"]
    assert not Path(str(gone.local_path)).exists()


async def evicted(stores: Opened, count: int) -> None:
    """Eviction follows a download without anybody waiting for it."""
    with anyio.fail_after(10):
        while sum(one.event == "deleted" for one in stores.told) < count:
            await anyio.sleep(0.01)


async def test_what_a_prompt_needs_stays(web: WebFiles, opened: Open) -> None:
    """A held file is not evicted, however small the cache; when the hold ends it can be."""
    put(web, "a.bin", "b.bin", "c.bin")
    async with opened(LOOPBACK, cache_limit_bytes=SIZE // 2) as stores:
        with Hold() as hold:
            paths = [await fetch(stores, web, name, hold) for name in ("a.bin", "b.bin")]
            with Hold() as other:
                await fetch(stores, web, "c.bin", other)
            assert all(path.exists() for path in paths)
        put(web, "d.bin")
        with Hold() as hold:
            await fetch(stores, web, "d.bin", hold)
            await evicted(stores, 3)
        assert not any(path.exists() for path in paths)


async def test_a_taken_over_name_survives_eviction(web: WebFiles, opened: Open, models: Path) -> None:
    """Eviction removes only names that are still those of its file."""
    put(web, "a.bin", "b.bin", "c.bin")
    async with opened(LOOPBACK, cache_limit_bytes=2 * SIZE) as stores:
        with Hold() as hold:
            await fetch(stores, web, "a.bin", hold, folder=models, filename="model.bin")
            await fetch(stores, web, "b.bin", hold, folder=models, filename="model.bin", overwrite=True)
        with Hold() as hold:
            await fetch(stores, web, "c.bin", hold)
            await evicted(stores, 1)
        assert (models / "model.bin").read_bytes() == (web.folder / "b.bin").read_bytes()


async def test_leftovers_are_tidied(tmp_path: Path) -> None:
    """What dead processes left goes: files without a record, old partial files, idle locks; what is locked stays."""
    cache = CacheFolder(tmp_path / "cache")
    cache.create()
    orphan, busy, stale, young = (cache_key(name) for name in ("orphan", "busy", "stale", "young"))
    (cache.root / f"{orphan}.bin").write_bytes(b"x")
    (cache.root / "notes.txt").write_bytes(b"not ours")
    old = time.time() - 25 * 3600
    for key in (stale, busy):
        for path in (cache.partial(key), cache.partial(f"{key}.state")):
            path.write_bytes(b"x")
            os.utime(path, (old, old))
    cache.partial(young).write_bytes(b"x")
    handle = try_lock(cache.get_lock(busy), shared=False)
    assert handle is not None
    tidy(cache, 0)
    assert [path.name for path in cache.root.iterdir() if path.is_file()] == ["notes.txt"]
    assert {path.name for path in cache.partials.iterdir()} == {busy, f"{busy}.state", young}
    os.close(handle)
    tidy(cache, 1)
    assert not list(cache.partials.iterdir())
    assert not list(cache.locks.iterdir())


async def test_a_cancelled_copy_ends_in_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file has to be copied a cancelled asker does not wait for gigabytes, and leaves nothing behind."""
    cache = CacheFolder(tmp_path / "cache")
    cache.create()
    key = cache_key("http://h/model.bin")
    size = 16 * 1024**3
    with (cache.root / key).open("wb") as file:
        file.truncate(size)
    record = Record(key, size, "0" * 64, "http://h/model.bin", None, None, private=False)
    wish = LinkWish(tmp_path / "models", "model.bin", symlinks=False, replace=False)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(disk, link, cache, key, record, wish)
        with anyio.fail_after(30):
            while not (wish.folder.is_dir() and any(path.stat().st_size for path in wish.folder.iterdir())):
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert list(wish.folder.iterdir()) == []


async def test_links_lead_to_a_cache_whose_folder_is_given_relatively(
    web: WebFiles, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CACHE_DIR=cache: a symbolic link in another folder leads there all the same."""
    put(web, "a.bin")
    monkeypatch.chdir(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    async with opened(LOOPBACK, cache_dir=Path("cache"), symlinks=True) as stores:
        with Hold() as hold:
            linked = await fetch(stores, web, "a.bin", hold, folder=tmp_path / "models", filename="a.bin")
    assert linked.is_symlink()
    assert linked.stat().st_size == SIZE

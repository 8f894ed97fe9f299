"""HTTP in both directions: credentials, redirects, and servers that mean harm."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import InputRefused, InputUnavailable, UploadFailed
from app.storage.base import UploadRefused
from app.storage.cache_locks import Hold
from schemas.credentials import Auth, BasicAuth, BearerAuth, Credential, HeaderAuth, QueryAuth
from tests.contract.storage.conftest import Access, Open, Opened
from tests.support.services.places import TIMINGS
from tests.support.services.raw_server import Answer, run_raw
from tests.support.services.web_files import SECRET, USER, WebFiles, run_web_files

pytestmark = pytest.mark.anyio

LOOPBACK = Access({"allowed_private_hosts": ("127.0.0.1",)})
AUTHS: list[Auth] = [
    BearerAuth(type="bearer", token=SECRET),
    BasicAuth(type="basic", username=USER, password=SECRET),
    HeaderAuth(type="header", header_name="X-Api-Key", header_value=SECRET),
    QueryAuth(type="query", query_param="key", query_value=SECRET),
]


def everywhere(auth: Auth) -> list[Credential]:
    return [Credential(url_pattern="**", auth=auth)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[WebFiles]:
    """A second web server: another origin."""
    with run_web_files(tmp_path / "elsewhere") as server:
        yield server


async def get(stores: Opened, url: str, auth: Auth | None = None) -> bytes:
    with Hold() as hold:
        fetched = await stores.fetch(url, everywhere(auth) if auth else None, in_use=hold)
        return fetched.path.read_bytes()


@pytest.mark.parametrize("auth", AUTHS, ids=lambda auth: auth.type)
async def test_credentials_of_a_request(web: WebFiles, opened: Open, tmp_path: Path, auth: Auth) -> None:
    """Each type of credentials opens a closed server, for downloads and for uploads."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    async with opened(LOOPBACK) as stores:
        url = f"{web.url}/closed/x.bin"
        with pytest.raises(UploadRefused):
            await stores.put(source, url)
        shown = await stores.put(source, url, media_type="image/png", credentials=everywhere(auth))
        assert shown == url
        assert web.seen[-1].headers["Content-Type"] == "image/png"
        assert web.seen[-1].headers["Content-Length"] == "7"
        with pytest.raises(InputRefused):
            await get(stores, url)
        assert await get(stores, url, auth) == b"content"


async def test_user_info_in_the_url(web: WebFiles, opened: Open, tmp_path: Path) -> None:
    """``https://user:password@host/`` works in both directions and is shown without."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    url = f"http://{USER}:{SECRET}@127.0.0.1:{web.port}/closed/x.bin"
    async with opened(LOOPBACK) as stores:
        assert await stores.put(source, url) == f"{web.url}/closed/x.bin"
        assert await get(stores, url) == b"content"
    assert all(SECRET not in repr(one) for one in stores.told)


async def test_the_operators_header(web: WebFiles, elsewhere: WebFiles, opened: Open) -> None:
    """HTTP_AUTH_HEADER goes to HTTP_AUTH_HOSTS alone, gives way to other credentials, and obeys ALLOWED_URLS."""
    for server in (web, elsewhere):
        (server.folder / "x.bin").write_bytes(b"content")
    settings = {"http_auth_header": ("X-Api-Key", SECRET), "http_auth_hosts": (f"127.0.0.1:{web.port}",)}
    async with opened(LOOPBACK, **settings) as stores:
        assert await get(stores, f"{web.url}/closed/x.bin") == b"content"
        assert await get(stores, f"{elsewhere.url}/open/x.bin") == b"content"
        assert "X-Api-Key" not in elsewhere.seen[-1].headers
        await get(stores, f"{web.url}/closed/x.bin?other", AUTHS[0])
        assert "X-Api-Key" not in web.seen[-1].headers
    async with opened(LOOPBACK, **settings, allowed_urls=(f"{web.url}/open/*",)) as stores:
        assert await get(stores, f"{web.url}/open/x.bin") == b"content"
        with pytest.raises(InputRefused, match="ALLOWED_URLS"):
            await get(stores, f"{web.url}/closed/x.bin?1")
        assert await get(stores, f"{web.url}/closed/x.bin?1", AUTHS[0]) == b"content"
        assert await get(stores, f"{elsewhere.url}/open/x.bin?1") == b"content"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("auth", [*AUTHS, None], ids=lambda auth: auth.type if auth else "operator and url")
async def test_redirects_take_no_credentials_along(
    web: WebFiles, elsewhere: WebFiles, opened: Open, auth: Auth | None, status: int
) -> None:
    """A redirect to another origin is followed, and no credentials of any kind arrive there."""
    (elsewhere.folder / "x.bin").write_bytes(b"content")
    web.redirects["/go"] = (status, f"http://user:info@127.0.0.1:{elsewhere.port}/open/x.bin")
    settings = {"http_auth_header": ("X-Api-Key", SECRET), "http_auth_hosts": ("127.0.0.1",)}
    url = f"{web.url}/go" if auth else f"http://{USER}:{SECRET}@127.0.0.1:{web.port}/go"
    async with opened(LOOPBACK, **settings) as stores:
        assert await get(stores, url, auth) == b"content"
        assert await get(stores, f"{web.url}/go?second", None) == b"content"
    assert SECRET in repr(web.seen) or b64encode(f"{USER}:{SECRET}".encode()).decode() in repr(web.seen)
    for one in elsewhere.seen:
        assert not {"Authorization", "X-Api-Key", "Cookie", "Referer"} & set(one.headers)
        assert "key=" not in one.path


async def test_redirects_within_an_origin(web: WebFiles, opened: Open) -> None:
    """Within an origin credentials go along; when a redirect leaves it and comes back they stay away."""
    (web.folder / "x.bin").write_bytes(b"content")
    web.redirects["/go"] = (302, "/closed/x.bin")
    async with opened(LOOPBACK) as stores:
        assert await get(stores, f"{web.url}/go", AUTHS[0]) == b"content"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://localhost/x",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "file:///etc/passwd",
        "gopher://h/",
        "http://",
        "",
        "/go",
        "http://h/\x80\xff",
    ],
)
async def test_redirects_that_lead_astray(web: WebFiles, opened: Open, location: str) -> None:
    """Every hop's address is judged: a public start does not open a private end; circles end."""
    web.redirects["/go"] = (302, location)
    async with opened(Access({"allowed_private_hosts": (f"127.0.0.1:{web.port}",)})) as stores:
        with pytest.raises(InputUnavailable):
            await get(stores, f"{web.url}/go")
    assert len(web.seen) <= 11


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/open/x", "http://localhost:{port}/open/x", "http://[::1]:{port}/"]
)
async def test_private_addresses(web: WebFiles, opened: Open, url: str, tmp_path: Path) -> None:
    """A request reaches no private address in either direction unless the operator allows it."""
    (tmp_path / "source").write_bytes(b"x")
    async with opened(Access()) as stores:
        with pytest.raises(InputRefused, match="ALLOWED_PRIVATE_HOSTS"):
            await get(stores, url.format(port=web.port))
        with pytest.raises(UploadRefused, match="ALLOWED_PRIVATE_HOSTS"):
            await stores.put(tmp_path / "source", url.format(port=web.port))
    assert not web.seen


async def test_uploads_that_are_redirected(
    web: WebFiles, elsewhere: WebFiles, opened: Open, make_file: Callable[[int], Path]
) -> None:
    """307 and 308 send the whole body again, without credentials; after other redirects nobody would get it."""
    source = make_file(3_000_000)
    async with opened(LOOPBACK) as stores:
        for status in (307, 308):
            web.redirects["/go"] = (status, f"{elsewhere.url}/open/up{status}.bin")
            await stores.put(source, f"{web.url}/go", credentials=everywhere(AUTHS[0]))
            assert (elsewhere.folder / f"up{status}.bin").read_bytes() == source.read_bytes()
            assert "Authorization" not in elsewhere.seen[-1].headers
        for status in (301, 302, 303):
            web.redirects["/go"] = (status, f"{elsewhere.url}/open/no.bin")
            with pytest.raises(UploadRefused, match="redirects"):
                await stores.put(source, f"{web.url}/go")
    assert not (elsewhere.folder / "no.bin").exists()


def says(head: str, body: bytes = b"") -> Answer:
    """A server that always says the same."""

    async def answer(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + body)
        await writer.drain()

    return answer


OK = "HTTP/1.1 200 OK\nConnection: close\n"


async def test_content_encodings(opened: Open) -> None:
    """What comes in gzip, unasked, is stored without; a broken or unknown encoding is no file."""
    plain = b"content " * 100_000
    packed = gzip.compress(plain)
    async with opened(LOOPBACK) as stores:
        with run_raw(says(f"{OK}Content-Encoding: gzip\nContent-Length: {len(packed)}\n\n", packed)) as port:
            assert await get(stores, f"http://127.0.0.1:{port}/a") == plain
        for encoding, body in (("gzip", packed[:-9]), ("gzip", b"no gzip"), ("br", b"x"), ("gzip, br", b"x")):
            answer = says(f"{OK}Content-Encoding: {encoding}\n\n", body)
            with run_raw(answer) as port, pytest.raises(InputUnavailable):
                await get(stores, f"http://127.0.0.1:{port}/{encoding}{len(body)}")


async def test_a_bomb(opened: Open) -> None:
    """A small answer that unpacks to more than allowed is refused, and nothing of it stays."""
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    async with opened(LOOPBACK, max_download_bytes=1024 * 1024) as stores:
        answer = says(f"{OK}Content-Encoding: gzip\n\n", bomb)
        with run_raw(answer) as port, pytest.raises(InputRefused, match="MAX_DOWNLOAD_GB"):
            await get(stores, f"http://127.0.0.1:{port}/bomb")
        assert not list(stores._cache.folder.partials.iterdir())


async def test_too_large(web: WebFiles, opened: Open) -> None:
    """A file over MAX_DOWNLOAD_GB is refused by its length, and by its bytes where no length is told."""
    (web.folder / "x.bin").write_bytes(bytes(2_000_000))
    async with opened(LOOPBACK, max_download_bytes=1_999_999) as stores:
        with pytest.raises(InputRefused, match="MAX_DOWNLOAD_GB"):
            await get(stores, f"{web.url}/open/x.bin")
        answer = says(f"{OK}\n", bytes(2_000_000))
        with run_raw(answer) as port, pytest.raises(InputRefused, match="MAX_DOWNLOAD_GB"):
            await get(stores, f"http://127.0.0.1:{port}/x")
        assert not list(stores._cache.folder.partials.iterdir())


async def test_digests(opened: Open) -> None:
    """Where a server gives a digest the content has to have it."""
    body = b"content"
    sha256 = b64encode(hashlib.sha256(body).digest()).decode()
    md5 = b64encode(hashlib.md5(body).digest()).decode()
    wrong = b64encode(hashlib.sha256(b"other").digest()).decode()
    async with opened(LOOPBACK) as stores:
        lines = (f"Repr-Digest: sha-256=:{sha256}:", f"Digest: md5=x,SHA-256={sha256}", f"Content-MD5: {md5}")
        for line in (*lines, "Content-MD5: junk"):
            with run_raw(says(f"{OK}{line}\nContent-Length: 7\n\n", body)) as port:
                assert await get(stores, f"http://127.0.0.1:{port}/x") == body
        answer = says(f"{OK}Repr-Digest: sha-256=:{wrong}:\nContent-Length: 7\n\n", body)
        with run_raw(answer) as port, pytest.raises(InputUnavailable, match="digest"):
            await get(stores, f"http://127.0.0.1:{port}/x")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="model.safetensors"', "model.safetensors"),
        ('attachment; filename="../../etc/x.py"', "x.py"),
        ('attachment; filename="..\\\\..\\\\x.py"', "x.py"),
        ("attachment; filename*=UTF-8''%C3%BC%20%E2%82%AC.png", "ü €.png"),
        ("attachment; filename*=UTF-8''..%2F..%2Fx.png", "x.png"),
        ('attachment; filename="a\x00b.png"', None),
        ('attachment; filename=".."', "path.bin"),
        ('attachment; filename="' + ";" * 20_000, "_" + ";" * 199),
        ("attachment; filename=" + "x" * 400 + ".png", "x" * 196 + ".png"),
        ("nonsense", "path.bin"),
    ],
)
async def test_names_that_servers_give(opened: Open, header: str, name: str | None) -> None:
    """A name from a server is one harmless segment, whatever it says; reading it takes no time."""
    async with opened(LOOPBACK) as stores:
        with run_raw(says(f"{OK}Content-Disposition: {header}\nContent-Length: 1\n\n", b"x")) as port:
            began = time.perf_counter()
            try:
                with Hold() as hold:
                    fetched = await stores.fetch(f"http://127.0.0.1:{port}/dir/path.bin", in_use=hold)
                    assert fetched.filename == name
            except InputUnavailable:
                assert name is None
            assert time.perf_counter() - began < 2


async def drip(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless_head(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Y: " + b"z" * 8000 + b"\r\n")
        await writer.drain()


async def dripping_head(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head that never gets anywhere."""
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless_error(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An error whose body never ends."""
    writer.write(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b"z" * 65536)
        await writer.drain()


@pytest.mark.parametrize("harm", [drip, endless_head, dripping_head, endless_error])
async def test_servers_that_hold_on(opened: Open, harm: Answer, tmp_path: Path) -> None:
    """A server that keeps sending without getting anywhere is left in time, for downloads and uploads."""
    (tmp_path / "source").write_bytes(b"x")
    quick = replace(TIMINGS, answer_s=1, stall_s=1, tries=1)
    async with opened(LOOPBACK, timings=quick) as stores:
        with run_raw(harm) as port:
            began = time.monotonic()
            with pytest.raises(InputUnavailable):
                await get(stores, f"http://127.0.0.1:{port}/x")
            if harm is not drip:
                with pytest.raises(UploadFailed):
                    await stores.put(tmp_path / "source", f"http://127.0.0.1:{port}/x")
            assert time.monotonic() - began < 8


async def test_a_receiver_that_does_not_read(opened: Open, make_file: Callable[[int], Path]) -> None:
    """An upload whose receiver takes nothing off the connection is given up after the stall limit."""
    source = make_file(32 * 1024 * 1024)

    async def deaf(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever.wait()

    forever = asyncio.Event()
    quick = replace(TIMINGS, answer_s=1, stall_s=1, tries=1)
    async with opened(LOOPBACK, timings=quick) as stores:
        with run_raw(deaf) as port:
            began = time.monotonic()
            with pytest.raises(UploadFailed, match="stalled"):
                await stores.put(source, f"http://127.0.0.1:{port}/x")
            assert time.monotonic() - began < 8


async def test_ranges_that_end_early(opened: Open) -> None:
    """A range that promises the rest of a file and brings less of it is not taken for the rest."""
    data, asked = bytes(3_000_000), list[bytes]()

    async def short(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(head)
        start = int((head.lower().partition(b"range: bytes=")[2].partition(b"-")[0]) or 0)
        lines = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\nContent-Length: 10\r\n"
        if not start:
            lines = f"Content-Length: {len(data)}\r\n"
        status = "206 Partial Content" if start else "200 OK"
        writer.write(f'HTTP/1.1 {status}\r\nETag: "x"\r\n{lines}Connection: close\r\n\r\n'.encode())
        writer.write(data[start : start + (10 if start else 2_000_000)])
        await writer.drain()

    async with opened(LOOPBACK) as stores:
        with run_raw(short) as port, pytest.raises(InputUnavailable):
            await get(stores, f"http://127.0.0.1:{port}/x")
    assert any(b"range" in head.lower() for head in asked)


async def test_connections_that_end_unnoticed(opened: Open, make_file: Callable[[int], Path]) -> None:
    """A kept connection that the server has closed costs an upload nothing: its body is sent again, whole."""
    sources = [make_file(300_000) for _ in range(3)]
    taken: list[bytes] = []

    async def forgetful(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        taken.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

    async with opened(LOOPBACK) as stores:
        with run_raw(forgetful) as port:
            began = time.monotonic()
            for source in sources:
                await stores.put(source, f"http://127.0.0.1:{port}/x")
            assert time.monotonic() - began < 5
    assert taken == [source.read_bytes() for source in sources]


NO_URLS = ("ftp://h/x", "data:image/png;base64,AAAA", "http://h/a\nb", "", "no url", "x" * 20_000, "javascript:1")


@pytest.mark.parametrize("url", NO_URLS)
async def test_what_is_no_url(opened: Open, url: str, tmp_path: Path) -> None:
    """Other schemes and nonsense are refused in a sentence that is no longer than it must be."""
    (tmp_path / "source").write_bytes(b"x")
    async with opened(Access()) as stores:
        with pytest.raises(InputRefused) as caught:
            await get(stores, url)
        assert len(str(caught.value)) < 2500
        with pytest.raises(UploadRefused):
            await stores.put(tmp_path / "source", url)

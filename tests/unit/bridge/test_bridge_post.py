"""One request: what is not reachable is told apart, and every wait ends."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from app.bridge.payload import Base64File, Payload
from app.bridge.post import Poster
from app.bridge.verdict import Answer
from app.storage.config import ProxyConfig
from app.storage.guard import Guard
from app.storage.proxies import Proxies

pytestmark = pytest.mark.anyio

PLAIN = Payload((b"{}",))


@asynccontextmanager
async def served(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that reads a head, says these bytes and keeps the connection open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def post(url: str, payload: Payload = PLAIN, *, timeout_s: float = 5, proxy: str | None = None) -> Answer:
    proxies = Proxies(ProxyConfig(http=proxy))
    async with Poster(Guard(("127.0.0.1", "localhost")), proxies, timeout_s) as poster:
        return await poster.post(URL(url), {"webhook-id": "a"}, payload)


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(alternatives, critical=False).sign(key, hashes.SHA256())
    path = folder / "server.pem"
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


async def test_an_untrusted_certificate_is_no_end(tmp_path: Path) -> None:
    """Certificates expire and are renewed: the failure is named and another attempt may succeed."""
    async with served(b"", self_signed(tmp_path)) as port:
        answer = await post(f"https://127.0.0.1:{port}/")
    assert (answer.status, answer.forbidden) == (None, False)
    assert answer.trouble == "its TLS certificate is not trusted"


async def test_names_that_do_not_resolve() -> None:
    """A name that is unknown now may be known later."""
    answer = await post("http://nowhere.invalid/")
    assert (answer.trouble, answer.forbidden) == ("its host name does not resolve", False)


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        (b"", "the receiver does not answer within 0.3 s"),
        (b"HTTP/1.1 200", "the receiver does not answer within 0.3 s"),
        (b"nonsense\r\n\r\n", "the answer is no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "the answer is no valid HTTP"),
    ],
)
async def test_answers_that_are_none(said: bytes, trouble: str) -> None:
    """Silence, half an answer and nonsense end within the deadline."""
    began = time.monotonic()
    async with served(said) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeout_s=0.3)
    assert (answer.status, answer.trouble) == (None, trouble)
    assert time.monotonic() - began < 3


async def test_a_status_counts_whatever_becomes_of_its_body() -> None:
    """Of a body that drips or never ends only a part is awaited."""
    async with served(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nthe \x1b[31mbeginning") as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.status == 200
    # What a terminal would obey is taken out.
    assert answer.excerpt == "the  [31mbeginning"


async def test_a_receiver_that_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body that nobody takes ends too, and leaves no open file."""
    monkeypatch.setattr("app.bridge.post.SLOWEST_BYTES_PER_S", 10**9)
    path = tmp_path / "f"
    path.write_bytes(bytes(1_000_000))
    # The system accepts for it, and keeps what its buffers hold.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = await post(f"http://127.0.0.1:{port}/", Payload((Base64File(path, 1_000_000),) * 20), timeout_s=0.2)
    assert answer.trouble == "the receiver does not answer within 0.2 s"


async def test_through_a_proxy() -> None:
    """A configured proxy gets the whole URL; what is literal and private is refused all the same."""
    async with served(b"HTTP/1.1 204 No Content\r\n\r\n") as port:
        proxy = f"http://127.0.0.1:{port}"
        assert (await post("http://receiver.example/hook", proxy=proxy)).status == 204
        assert (await post("http://10.0.0.1/hook", proxy=proxy)).forbidden


@pytest.mark.parametrize(
    ("once", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Y: " + b"z" * 8000 + b"\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nX-Y: ", b"z" * 8000),
    ],
    ids=["headers", "promises", "one header"],
)
async def test_an_answer_whose_head_never_ends(once: bytes, again: bytes) -> None:
    """It is left at the bound on heads or on time, whichever comes first, and costs no memory until then."""

    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(once)
        with suppress(ConnectionError):
            while True:
                writer.write(again)
                await writer.drain()
                # A flood would hold up the loop that both sides share here.
                await asyncio.sleep(0.001)
        writer.transport.abort()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        began = time.monotonic()
        answer = await post(f"http://127.0.0.1:{port}/hook", timeout_s=1)
        assert answer.status is None
        assert answer.trouble
        assert time.monotonic() - began < 10
        await asyncio.wait_for(over.wait(), 10)
    finally:
        server.close()
        await server.wait_closed()

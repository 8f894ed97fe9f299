"""Which addresses may be reached."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.storage.faults import Fault
from app.storage.guard import ForbiddenAddress, Guard, GuardedResolver, is_public

PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")
PRIVATE = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """Addresses of the internet are public, also wrapped in IPv6."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    """Addresses of this machine, of networks of one's own, and those reserved are not, however they are written."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://[fe80::1%25eth0]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1./",
        "ftp://1.1.1.1/",
        "file:///etc/passwd",
    ],
)
def test_literals_are_refused(url: str) -> None:
    """A private address that stands in the URL is refused without a look-up, in any notation a resolver takes."""
    for proxied in (False, True):
        with pytest.raises(Fault) as caught:
            Guard().check_url(URL(url), proxied=proxied)
        assert not caught.value.passing


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64 + ".example", "a." * 130 + "example"])
def test_names_that_cannot_resolve_are_refused_for_good(host: str) -> None:
    """What the encoder of names would choke on is a fault of the URL, not one of ours."""
    with pytest.raises(Fault) as caught:
        Guard().check_url(URL(f"http://{host}/a.png"))
    assert not caught.value.passing


@pytest.mark.anyio
async def test_a_resolver_knows_only_errors_of_the_network() -> None:
    """A name that Python cannot even encode does not resolve, like any other that does not."""
    with pytest.raises(OSError, match="no name that could resolve"):
        await GuardedResolver(Guard()).resolve("a..b", 80)


@pytest.mark.parametrize("host", ["a", "a.b.", "x" * 63 + ".example", "my_host", "[2606:4700::1111]", "1.1.1.1"])
def test_unusual_names_are_left_to_the_resolver(host: str) -> None:
    """A dot at the end, an underscore, the longest label, and public addresses are fine."""
    Guard().check_url(URL(f"http://{host}/"))


def test_names_behind_a_proxy() -> None:
    """Through a proxy the names of this machine are refused by their text, and others are the proxy's business."""
    for url in ("http://localhost/", "http://LOCALHOST./", "http://x.localhost:80/"):
        with pytest.raises(Fault):
            Guard().check_url(URL(url), proxied=True)
    Guard().check_url(URL("http://intranet.example/"), proxied=True)


@pytest.mark.parametrize(
    ("entries", "host", "port", "address", "allowed"),
    [
        (["*"], "x", 1, "127.0.0.1", True),
        (["minio"], "minio", 9000, "10.0.0.9", True),
        (["MINIO."], "minio", 9000, "10.0.0.9", True),
        (["minio"], "other", 9000, "10.0.0.9", False),
        (["minio"], "minio.evil.example", 9000, "10.0.0.9", False),
        (["minio:9000"], "minio", 9000, "10.0.0.9", True),
        (["minio:9000"], "minio", 9001, "10.0.0.9", False),
        (["10.0.0.0/8"], "any.name", 80, "10.1.2.3", True),
        (["10.0.0.0/8"], "any.name", 80, "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "any.name", 80, "192.168.0.1", False),
        (["fd00::/8"], "any.name", 80, "fd00::1", True),
        (["::1"], "::1", 80, "::1", True),
        (["[::1]:8080"], "::1", 8080, "::1", True),
        (["[::1]:8080"], "::1", 80, "::1", False),
        (["127.0.0.1:80"], "127.0.0.1", 80, "127.0.0.1", True),
        ([" ", ""], "x", 1, "127.0.0.1", False),
    ],
)
def test_exceptions(entries: list[str], host: str, port: int, address: str, allowed: bool) -> None:
    """ALLOWED_PRIVATE_HOSTS takes hosts, host:port, networks and a star, and no more than it says."""
    assert Guard(entries).allows(host, port, ipaddress.ip_address(address)) is allowed


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "host:port", ":80"])
def test_wrong_exceptions(entry: str) -> None:
    """An entry that is none is named."""
    with pytest.raises(ValueError, match="is"):
        Guard([entry])


def test_endpoints_may_be_anywhere() -> None:
    """Host and port of a configured storage endpoint may be private, and nothing else on that host."""
    guard = Guard(endpoints=["http://10.0.0.9:9000/x"])
    guard.check_url(URL("http://10.0.0.9:9000/bucket/key"))
    with pytest.raises(Fault):
        guard.check_url(URL("http://10.0.0.9:22/"))


class Names(AbstractResolver):
    """A resolver that knows what it is told, and something else at every look-up."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.answers.pop(0)
        ]

    async def close(self) -> None:
        pass


@pytest.mark.anyio
async def test_names_are_judged_by_what_they_resolve_to() -> None:
    """Each look-up is judged anew, and one private address among public ones is enough to refuse."""
    resolver = GuardedResolver(Guard(), Names(["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["fe80::1%eth0"]))
    assert [one["host"] for one in await resolver.resolve("rebinding.example", 80)] == ["1.1.1.1"]
    for _ in range(3):
        with pytest.raises(ForbiddenAddress):
            await resolver.resolve("rebinding.example", 80)

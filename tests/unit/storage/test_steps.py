"""Retries, turns, parallel steps, proxies, partial files and identities: the parts that stores are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from yarl import URL

from app.storage.azure_access import BlobAccess, azure_account, blob_place
from app.storage.config import AzureConfig, ProxyConfig, Timings
from app.storage.faults import Fault, status_fault
from app.storage.parallel import in_parallel
from app.storage.partial import PartialFile, Source, expected_digests
from app.storage.proxies import Proxies
from app.storage.retry import retrying
from app.storage.turns import Turns

TIMINGS = Timings(tries=3, first_delay_s=0.001, longest_delay_s=0.002)
GIB = 1024**3


class Steps:
    """A step that fails as told."""

    def __init__(self, *faults: Fault | None) -> None:
        self.faults = list(faults)
        self.done = 0

    async def __call__(self) -> str:
        self.done += 1
        if (fault := self.faults.pop(0)) is not None:
            raise fault
        return "done"


def passing(retry_after_s: float | None = None) -> Fault:
    return Fault("busy", passing=True, retry_after_s=retry_after_s)


@pytest.mark.anyio
async def test_retries() -> None:
    """What may pass is tried again as often as set, what will not pass is not, and progress begins the count anew."""
    assert await retrying(Steps(passing(), passing(86_400), None), TIMINGS, where="x") == "done"
    for steps, count in ((Steps(*[passing()] * 9), 3), (Steps(Fault("no", passing=False)), 1)):
        with pytest.raises(Fault):
            await retrying(steps, TIMINGS, where="x")
        assert steps.done == count
    moving = Steps(*[passing()] * 8, None)
    assert await retrying(moving, TIMINGS, where="x", moved=lambda: True) == "done"
    endless = Steps(*[passing()] * 1000)
    with pytest.raises(Fault):
        await retrying(endless, TIMINGS, where="x", moved=lambda: True)
    assert endless.done == 100


DATE = "Fri, 31 Dec 1999 23:59:59 GMT"


@pytest.mark.parametrize(
    ("header", "seconds"), [("5", 5), ("0", 0), *((text, None) for text in ("", "-1", "9" * 9, DATE))]
)
def test_retry_after(header: str, seconds: float | None) -> None:
    """Seconds of a Retry-After are read, and nothing else of it."""
    assert status_fault(429, {"Retry-After": header}).retry_after_s == seconds


def test_statuses() -> None:
    """Which statuses are worth another try."""
    passing_ones = [status for status in range(300, 600) if status_fault(status, {}).passing]
    assert passing_ones == [408, 425, 429, *range(500, 600)]


@pytest.mark.anyio
async def test_turns() -> None:
    """Who asks for the same name goes one after the other in order; nothing is remembered afterwards."""
    turns, order = Turns(), list[str]()

    async def one(name: str, mark: str) -> None:
        async with turns.turn(name):
            order.append(f"{mark}+")
            await anyio.wait_all_tasks_blocked()
            order.append(f"{mark}-")

    async with anyio.create_task_group() as tasks:
        for name, mark in (("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")):
            tasks.start_soon(one, name, mark)
            await anyio.lowlevel.checkpoint()
    of_a = [mark for mark in order if mark[0] in "124"]
    assert of_a == ["1+", "1-", "2+", "2-", "4+", "4-"]
    assert order.index("3+") < order.index("1-")
    assert not turns._queues


@pytest.mark.anyio
async def test_parallel_steps() -> None:
    """Results come in order, few run at once, and the first failure ends the rest and is raised as it is."""
    running = most = 0

    async def step(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.001)
        running -= 1
        if number == 99:
            raise Fault("ninety-nine", passing=False)
        return number

    def steps(numbers: range) -> list[Any]:
        return [lambda number=number: step(number) for number in numbers]

    assert await in_parallel(steps(range(20)), 3) == list(range(20))
    assert most == 3
    assert await in_parallel([], 3) == []
    with pytest.raises(Fault, match="ninety-nine"):
        await in_parallel(steps(range(95, 1000)), 3)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://h/", "http://p:1"),
        ("https://h/", "http://s:2"),
        ("http://in.example/", None),
        ("http://a.in.example/", None),
        ("http://in.example.evil/", "http://p:1"),
        ("http://notin.example/", "http://p:1"),
        ("http://dotted.org/", None),
        ("http://a.dotted.org/", None),
        ("http://port.net:81/", None),
        ("http://port.net:82/", "http://p:1"),
        ("http://10.1.2.3/", None),
        ("http://11.1.2.3/", "http://p:1"),
        ("http://[::1]/", None),
        ("HTTP://IN.EXAMPLE./", None),
    ],
)
def test_proxies(url: str, proxy: str | None) -> None:
    """Which proxy a URL takes, and which hosts of NO_PROXY none."""
    config = ProxyConfig("http://p:1", "s:2", " in.example, .dotted.org,port.net:81,10.0.0.0/8,::1,")
    assert Proxies(config).for_url(URL(url)) == proxy


def test_no_proxies() -> None:
    """Without settings, and with a star in NO_PROXY, there is none."""
    assert Proxies(ProxyConfig()).for_url(URL("http://h/")) is None
    assert Proxies(ProxyConfig("http://p", "http://p", "*")).for_url(URL("http://h/")) is None


def test_partial_files(tmp_path: Path) -> None:
    """Bytes in two goes make one file with the digest of both; the state goes with the end."""
    source = Source('"tag"', 6)
    first = PartialFile(tmp_path / "x", GIB)
    first.look()
    assert first.source is None
    first.start(source, {})
    first.write(b"abc")
    first.close()
    second = PartialFile(tmp_path / "x", GIB)
    second.look()
    assert (second.source, second.size) == (source, 3)
    assert not second.catch_up()
    second.resume({})
    second.write(b"def")
    assert second.finish() == "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("harm", ["garbage", {"validator": "v"}, {"total": 2}, {"boot": "other"}, {"total": "x"}, []])
def test_states_that_do_not_fit(tmp_path: Path, harm: object) -> None:
    """A state that is torn, of another boot, or does not fit the bytes is worth nothing."""
    file = PartialFile(tmp_path / "x", GIB)
    file.start(Source('"tag"', 6), {})
    file.write(b"abc")
    file.close()
    state = tmp_path / "x.state"
    if isinstance(harm, dict):
        known = json.loads(state.read_text())
        changed = {**known, **harm} if "validator" not in harm else harm
        state.write_text(json.dumps(changed))
    else:
        state.write_text(harm if isinstance(harm, str) else json.dumps(harm))
    again = PartialFile(tmp_path / "x", GIB)
    again.look()
    assert again.source is None


def test_a_whole_partial_file_asks_for_its_last_byte(tmp_path: Path) -> None:
    """Where a process was killed between the last byte and the end one byte is asked for again."""
    file = PartialFile(tmp_path / "x", GIB)
    file.start(Source('"tag"', 3), {})
    file.write(b"abc")
    file.close()
    again = PartialFile(tmp_path / "x", GIB)
    again.look()
    assert again.size == 2
    assert not again.catch_up()
    again.resume({})
    again.write(b"c")
    again.finish()
    assert (tmp_path / "x").read_bytes() == b"abc"


def test_catching_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of what is here is taken a piece at a time; where bytes have gone meanwhile nothing is continued."""
    monkeypatch.setattr("app.storage.partial._CATCH_UP_BYTES", 2)
    file = PartialFile(tmp_path / "x", GIB)
    file.start(Source('"tag"', 6), {})
    file.write(b"abcde")
    file.close()
    again, shortened = PartialFile(tmp_path / "x", GIB), PartialFile(tmp_path / "x", GIB)
    for one in (again, shortened):
        one.look()
        assert one.catch_up()
    assert again.catch_up()
    assert not again.catch_up()
    again.resume({})
    again.write(b"f")
    assert again.finish() == "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"
    (tmp_path / "x").write_bytes(b"abc")
    assert not shortened.catch_up()
    assert (shortened.source, shortened.size) == (None, 0)


def test_room(tmp_path: Path) -> None:
    """A file that cannot fit the disk is refused before its first byte."""
    with pytest.raises(Fault, match="room"):
        PartialFile(tmp_path / "x", 1 << 62).check_size(1 << 61)


def test_digests_of_headers() -> None:
    """Digests are taken where they are of the whole file and well-formed."""
    sha256 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    assert list(expected_digests({"Repr-Digest": f"sha-256=:{sha256}:"}, whole=False)) == ["sha256"]
    assert list(expected_digests({"Digest": f"md5=x, SHA-256={sha256}"}, whole=True)) == ["sha256"]
    assert list(expected_digests({"Content-MD5": "kAFQmDzST7DWlj99KOF/cg=="}, whole=True)) == ["md5"]
    for headers in ({"Content-MD5": "junk"}, {"Repr-Digest": "sha-256=:AAAA:"}, {"Repr-Digest": "sha-512=:AAAA:"}, {}):
        assert expected_digests(headers, whole=True) == {}
    assert expected_digests({"Content-MD5": "kAFQmDzST7DWlj99KOF/cg=="}, whole=False) == {}


def test_an_identity_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account without key and signature asks DefaultAzureCredential, and its token goes to that account alone."""
    asked: list[str] = []

    class Identity:
        def get_token(self, scope: str) -> Any:
            asked.append(scope)
            return type("Token", (), {"token": "canary-token"})

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Identity)
    account = azure_account(AzureConfig(account="acc"))
    access = BlobAccess(account)
    own = blob_place("https://acc.blob.core.windows.net/c/b?snapshot=1", account)
    other = blob_place("https://other.blob.core.windows.net/c/b", account)
    signed = blob_place("https://acc.blob.core.windows.net/c/b?sv=1&sig=x", account)
    assert own is not None
    assert other is not None
    assert signed is not None
    assert access.grant(own, None, "r") == ("snapshot=1", {"Authorization": "Bearer canary-token"})
    assert access.grant(other, None, "r") == ("", {})
    assert access.grant(signed, None, "r") == ("sv=1&sig=x", {})
    assert asked == ["https://storage.azure.com/.default"]

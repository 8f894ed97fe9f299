"""A secret in every field that can hold one, and none of them anywhere it could be seen."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from app.errors import PromptError
from app.storage.cache_locks import Hold
from app.storage.config import AzureConfig, HuggingFaceConfig, ProxyConfig, S3Config
from schemas.credentials import Auth, BasicAuth, BearerAuth, Credential, HeaderAuth, QueryAuth, S3Auth
from tests.contract.storage.conftest import Access, Open, Opened
from tests.support.services.azurite import ACCOUNT, Azurite
from tests.support.services.hub import Hub, run_hub
from tests.support.services.raw_server import run_forward_proxy
from tests.support.services.web_files import SECRET, USER, WebFiles
from tests.support.services.weed import Weed

pytestmark = pytest.mark.anyio

CANARY = "canary"
FORMS = (CANARY, b64encode(b"canary")[:6].decode(), SECRET, b64encode(f"{USER}:{SECRET}".encode()).decode())
AUTHS: list[Auth] = [
    BearerAuth(type="bearer", token=f"{CANARY}-bearer"),
    BasicAuth(type="basic", username="canary", password=f"{CANARY}-basic"),
    HeaderAuth(type="header", header_name="X-Api-Key", header_value=f"{CANARY}-header"),
    QueryAuth(type="query", query_param="key", query_value=f"{CANARY}-query"),
    S3Auth(
        type="s3",
        access_key_id=f"{CANARY}-id",
        secret_access_key=f"{CANARY}-secret",
        session_token=f"{CANARY}-session",
        endpoint=f"http://127.0.0.1:1/?{CANARY}",
    ),
    BearerAuth(type="bearer", token=SECRET),
    BasicAuth(type="basic", username=USER, password=SECRET),
]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with one repository."""
    with run_hub() as hub:
        hub.create("models", "u/r")
        yield hub


def operators(azurite: Azurite, weed: Weed, hub: Hub, web: WebFiles, proxy: int) -> Access:
    """Settings with a secret wherever there can be one."""
    key = b64encode(b"canary-account-key").decode()
    return Access(
        {
            "s3": S3Config(weed.url, "us-east-1", weed.key, f"{CANARY}-aws-secret", f"{CANARY}-aws-session"),
            "azure": AzureConfig(azurite.connection_string(key=key)),
            "hugging_face": HuggingFaceConfig(f"hf_{CANARY}0123456789abcdefgh", hub.url),
            "http_auth_header": ("X-Api-Key", f"{CANARY}-operator"),
            "http_auth_hosts": (f"127.0.0.1:{web.port}",),
            "proxies": ProxyConfig(http=f"http://{CANARY}-user:{CANARY}-proxy@127.0.0.1:{proxy}"),
            "allowed_private_hosts": ("127.0.0.1", "localhost"),
        }
    )


def urls(azurite: Azurite, hub: Hub, web: WebFiles) -> list[str]:
    """URLs with a secret wherever there can be one."""
    blob = f"{azurite.url}/{ACCOUNT}/artifacts/x.bin"
    signed = f"sv=2021-08-06&sig={CANARY}%2Bsig%3D&X-Amz-Signature={CANARY}&token={CANARY}#{CANARY}"
    return [
        f"{web.url}/closed/x.bin?{signed}",
        f"{web.url}/open/x.bin?{signed}",
        f"http://{USER}:{SECRET}@127.0.0.1:{web.port}/closed/x.bin?{signed}",
        f"http://{CANARY}:{quote(CANARY + '@/?#')}@127.0.0.1:{web.port}/closed/x.bin",
        f"http://{CANARY}@127.0.0.1:{web.port}/open/missing.bin?{signed}",
        f"http://user:{CANARY}/slash@127.0.0.1:{web.port}/open/x.bin",
        f"http://127.0.0.1:1/x.bin?{signed}",
        f"http://[no-address]/x?{signed}",
        f"http://user:{CANARY}@169.254.169.254/x?{signed}",
        f"gopher://user:{CANARY}@h/x?{signed}",
        f"{web.url}/redirects?{signed}",
        "s3://artifacts/x.bin",
        "s3://nowhere/x.bin",
        blob,
        f"{blob}?{signed}",
        f"{hub.url}/u/r/resolve/main/x.bin?{signed}",
        f"{hub.url}/u/r/resolve/main/missing.bin",
    ]


async def try_all(stores: Opened, urls: list[str], auth: Auth | None, source: Path) -> list[str]:
    """Fetch and put everything; returns all that is said to the caller."""
    said: list[str] = []
    credentials = [Credential(url_pattern="**", auth=auth)] if auth else None
    for url in urls:
        try:
            with Hold("r1") as hold:
                fetched = await stores.fetch(url, credentials, in_use=hold)
                said.append(repr(fetched))
        except PromptError as exc:
            said.append(f"{exc!r} {exc}")
        try:
            said.append(await stores.put(source, url, credentials=credentials, request_id="r1"))
        except PromptError as exc:
            said.append(f"{exc!r} {exc}")
    return said


def in_files(folder: Path) -> list[str]:
    """Names and contents of all that the cache keeps besides the files themselves."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    kept = ("records", "links", "partial", "locks")
    return found + [
        path.read_bytes().decode("latin-1") for name in kept for path in (folder / name).rglob("*") if path.is_file()
    ]


async def test_nothing_is_seen(
    azurite: Azurite,
    weed: Weed,
    web: WebFiles,
    hub: Hub,
    opened: Open,
    make_file: Callable[[int], Path],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No secret of the operator, of credentials or of URLs is in results, errors, events, logs or the cache's notes."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    (web.folder / "x.bin").write_bytes(b"content")
    web.redirects["/redirects"] = (302, f"http://user:{CANARY}@127.0.0.1:1/?sig={CANARY}")
    source, said = make_file(100), list[str]()
    with run_forward_proxy([]) as proxy, caplog.at_level(logging.INFO):
        access = operators(azurite, weed, hub, web, proxy)
        async with opened(access) as stores:
            for auth in [*AUTHS, None]:
                said += await try_all(stores, urls(azurite, hub, web), auth, source)
            said += [repr(one) for one in stores.told]
            said += [f"{works} {text}" async for _, works, text in stores.probe()]
            said += [repr(stores._config)]
    logged = capfd.readouterr()
    said += [logged.out, logged.err, caplog.text, *in_files(tmp_path / "cache")]
    assert len(stores.told) > 100
    assert "transfer tried again" in logged.out
    for form in FORMS:
        seen = [text for text in said if form in text]
        assert not seen, (form, seen[:3])


async def test_the_canary_would_be_found(web: WebFiles, opened: Open, make_file: Callable[[int], Path]) -> None:
    """The search finds what is there: a name in a path is no secret and comes back."""
    async with opened(Access({"allowed_private_hosts": ("127.0.0.1",)})) as stores:
        said = await try_all(stores, [f"{web.url}/open/{CANARY}.bin"], None, make_file(10))
    assert any(CANARY in text for text in said)

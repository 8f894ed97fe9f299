"""A request's own credentials on every backend: used where they fit, refused where they do not, sent nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import generate_container_sas

from app.errors import InputRefused, InputUnavailable, InvalidRequest, UploadFailed
from app.storage.base import UploadRefused
from app.storage.cache_locks import Hold
from app.storage.config import AzureConfig, HuggingFaceConfig, S3Config
from schemas.credentials import Auth, BasicAuth, BearerAuth, Credential, S3Auth
from schemas.prompt import PromptRequest, S3Upload
from tests.contract.storage.conftest import Access, Open, Opened
from tests.support.services.azurite import ACCOUNT, KEY, Azurite
from tests.support.services.hub import TOKEN, run_hub
from tests.support.services.places import S3Place
from tests.support.services.web_files import WebFiles
from tests.support.services.weed import Weed

pytestmark = pytest.mark.anyio

MakeFile = Callable[[int], Path]


def entry(auth: Auth, pattern: str = "**") -> list[Credential]:
    return [Credential(url_pattern=pattern, auth=auth)]


async def get(stores: Opened, url: str, credentials: list[Credential] | None = None) -> bytes:
    with Hold() as hold:
        return (await stores.fetch(url, credentials, in_use=hold)).path.read_bytes()


def keys(weed: Weed, **changes: str) -> S3Auth:
    fields = {"access_key_id": weed.key, "secret_access_key": weed.secret, "endpoint": weed.url, **changes}
    return S3Auth.model_validate({"type": "s3", **fields})


async def test_s3_keys_of_a_request(weed: Weed, opened: Open, make_file: MakeFile) -> None:
    """Keys with an endpoint of their own open a store that the worker knows nothing of, in both directions."""
    source = make_file(1000)
    private = {"allowed_private_hosts": (weed.url.removeprefix("http://"),)}
    async with opened(Access(private)) as stores:
        url = await stores.put(source, "s3://artifacts/own-keys.bin", credentials=entry(keys(weed)))
        assert url == "s3://artifacts/own-keys.bin"
        assert await get(stores, url, entry(keys(weed))) == source.read_bytes()
        wrong = entry(keys(weed, secret_access_key="canary-of-a-wrong-secret"))
        for credentials in (wrong, entry(BearerAuth(type="bearer", token="canary-token"))):
            with pytest.raises(InputRefused) as download:
                await get(stores, url, credentials)
            with pytest.raises(UploadRefused) as upload:
                await stores.put(source, url, credentials=credentials)
            assert "canary" not in f"{download.value} {upload.value}"
    async with opened(Access()) as stores:
        with pytest.raises(InputRefused, match="ALLOWED_PRIVATE_HOSTS"):
            await get(stores, url + "x", entry(keys(weed)))


@pytest.mark.parametrize("endpoint", ["file:///etc", "gopher://h/", "nonsense", "http://u:p@h/", "http://h/../x"])
async def test_endpoints_that_are_none(weed: Weed, opened: Open, endpoint: str) -> None:
    """An endpoint of a request that is no plain http address is refused."""
    async with opened(Access()) as stores:
        with pytest.raises(InputRefused):
            await get(stores, "s3://artifacts/x", entry(keys(weed, endpoint=endpoint)))


async def test_the_first_match_wins_on_s3(weed: Weed, opened: Open, make_file: MakeFile) -> None:
    """Of several entries the first whose pattern fits is used, and the worker's own keys where none does."""
    source = make_file(10)
    access = S3Place(weed).access()
    good, bad = keys(weed), keys(weed, secret_access_key="wrong")
    async with opened(access) as stores:
        await stores.put(source, "s3://artifacts/a/x.bin", credentials=entry(bad, "s3://other/**"))
        await stores.put(
            source, "s3://artifacts/a/x.bin", credentials=[*entry(good, "s3://artifacts/a/*"), *entry(bad)]
        )
        with pytest.raises(UploadRefused):
            await stores.put(source, "s3://artifacts/a/x.bin", credentials=[*entry(bad), *entry(good)])


async def test_allowed_urls(weed: Weed, opened: Open, make_file: MakeFile) -> None:
    """The worker's own keys are used for URLs of ALLOWED_URLS and for its output store, a request's own for all."""
    source = make_file(10)
    settings = {**S3Place(weed).access().settings, "allowed_urls": ("s3://artifacts/open/**",)}
    async with opened(Access(settings), output_store="s3://artifacts/outputs") as stores:
        await stores.put(source, "s3://artifacts/open/x.bin")
        output = await stores.put(source, stores.output_url("r1", "0" * 64, "x.bin"))
        assert await get(stores, output) == source.read_bytes()
        for url in (
            "s3://artifacts/closed/x.bin",
            "s3://artifacts/outputs/../closed/x.bin",
            "s3://artifacts/outputsx/y",
        ):
            with pytest.raises(UploadRefused):
                await stores.put(source, url)
            with pytest.raises(InputRefused):
                await get(stores, url)
        await stores.put(source, "s3://artifacts/closed/x.bin", credentials=entry(keys(weed)))


async def test_the_output_store_gets_no_credentials_of_requests(weed: Weed, opened: Open, make_file: MakeFile) -> None:
    """What goes to OUTPUT_STORE goes with the worker's keys; trouble there is never the request's fault."""
    source = make_file(10)
    bad = entry(keys(weed, secret_access_key="wrong"))
    async with opened(S3Place(weed).access(), output_store="s3://artifacts/outputs") as stores:
        await stores.put(source, stores.output_url("r1", "0" * 64, "x.bin"), credentials=bad)
    async with opened(S3Place(weed).wrong()[0], output_store="s3://artifacts/outputs") as stores:
        with pytest.raises(UploadFailed) as caught:
            await stores.put(source, stores.output_url("r1", "0" * 64, "x.bin"))
        assert caught.value.retryable


async def test_a_public_bucket_without_any_keys(opened: Open, weed: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no keys at all requests go unsigned, and a store that wants some refuses them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    async with opened(Access({"s3": S3Config(weed.url)})) as stores:
        with pytest.raises(InputRefused, match="AccessDenied"):
            await get(stores, "s3://artifacts/ready")


def container_sas(permission: str, *, expired: bool = False) -> str:
    end = datetime.now(UTC) + timedelta(hours=-1 if expired else 1)
    return generate_container_sas(ACCOUNT, "artifacts", KEY, permission=permission, expiry=end)


async def test_azure_credentials_of_a_request(azurite: Azurite, opened: Open, make_file: MakeFile) -> None:
    """An account's key and signatures in URLs open blobs, are used up to what they allow, and never come back."""
    source = make_file(1000)
    # Without settings for the account: only the request's own credentials count.
    foreign = AzureConfig(azurite.connection_string(key="d3Jvbmcga2V5"))
    base = f"{azurite.url}/{ACCOUNT}/artifacts"
    async with opened(Access({"azure": foreign})) as stores:
        shared = entry(BasicAuth(type="basic", username=ACCOUNT, password=KEY))
        url = await stores.put(source, f"{base}/own.bin", credentials=shared)
        assert url == f"{base}/own.bin"
        assert await get(stores, url, shared) == source.read_bytes()
        signed = f"{base}/sas.bin?{container_sas('rcw')}"
        assert await stores.put(source, signed) == f"{base}/sas.bin"
        assert await get(stores, signed) == source.read_bytes()
        for bad in (f"{base}/sas.bin?{container_sas('r')}", f"{base}/x.bin?{container_sas('rcw', expired=True)}"):
            with pytest.raises(UploadRefused) as caught:
                await stores.put(source, bad)
            assert "sig=" not in str(caught.value)
        with pytest.raises(UploadRefused, match="s3"):
            await stores.put(
                source, f"{base}/x.bin", credentials=entry(S3Auth(type="s3", access_key_id="a", secret_access_key="b"))
            )
    assert not any("sig" in one.url for one in stores.told)


async def test_write_only_signatures_are_enough(azurite: Azurite, opened: Open, make_file: MakeFile) -> None:
    """An upload in blocks with a signature that allows writing alone succeeds, though it cannot be looked at."""
    source = make_file(20 * 1024 * 1024)
    base = f"{azurite.url}/{ACCOUNT}/artifacts"
    async with opened(Access({"azure": AzureConfig(azurite.connection_string(key="d3Jvbmcga2V5"))})) as stores:
        await stores.put(source, f"{base}/written.bin?{container_sas('cw')}")
        assert await get(stores, f"{base}/written.bin?{container_sas('r')}") == source.read_bytes()


async def test_tokens_for_the_hub(opened: Open, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's token opens what the worker's does not; it goes to the Hub and not where that redirects."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    small, large = make_file(100), make_file(2_000_000)
    with run_hub() as hub:
        hub.create("datasets", "u/private")
        hub.add("models", "u/gated", "x.bin", b"x")
        hub.repos["models", "u/gated"].gated = True
        settings = {"hugging_face": HuggingFaceConfig(None, hub.url), "allowed_private_hosts": ("localhost",)}
        base = f"{hub.url}/datasets/u/private/resolve/main"
        mine = entry(BearerAuth(type="bearer", token=TOKEN), f"{hub.url}/**")
        async with opened(Access(settings)) as stores:
            for source in (small, large):
                url = await stores.put(source, f"{base}/{source.name}", credentials=mine)
                for credentials in (None, entry(BearerAuth(type="bearer", token="hf_wrong0123456789abcdef"))):
                    with pytest.raises(InputRefused):
                        await get(stores, url, credentials)
                assert await get(stores, url, mine) == source.read_bytes()
                # A hit asks the Hub whether this token may have it.
                for credentials in (None, entry(BearerAuth(type="bearer", token="hf_wrong0123456789abcdef"))):
                    with pytest.raises(InputRefused):
                        await get(stores, url, credentials)
            with pytest.raises(InputRefused, match="gated"):
                await get(stores, f"{hub.url}/u/gated/resolve/main/x.bin", mine)
            with pytest.raises(InputUnavailable, match="bearer"):
                await get(stores, f"{base}/y", entry(BasicAuth(type="basic", username="u", password="p")))
        assert hub.foreign_tokens == 0


async def test_targets_are_checked_before_a_prompt_runs(weed: Weed, opened: Open) -> None:
    """A target that will take nothing is the request's fault at once: wrong credentials for it, or not allowed."""
    settings = {**S3Place(weed).access().settings, "allowed_urls": ("s3://artifacts/open/**",)}
    wrong = entry(BearerAuth(type="bearer", token="canary-token"))
    graph = {"1": {"class_type": "X", "inputs": {}}}

    def request(prefix: str, credentials: list[Credential] | None = None) -> PromptRequest:
        return PromptRequest(prompt=graph, s3=S3Upload(bucket="artifacts", prefix=prefix), credentials=credentials)

    async with opened(Access(settings)) as stores:
        stores.check_target(PromptRequest(prompt=graph))
        stores.check_target(request("open/"))
        stores.check_target(request("closed/", entry(keys(weed))))
        for bad in (request("closed/"), request("open/", wrong), request("../")):
            with pytest.raises(InvalidRequest) as caught:
                stores.check_target(bad)
            assert "canary" not in str(caught.value)


async def test_urls_that_only_look_like_a_store(web: WebFiles, opened: Open) -> None:
    """The worker's tokens go to no host whose name or path only contains that of a store."""
    (web.folder / "x.bin").write_bytes(b"x")
    settings = {
        "hugging_face": HuggingFaceConfig(TOKEN),
        "azure": AzureConfig(account="devstoreaccount1", key=KEY),
        "allowed_private_hosts": ("127.0.0.1",),
    }
    async with opened(Access(settings)) as stores:
        for path in ("azurite", "devstoreaccount1", "x.blob.core.windows.net", "huggingface.co"):
            (web.folder / f"{path}~x.bin").write_bytes(b"x")
            assert await get(stores, f"{web.url}/open/{path}/x.bin") == b"x"
    for one in web.seen:
        assert "Authorization" not in one.headers
        assert "sig=" not in one.path

"""How URLs are read and written."""

from __future__ import annotations

from pathlib import Path

import pytest
from yarl import URL

from app.errors import InvalidRequest
from app.storage.azure_access import AzureAccount, azure_account, blob_place
from app.storage.config import AzureConfig
from app.storage.faults import Fault
from app.storage.file import file_path, file_url
from app.storage.huggingface import HubFile, hub_file
from app.storage.nats_object import object_key, object_url
from app.storage.s3 import part_sizes
from app.storage.s3_place import s3_location
from app.storage.targets import store_url, target_url
from app.storage.urls import origin, parse_http, resolve_location
from schemas.prompt import AzureBlobUpload, HttpUpload, HuggingFaceUpload, PromptOptions, S3Upload

HUB = "https://huggingface.co"
LONG = "http://" + "a" * 20_000


def test_s3_keys_are_verbatim() -> None:
    """A key is what stands in the URL: not encoded, not cut at a question mark."""
    assert s3_location("s3://My_Bucket/a b/ü?x#y.png") == ("My_Bucket", "a b/ü?x#y.png")
    assert s3_location("s3://b/a%20b") == ("b", "a%20b")


@pytest.mark.parametrize(
    "url", ["s3://b", "s3://b/", "s3:///k", "s3://b/../k", "s3://b/a/./k", "s3://u:p@b/k", "s3://b/\x00"]
)
def test_wrong_s3_urls(url: str) -> None:
    """What is no bucket and key, or leads upwards, is refused."""
    with pytest.raises(Fault):
        s3_location(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{HUB}/o/n/resolve/main/a/b.bin", HubFile("o/n", "model", "main", "a/b.bin")),
        (f"{HUB}/o/n/blob/main/b.bin?download=true", HubFile("o/n", "model", "main", "b.bin")),
        (f"{HUB}/gpt2/resolve/main/b.bin", HubFile("gpt2", "model", "main", "b.bin")),
        (f"{HUB}/datasets/o/n/resolve/v1/my%20dir/%C3%A9", HubFile("o/n", "dataset", "v1", "my dir/é")),
        (f"{HUB}/spaces/o/n/raw/main/app.py", HubFile("o/n", "space", "main", "app.py")),
        (f"{HUB}/o/n/resolve/refs%2Fpr%2F1/b", HubFile("o/n", "model", "refs/pr/1", "b")),
        (f"{HUB}/o/n/resolve/refs/pr/1/b", HubFile("o/n", "model", "refs/pr/1", "b")),
        ("https://hf.co/o/n/resolve/main/b", HubFile("o/n", "model", "main", "b")),
        ("https://mirror.example/hub/o/n/resolve/main/b", HubFile("o/n", "model", "main", "b")),
        (f"{HUB}/o/n", None),
        (f"{HUB}/o/n/tree/main", None),
        (f"{HUB}/api/models/o/n", None),
        ("https://huggingface.co.evil.example/o/n/resolve/main/b", None),
        ("https://example.com/o/n/resolve/main/b", None),
    ],
)
def test_files_on_the_hub(url: str, expected: HubFile | None) -> None:
    """Links to files of the Hub and of a mirror are known, everything else is left to HTTP."""
    assert hub_file(url, "https://mirror.example/hub") == expected


def test_hub_files_do_not_lead_upwards() -> None:
    """A path with dots is refused, encoded or not."""
    for path in ("../b", "a/%2e%2e/b"):
        with pytest.raises(Fault):
            hub_file(f"{HUB}/o/n/resolve/main/{path}", HUB)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AzureConfig(), None),
        (AzureConfig(account="acc", key="k"), AzureAccount("https://acc.blob.core.windows.net", "acc", "k")),
        (
            AzureConfig(account="acc", sas_token="?sig=x"),
            AzureAccount("https://acc.blob.core.windows.net", "acc", None, "sig=x"),
        ),
        (AzureConfig(account="acc"), AzureAccount("https://acc.blob.core.windows.net", "acc")),
        (
            AzureConfig(connection_string="AccountName=acc;AccountKey=a2V5PT0=;EndpointSuffix=core.chinacloudapi.cn"),
            AzureAccount("https://acc.blob.core.chinacloudapi.cn", "acc", "a2V5PT0="),
        ),
        (
            AzureConfig(connection_string="BlobEndpoint=http://127.0.0.1:1/dev/;SharedAccessSignature=sv=1&sig=a=b"),
            AzureAccount("http://127.0.0.1:1/dev", "dev", None, "sv=1&sig=a=b"),
        ),
    ],
)
def test_azure_accounts(config: AzureConfig, expected: AzureAccount | None) -> None:
    """The four ways of the settings, the first complete one first."""
    assert azure_account(config) == expected


def test_wrong_connection_string() -> None:
    """A connection string that names no account is refused."""
    with pytest.raises(ValueError, match="AccountName"):
        azure_account(AzureConfig(connection_string="nonsense"))


def test_azure_blobs() -> None:
    """Blobs of the own account and of the public services are known; a host that only contains the word is not."""
    own = AzureAccount("http://127.0.0.1:10000/dev", "dev", "k")
    place = blob_place("http://127.0.0.1:10000/dev/c/a%20b/%C3%BC.png?snapshot=1#f", own)
    assert place is not None
    assert (place.base, place.container, place.blob, place.query) == (own.url, "c", "a b/ü.png", "snapshot=1")
    assert place.url == "http://127.0.0.1:10000/dev/c/a%20b/%C3%BC.png"
    signed = blob_place("https://acc.blob.core.windows.net/c/b?sv=1&sig=x", own)
    assert signed is not None
    assert signed.is_signed
    for url in (
        "https://evil.example/acc.blob.core.windows.net/c/b",
        "https://acc.blob.core.windows.net.evil.example/c/b",
        "http://127.0.0.1:10001/dev/c/b",
        "http://azurite.example/c/b",
        "http://acc.blob.core.windows.net/c/b",
    ):
        assert blob_place(url, own) is None, url


def test_a_container_is_one_segment() -> None:
    """An encoded slash in it would lead into another container, by a URL that ALLOWED_URLS may name."""
    for container in ("public%2F..%2Fprivate", "..", "a%2Fb"):
        with pytest.raises(Fault):
            blob_place(f"https://acc.blob.core.windows.net/{container}/x.png", None)


def test_file_urls() -> None:
    """Paths go into file URLs and come out of them; what is no path of this machine is refused."""
    path = Path("/tmp/a b/ü?#%.png")
    assert file_path(file_url(path)) == path
    for url in ("file://host/x", "file:///a/../b", "file:///a/%2e%2e/b", "file:relative", "file:///a?b", "file:///%00"):
        with pytest.raises(Fault):
            file_path(url)


def test_nats_urls() -> None:
    """Bucket and key are verbatim."""
    assert object_key(object_url("b", "id/abc/ü b?#%41.png")) == ("b", "id/abc/ü b?#%41.png")
    for url in ("nats://b", "nats:///k", "nats://b/../k"):
        with pytest.raises(Fault):
            object_key(url)


def test_http_urls() -> None:
    """A signed URL stays as it is to the byte, another is encoded, user info becomes a header."""
    signed = "https://h/a%2Fb%7Ec?X-Amz-Signature=ab%2Bc&x=1"
    assert str(parse_http(signed).url) == signed
    assert str(parse_http("https://h/ü b.png?q=ä").url) == "https://h/%C3%BC%20b.png?q=%C3%A4"
    assert str(parse_http("https://h/100%.png").url) == "https://h/100%25.png"
    parsed = parse_http("https://Aladdin:open%20sesame@h/x#frag")
    assert str(parsed.url) == "https://h/x"
    assert parsed.authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///x",
        "http://h:99999/",
        "http://[::1/",
        "https://h/../x",
        "https://h/%2e%2e/x",
        "http://h/\n",
        "http://" + "a" * 20_000,
    ],
)
def test_wrong_http_urls(url: str) -> None:
    """What is no URL, leads upwards or is endless is refused."""
    with pytest.raises(Fault):
        parse_http(url)


def test_redirects() -> None:
    """Locations are resolved as browsers do; user info in them is dropped, other schemes are refused."""
    base = URL("https://h/a/b?x=1")
    assert str(resolve_location(base, "c?y=2")) == "https://h/a/c?y=2"
    assert str(resolve_location(base, "//other/c")) == "https://other/c"
    assert str(resolve_location(base, "https://u:p@other/c#f")) == "https://other/c"
    for location in ("file:///etc/passwd", "javascript:alert(1)", "http://[", "https://h:99999/", "http://h/\r\nX: 1"):
        with pytest.raises(Fault):
            resolve_location(base, location)


def test_origins() -> None:
    """Scheme, host and port make an origin; case and a final dot do not."""
    assert origin(URL("https://H/x")) == origin(URL("https://h.:443/y"))
    assert len({origin(URL(url)) for url in ("http://h/", "https://h/", "https://h:8443/", "https://x.h/")}) == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"s3": S3Upload(bucket="b", prefix="p/ü ")}, "s3://b/p/ü f ?#.png"),
        (
            {"azure_blob_upload": AzureBlobUpload(container="c", blob_prefix="/p/")},
            "https://acc.blob.core.windows.net/c/p/f%20%3F%23.png",
        ),
        ({"hf_upload": HuggingFaceUpload(repo="u/r")}, f"{HUB}/u/r/resolve/main/f%20%3F%23.png"),
        (
            {
                "hf_upload": HuggingFaceUpload(
                    repo="u/r", repo_type="dataset", revision="refs/pr/1", directory="/my dir//é/"
                )
            },
            f"{HUB}/datasets/u/r/resolve/refs%2Fpr%2F1/my%20dir/%C3%A9/f%20%3F%23.png",
        ),
        ({"http_upload": HttpUpload(url_prefix="https://h/up//")}, "https://h/up/f%20%3F%23.png"),
        ({"http_upload": HttpUpload(url_prefix="https://u:p@h/up?key=1#x")}, "https://u:p@h/up/f%20%3F%23.png?key=1"),
        ({}, None),
    ],
)
def test_targets(options: dict[str, object], expected: str | None) -> None:
    """Each target's URL, encoded as its backend reads it: no double slash, no signature in the middle."""
    account = "https://acc.blob.core.windows.net/"
    request = PromptOptions(**options)  # type: ignore[arg-type]
    assert target_url(request, "f ?#.png", azure_account=account, hub=HUB) == expected


@pytest.mark.parametrize(
    ("options", "location"),
    [
        ({"s3": S3Upload(bucket="a/b")}, "s3.bucket"),
        ({"s3": S3Upload(bucket="b", prefix="../")}, "s3.prefix"),
        ({"azure_blob_upload": AzureBlobUpload(container="c")}, "azure_blob_upload"),
        ({"hf_upload": HuggingFaceUpload(repo="u/r/x")}, "hf_upload.repo"),
        ({"hf_upload": HuggingFaceUpload(repo="../r")}, "hf_upload.repo"),
        ({"hf_upload": HuggingFaceUpload(repo="u/r", revision="")}, "hf_upload.revision"),
        ({"hf_upload": HuggingFaceUpload(repo="u/r", directory="a/../../b")}, "hf_upload.directory"),
        ({"http_upload": HttpUpload(url_prefix="ftp://h/")}, "http_upload.url_prefix"),
        ({"http_upload": HttpUpload(url_prefix="https://h/a/../b")}, "http_upload.url_prefix"),
    ],
)
def test_wrong_targets(options: dict[str, object], location: str) -> None:
    """A target that makes no URL is the request's fault, at the field that is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        target_url(PromptOptions(**options), "f.png", azure_account=None, hub=HUB)  # type: ignore[arg-type]
    assert caught.value.location == location


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("s3://b/p/", "s3://b/p/id/0123456789ab/ü ?.png"),
        ("nats://b", "nats://b/id/0123456789ab/ü ?.png"),
        (
            "https://acc.blob.core.windows.net/c/p",
            "https://acc.blob.core.windows.net/c/p/id/0123456789ab/%C3%BC%20%3F.png",
        ),
        ("file:///d", "file:///d/id/0123456789ab/%C3%BC%20%3F.png"),
    ],
)
def test_output_urls(store: str, expected: str) -> None:
    """Keys of OUTPUT_STORE are the contract's."""
    assert store_url(store, "id", "0123456789abcdef" * 4, "ü ?.png") == expected


def test_output_names_are_plain() -> None:
    """A file name never leads out of its key."""
    for name in ("", ".", "..", "a/b", "a\\b", "\x00", "x" * 300, "\ud800"):
        with pytest.raises(Fault):
            store_url("file:///d", "id", "0" * 64, name)


def test_parts() -> None:
    """Parts cover a file without gap or overlap, and never more than S3 takes."""
    mib = 1024**2
    assert part_sizes(0) == []
    assert part_sizes(1) == [(0, 1)]
    assert part_sizes(33 * mib) == [(0, 16 * mib), (16 * mib, 16 * mib), (32 * mib, mib)]
    huge = 5 * 1024**4
    parts = part_sizes(huge)
    assert len(parts) <= 10_000
    assert sum(length for _, length in parts) == huge

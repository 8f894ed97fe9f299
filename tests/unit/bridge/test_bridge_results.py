"""Bodies with files in them: fetched and inlined with little memory, linked, or left as they are."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.bridge.links import Links
from app.bridge.payload import PIECE_BYTES, Base64File, Payload
from app.bridge.record import Record
from app.bridge.results import Results
from app.bridge.signature import read_secrets
from app.storage.config import AzureConfig, S3Config, StorageConfig

pytestmark = pytest.mark.anyio

S3 = S3Config(region="eu-west-1", access_key_id="AKIAEXAMPLE", secret_access_key="secret-of-the-operator")
KEY = base64.b64encode(b"k" * 64).decode()


def record(size: int | None, origin: str = "webhook_v2") -> Record:
    base = {"id": "d", "webhook_id": "d", "origin": origin, "url": "https://a.example", "event": "prompt.complete"}
    return Record.model_validate({**base, "created_ms": 0, "due_ms": 0, "claims": True, "claim_bytes": size})


async def body_of(payload: Payload) -> Any:
    text = b"".join([piece async for piece in payload.stream()])
    assert len(text) == payload.size_bytes
    assert text == b"".join(payload.pieces())
    return json.loads(text)


@pytest.mark.parametrize("size", [0, 1, 2, 3, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 2])
async def test_files_are_encoded_as_they_are_sent(tmp_path: Path, size: int) -> None:
    """Base64 in pieces is the base64 of the whole, and the length is known before."""
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    payload = Payload((b'{"a":"', Base64File(tmp_path / "f", size), b'"}'))
    assert base64.b64decode((await body_of(payload))["a"]) == content
    signer = read_secrets("testsecret")
    assert signer.sign("a", 1, payload.pieces()) == signer.sign("a", 1, [b"".join(payload.pieces())])


async def test_files_of_the_output_store_are_inlined_below_the_limit(tmp_path: Path) -> None:
    """Claim checks of OUTPUT_STORE are replaced by their files, in place and order; above the limit they stay URLs."""
    store = tmp_path / "store"
    store.mkdir()
    urls = []
    for number in range(3):
        (store / f"{number}.png").write_bytes(bytes([number]) * 1000)
        urls.append(f"file://{store}/{number}.png")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    event = {"images": [urls[1], urls[0], urls[1], "aGk="], "outputs": [{"url": urls[1]}], "note": "ü"}
    config = StorageConfig(tmp_path / "cache", output_store=f"file://{store}")
    results = Results(config, None, inline_limit_bytes=3000, signed_links=True)
    async with results.open():
        payload = await results.payload(record(3000), json.dumps(event).encode(), scratch)
        found = await body_of(payload)
        assert [base64.b64decode(image)[:1] for image in found["images"]] == [b"\x01", b"\x00", b"\x01", b"h"]
        assert (found["outputs"], found["note"]) == (event["outputs"], "ü")
        for wrong in (3001, None):
            assert await body_of(await results.payload(record(wrong), json.dumps(event).encode(), scratch)) == event
        legacy = json.dumps({"event": "output.complete", "image": urls[2]}).encode()
        image = (await body_of(await results.payload(record(1000, "webhook"), legacy, scratch)))["image"]
        assert base64.b64decode(image) == b"\x02" * 1000
        # What is gone is named by its URL all the same.
        (store / "1.png").unlink()
        assert await body_of(await results.payload(record(3000), json.dumps(event).encode(), scratch)) == event


async def test_files_of_a_requests_own_target_stay_where_they_are(tmp_path: Path) -> None:
    """Who named a target wanted the files there, and never gets others' files through a URL that looks like one."""
    config = StorageConfig(tmp_path / "cache", output_store=f"file://{tmp_path}/store")
    results = Results(config, None, inline_limit_bytes=10**6, signed_links=False)
    async with results.open():
        for url in (
            "s3://b/k.png",
            f"file://{tmp_path}/storehouse/x",
            f"file://{tmp_path}/store",
            "file:///etc/passwd",
        ):
            event = {"images": [url]}
            assert await body_of(await results.payload(record(3), json.dumps(event).encode(), tmp_path)) == event
        escape = {"images": [f"file://{tmp_path}/store/../secret"]}
        (tmp_path / "secret").write_text("no")
        assert await body_of(await results.payload(record(2), json.dumps(escape).encode(), tmp_path)) == escape


async def test_s3_urls_become_links(tmp_path: Path) -> None:
    """With WEBHOOK_SIGNED_LINKS images and outputs carry links that are good for an hour and show no secret."""
    config = StorageConfig(tmp_path, s3=S3, output_store="s3://results/a")
    results = Results(config, None, inline_limit_bytes=0, signed_links=True)
    event = {"images": ["s3://results/a/x.png"], "outputs": [{"url": "s3://results/a/x.png"}, {"value": 1}]}
    async with results.open():
        found = await body_of(await results.payload(record(9), json.dumps(event).encode(), tmp_path))
    link = found["images"][0]
    assert found["outputs"][0]["url"] == link
    query = parse_qs(urlsplit(link).query)
    assert urlsplit(link).path == "/results/a/x.png"
    assert query["X-Amz-Expires"] == ["3600"]
    assert "secret-of-the-operator" not in link


async def test_links_are_made_only_where_the_operators_keys_may_be_used(tmp_path: Path) -> None:
    """ALLOWED_URLS bounds what is signed; a broad SAS of the operator is never handed out."""
    azure = AzureConfig(account="acct", key=KEY)
    links = Links(
        StorageConfig(tmp_path, s3=S3, azure=azure, output_store="s3://mine/x", allowed_urls=("s3://ours/**",))
    )
    assert "X-Amz-Signature" in await links.link("s3://mine/x/a.png")
    assert "X-Amz-Signature" in await links.link("s3://ours/a.png")
    assert await links.link("s3://theirs/a.png") == "s3://theirs/a.png"
    blob = "https://acct.blob.core.windows.net/c/a.png"
    assert await links.link(blob) == blob
    signed = await Links(StorageConfig(tmp_path, azure=azure)).link(blob)
    assert parse_qs(urlsplit(signed).query)["sp"] == ["r"]
    sas = AzureConfig(account="acct", sas_token="sv=1&sp=rwdl&sig=abc")
    assert await Links(StorageConfig(tmp_path, azure=sas)).link(blob) == blob
    for other in ("https://a.example/x.png", "nats://b/k", "s3://nokey", "aGk="):
        assert await Links(StorageConfig(tmp_path, azure=azure, s3=S3)).link(other) == other

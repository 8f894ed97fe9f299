"""Results in object stores: a webhook's links open them for an hour, for whoever has the link and nobody else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from app.storage.backends import make_backends
from app.storage.config import AzureConfig, S3Config, StorageConfig
from tests.integration.bridge.bridges import run_scene
from tests.integration.bridge.receivers import run_receivers
from tests.support.services.azurite import ACCOUNT, run_azurite
from tests.support.services.weed import run_weed

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CONTENT = b"\x89PNG of a cat"


@contextmanager
def s3(folder: Path) -> Iterator[tuple[str, dict[str, str], StorageConfig]]:
    """A store, the settings of a bridge for it, and the configuration of who uploads."""
    with run_weed(folder) as weed:
        env = {
            "AWS_ENDPOINT_URL": weed.url,
            "AWS_REGION": weed.region,
            "AWS_ACCESS_KEY_ID": weed.key,
            "AWS_SECRET_ACCESS_KEY": weed.secret,
        }
        own = S3Config(weed.url, weed.region, weed.key, weed.secret)
        yield f"s3://{weed.bucket}/results", env, StorageConfig(folder, s3=own)


@contextmanager
def azure(folder: Path) -> Iterator[tuple[str, dict[str, str], StorageConfig]]:
    """Likewise."""
    with run_azurite(folder) as azurite:
        text = azurite.connection_string()
        store = f"{azurite.url}/{ACCOUNT}/{azurite.container}/results"
        yield store, {"AZURE_STORAGE_CONNECTION_STRING": text}, StorageConfig(folder, azure=AzureConfig(text))


async def get(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("run_store", [s3, azure])
async def test_links_open_results_for_an_hour(tmp_path: Path, run_store: object) -> None:
    """With WEBHOOK_SIGNED_LINKS results that are not inlined come as links: readable with them, not without."""
    assert callable(run_store)
    (tmp_path / "store").mkdir()
    (tmp_path / "cat.png").write_bytes(CONTENT)
    with run_store(tmp_path / "store") as (store, env, config):
        url = f"{store}/a1/cat.png"
        backends = make_backends(config, None)
        async with backends.outgoing:
            storage = next(one for one in backends.all if one.accepts(url))
            await storage.upload(tmp_path / "cat.png", url, media_type="image/png")
        env |= {"OUTPUT_STORE": store, "WEBHOOK_SIGNED_LINKS": "true", "WEBHOOK_INLINE_KB": "0"}
        async with run_receivers() as receivers, run_scene(tmp_path, receivers) as scene:
            await scene.bridge(**env).start()
            outputs = [{"node_id": "9", "kind": "image", "image": 0, "size_bytes": len(CONTENT), "url": url}]
            await scene.complete("a1", images=[url], outputs=outputs, webhook_v2=receivers.url("v2"))
            [call] = await receivers.until("v2", 1)
            event = call.verified()
            link = event["images"][0]
            assert event["outputs"][0]["url"] == link
            assert await get(link) == (200, CONTENT)
            query = parse_qs(urlsplit(link).query)
            assert query.get("X-Amz-Expires") == ["3600"] or query["sp"] == ["r"]
            assert (await get(link.partition("?")[0]))[0] in (403, 404)
            assert (await get(link.replace("cat.png", "dog.png")))[0] == 403
            # Inlined where that is allowed: the bridge has the keys too.
            await scene.bridges[-1].stop()
            await scene.bridge(**{**env, "WEBHOOK_INLINE_KB": "64"}).start()
            await scene.complete("a2", images=[url], outputs=outputs, webhook_v2=receivers.url("inline"))
            [call] = await receivers.until("inline", 1)
            assert base64.b64decode(call.verified()["images"][0]) == CONTENT

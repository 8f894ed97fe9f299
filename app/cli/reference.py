"""Sends a request; one that is larger than the broker takes goes to OUTPUT_STORE, and its address to the broker.

Used by submit; may import app.errors, app.settings, brokers, schemas.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from app.cli.outcome import CommandFailed, ExitCode, say
from app.cli.stores import open_stores
from app.errors import UploadFailed
from app.settings import Settings
from brokers.base import MessageTooLarge
from brokers.client import Client
from schemas.envelope import LARGEST_REFERENCE_BYTES

__all__ = ["send_request"]


async def send_request(client: Client, settings: Settings, body: bytes, request_id: str) -> None:
    """Send a request, confirmed, whatever its size.

    A large one is stored under ``<OUTPUT_STORE>/<id>/<digest>/request.json`` and sent as a CloudEvent without data
    whose ``dataref`` says where that is. The workers need the same OUTPUT_STORE.

    Raises:
        CommandFailed: There is no OUTPUT_STORE, it does not take the request, or workers would refuse its size.
        BrokerError: The broker does not answer or refuses.
    """
    try:
        await client.submit(body, request_id=request_id)
    except MessageTooLarge as exc:
        url = await _stored(client, settings, body, request_id, exc)
        mark = "ce_" if settings.uses_kafka else "ce-"
        event = {
            "id": request_id,
            "source": "/comfybus/submit",
            "specversion": "1.0",
            "type": "prompt.request",
            "dataref": url,
        }
        headers = {f"{mark}{name}": value for name, value in event.items()}
        await client.submit(b"", headers, request_id=request_id)
        say(f"sent by reference: {exc}; its bytes lie at {url}")


async def _stored(client: Client, settings: Settings, body: bytes, request_id: str, why: MessageTooLarge) -> str:
    if len(body) > LARGEST_REFERENCE_BYTES:
        raise CommandFailed(
            f"the request has {len(body)} bytes and workers read {LARGEST_REFERENCE_BYTES} at most; "
            "put large inputs behind a URL",
            ExitCode.USAGE,
        )
    if settings.uses_kafka and not settings.output_store:
        raise CommandFailed(f"{why}; set OUTPUT_STORE to that of the workers, and it goes by reference", ExitCode.USAGE)
    with TemporaryDirectory(prefix="comfybus-") as folder:
        path = Path(folder, "request.json")
        await anyio.Path(path).write_bytes(body)
        async with open_stores(settings, client) as stores:
            try:
                url = stores.output_url(request_id, hashlib.sha256(body).hexdigest(), path.name)
                return await stores.put(path, url, media_type="application/json")
            except UploadFailed as exc:
                raise CommandFailed(f"{why}, and it cannot go by reference: {exc}", ExitCode.NO_ANSWER) from exc

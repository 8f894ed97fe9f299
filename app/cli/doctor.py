"""``comfybus doctor``: one line per check, each with the cure of what is wrong.

Used by commands; may import app.comfy, app.errors, app.settings, brokers.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import aiohttp
import anyio
import anyio.to_thread

from app.cli.connection import open_client
from app.cli.lines import table
from app.cli.outcome import ExitCode, show
from app.cli.stores import open_stores
from app.comfy.client import ComfyClient
from app.comfy.folders import probe_shared
from app.errors import ComfyUnavailable, ConfigurationError
from app.settings import Settings, load_settings
from app.settings.parts import storage_config
from brokers.base import BrokerError
from brokers.client import Client

__all__ = ["Finding", "run_doctor"]

CHECK_WITHIN_S = 20.0


@dataclass(frozen=True)
class Finding:
    """What one check found; ``sentence`` names cause and cure when it is not ok."""

    name: str
    ok: bool
    sentence: str


async def run_doctor() -> int:
    """Run every check and print its line as soon as it is known; returns 1 when something is wrong."""
    try:
        settings = load_settings()
    except ConfigurationError as exc:
        return _print([Finding("settings", ok=False, sentence=str(exc))])
    failed = _print(
        [Finding("settings", ok=True, sentence=f"worker {settings.worker}, prefix {settings.topic_prefix}")]
    )
    checks: tuple[Callable[[Settings], Awaitable[list[Finding]]], ...] = (_broker, _comfy, _storage)
    for check in checks:
        failed = _print(await check(settings)) or failed
    return failed


def _print(findings: list[Finding]) -> int:
    for line in table(
        [(f"{'ok' if found.ok else 'failed':<6}", f"{found.name:<8}", found.sentence) for found in findings]
    ):
        show(line)
    return ExitCode.DONE if all(found.ok for found in findings) else ExitCode.FAILED


async def _broker(settings: Settings) -> list[Finding]:
    """The server and everything that a worker and a client need on it."""
    try:
        with anyio.fail_after(CHECK_WITHIN_S):
            async with open_client(settings) as client:
                return [Finding("broker", found.ok, found.text) for found in await client.check()]
    except TimeoutError:
        sentence = f"it does not answer within {CHECK_WITHIN_S:g} s; look at its log"
    except BrokerError as exc:
        sentence = str(exc)
    return [Finding("broker", ok=False, sentence=sentence)]


async def _storage(settings: Settings) -> list[Finding]:
    """The cache's folder and every backend; the one of OUTPUT_STORE is called ``outputs``."""
    findings = [await _cache(settings)]
    store = storage_config(settings).output_store
    kind = {"s3": "s3", "file": "file", "nats": "nats"}.get(store.partition(":")[0], "azure" if store else "")
    if not store:
        findings.append(Finding("outputs", ok=False, sentence="on Kafka no worker starts without OUTPUT_STORE; set it"))
    try:
        async with AsyncExitStack() as stack:
            client: Client | None = None
            with suppress(BrokerError):
                client = await stack.enter_async_context(open_client(settings))
            stores = await stack.enter_async_context(open_stores(settings, client))
            async for name, works, sentence in stores.probe(CHECK_WITHIN_S):
                if name != kind:
                    findings.append(Finding(name, works, sentence))
                elif name == "nats" and client is None:
                    lost = f"OUTPUT_STORE={store} is the broker's, which does not answer; see the broker's line"
                    findings.append(Finding("outputs", ok=False, sentence=lost))
                else:
                    cure = "" if works else "; correct OUTPUT_STORE or what it names"
                    findings.append(Finding("outputs", works, f"{sentence.rstrip('.')}{cure}"))
    except ConfigurationError as exc:
        findings.append(Finding("storage", ok=False, sentence=str(exc)))
    return findings


async def _cache(settings: Settings) -> Finding:
    folder = settings.cache_dir
    try:
        free_bytes = await anyio.to_thread.run_sync(_try_cache, folder)
    except OSError as exc:
        sentence = f"{folder} cannot be used ({exc.strerror}); correct its permissions or CACHE_DIR"
        return Finding("cache", ok=False, sentence=sentence)
    return Finding(
        "cache", ok=True, sentence=f"{folder} can be written and locked, {free_bytes / 1024**3:.1f} GiB free"
    )


def _try_cache(folder: Path) -> int:
    """Write a file without a name and lock it, as the cache does; returns the free bytes of the disk.

    A folder that is not there yet is made by the first worker: what counts is the one it will be made in.
    """
    folder = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    with TemporaryFile(dir=folder) as file:
        file.write(b"comfybus")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return shutil.disk_usage(folder).free


async def _comfy(settings: Settings) -> list[Finding]:
    async with aiohttp.ClientSession(trust_env=False) as session:
        client = ComfyClient(settings.comfy_url, session)
        try:
            with anyio.fail_after(CHECK_WITHIN_S):
                system = (await client.system_stats()).get("system") or {}
                queue = await client.queue_remaining()
                folders = await _folders(client, settings)
        except TimeoutError:
            sentence = f"ComfyUI at {client.base_url} does not answer within {CHECK_WITHIN_S:g} s; see whether it hangs"
            return [Finding("comfyui", ok=False, sentence=sentence)]
        except ComfyUnavailable as exc:
            return [Finding("comfyui", ok=False, sentence=str(exc))]
    version = system.get("comfyui_version") or "of unknown version"
    return [
        Finding("comfyui", ok=True, sentence=f"{version} at {client.base_url}, {queue or 0} in its queue"),
        *folders,
    ]


async def _folders(client: ComfyClient, settings: Settings) -> list[Finding]:
    """Folders that are named should be ComfyUI's; where none are named, files travel over HTTP."""
    named = {"INPUT_DIR": settings.input_folder, "OUTPUT_DIR": settings.output_folder}
    if not any(named.values()):
        return [Finding("folders", ok=True, sentence="none named: files travel over HTTP, models cannot be downloaded")]
    shared = await probe_shared(client, settings.input_folder, settings.output_folder)
    seen = {"INPUT_DIR": shared.input, "OUTPUT_DIR": shared.output}
    findings = []
    for name, folder in named.items():
        if folder is None:
            sentence = f"{name} is not named: its files travel over HTTP"
        elif seen[name]:
            sentence = f"{folder} is ComfyUI's too"
        else:
            sentence = f"ComfyUI does not see a file written to {folder}; correct {name} or COMFY_HOME, or remove them"
        findings.append(Finding("folders", ok=folder is None or seen[name], sentence=sentence))
    return findings

"""The warm-up prompt: read at the start, run before the first request and after every restart of ComfyUI.

Used by app.settings.setup, app.worker.life, app.worker.worker; may import app.comfy, app.errors, app.prepare,
app.storage, brokers, schemas.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import structlog

from app.comfy.followed import Followed
from app.comfy.outputs import OutputReader, list_outputs
from app.comfy.run import Runs
from app.errors import Cancelled, ComfyUnavailable, ConfigurationError, PromptError
from app.prepare.prepare import Preparer
from app.setup.models import operator_storage
from app.storage.config import StorageConfig
from app.storage.secrets import public_url
from app.storage.stores import Stores
from brokers.base import RequestKey
from schemas.base import WrongField, load_json
from schemas.envelope import prompt_id
from schemas.events import Progress
from schemas.prompt import Graph, PromptRequest, parse_request

__all__ = ["WarmUp", "checkpoint_of", "read_warm_up", "warm_up"]

_LARGEST_BYTES: Final = 16 * 1024 * 1024

log = structlog.get_logger("comfybus.warmup")


@dataclass(frozen=True)
class WarmUp:
    """A warm-up prompt that was read and checked.

    Attributes:
        request: It, as a request that nobody sent.
        name: Where it is from, for messages: a variable and its value without secrets.
    """

    request: PromptRequest
    name: str

    @property
    def checkpoint(self) -> str | None:
        """What the first CheckpointLoaderSimple loads: what workflows know as the warm-up checkpoint."""
        return checkpoint_of(self.request.prompt or {})


async def read_warm_up(file: Path | None, url: str | None, storage: StorageConfig) -> WarmUp | None:
    """Read the warm-up prompt, if there is one; the file goes before the URL.

    Args:
        file: WARMUP_PROMPT_FILE.
        url: WARMUP_PROMPT_URL; its host may be private, for the operator named it.
        storage: Settings for the download.

    Raises:
        ConfigurationError: It cannot be had, or is no graph in API format; one line.
    """
    if file is not None:
        name = f"WARMUP_PROMPT_FILE={file}"
        try:
            body = await anyio.to_thread.run_sync(file.read_bytes)
        except OSError as exc:
            raise ConfigurationError(f"{name} is wrong: it cannot be read ({exc.strerror})") from exc
    elif url:
        name = f"WARMUP_PROMPT_URL={public_url(url)}"
        try:
            # Nothing is evicted for it: what the manifest needs may not be held yet.
            async with Stores(replace(operator_storage(storage, url), cache_limit_bytes=0)).open() as stores:
                body = await stores.read(url, limit_bytes=_LARGEST_BYTES)
        except PromptError as exc:
            raise ConfigurationError(f"{name} is wrong: {exc}") from exc
    else:
        return None
    try:
        return WarmUp(parse_request({"prompt": load_json(body)}), name)
    except WrongField as exc:
        where = f"{exc.location.removeprefix('prompt').lstrip('.')}: " if exc.location else ""
        raise ConfigurationError(
            f"{name} is wrong: {where}{exc.reason}; it should be a graph in ComfyUI's API format"
        ) from exc


def checkpoint_of(graph: Mapping[str, Any]) -> str | None:
    """``ckpt_name`` of the first CheckpointLoaderSimple; nodes with a number for an id go first, in its order."""
    numbers = sorted((node for node in graph if node.isascii() and node.isdigit()), key=int)
    for node_id in (*numbers, *(node for node in graph if node not in set(numbers))):
        node = graph[node_id]
        if node.get("class_type") == "CheckpointLoaderSimple":
            name = node.get("inputs", {}).get("ckpt_name")
            return name if isinstance(name, str) else None
    return None


async def warm_up(prompt: WarmUp, preparer: Preparer, runs: Runs, reader: OutputReader, *, timeout_s: float) -> Graph:
    """Prepare and run the prompt as those of requests are, and publish nothing; returns the graph as it ran.

    Its outputs and its entry in ComfyUI's history are removed. Cancelling interrupts it.

    Args:
        prompt: What to run.
        preparer: As for requests.
        runs: Likewise; it takes a place in the line.
        reader: Removes the outputs.
        timeout_s: Seconds it may execute.

    Raises:
        ConfigurationError: The prompt itself is wrong: no restart of anything helps.
        PromptError: ComfyUI or a source of inputs failed; another try may succeed.
    """
    key = RequestKey(f"warmup-{uuid.uuid4().hex}")
    run = _WarmUpRun(prompt_id(key.id, 0, 1), timeout_s)
    began_s = time.monotonic()
    log.info("warm-up begins", prompt=prompt.name)
    try:
        async with preparer.hold(key.id) as hold:
            graph = prompt.request.prompt or {}
            graph = await preparer.prepare(graph, key=key, attempt=1, request=prompt.request, hold=hold)
            completed = await runs.submit(run, graph)
    except PromptError as exc:
        if exc.retryable or isinstance(exc, Cancelled):
            log.warning("warm-up failed", prompt=prompt.name, code=exc.code, reason=str(exc))
            raise
        where = f" ({exc.location})" if exc.location else ""
        raise ConfigurationError(f"{prompt.name} cannot be run{where}: {exc}") from exc
    await reader.remove(list_outputs(completed.entry.outputs, graph), key.id)
    await _forget(runs, run.prompt_id)
    log.info("warm-up done", prompt=prompt.name, duration_s=round(time.monotonic() - began_s, 3))
    return graph


async def _forget(runs: Runs, prompt: str) -> None:
    try:
        await runs.forget(prompt)
    except ComfyUnavailable as exc:
        log.info("warm-up stays in ComfyUI's history", reason=str(exc))


@dataclass
class _WarmUpRun:
    """What ``Runs`` needs of a prompt that nobody waits for; see ``Run``."""

    prompt_id: str
    timeout_s: float
    stop_reason: str | None = field(default="drained", init=False)
    """So that it is interrupted when it is cancelled: nobody would take it over."""

    async def begin(self) -> None:
        """There is no record to change."""

    async def started(self, at_ms: int) -> int:
        """Its timeout counts from the start."""
        return at_ms

    async def note_stop(self, reason: str) -> None:
        """There is no record to change."""

    def check_expiry(self) -> None:
        """It does not expire."""

    def follows(self, followed: Followed) -> None:
        """Nobody asks later."""

    def queued(self) -> None:
        """Nobody is told."""

    def progress(self, progress: Progress) -> None:
        """Nobody is told."""

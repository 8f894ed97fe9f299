"""Installs what the manifest names: all but ``models.after_start`` before ComfyUI starts, those while it runs.

Used by app.worker.app, app.worker.worker; may import app.errors, app.storage.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from app.errors import InputUnavailable
from app.setup.config import SetupConfig
from app.setup.custom_nodes import CustomNodes
from app.setup.git_nodes import GitNodes
from app.setup.manifest import ModelFile
from app.setup.models import ModelFiles, hold_in_cache, operator_storage
from app.setup.packages import Packages
from app.setup.programs import Programs, SetupFailed
from app.setup.record import Record, environment_id
from app.storage.secrets import public_url
from app.storage.stores import Hold, StorageTransfer, Stores

__all__ = ["Installation", "installation"]

_MODELS_AT_ONCE: Final = 4
_RECORDS: Final = ".comfybus"

log = structlog.get_logger("comfybus.setup")


class Installation:
    """The set-up of one worker; made by ``installation``."""

    def __init__(self, config: SetupConfig, stores: Stores, hold: Hold, heard: _Heard) -> None:
        self._config = config
        self._heard = heard
        self._record = Record(_record_folder(config))
        self._programs = Programs(config.environment, config.program_timeout_s)
        self._models = ModelFiles(stores, self._record, config.comfy_home, config.model_dir, hold)

    async def before_start(self) -> None:
        """Install packages, custom nodes and the models that ComfyUI needs at its start, in this order.

        What the record has is not done again. May be cancelled and killed at any moment; the next call goes on.

        Raises:
            SetupFailed: A step did not work out; what was done before it stays done.
        """
        manifest, config = self._config.manifest, self._config
        self._models.check(manifest)
        if manifest.custom_nodes and config.comfy_home is None:
            raise SetupFailed("custom_nodes of the manifest need ComfyUI's folder; set COMFY_HOME")
        began_s = time.monotonic()
        async with self._record.alone(config.lock_wait_s):
            environment = await anyio.to_thread.run_sync(environment_id, str(config.comfy_python or ""))
            packages = Packages(self._programs, self._record, environment, config.comfy_python)
            await packages.apt(manifest.apt)
            await packages.pip(manifest.pip)
            if config.comfy_home is not None:
                home = config.comfy_home
                git = GitNodes(self._programs, self._record, home / "custom_nodes")
                await CustomNodes(self._programs, self._record, git, packages, home).install(manifest.custom_nodes)
            await self._bring_all(manifest.models.before_start)
        log.info("set-up done", duration_s=round(time.monotonic() - began_s, 3))

    async def after_start(self) -> None:
        """Fetch the models that ComfyUI may start without, one after the other; never raises but for cancellation.

        A failure is a ``download_failed`` transfer, from which the storage event and its metric are made.
        """
        for item in self._config.manifest.models.after_start:
            told, began_s = self._heard.failures, time.monotonic()
            try:
                await self._record.load()
                await self._models.bring(item)
            except SetupFailed as exc:
                if self._heard.failures == told:
                    self._heard.tell(_failure(item, exc, time.monotonic() - began_s))

    async def _bring_all(self, items: tuple[ModelFile, ...]) -> None:
        """A few at a time; the first failure stops the others, which are continued at the next start."""
        limiter = anyio.CapacityLimiter(_MODELS_AT_ONCE)
        failures: list[SetupFailed] = []

        async def bring(item: ModelFile) -> None:
            async with limiter:
                try:
                    await self._models.bring(item)
                except SetupFailed as exc:
                    failures.append(exc)
                    tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for item in items:
                tasks.start_soon(bring, item)
        if failures:
            raise failures[0]


@asynccontextmanager
async def installation(
    config: SetupConfig, on_transfer: Callable[[StorageTransfer], None] = lambda _: None
) -> AsyncIterator[Installation]:
    """The set-up, usable until the block ends; the block has to last as long as the models are needed.

    Args:
        config: What to install and with what.
        on_transfer: Told of every transfer of a file, as ``Stores`` tells; must not block or raise.

    Raises:
        ConfigurationError: CACHE_DIR cannot be used.
    """
    models = config.manifest.models
    urls = [item.url for item in (*models.before_start, *models.after_start)]
    heard = _Heard(on_transfer)
    with Hold() as hold:
        # Before the cache is opened: that brings it within its limit.
        await anyio.to_thread.run_sync(hold_in_cache, config.storage.cache_dir, urls, hold)
        async with Stores(operator_storage(config.storage, *urls), on_transfer=heard.tell).open() as stores:
            yield Installation(config, stores, hold, heard)


class _Heard:
    """Passes transfers on and counts the failed downloads among them."""

    def __init__(self, listener: Callable[[StorageTransfer], None]) -> None:
        self.failures = 0
        self._listener = listener

    def tell(self, transfer: StorageTransfer) -> None:
        self.failures += transfer.event == "download_failed"
        self._listener(transfer)


def _failure(item: ModelFile, exc: SetupFailed, duration_s: float) -> StorageTransfer:
    return StorageTransfer(
        "download_failed",
        "manifest",
        public_url(item.url),
        request_id=None,
        local_path=item.local_path,
        duration_s=round(duration_s, 3),
        error=str(exc),
        code=InputUnavailable.code,
    )


def _record_folder(config: SetupConfig) -> Path:
    """Beside what it tells of where that can be written, else in the cache."""
    home = config.comfy_home
    if home is not None and os.access(home, os.W_OK):
        return home / _RECORDS
    return config.storage.cache_dir / "setup"

"""Where outputs go that do not travel inline: ``OUTPUT_STORE``."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import anyio.to_thread

from app.errors import UploadFailed
from app.settings import Settings
from app.worker.job import Job
from app.worker.store import OutputFile, OutputSink
from brokers.base import BrokerError
from brokers.nats import NatsBus
from brokers.nats.objects import NatsObjects

__all__ = ["FileSink", "NatsSink", "make_sink"]


def make_sink(settings: Settings, bus: NatsBus) -> OutputSink:
    """The sink that OUTPUT_STORE names; by default the broker's own object store."""
    if settings.output_store.startswith("file://"):
        return FileSink(Path(unquote(urlsplit(settings.output_store).path)))
    return NatsSink(bus.objects(settings.output_store.removeprefix("nats://") or None))


def output_key(job: Job, file: OutputFile) -> str:
    """``<id>/<first 12 hex of sha256>/<filename>``: a second execution never overwrites the first."""
    return f"{job.key.id}/{file.local.sha256[:12]}/{file.filename}"


class NatsSink:
    """An object store bucket of the broker."""

    def __init__(self, objects: NatsObjects) -> None:
        self._objects = objects

    async def put(self, job: Job, file: OutputFile) -> str:
        """See ``OutputSink``."""
        try:
            return await self._objects.put(output_key(job, file), file.local.path)
        except (BrokerError, OSError) as exc:
            raise UploadFailed(f"the output store did not take {file.filename}: {exc}") from exc


class FileSink:
    """A folder, for a disk that producers and consumers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, job: Job, file: OutputFile) -> str:
        """See ``OutputSink``."""
        target = self._folder / output_key(job, file)
        try:
            await anyio.to_thread.run_sync(_copy, file.local.path, target)
        except OSError as exc:
            raise UploadFailed(f"the output folder did not take {file.filename}: {exc.strerror}") from exc
        return f"file://{quote(str(target))}"


def _copy(source: Path, target: Path) -> None:
    """Copy whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)

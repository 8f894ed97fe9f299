"""Where outputs go that do not travel inline: the request's target, else ``OUTPUT_STORE``.

Used by worker; may import app.comfy, app.images, app.storage, schemas.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import anyio

from app.comfy.outputs import OutputReader
from app.images import Converter
from app.storage.media_types import media_type_for
from app.storage.secrets import Scrubber
from app.storage.stores import Stores
from app.worker.job import Job
from app.worker.store import Convert, OutputFile, renamed
from schemas.prompt import PromptRequest

__all__ = ["StoresSink", "converting", "scrubber_of"]


def scrubber_of(job: Job | None, stores: Stores) -> Scrubber:
    """What keeps a request's secrets and the operator's out of its events; None for what belongs to no request."""
    if job is None:
        return stores.scrubber(None)
    if job.scrubber is None:
        job.scrubber = _scrubber(job.intake.request, stores)
    return job.scrubber


def _scrubber(request: PromptRequest | None, stores: Stores) -> Scrubber:
    scrubber = stores.scrubber(request.credentials if request else None)
    if request is not None:
        scrubber.learn(request.input)
        scrubber.learn(request.prompt)
        scrubber.learn(request.http_upload.url_prefix if request.http_upload else None)
    return scrubber


class StoresSink:
    """Puts each file where the request wants it, with the request's credentials; else into the operator's store."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def put(self, job: Job, file: OutputFile) -> str:
        """See ``OutputSink``."""
        request = job.intake.request
        target = self._stores.target_url(request, file.filename) if request else None
        credentials = request.credentials if request else None
        return await self._stores.put(
            file.local.path,
            target or self._stores.output_url(job.key.id, file.local.sha256, file.filename),
            media_type=file.media_type,
            credentials=credentials if target else None,
            request_id=job.key.id,
        )


def converting(converter: Converter, reader: OutputReader, job: Job) -> Convert | None:
    """What to do with each output of a request that asks for a conversion; None if it does not."""
    wanted = job.intake.request.convert_output if job.intake.request else None
    if wanted is None:
        return None

    async def convert(file: OutputFile, scratch: Path) -> OutputFile:
        # Outputs of different folders may have one name.
        folder = scratch / uuid.uuid4().hex
        await anyio.Path(folder).mkdir(parents=True)
        made = await converter.convert(file.local.path, wanted, folder)
        if made is None:
            return file
        filename = f"{Path(file.filename).stem}{made.suffix}"
        return renamed(file, filename, await reader.measure(made), media_type_for(filename))

    return convert

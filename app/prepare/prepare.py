"""Turns the graph of a request into one that ComfyUI can run: media and models at hand, outputs named.

Used by app.settings, app.setup, app.worker; may import app.errors, app.storage, brokers, schemas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import anyio

from app.errors import InputUnavailable, PromptError
from app.prepare.archives import Limits
from app.prepare.catalogue import Catalogue, ComfyView
from app.prepare.filenames import rename_outputs
from app.prepare.holds import Hold
from app.prepare.inputs import Inputs, SharedInputs
from app.prepare.jobs import Job, plan
from app.prepare.media import Fetch, MediaInputs
from app.prepare.models import FetchRepository, ModelInputs
from app.prepare.nodes import Kind, Model
from app.prepare.sources import Places
from app.prepare.uploads import Upload, UploadedInputs
from app.storage.stores import Hold as CacheHold
from brokers.base import RequestKey
from schemas.credentials import Credential
from schemas.prompt import Graph, PromptRequest

__all__ = ["Comfy", "Folders", "OnBytes", "PrepareConfig", "Preparer"]

OnBytes = Callable[[Job, int, int | None], None]

_GIB: Final = 1024**3


class Comfy(ComfyView, Upload, Protocol):
    """The calls of ComfyUI's client that preparation makes."""


@dataclass(frozen=True)
class Folders:
    """ComfyUI's folders as far as this process shares them; None where it does not."""

    input_dir: Path | None = None
    output_dir: Path | None = None


@dataclass(frozen=True)
class PrepareConfig:
    """Settings of preparation.

    Attributes:
        prepend_filenames: PREPEND_FILENAMES.
        model_dir: MODEL_DIR, else COMFY_HOME/models; None to use the paths that ComfyUI itself has.
        local_paths: ALLOW_LOCAL_PATHS: paths outside the input folder may be named.
        parallel: Inputs of one prompt that are prepared at the same time.
        limit_bytes: INPUT_CACHE_GB: bound on prepared inputs that no prompt in hand needs.
        keep_s: INPUT_CACHE_H: how long they are kept at most.
        deadline_s: For one input, from the first byte to the last; large models come slowly.
        archives: Bounds on directories and archives of images.
        work_dir: For content that is decoded or unpacked for a moment; None for the system's own.
    """

    prepend_filenames: bool = True
    model_dir: Path | None = None
    local_paths: bool = False
    parallel: int = 8
    limit_bytes: int = 2 * _GIB
    keep_s: float = 24 * 3600.0
    deadline_s: float = 6 * 3600.0
    archives: Limits = field(default_factory=Limits)
    work_dir: Path | None = None


class Preparer:
    """Prepares the graphs of one worker for one ComfyUI.

    Args:
        comfy: ComfyUI's client.
        fetch: Brings the content of URLs.
        folders: What is shared with ComfyUI.
        config: Settings.
        fetch_repository: Brings models that are directories.
    """

    def __init__(
        self,
        comfy: Comfy,
        fetch: Fetch,
        folders: Folders,
        config: PrepareConfig,
        fetch_repository: FetchRepository | None = None,
    ) -> None:
        self._config = config
        self.catalogue = Catalogue(comfy)
        self._inputs: Inputs = (
            SharedInputs(folders.input_dir, limit_bytes=config.limit_bytes, keep_s=config.keep_s)
            if folders.input_dir
            else UploadedInputs(comfy)
        )
        places = Places(folders.input_dir, folders.output_dir, local_paths=config.local_paths)
        self._media = MediaInputs(self._inputs, fetch, places, limits=config.archives, work_dir=config.work_dir)
        self._models = ModelInputs(
            self.catalogue,
            fetch,
            fetch_repository,
            shared=folders.input_dir is not None or folders.output_dir is not None,
            model_dir=config.model_dir,
        )

    @asynccontextmanager
    async def hold(self, request_id: str | None = None) -> AsyncIterator[Hold]:
        """A block in which what is prepared with its hold stays in place: open for as long as a prompt is in hand.

        At its end what no other prompt needs and what passes the bound is removed.

        Args:
            request_id: Whose prompt it is, for the events of its transfers.
        """
        hold = Hold(CacheHold(request_id))
        async with self._inputs.hold(hold):
            try:
                yield hold
            finally:
                hold.cache.release()

    def comfy_restarted(self) -> None:
        """Forget what this ComfyUI said of itself and what was uploaded to it."""
        self.catalogue.forget()
        self._inputs.forget()

    async def prepare(
        self,
        graph: Graph,
        *,
        key: RequestKey,
        attempt: int,
        request: PromptRequest,
        hold: Hold,
        on_bytes: OnBytes | None = None,
    ) -> Graph:
        """A graph to submit; the one given is not changed, and what needs no change is shared with it.

        Inputs are prepared side by side; the first failure stops the others and leaves nothing half-made behind.

        Args:
            graph: Nodes in API format.
            key: Names the outputs and directories of inputs.
            attempt: 1-based; names the outputs.
            request: For its credentials.
            hold: Keeps the inputs in place.
            on_bytes: Told of downloads as they come: for which input, bytes so far, and of how many if that is known.

        Raises:
            InvalidRequest: A value is neither content nor the name of anything; ``location`` says which.
            InputRefused: An input will not be there on a second try either.
            InputUnavailable: An input is not to be had now.
            ComfyUnavailable: ComfyUI had to be asked about a node and did not answer.
        """
        jobs = await plan(graph, self.catalogue)
        values = await self._run(jobs, key, request.credentials or (), hold, on_bytes)
        ready = dict(graph)
        for job, value in zip(jobs, values, strict=True):
            node = ready[job.node_id]
            ready[job.node_id] = {**node, "inputs": {**node["inputs"], job.name: value}}
        return rename_outputs(ready, key, attempt, prepend=self._config.prepend_filenames)

    async def _run(
        self,
        jobs: Sequence[Job],
        key: RequestKey,
        credentials: Sequence[Credential],
        hold: Hold,
        on_bytes: OnBytes | None,
    ) -> list[Any]:
        """The new values, in the order of the jobs."""
        if not jobs:
            return []
        values: list[Any] = [None] * len(jobs)
        failures: list[Exception] = []
        limiter = anyio.CapacityLimiter(self._config.parallel)

        async def run(index: int, job: Job) -> None:
            try:
                async with limiter:
                    with _translated(job), anyio.fail_after(self._config.deadline_s):
                        own = hold.telling(partial(on_bytes, job)) if on_bytes else hold
                        values[index] = await self._prepared(job, key, credentials, own)
            except Exception as exc:  # noqa: BLE001 - raised below, out of the group
                failures.append(exc)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index, job in enumerate(jobs):
                group.start_soon(run, index, job)
        if failures:
            raise failures[0]
        return values

    async def _prepared(self, job: Job, key: RequestKey, credentials: Sequence[Credential], hold: Hold) -> str:
        if isinstance(job.row, Model):
            return await self._models.prepare(str(job.value), job.row, credentials, hold)
        if job.row.kind is Kind.IMAGES:
            name = f"{key.id}.r{key.replay}" if key.replay else key.id
            return await self._media.prepare_directory(job.value, job.row, credentials, name, hold)
        return await self._media.prepare(str(job.value), job.row, credentials, hold)


@contextmanager
def _translated(job: Job) -> Iterator[None]:
    """Say in every failure which input it was."""
    try:
        yield
    except PromptError as exc:
        exc.location = exc.location or job.location
        raise
    except TimeoutError as exc:
        raise InputUnavailable(
            "The input did not come in time; see whether its source hangs.", location=job.location
        ) from exc
    except OSError as exc:
        raise InputUnavailable(
            f"The input cannot be stored ({exc.strerror or type(exc).__name__}); see that the disk has room.",
            location=job.location,
        ) from exc

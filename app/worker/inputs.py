"""From a request to a graph that ComfyUI can run: references resolved, workflows generated, inputs brought in.

Used by broker, perform, worker; may import app.comfy, app.errors, app.images, app.prepare, app.settings, app.storage,
brokers, schemas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from app.comfy.client import ComfyClient
from app.errors import InputUnavailable, InvalidRequest, PromptError
from app.images import check_options
from app.prepare.context import ContextSource, seed_for
from app.prepare.git_address import AddressCheck
from app.prepare.git_clone import GitClone
from app.prepare.holds import Hold
from app.prepare.jobs import Job as Input
from app.prepare.prepare import Folders, OnBytes, Preparer
from app.prepare.repositories import Repositories
from app.prepare.workflows import Workflows, input_location
from app.settings import Settings
from app.settings.parts import prepare_config, storage_config
from app.storage.guard import Guard
from app.storage.stores import Stores
from app.worker.fetching import Fetching
from app.worker.intake import Intake, read_delivery
from app.worker.job import Job
from brokers.base import RequestOrigin
from schemas.envelope import LARGEST_REFERENCE_BYTES
from schemas.prompt import Graph, PromptRequest

__all__ = ["ReadLetter", "RequestInputs", "make_inputs", "resolve_reference"]

# Of a whole reference, from the first byte to the last: it holds a place among the prompts in hand.
REFERENCE_WITHIN_S = 120.0

ReadLetter = Callable[[str], Awaitable[bytes | None]]
"""The body of a dead letter by its URL; None if the URL is of something else."""


async def resolve_reference(
    intake: Intake, headers: Mapping[str, str], origin: RequestOrigin, stores: Stores, letters: ReadLetter | None
) -> Intake:
    """The intake of a request whose body lies elsewhere; a body that cannot be had is its refusal.

    The replay of a dead letter that has no room for one more header refers to the bucket of the dead letters.
    """
    if intake.dataref is None:
        return intake
    try:
        with anyio.fail_after(REFERENCE_WITHIN_S):
            body = await letters(intake.dataref) if letters and intake.key.replay else None
            if body is None:
                body = await stores.read(intake.dataref, limit_bytes=LARGEST_REFERENCE_BYTES)
    except PromptError as exc:
        exc.location = exc.location or "ce_dataref"
        return replace(intake, refusal=exc, dataref=None)
    except TimeoutError:
        sentence = f"the request it refers to did not come within {REFERENCE_WITHIN_S:g} s; see whether its host hangs"
        return replace(intake, refusal=InputUnavailable(sentence, location="ce_dataref"), dataref=None)
    found = read_delivery(body, _without_reference(intake, headers), origin)
    if found.dataref is not None:
        refusal = InvalidRequest("a reference leads to another reference; send it directly", location="ce_dataref")
        return replace(found, refusal=refusal, dataref=None)
    return found


def _telling(fetching: Fetching, graph: Graph) -> OnBytes:
    def tell(input_: Input, size_bytes: int, total_bytes: int | None) -> None:
        node_class = graph[input_.node_id].get("class_type")
        fetching.moved(input_.location, input_.node_id, str(node_class), size_bytes, total_bytes)

    return tell


def _without_reference(intake: Intake, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as if the referenced bytes had come with them, in whichever form the event itself came."""
    dropped = ("ce-dataref", "ce_dataref", "content-type")
    kept = {name: value for name, value in headers.items() if name.lower() not in dropped}
    # A structured event says these in its body, which is gone now.
    known = {} if intake.id_was_derived else {"ce-id": intake.key.id}
    return {**kept, **known, **intake.headers}


def make_inputs(
    settings: Settings,
    client: ComfyClient,
    stores: Stores,
    folders: Folders,
    found: Workflows,
    warm_up_checkpoint: str | None = None,
) -> RequestInputs:
    """Everything that prepares requests, for one ComfyUI and its folders."""
    storage = storage_config(settings)
    proxies = {"http_proxy": storage.proxies.http, "https_proxy": storage.proxies.https}
    clone = GitClone(
        AddressCheck(Guard(storage.allowed_private_hosts), proxied=any(proxies.values())),
        limit_bytes=storage.max_download_bytes,
        proxies={name: value for name, value in proxies.items() if value},
    )
    repositories = Repositories(stores.fetch, stores.read, clone)
    preparer = Preparer(client, stores.fetch, folders, prepare_config(settings), repositories)
    return RequestInputs(preparer, found, stores, warm_up_checkpoint)


class RequestInputs:
    """Prepares requests for one ComfyUI."""

    def __init__(
        self, preparer: Preparer, workflows: Workflows, stores: Stores, warm_up_checkpoint: str | None = None
    ) -> None:
        self.preparer = preparer
        self._workflows = workflows
        self._stores = stores
        self._context = ContextSource(preparer.catalogue, warm_up_checkpoint)

    def comfy_restarted(self) -> None:
        """Forget what the last ComfyUI said of itself and what was uploaded to it."""
        self.preparer.comfy_restarted()

    def check(self, request: PromptRequest) -> None:
        """Refuse before anything runs what could only fail after it.

        Raises:
            InvalidRequest: An option of the conversion, or the upload target, cannot be right.
        """
        if request.convert_output is not None:
            check_options(request.convert_output)
        self._stores.check_target(request)

    @asynccontextmanager
    async def hold(self, job: Job) -> AsyncIterator[Hold]:
        """A block in which what is prepared for the job stays in place."""
        async with self.preparer.hold(job.key.id) as hold:
            yield hold

    async def prepare(self, job: Job, request: PromptRequest, hold: Hold) -> Graph:
        """The graph to submit for the present attempt.

        Raises:
            PromptError: An input, the workflow or the request is at fault; ``location`` names the field.
        """
        graph = request.prompt or {}
        if request.workflow is not None:
            graph = await self._workflows.generate(
                request.workflow, request.input or {}, self._context, seed=seed_for(job.key)
            )
        try:
            return await self.preparer.prepare(
                graph,
                key=job.key,
                attempt=job.tries.attempt,
                request=request,
                hold=hold,
                on_bytes=_telling(Fetching(job.fetching), graph),
            )
        except PromptError as exc:
            if request.workflow is not None:
                exc.location = input_location(exc.location, graph, request.input or {})
            raise

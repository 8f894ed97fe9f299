"""One prompt from its claim to its outcome, and from there to the settled request.

Used by pipeline, worker; may import app.comfy, app.errors, app.metrics, app.prepare, app.storage, brokers, schemas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from app.comfy.history import HistoryEntry
from app.comfy.outputs import OutputReader, OutputRef, list_outputs
from app.comfy.run import Completed, Runs
from app.comfy.whereabouts import Where
from app.errors import Cancelled, ComfyUnavailable, InternalError, OutOfMemory, PromptError
from app.metrics import Metrics
from app.prepare.holds import Hold
from app.storage.secrets import Scrubber
from app.worker import store
from app.worker.inputs import RequestInputs
from app.worker.job import Job
from app.worker.measure import Swaps, measure
from app.worker.outcome import Complete, HandBack, Outcome
from app.worker.resume import Collect, Follow, Submit, TryAgain, resume
from app.worker.settle import Fail, Retry, after_failure, retry_delay_s
from app.worker.terminal import Terminals
from brokers.base import BrokerError, Tries
from schemas.prompt import Graph, PromptRequest

__all__ = ["Limits", "Performer"]

log = structlog.get_logger("comfybus.perform")


class _Later(Exception):
    """Nothing can be decided now; the request comes back unspent."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


@dataclass(frozen=True)
class Limits:
    """What the settings say of a try and of its answer."""

    max_attempts: int
    inline_limit_bytes: int


@dataclass
class Performer:
    """Everything a prompt meets between broker and broker; one instance for all prompts."""

    runs: Runs
    reader: OutputReader
    terminals: Terminals
    metrics: Metrics
    inputs: RequestInputs
    scrubber: Callable[[Job], Scrubber]
    sink: store.OutputSink
    convert: Callable[[Job], store.Convert | None]
    limits: Limits
    scratch: Path

    def __post_init__(self) -> None:
        self._swaps = Swaps(self.metrics)

    async def perform(self, job: Job) -> Outcome:
        """Carry one prompt to its outcome; never raises but for cancellation and faults of the broker."""
        with job.scope:
            try:
                return await self._stages(job)
            except PromptError as exc:
                # From here on it stands in the log, the ledger and the event: ComfyUI's own words among others.
                exc.args = (self.scrubber(job).text(str(exc)),)
                return await self._failed(job, exc)
            except _Later as exc:
                return Retry(exc.delay_s, job.tries)
            except BrokerError:
                raise
            except Exception as exc:
                log.exception("fault of ours")
                return await self._failed(job, InternalError(f"a fault inside Comfybus ({type(exc).__name__}: {exc})"))
        return _stopped(job)

    async def _failed(self, job: Job, error: PromptError) -> Outcome:
        if job.stop_reason is not None:
            return _stopped(job)
        if isinstance(error, OutOfMemory):
            await self.runs.free()
        return after_failure(error, job.tries, self.limits.max_attempts)

    async def _stages(self, job: Job) -> Complete:
        request = job.intake.request
        if request is None:
            raise job.intake.refusal or InternalError("the request was not read")
        self.inputs.check(request)
        job.announce("accepted")
        async with self.inputs.hold(job) as hold:
            completed, graph = await self._run(job, request, hold)
        job.times.ended = time.monotonic()
        job.executing = True
        job.delivery.nearly_done = True
        job.announce("storing")
        return await self._store(job, completed, graph)

    async def _run(self, job: Job, request: PromptRequest, hold: Hold) -> tuple[Completed, Graph]:
        if job.delivery.redelivered or job.tries != Tries():
            step = resume(job.tries, await self._find(job), self.limits.max_attempts)
            match step:
                case Follow():
                    self.metrics.adopted.inc()
                    log.info("run adopted", prompt_id=job.prompt_id)
                    job.adopted = True
                    completed = await self.runs.adopt(job, job.intake.prompt or {})
                    return completed, _as_it_ran(completed.entry)
                case Collect(entry):
                    self.metrics.adopted.inc()
                    log.info("result adopted", prompt_id=job.prompt_id)
                    return Completed(entry), _as_it_ran(entry)
                case TryAgain(tries):
                    await self.runs.forget(job.prompt_id)
                    await job.replace(tries)
                case Submit(tries):
                    await job.replace(tries)
        job.announce("preparing")
        graph = await self.inputs.prepare(job, request, hold)
        job.times.prepared = time.monotonic()
        self.metrics.attempts.inc()
        completed = await self.runs.submit(job, graph)
        self._swaps.loads(graph)
        return completed, graph

    async def _find(self, job: Job) -> Where:
        """Look for an earlier run; while ComfyUI does not answer nothing can be said of one that had begun."""
        try:
            return await self.runs.find(job.prompt_id)
        except ComfyUnavailable as exc:
            log.info("ComfyUI does not answer, an earlier run cannot be looked for", reason=str(exc))
            raise _Later(retry_delay_s(1)) from exc

    async def _store(self, job: Job, completed: Completed, graph: Graph) -> Complete:
        refs = list_outputs(completed.entry.outputs, graph)
        scratch = self.scratch / job.prompt_id
        job.scratch = scratch
        convert = self.convert(job)
        files = await store.collect(self.reader, refs, scratch, job, convert)
        if convert is None and not any(file.local.owned for file in files.values()):
            job.scratch = None
        job.times.collected = time.monotonic()
        if (complete := await self._inline(job, completed, graph, refs, files)) is None:
            named = store.distinct(refs, files) if job.wants_links else files
            delivered = await store.links(refs, named, self.sink, job)
            complete = Complete(graph, completed, refs, files, delivered)
        job.times.delivered = time.monotonic()
        job.times.stored = job.times.delivered - job.times.collected
        return complete

    async def _inline(
        self,
        job: Job,
        completed: Completed,
        graph: Graph,
        refs: list[OutputRef],
        files: dict[int, store.OutputFile],
    ) -> Complete | None:
        """All files inside the event, if the limit and the broker's room allow it."""
        if job.wants_links or store.total_bytes(files) > self.limits.inline_limit_bytes:
            return None
        delivered = await store.inline(refs, files)
        complete = Complete(graph, completed, refs, files, delivered)
        event = self.terminals.whole(job, complete)
        return replace(complete, event=event) if event is not None else None

    # --- the answer

    async def answer(self, job: Job, outcome: Complete | Fail) -> None:
        """Publish the terminal event and settle; afterwards remove what is no longer needed."""
        job.answering()
        event = job.traced(self.terminals.message(job, outcome))
        stored = await job.delivery.settle(event, self.terminals.letter(job, outcome))
        job.times.answered = time.monotonic()
        self._count(job, outcome, stored=stored)
        measure(self.metrics, job)
        refs = outcome.refs if isinstance(outcome, Complete) else list_outputs(outcome.error.saved, {})
        await self.reader.remove(refs, job.key.id)
        await job.remove_scratch()

    def _count(self, job: Job, outcome: Complete | Fail, *, stored: bool) -> None:
        code = "" if isinstance(outcome, Complete) else outcome.error.code
        name = "complete" if isinstance(outcome, Complete) else "failed"
        self.metrics.answered(code)
        if isinstance(outcome, Complete):
            self.metrics.outputs.inc(len(outcome.delivered.outputs))
        elif stored and outcome.dead_letter:
            self.metrics.dead_letters.inc()
        if not stored:
            log.info("answered by somebody else before", outcome=name)
        elif isinstance(outcome, Fail):
            log.warning("prompt failed", code=code, reason=str(outcome.error), dead_letter=outcome.dead_letter)
        else:
            log.info("prompt complete", outputs=len(outcome.refs), attempt=job.tries.attempt)


def _stopped(job: Job) -> Outcome:
    """A prompt that was stopped from outside: cancelled, drained, or its delivery was lost."""
    if job.stop_reason == "cancelled":
        return Fail(Cancelled("the prompt was cancelled"), dead_letter=False)
    return HandBack()


def _as_it_ran(entry: HistoryEntry) -> Graph:
    return {node: dict(value) for node, value in entry.graph.items() if isinstance(value, Mapping)}

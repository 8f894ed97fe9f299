"""Take requests while there is a free slot, carry each through its stages, and settle it.

Used by worker; may import app.metrics, brokers.

``delivery → read → claim → prepare → run → store → terminal event → settled``. The stages of different prompts overlap:
while ComfyUI runs one, the inputs of the next are prepared and the outputs of the last are stored.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup
from structlog.contextvars import bound_contextvars

from app.metrics import Metrics
from app.worker.cancels import Cancels
from app.worker.intake import Intake, read_delivery
from app.worker.job import Job
from app.worker.outcome import Complete, HandBack
from app.worker.perform import Performer
from app.worker.settle import Fail, Retry
from brokers.base import BrokerError, Bus, Claim, Delivery, Health, RequestKey, RequestOrigin, Tries
from brokers.lost import Lost

__all__ = ["Pipeline"]

Resolve = Callable[[Intake, Mapping[str, str], RequestOrigin], Awaitable[Intake]]

TAKE_WAIT_S = 1.0
NOT_READY_PAUSE_S = 0.25
CLAIM_TRIES = 5
CLAIM_PAUSE_S = 0.5
FAULT_PAUSE_S = 10.0
# Interrupting, noting it in the ledger and handing back, when a drain's time is up.
STOP_WITHIN_S = 20.0
# One for all: traces that are off cost nothing.
UNTRACED = nullcontext()

log = structlog.get_logger("comfybus.pipeline")


class Pipeline:
    """At most ``max_in_flight`` prompts are in hand; a request is asked for only when one more would fit."""

    def __init__(
        self,
        bus: Bus,
        performer: Performer,
        cancels: Cancels,
        metrics: Metrics,
        *,
        resolve: Resolve,
        make_job: Callable[..., Job],
        max_in_flight: int,
        ready_to_take: Callable[[], Health],
        trace: Callable[[Job], AbstractContextManager[None]] = lambda _: UNTRACED,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            bus: Where requests come from.
            performer: Carries one prompt from the claim to its outcome.
            cancels: Cancels heard so far.
            metrics: What is counted.
            resolve: Fetches the body of a request that came as a reference.
            make_job: Makes the job of a delivery, its intake and its tries.
            max_in_flight: Slots.
            ready_to_take: Whether a request may be asked for now: ComfyUI is up, commands were read back.
            trace: A block around the work on a job that traces it.
        """
        self._bus = bus
        self._performer = performer
        self._cancels = cancels
        self._metrics = metrics
        self._resolve = resolve
        self._make_job = make_job
        self._max_in_flight = max_in_flight
        self._slots = anyio.Semaphore(max_in_flight)
        self._ready_to_take = ready_to_take
        self._trace = trace
        self._jobs: dict[RequestKey, Job] = {}
        self._draining = anyio.Event()
        self._idle = anyio.Event()
        self._in_hand = 0

    @property
    def in_flight(self) -> int:
        """How many deliveries are in hand."""
        return self._in_hand

    @property
    def draining(self) -> bool:
        """No more requests are taken."""
        return self._draining.is_set()

    def job(self, request_id: str) -> list[Job]:
        """The jobs in hand with this request id: one, or replays of it."""
        return [job for key, job in self._jobs.items() if key.id == request_id]

    def job_of(self, prompt_id: str) -> Job | None:
        """The prompt in hand that ComfyUI knows by this id."""
        return next((job for job in self._jobs.values() if job.prompt_id == prompt_id), None)

    async def run(self) -> None:
        """Take and work until ``drain``; returns when nothing is in hand any more."""
        async with anyio.create_task_group() as tasks:
            while not self._draining.is_set():
                await self._take_one(tasks)
        self._idle.set()

    async def _take_one(self, tasks: TaskGroup) -> None:
        if not self._ready_to_take().ok:
            with anyio.move_on_after(NOT_READY_PAUSE_S):
                await self._draining.wait()
            return
        await self._slots.acquire()
        delivery: Delivery | None = None
        try:
            if not self._draining.is_set():
                delivery = await self._bus.take(TAKE_WAIT_S)
        finally:
            if delivery is None:
                self._slots.release()
        if delivery is not None:
            self._in_hand += 1
            tasks.start_soon(self._hold, delivery)

    async def drain(self, timeout_s: float) -> None:
        """Take no more; hand back at once what has not started, and the rest when its time is up.

        Returns when nothing is in hand, or when even interrupting took too long.
        """
        self._draining.set()
        for job in list(self._jobs.values()):
            if not job.executing:
                job.stop("drained")
        with anyio.move_on_after(timeout_s):
            await self._idle.wait()
        for job in list(self._jobs.values()):
            log.info("time is up, handing back", request_id=job.key.id)
            job.stop("drained")
        with anyio.move_on_after(STOP_WITHIN_S):
            await self._idle.wait()

    def hand_back(self) -> int:
        """Hand back what is not about to be answered, unspent; returns how many that are."""
        waiting = [job for job in self._jobs.values() if job.stop_reason is None and not job.delivery.nearly_done]
        for job in waiting:
            job.stop("drained")
        return len(waiting)

    def cancel(self, request_id: str) -> None:
        """Stop what is in hand of this id; ``Cancels`` has it for what comes later."""
        for job in self.job(request_id):
            if self._cancels.hits(job.key, job.delivery.origin.published_at):
                job.stop("cancelled")

    async def _hold(self, delivery: Delivery) -> None:
        """One delivery from the broker to its settlement; a fault of ours hands it back."""
        try:
            await self._work(delivery)
        except BrokerError as exc:
            log.warning("request handed back", origin=str(delivery.origin), reason=str(exc))
            await delivery.release()
        except Exception:
            # One message must not stop the worker, nor come back to it at once for ever.
            log.exception("fault of ours, request handed back", origin=str(delivery.origin))
            await anyio.sleep(FAULT_PAUSE_S)
            await delivery.release()
        finally:
            self._in_hand -= 1
            self._slots.release()

    async def _work(self, delivery: Delivery) -> None:
        if self._draining.is_set():
            await delivery.release()
            return
        received = time.monotonic()
        intake = read_delivery(delivery.body, delivery.headers, delivery.origin)
        if intake.dataref is not None:
            found = await self._resolved(intake, delivery)
            if found is None:
                await delivery.release()
                return
            intake = found
        with bound_contextvars(request_id=intake.key.id, replay=intake.key.replay or None):
            claim, tries = await self._claim(delivery, intake.key)
            if claim is Claim.ANSWERED:
                log.info("already answered or claimed", origin=str(delivery.origin))
                self._metrics.duplicates.inc()
                await delivery.drop()
                return
            job = self._make_job(delivery, intake, tries)
            job.times.received = received
            self._jobs[job.key] = job
            try:
                with self._trace(job):
                    await self._perform(job)
            finally:
                del self._jobs[job.key]
                job.done()

    async def _resolved(self, intake: Intake, delivery: Delivery) -> Intake | None:
        """The request that a reference leads to; None when a drain, or the loss of the delivery, comes first."""
        found: Intake | None = None
        problem: BrokerError | None = None

        async def end_with(event: anyio.Event | Lost) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_with, self._draining)
            tasks.start_soon(end_with, delivery.lost)
            try:
                found = await self._resolve(intake, delivery.headers, delivery.origin)
            except BrokerError as exc:
                problem = exc  # raised below, outside the group that would wrap it
            tasks.cancel_scope.cancel()
        if problem is not None:
            raise problem
        return found

    async def _claim(self, delivery: Delivery, key: RequestKey) -> tuple[Claim, Tries]:
        for _ in range(CLAIM_TRIES - 1):
            try:
                return await delivery.claim(key)
            except BrokerError as exc:
                log.warning("claim not decided, trying on", reason=str(exc))
                await anyio.sleep(CLAIM_PAUSE_S)
        return await delivery.claim(key)

    async def _perform(self, job: Job) -> None:
        if self._cancels.hits(job.key, job.delivery.origin.published_at):
            job.stop("cancelled")
        if self._draining.is_set():
            job.stop("drained")
        lost = job.delivery.lost
        lost.when_set(partial(_taken_away, job))
        try:
            outcome = await self._performer.perform(job)
        finally:
            lost.when_set(None)
        job.outcome = outcome
        match outcome:
            case HandBack():
                log.info("handed back", origin=str(job.delivery.origin))
                self._metrics.handed_back.inc()
                await job.delivery.release()
            case Retry(delay_s, tries):
                log.warning("try failed, coming back", delay_s=round(delay_s, 1), fault=tries.fault)
                self._metrics.retries.inc()
                await job.delivery.retry(delay_s, tries)
            case Complete() | Fail():
                await self._performer.answer(job, outcome)


def _taken_away(job: Job) -> None:
    log.warning("delivery was taken away", origin=str(job.delivery.origin))
    job.stop("drained")

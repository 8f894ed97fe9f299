"""All parts of one worker, and what they ask of each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from app.comfy.client import ComfyClient
from app.comfy.folders import Shared, probe_shared
from app.comfy.outputs import OutputReader
from app.comfy.process import Supervisor
from app.comfy.run import Runs
from app.comfy.watch import Watch
from app.errors import ComfybusError, ComfyUnavailable
from app.images import Converter
from app.metrics import Metrics
from app.prepare.prepare import Folders
from app.prepare.workflows import WorkflowInfo, Workflows
from app.settings import Settings
from app.settings.parts import prepare_config, process_config, storage_config
from app.settings.setup import recycling
from app.settings.tree import SHIPPED_WORKFLOWS
from app.setup.installation import Installation
from app.setup.salad import DeletionCost
from app.setup.warmup import WarmUp
from app.storage.stores import Stores
from app.worker.absence import Absence
from app.worker.broker import letter_reader, output_bucket
from app.worker.cancels import Cancels
from app.worker.control import Control
from app.worker.downloads import Downloads, ModelPlaces
from app.worker.events import EventMaker
from app.worker.gauges import Surroundings, watch_bus, watch_comfyui
from app.worker.http import Probes
from app.worker.inputs import RequestInputs, make_inputs, resolve_reference
from app.worker.intake import Intake
from app.worker.job import Job
from app.worker.life import Recycler, Warmth
from app.worker.outbox import Outbox
from app.worker.perform import Limits, Performer
from app.worker.pipeline import UNTRACED, Pipeline
from app.worker.presence import Presence
from app.worker.sinks import StoresSink, converting, scrubber_of
from app.worker.system import SystemEvents
from app.worker.transfers import Transfers
from brokers.base import Bus, Delivery, Health, Tries

__all__ = ["Worker"]

COMFY_PAUSE_S = 1.0

log = structlog.get_logger("comfybus.worker")


class Worker:
    """All parts of one worker around one ComfyUI.

    Attributes:
        installation: What to install before ComfyUI starts; to be set before ``run``.
        trace: A block around the work on each job; likewise.
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        session: aiohttp.ClientSession,
        scratch: Path,
        stop: anyio.Event,
        warm_up: WarmUp | None,
    ) -> None:
        self._settings = settings
        self._warm_up = warm_up
        self._warmth = Warmth(warm_up, settings.prompt_timeout_s)
        self.installation: Installation | None = None
        self.trace: Callable[[Job], AbstractContextManager[None]] = lambda _: UNTRACED
        self._bus = bus
        self._scratch = scratch
        self._stop = stop
        self._warm = False
        self._pipeline: Pipeline | None = None
        self._tasks: TaskGroup
        self._metrics = Metrics()
        self._maker = EventMaker(settings.worker)
        self._outbox = Outbox(bus, 1 / settings.progress_rate)
        self._client = ComfyClient(settings.comfy_url, session)
        self._system = SystemEvents(
            self._outbox,
            self._maker,
            settings.system_metadata,
            self._job_of,
            lambda job: scrubber_of(job, self.stores),
        )
        self._watch = Watch(self._client, system_events=settings.published_events, on_system_event=self._system.take)
        self.transfers = Transfers(self._outbox, self._maker, self._metrics, settings.system_metadata)
        self._downloads = Downloads(self.transfers.take, self._models_changed)
        self.stores = Stores(
            storage_config(settings), objects=output_bucket(settings, bus), on_transfer=self._downloads.heard
        )
        self._cancels = Cancels()
        self._control = Control(
            bus,
            settings.worker,
            self._cancels,
            on_cancel=self._cancel,
            on_drain=self._stop.set,
            on_download=self._downloads.take,
        )
        self._presence = Presence(
            bus,
            self._maker,
            self._watch,
            self._client,
            capacity=settings.max_in_flight,
            in_flight=lambda: self._in_flight,
        )
        self._surroundings = Surroundings(bus, {"cache": settings.cache_dir, "scratch": scratch})
        self._failure: ComfybusError | None = None
        self._inputs: RequestInputs | None = None
        self._workflows: tuple[WorkflowInfo, ...] = ()
        self._recycler: Recycler | None = None
        process = process_config(settings)
        self._supervisor = Supervisor(process, self._client.alive, on_start=self._comfy_started) if process else None
        self._watch_metrics()
        self.probes = Probes(
            was_warm=lambda: self._warm,
            ready=self.ready,
            models=self._client.models,
            metrics=self._metrics,
            topic_prefix=settings.topic_prefix,
            workflows=lambda: self._workflows,
        )

    async def run(self) -> None:
        """Start the parts in order, work until asked to stop, then drain.

        Raises:
            ComfybusError: ComfyUI ended and is not to be started again; what could be drained was.
        """
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for part in (self._watch.run, self._outbox.run, self._control.run, self._surroundings.run):
                tasks.start_soon(part)
            if self._settings.salad_metadata:
                tasks.start_soon(DeletionCost(lambda: self._watch.queue_remaining).run)
            tasks.start_soon(self._live, tasks)
            await self._stop.wait()
            if self._pipeline is not None:
                log.info("draining", in_flight=self._in_flight, timeout_s=self._settings.drain_timeout_s)
                await self._pipeline.drain(self._settings.drain_timeout_s)
                await self._presence.say("worker.stopped")
            tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _live(self, tasks: TaskGroup) -> None:
        """Install, start ComfyUI, work; what has to be given up ends the worker with its reason, after a drain."""
        try:
            if self.installation is not None:
                await self.installation.before_start()
                tasks.start_soon(self.installation.after_start)
            if self._supervisor is not None:
                tasks.start_soon(self._guarded, self._supervisor.run)
                self._recycler = Recycler(recycling(self._settings), self._supervisor, lambda: bool(self._in_flight))
                tasks.start_soon(self._recycler.run)
            await self._work_when_ready(tasks)
        except ComfybusError as exc:
            self._give_up(exc)

    async def _guarded(self, part: Callable[[], Awaitable[None]]) -> None:
        try:
            await part()
        except ComfybusError as exc:
            self._give_up(exc)

    def _give_up(self, exc: ComfybusError) -> None:
        log.error("the worker gives up", reason=str(exc))
        self._failure = self._failure or exc
        self._stop.set()

    def _comfy_started(self) -> None:
        """A new ComfyUI knows nothing of what was uploaded to the last one."""
        if self._inputs is not None:
            self._inputs.comfy_restarted()
            self._warmth.cool()

    def _models_changed(self) -> None:
        """ComfyUI lists a model more."""
        if self._inputs is not None:
            self._inputs.preparer.catalogue.forget()
        self._tasks.start_soon(self._presence.refresh_models)

    def _restart_comfy(self, reason: str) -> None:
        if self._supervisor is None:
            log.error("ComfyUI needs a restart; without CMD nobody but an operator can do that", reason=reason)
            return
        self._tasks.start_soon(partial(self._supervisor.restart, reason, seen_start=self._supervisor.starts))

    async def _work_when_ready(self, tasks: TaskGroup) -> None:
        """Wait for ComfyUI and for the cancels of the last day, then take requests."""
        await self._until_comfy_answers()
        await self._bus.commands_read.wait()
        workflows = await anyio.to_thread.run_sync(Workflows.load, self._settings.workflow_dir or SHIPPED_WORKFLOWS)
        self._workflows = tuple(workflows.describe_all())
        shared = await self._find_folders()
        self._pipeline = self._make_pipeline(shared, workflows, tasks)
        tasks.start_soon(self._presence.run)
        if self._settings.uses_kafka:
            tasks.start_soon(Absence(lambda: self._comfy_up, self._pipeline.hand_back).run)
        await self._pipeline.run()

    async def _until_comfy_answers(self) -> None:
        while not (self._watch.up and await self._client.alive()):
            log.warning("waiting for ComfyUI", url=self._settings.comfy_url)
            await anyio.sleep(COMFY_PAUSE_S)

    async def _find_folders(self) -> Shared:
        """Which of ComfyUI's folders are ours too; the others' files travel over HTTP."""
        settings = self._settings
        while True:
            try:
                shared = await probe_shared(self._client, settings.input_folder, settings.output_folder)
            except ComfyUnavailable as exc:
                log.warning("folders not probed", reason=str(exc))
                await anyio.sleep(COMFY_PAUSE_S)
            else:
                log.info("folders probed", input_shared=shared.input, output_shared=shared.output)
                return shared

    def _make_pipeline(self, shared: Shared, found: Workflows, tasks: TaskGroup) -> Pipeline:
        settings = self._settings
        output_dir = settings.output_folder if shared.output else None
        reader = OutputReader(self._client, output_dir=output_dir)
        folders = Folders(settings.input_folder if shared.input else None, output_dir)
        ours = {"input": folders.input_dir, "output": output_dir, "models": prepare_config(settings).model_dir}
        self._surroundings.also({name: folder for name, folder in ours.items() if folder is not None})
        checkpoint = self._warm_up.checkpoint if self._warm_up else None
        self._inputs = make_inputs(settings, self._client, self.stores, folders, found, checkpoint)
        preparer = self._inputs.preparer
        runs = Runs(self._client, self._watch, settings.prefetch, on_hung=self._restart_comfy)
        tasks.start_soon(self._guarded, partial(self._warmth.run, preparer, runs, reader))
        places = ModelPlaces(preparer.catalogue, shared.input or shared.output, prepare_config(settings).model_dir)
        tasks.start_soon(self._downloads.run, self.stores.fetch, places)
        converter = Converter()
        performer = Performer(
            bus=self._bus,
            runs=runs,
            reader=reader,
            maker=self._maker,
            metrics=self._metrics,
            inputs=self._inputs,
            scrubber=lambda job: scrubber_of(job, self.stores),
            sink=StoresSink(self.stores),
            convert=lambda job: converting(converter, reader, job),
            limits=Limits(settings.max_attempts, settings.inline_limit_kb * 1024),
            scratch=self._scratch,
        )
        return Pipeline(
            self._bus,
            performer,
            self._cancels,
            self._metrics,
            resolve=partial(
                resolve_reference, stores=self.stores, letters=letter_reader(settings, self._bus, self._scratch)
            ),
            make_job=self._make_job,
            max_in_flight=settings.max_in_flight,
            ready_to_take=self._ready_to_take,
            trace=self.trace,
        )

    def _make_job(self, delivery: Delivery, intake: Intake, tries: Tries) -> Job:
        return Job(
            delivery,
            intake,
            tries,
            maker=self._maker,
            outbox=self._outbox,
            progress_rate=self._settings.progress_rate,
            default_timeout_s=self._settings.prompt_timeout_s,
        )

    # --- what the parts ask of each other

    @property
    def _in_flight(self) -> int:
        return self._pipeline.in_flight if self._pipeline else 0

    def _cancel(self, request_id: str) -> None:
        if self._pipeline is not None:
            self._pipeline.cancel(request_id)

    def _job_of(self, prompt_id: str) -> Job | None:
        return self._pipeline.job_of(prompt_id) if self._pipeline else None

    @property
    def _comfy_up(self) -> bool:
        return self._watch.up and (self._supervisor is None or self._supervisor.up)

    def _ready_to_take(self) -> Health:
        up = self._comfy_up
        if up and not self._warmth.warm:
            return Health(ok=False, reason="the warm-up prompt has not run yet")
        if up and not self._warm:
            self._warm = True
            log.info("ready", comfyui=self._watch.version)
        if self._recycler is not None and self._recycler.reason:
            return Health(ok=False, reason=f"ComfyUI is started anew after this: {self._recycler.reason}")
        return Health(ok=up, reason="" if up else "ComfyUI does not answer")

    def ready(self) -> Health:
        """Whether this worker takes and answers requests now; the reason says what is missing."""
        depth, limit = self._watch.queue_remaining or 0, self._settings.max_queue_depth
        if self._stop.is_set():
            return Health(ok=False, reason="the worker is draining")
        if self._supervisor is not None and not self._supervisor.up:
            return Health(ok=False, reason=self._supervisor.trouble or "ComfyUI is being started")
        if not self._watch.up:
            return Health(ok=False, reason=f"ComfyUI at {self._settings.comfy_url} does not answer")
        if not self._warm or not self._warmth.warm:
            return Health(ok=False, reason="the worker is starting or warming up")
        if limit and depth >= limit:
            return Health(ok=False, reason=f"ComfyUI's queue has {depth} prompts, MAX_QUEUE_DEPTH is {limit}")
        return self._bus.health()

    def _watch_metrics(self) -> None:
        metrics = self._metrics
        metrics.watch("in_flight", "Prompts in hand.", lambda: self._in_flight)
        metrics.watch("capacity", "Slots for prompts.", lambda: self._settings.max_in_flight)
        metrics.watch("heartbeat_timestamp_seconds", "The last sign of life.", lambda: self._presence.said_at)
        watch_comfyui(metrics, self._watch, lambda: self._supervisor.starts if self._supervisor else 0)
        watch_bus(metrics, self._bus, lambda: self._watch.connections)
        self._surroundings.show(metrics)

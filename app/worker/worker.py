"""All parts of one worker, and what they ask of each other.

Used by app.worker.app; may import app.comfy, app.errors, app.images, app.metrics, app.prepare, app.settings,
app.setup, app.storage, brokers.
"""

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
from app.comfy.folders import Shared
from app.comfy.outputs import OutputReader
from app.comfy.process import Supervisor
from app.comfy.run import Runs
from app.comfy.watch import Watch
from app.errors import ComfybusError
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
from app.storage.secrets import Scrubber
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
from app.worker.life import Recycler, Warmth, find_folders, until_answers
from app.worker.outbox import Outbox
from app.worker.perform import Limits, Performer
from app.worker.pipeline import UNTRACED, Pipeline
from app.worker.presence import Presence
from app.worker.readiness import Readiness
from app.worker.sinks import StoresSink, converting, scrubber_of
from app.worker.system import SystemEvents
from app.worker.terminal import Terminals
from app.worker.transfers import Transfers
from brokers.base import Bus, Delivery, Tries

__all__ = ["Worker"]

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
        self._pipeline: Pipeline | None = None
        self._tasks: TaskGroup
        self._metrics = Metrics()
        self._maker = EventMaker(settings.worker)
        self._outbox = Outbox(bus, 1 / settings.progress_rate)
        self._client = ComfyClient(settings.comfy_url, session)
        self._system = SystemEvents(self._outbox, self._maker, settings.system_metadata, self._job_of, self._scrubber)
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
        process = process_config(settings)
        self._supervisor = Supervisor(process, self._client.alive, on_start=self._comfy_started) if process else None
        self._readiness = Readiness(
            settings, self._watch, self._supervisor, self._warmth, draining=stop.is_set, broker=bus.health
        )
        self._watch_metrics()

    @property
    def probes(self) -> Probes:
        """What the HTTP side asks."""
        return Probes(
            was_warm=lambda: self._readiness.was_warm,
            ready=self._readiness.of_worker,
            models=self._client.models,
            metrics=self._metrics,
            topic_prefix=self._settings.topic_prefix,
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
                recycler = Recycler(recycling(self._settings), self._supervisor, lambda: bool(self._in_flight))
                self._readiness.recycling = lambda: recycler.reason
                tasks.start_soon(recycler.run)
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
        await until_answers(self._watch, self._client)
        await self._bus.commands_read.wait()
        workflows = await anyio.to_thread.run_sync(Workflows.load, self._settings.workflow_dir or SHIPPED_WORKFLOWS)
        self._workflows = tuple(workflows.describe_all())
        shared = await find_folders(self._client, self._settings.input_folder, self._settings.output_folder)
        self._pipeline = self._make_pipeline(shared, workflows, tasks)
        tasks.start_soon(self._presence.run)
        if self._settings.uses_kafka:
            tasks.start_soon(Absence(self._readiness.comfy_up, self._pipeline.hand_back).run)
        await self._pipeline.run()

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
            runs=runs,
            reader=reader,
            terminals=Terminals(self._bus, self._maker, self._scrubber),
            metrics=self._metrics,
            inputs=self._inputs,
            scrubber=self._scrubber,
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
            ready_to_take=self._readiness.to_take,
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

    def _scrubber(self, job: Job | None) -> Scrubber:
        return scrubber_of(job, self.stores)

    def _job_of(self, prompt_id: str) -> Job | None:
        return self._pipeline.job_of(prompt_id) if self._pipeline else None

    def _watch_metrics(self) -> None:
        metrics = self._metrics
        metrics.watch("in_flight", "Prompts in hand.", lambda: self._in_flight)
        metrics.watch("capacity", "Slots for prompts.", lambda: self._settings.max_in_flight)
        metrics.watch("heartbeat_timestamp_seconds", "The last sign of life.", lambda: self._presence.said_at)
        watch_comfyui(metrics, self._watch, lambda: self._supervisor.starts if self._supervisor else 0)
        watch_bus(metrics, self._bus, lambda: self._watch.connections)
        self._surroundings.show(metrics)

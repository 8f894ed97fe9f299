"""Whether a worker may take requests, and what it says of that at ``/ready``.

Used by worker; may import app.comfy, app.settings, brokers.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.comfy.process import Supervisor
from app.comfy.watch import Watch
from app.settings import Settings
from app.worker.life import Warmth
from brokers.base import Health

__all__ = ["Readiness"]

log = structlog.get_logger("comfybus.worker")


class Readiness:
    """Asked before each request that is taken, and by whoever watches the worker.

    Args:
        settings: The bound on ComfyUI's queue, and ComfyUI's address for the reason.
        watch: Whether ComfyUI answers, and how long its queue is.
        supervisor: Whether it is up, where it is ours to launch.
        warmth: Whether the warm-up prompt has run.
        draining: Whether the worker has been asked to end.
        broker: The state of the broker.

    Attributes:
        was_warm: Requests could be taken at least once.
        recycling: Why ComfyUI is to be started anew as soon as nothing is in hand; empty most of the time.
    """

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        supervisor: Supervisor | None,
        warmth: Warmth,
        *,
        draining: Callable[[], bool],
        broker: Callable[[], Health],
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._supervisor = supervisor
        self._warmth = warmth
        self._draining = draining
        self._broker = broker
        self.was_warm = False
        self.recycling: Callable[[], str] = lambda: ""

    def comfy_up(self) -> bool:
        """ComfyUI runs and answers."""
        return self._watch.up and (self._supervisor is None or self._supervisor.up)

    def to_take(self) -> Health:
        """Whether a request may be asked for."""
        up = self.comfy_up()
        if up and not self._warmth.warm:
            return Health(ok=False, reason="the warm-up prompt has not run yet")
        if up and not self.was_warm:
            self.was_warm = True
            log.info("ready", comfyui=self._watch.version)
        if reason := self.recycling():
            return Health(ok=False, reason=f"ComfyUI is started anew after this: {reason}")
        return Health(ok=up, reason="" if up else "ComfyUI does not answer")

    def of_worker(self) -> Health:
        """Whether requests are taken and answered now; the reason says what is missing."""
        depth, limit = self._watch.queue_remaining or 0, self._settings.max_queue_depth
        if self._draining():
            return Health(ok=False, reason="the worker is draining")
        if self._supervisor is not None and not self._supervisor.up:
            return Health(ok=False, reason=self._supervisor.trouble or "ComfyUI is being started")
        if not self._watch.up:
            return Health(ok=False, reason=f"ComfyUI at {self._settings.comfy_url} does not answer")
        if not self.was_warm or not self._warmth.warm:
            return Health(ok=False, reason="the worker is starting or warming up")
        if limit and depth >= limit:
            return Health(ok=False, reason=f"ComfyUI's queue has {depth} prompts, MAX_QUEUE_DEPTH is {limit}")
        return self._broker()

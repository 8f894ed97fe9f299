"""One prompt in hand: what is known of it, its record in the ledger, and what it tells the world on its way.

Used by most of its folder, app.tracing; may import app.comfy, app.errors, app.storage, brokers, schemas.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog

from app.comfy.followed import Followed
from app.errors import Expired
from app.storage.secrets import Scrubber
from app.worker.events import EventMaker
from app.worker.intake import Intake
from app.worker.outbox import Outbox
from app.worker.progress import ProgressLimit
from brokers.base import BrokerUnavailable, Delivery, Message, StopReason, Tries
from schemas.base import timestamp
from schemas.envelope import prompt_id
from schemas.events import Progress, PromptProgress, Status
from schemas.prompt import TARGETS

__all__ = ["Job", "Times"]

STORE_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0)
# ComfyUI's clock and ours may differ; only a real wait behind others moves the start of the timeout.
STARTED_LATE_MS = 1000

log = structlog.get_logger("comfybus.job")


@dataclass
class Times:
    """Moments of one delivery on the monotonic clock, in seconds, 0 for those not reached; and sums for ``stats``.

    ``received`` from the broker, ``picked_up`` when it was ours, ``prepared``, ``ended`` in ComfyUI, ``collected`` when
    its files are here, ``delivered`` when they are where they are wanted, ``answering`` when its terminal event goes
    out, ``answered`` when the broker has it and the request is settled.
    """

    received: float = 0.0
    picked_up: float = field(default_factory=time.monotonic)
    prepared: float = 0.0
    ended: float = 0.0
    collected: float = 0.0
    delivered: float = 0.0
    answering: float = 0.0
    answered: float = 0.0
    fetched: float = 0.0
    converted: float = 0.0
    stored: float = 0.0


class Trace(Protocol):
    """Follows one job for whoever traces; see ``app.tracing.prompts``."""

    def sending(self) -> None:
        """``times.answering`` is set: its terminal event is made now."""


class Job:
    """One delivery being worked on; also what ``app.comfy.run`` needs of it (``Run``) and the outbox (``Waiting``)."""

    def __init__(
        self,
        delivery: Delivery,
        intake: Intake,
        tries: Tries,
        *,
        maker: EventMaker,
        outbox: Outbox,
        progress_rate: float,
        default_timeout_s: float,
    ) -> None:
        self.delivery = delivery
        self.intake = intake
        self.key = intake.key
        self.tries = tries
        self.times = Times()
        self.queue_time_ms = _milliseconds_since(delivery.origin.published_at)
        self.scope = anyio.CancelScope()
        self.executing = False
        self.adopted = False
        self.scratch: Path | None = None
        self.scrubber: Scrubber | None = None
        self.followed: Followed | None = None
        self.outcome: object = None
        self.trace: Trace | None = None
        self._maker = maker
        self._outbox = outbox
        self._limit = ProgressLimit(progress_rate, time.monotonic)
        self._rate = progress_rate
        self._stop_reason: StopReason | None = None
        self._storing = anyio.Lock()
        request = intake.request
        self.timeout_s = (request.timeout_s if request else None) or default_timeout_s

    # --- identity

    @property
    def prompt_id(self) -> str:
        """ComfyUI's id of the present attempt."""
        return prompt_id(self.key.id, self.key.replay, self.tries.attempt)

    @property
    def metadata(self) -> dict[str, Any] | None:
        """Given back on every event."""
        found: dict[str, Any] | None = self.intake.echo.get("metadata")
        return found

    @property
    def common(self) -> dict[str, Any]:
        """The fields every event of this prompt has."""
        return {
            "timestamp": timestamp(),
            "worker": self._maker.worker,
            "id": self.key.id,
            "attempt": self.tries.attempt,
            "replay": self.key.replay or None,
        }

    # --- being stopped

    @property
    def stop_reason(self) -> StopReason | None:
        """Why it is being stopped from outside."""
        return self._stop_reason

    def stop(self, reason: StopReason) -> None:
        """Stop working on it: ``cancelled`` to answer so, ``drained`` to hand it back. The first reason counts."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self.scope.cancel()

    # --- its record

    async def store(self, **changes: Any) -> None:
        """Change the record in the ledger, confirmed; waits through outages of the broker."""
        async with self._storing:
            tries = self.tries.model_copy(update=changes)
            if tries == self.tries:
                return
            attempt = 0
            while True:
                try:
                    await self.delivery.store(tries)
                except BrokerUnavailable as exc:
                    log.warning("record not stored, trying on", reason=str(exc))
                    await anyio.sleep(STORE_AGAIN_S[min(attempt, len(STORE_AGAIN_S) - 1)])
                    attempt += 1
                else:
                    break
            self.tries = tries
        # What this found taken away ends here; the next call might be on its way to ComfyUI before it could be stopped.
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def replace(self, tries: Tries) -> None:
        """Put another record in the place of the present one, confirmed."""
        await self.store(**tries.model_dump())

    async def begin(self) -> None:
        """The try begins; see ``Run``."""
        if not self.tries.begun:
            await self.store(begun=True, started_ms=int(time.time() * 1000))

    async def started(self, at_ms: int) -> int:
        """ComfyUI executes it; see ``Run``."""
        self.executing = True
        self.announce("running")
        if not self.tries.begun:
            await self.store(begun=True, started_ms=at_ms)
            return at_ms
        known = self.tries.started_ms
        # Of an adopted run ComfyUI says only that it runs: the ledger knows since when.
        if known is not None and (self.adopted or at_ms - known <= STARTED_LATE_MS):
            return known
        await self.store(started_ms=at_ms)
        return at_ms

    async def note_stop(self, reason: str) -> None:
        """It is about to be interrupted; see ``Run``."""
        await self.store(stopped=reason)

    def check_expiry(self) -> None:
        """Raise if ``expires_at`` has passed; see ``Run``."""
        expires = self.intake.request.expires_at if self.intake.request else None
        if expires is not None and datetime.now(UTC) >= expires:
            raise Expired(
                f"the request expired at {timestamp(expires)} before ComfyUI had room for it; "
                "allow more time or add workers",
                location="expires_at",
            )

    # --- telling the world

    def answering(self) -> None:
        """Its terminal event is made and sent from now on."""
        self.times.answering = time.monotonic()
        if self.trace is not None:
            self.trace.sending()

    def traced(self, message: Message) -> Message:
        """The terminal event in the trace of what sends it; it may have been built long before."""
        return message if self.trace is None else replace(message, headers=self.intake.headers)

    def announce(self, status: Status) -> None:
        """Publish a change of status, with the latest progress; never twice the same."""
        if self._limit.announced != status:
            self._offer(self._limit.change(status))

    def follows(self, followed: Followed) -> None:
        """What is heard of its run; see ``Run``."""
        self.followed = followed

    def queued(self) -> None:
        """ComfyUI has it."""
        self.announce("queued")

    def progress(self, progress: Progress) -> None:
        """It got on; see ``Run``."""
        if self._limit.announced != "running":
            self._limit.value(progress, publish=False)
            self.announce("running")
            return
        if (item := self._limit.value(progress)) is not None:
            self._offer(item)
        elif self._limit.waits:
            self._outbox.await_due(self)

    def fetching(self, progress: Progress) -> None:
        """Its inputs come; what comes after it has been prepared, for somebody else, is not told."""
        if self._limit.announced != "preparing":
            return
        if (item := self._limit.value(progress)) is not None:
            self._offer(item)
        elif self._limit.waits:
            self._outbox.await_due(self)

    def due(self) -> Message | None:
        """The progress that waited for the rate limit."""
        item = self._limit.due()
        return self._message(item)() if item else None

    @property
    def waits(self) -> bool:
        """Progress is held back by the rate limit."""
        return self._limit.waits

    async def remove_scratch(self) -> None:
        """Remove the files that were made for this delivery."""
        if self.scratch is not None:
            await anyio.to_thread.run_sync(lambda path: shutil.rmtree(path, ignore_errors=True), self.scratch)
            self.scratch = None

    @property
    def wants_links(self) -> bool:
        """The request names a place where its outputs are to go."""
        request = self.intake.request
        return request is not None and any(getattr(request, name) is not None for name in TARGETS)

    def done(self) -> None:
        """Nothing more is told: the terminal event says the rest."""
        self._outbox.forget(self)

    def _offer(self, item: tuple[int, Status, Progress]) -> None:
        self._outbox.offer(self._message(item))

    def _message(self, item: tuple[int, Status, Progress]) -> Callable[[], Message]:
        sequence, status, progress = item
        common = self.common

        def make() -> Message:
            event = PromptProgress.model_construct(
                **common,
                metadata=self.metadata,
                type="prompt.progress",
                sequence=sequence,
                status=status,
                progress=progress,
            )
            return self._maker.progress(event, self.intake.headers)

        return make


def _milliseconds_since(moment: datetime) -> int:
    return max(0, int((datetime.now(UTC) - moment).total_seconds() * 1000))

"""Terminal events and dead letters: an outcome put into words, without secrets, so that it fits the broker.

Used by perform, worker; may import app.comfy, app.errors, app.storage, brokers, schemas.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.comfy.run import Completed
from app.errors import InternalError, PromptError
from app.storage.secrets import Scrubber
from app.worker.echo import Echo
from app.worker.events import EventMaker
from app.worker.fitting import fit
from app.worker.job import Job
from app.worker.outcome import Complete
from app.worker.settle import Fail
from brokers.base import Bus, Letter, Message
from schemas.events import ComfyExecution, NodeStart, PromptComplete, PromptFailed, Stats

__all__ = ["Terminals"]

log = structlog.get_logger("comfybus.terminal")


@dataclass(frozen=True)
class Terminals:
    """Writes the answers of all prompts.

    Attributes:
        bus: Says how large a message may be.
        maker: Makes messages of events.
        scrubber: What is a secret in this job.
    """

    bus: Bus
    maker: EventMaker
    scrubber: Callable[[Job], Scrubber]

    def message(self, job: Job, outcome: Complete | Fail) -> Message:
        """The terminal event as a message that fits the broker; whatever the outcome holds there is one."""
        if isinstance(outcome, Complete) and outcome.event is not None:
            return outcome.event
        event: PromptComplete | PromptFailed
        try:
            if isinstance(outcome, Complete):
                event = self._complete_event(job, outcome)
            else:
                event = self._failed_event(job, outcome.error)
            return self._fitting(job, event) or self._message(job, self._bare_event(job, event))
        except (ValueError, TypeError, RecursionError) as exc:
            # ComfyUI's account may be shaped in ways nobody thought of; its request is answered all the same.
            log.exception("terminal event could not be built")
            why = InternalError(f"the answer could not be put into words ({type(exc).__name__}); the log has more")
            failed = PromptFailed(**job.common, error=str(why), code=why.code, retryable=True)
            return self._message(job, self._bare_event(job, failed))

    def whole(self, job: Job, complete: Complete) -> Message | None:
        """The event with all that belongs to it, or None where the broker takes that only cut."""
        return self._fitting(job, self._complete_event(job, complete), whole=True)

    def letter(self, job: Job, outcome: Complete | Fail) -> Letter | None:
        """Why a request is given up; None when it is not."""
        if isinstance(outcome, Complete) or not outcome.dead_letter:
            return None
        error = outcome.error
        return Letter(
            reason=self.scrubber(job).text(str(error))[:1000],
            code=error.code,
            worker=self.maker.worker,
            attempts=job.tries.attempt,
            request_id=job.key.id,
            id_was_derived=job.intake.id_was_derived,
            replay=job.key.replay,
        )

    def _fitting(self, job: Job, event: PromptComplete | PromptFailed, *, whole: bool = False) -> Message | None:
        """The event, shortened as little as the broker's limit allows; ``whole``: nothing may be cut off."""
        message: Message | None = None

        def fits(form: PromptComplete | PromptFailed) -> bool:
            nonlocal message
            message = None if whole and form.truncated else self._message(job, form)
            return message is not None and self.bus.size_bytes(message) <= self.bus.max_message_bytes

        return message if fit(event, fits) is not None else None

    def _message(self, job: Job, event: PromptComplete | PromptFailed) -> Message:
        return self.maker.terminal(event, job.key, job.intake.headers)

    def _complete_event(self, job: Job, outcome: Complete) -> PromptComplete:
        redact = Echo(self.scrubber(job))
        delivered = outcome.delivered
        return PromptComplete(
            **job.common,
            **redact.echo(job.intake.echo),
            prompt=redact.json(outcome.graph),
            images=delivered.images,
            filenames=delivered.filenames,
            outputs=delivered.outputs,
            stats=_stats(job, outcome.completed),
            node_errors=dict(outcome.completed.node_errors) or None,
        )

    def _failed_event(self, job: Job, error: PromptError) -> PromptFailed:
        redact = Echo(self.scrubber(job))
        return PromptFailed(
            **job.common,
            **redact.echo(job.intake.echo),
            error=redact.sentence(str(error)),
            code=error.code,
            location=redact.place(error.location),
            node=redact.node(error.node),
            node_errors=redact.json(error.node_errors),
            retryable=error.retryable,
            prompt=redact.json(job.intake.prompt),
            source=job.delivery.origin.source if job.intake.refusal is not None else None,
        )

    def _bare_event(self, job: Job, event: PromptComplete | PromptFailed) -> PromptFailed:
        """The last resort of an event that cannot be made to fit."""
        why = event.error[:500] if isinstance(event, PromptFailed) else "its result is larger than the broker takes"
        code = event.code if isinstance(event, PromptFailed) else "internal"
        return PromptFailed(**job.common, error=why, code=code, retryable=False, truncated=True)


def _stats(job: Job, completed: Completed) -> Stats:
    """Where the time went, in milliseconds; what an earlier delivery spent is not known here."""
    entry, times = completed.entry, job.times
    now = time.monotonic()
    duration = entry.end_ms - entry.start_ms if entry.start_ms is not None and entry.end_ms is not None else None
    prepared = times.prepared or times.picked_up
    return Stats(
        comfy_execution=ComfyExecution(
            start=entry.start_ms,
            end=entry.end_ms,
            duration=duration,
            nodes={node: NodeStart(start=at) for node, at in completed.node_starts_ms.items()},
        ),
        preprocess_time=_ms(prepared - times.picked_up),
        comfy_round_trip_time=_ms(times.ended - prepared + times.fetched),
        postprocess_time=_ms(times.converted),
        upload_time=_ms(times.stored),
        total_time=_ms(now - times.picked_up),
        queue_time=job.queue_time_ms,
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))

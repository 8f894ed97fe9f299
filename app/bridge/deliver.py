"""One attempt to deliver, from the stored record to what is stored of its outcome.

Used by app.bridge.app, app.cli.webhooks; may import app.errors, app.storage, brokers.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

import anyio
import structlog
from anyio.to_thread import run_sync

from app.bridge.endpoints import Endpoint, Endpoints, NoEndpoint
from app.bridge.lanes import Item, Lane
from app.bridge.metrics import BridgeMetrics
from app.bridge.outcome import Outcome
from app.bridge.payload import Payload
from app.bridge.post import Poster
from app.bridge.record import LetterRecord, Record, endpoint_mark, host_of
from app.bridge.results import Results
from app.bridge.schedule import Schedule
from app.bridge.verdict import Answer, Verdict, judge
from app.errors import InputUnavailable
from app.storage.secrets import Scrubber
from brokers.webhooks import Share, Waiting

__all__ = ["Deliverer", "headers_for"]

USER_AGENT: Final = f"comfybus/{version('comfybus')}"

log = structlog.get_logger("comfybus.bridge")


async def headers_for(record: Record, endpoint: Endpoint, payload: Payload, now_s: float) -> dict[str, str]:
    """The headers of one request: Standard Webhooks' three, or the id alone where nothing is signed."""
    found = {"Content-Type": "application/json", "User-Agent": USER_AGENT, "webhook-id": record.webhook_id}
    if endpoint.authorization is not None:
        found["Authorization"] = endpoint.authorization
    if record.traceparent is not None:
        found["traceparent"] = record.traceparent
    if record.origin == "webhook":
        return found
    timestamp_s = int(now_s)
    found["webhook-timestamp"] = str(timestamp_s)
    if endpoint.signer is not None:
        arguments = (record.webhook_id, timestamp_s, payload.pieces())
        if payload.is_plain:
            signature = endpoint.signer.sign(*arguments)
        else:
            signature = await run_sync(endpoint.signer.sign, *arguments)
        found["webhook-signature"] = signature
    return found


class Trace(Protocol):
    """Follows one attempt for whoever traces."""

    def end(self, answer: Answer) -> None:
        """It is over."""


class Deliverer:
    """Makes attempts; see ``app.bridge.dispatch.Attempts``."""

    def __init__(
        self,
        endpoints: Endpoints,
        results: Results,
        posters: Callable[[Endpoint], Poster],
        schedule: Schedule,
        metrics: BridgeMetrics,
        scratch: Path,
        trace: Callable[[Record, dict[str, str]], Trace] | None = None,
    ) -> None:
        """Prepare.

        Args:
            endpoints: Who receives what.
            results: Makes bodies.
            posters: Sends to an endpoint.
            schedule: When to try again.
            metrics: What is counted.
            scratch: A folder for files on their way.
            trace: Traces an attempt that is about to be made with these headers, which it may change.
        """
        self._endpoints = endpoints
        self._results = results
        self._posters = posters
        self._schedule = schedule
        self._metrics = metrics
        self._scratch = scratch
        self._trace = trace

    async def attempt(self, share: Share, lane: Lane, item: Item) -> Outcome:
        """Deliver, then store what became of it; raises nothing but when cancelled."""
        waiting = await share.find(lane.name, item.id)
        record = Record.decode(waiting.record) if waiting is not None else None
        if waiting is None or record is None:
            return Outcome()
        early = item.early_due_s is not None
        try:
            verdict = await self._deliver(share, record, early=early)
        except Exception as exc:
            # A fault of ours: the delivery must neither be lost nor be tried without a pause.
            log.exception("webhook failed for an unknown reason", delivery=record.id)
            trouble = Answer(trouble=f"a fault of comfybus ({type(exc).__name__})")
            verdict = self._judge(trouble, record, early=early)
        return await self._store(share, waiting, record, verdict, early=early)

    # --- the request

    async def _deliver(self, share: Share, record: Record, *, early: bool) -> Verdict:
        try:
            endpoint = self._endpoints.of(record)
        except NoEndpoint as exc:
            return Verdict("give_up", exc.reason, code=exc.code)
        if await share.stopped(endpoint_mark(endpoint.text)) is not None:
            return Verdict("give_up", "the receiver answered 410 to an earlier webhook at this URL", code="gone")
        body = await share.body(record.id)
        if body is None:
            return Verdict(
                "give_up", "its body is no longer kept by the broker, or is larger than it takes", code="body_missing"
            )
        folder = self._scratch / uuid.uuid4().hex
        if record.claims:
            await anyio.Path(folder).mkdir()
        try:
            payload = await self._results.payload(record, body, folder)
            headers = await headers_for(record, endpoint, payload, time.time())
            trace = self._trace(record, headers) if self._trace is not None else None
            answer = await self._posters(endpoint).post(endpoint.url, headers, payload)
            if trace is not None:
                trace.end(answer)
        except InputUnavailable as exc:
            answer = Answer(trouble=f"not sent: {exc}")
        finally:
            if record.claims:
                with anyio.CancelScope(shield=True):
                    await run_sync(_remove, folder)
        verdict = self._judge(answer, record, early=early)
        self._tell(record, endpoint, answer, verdict)
        return verdict

    def _judge(self, answer: Answer, record: Record, *, early: bool) -> Verdict:
        now = time.time()
        return judge(answer, record.attempts + (not early), now - record.created_ms / 1000, self._schedule, now)

    # --- what is stored of it

    async def _store(self, share: Share, waiting: Waiting, record: Record, verdict: Verdict, *, early: bool) -> Outcome:
        host = host_of(record.url)
        if verdict.kind == "delivered":
            await share.settle(waiting)
            self._metrics.delivered(host)
            return Outcome(verdict)
        if verdict.kind == "retry":
            self._metrics.retried(host)
            if early:
                return Outcome(verdict)
            changed = record.model_copy(
                update={
                    "attempts": record.attempts + 1,
                    "due_ms": int(verdict.due_s * 1000),
                    "order": record.order or waiting.token,
                    "reason": verdict.reason,
                    "asked": verdict.asked,
                }
            )
            stored = await share.defer(waiting, changed.encode())
            return Outcome(verdict, stored, changed) if stored is not None else Outcome()
        await self._give_up(share, waiting, record, verdict)
        self._metrics.given_up(host, verdict.code)
        return Outcome(verdict)

    async def _give_up(self, share: Share, waiting: Waiting, record: Record, verdict: Verdict) -> None:
        now_ms = int(time.time() * 1000)
        if verdict.kind == "gone":
            note = record.model_copy(update={"reason": verdict.reason}).encode()
            await share.stop(endpoint_mark(self._endpoints.of(record).text), note)
        made = record.attempts + (verdict.code in ("exhausted", "refused") or verdict.kind == "gone")
        letter = LetterRecord(
            **{**record.model_dump(), "attempts": made, "reason": verdict.reason},
            code=verdict.code,
            given_up_ms=now_ms,
        )
        await share.give_up(waiting, letter.encode())
        log.error(
            "webhook given up",
            delivery=record.id,
            webhook_id=record.webhook_id,
            url=record.shown_url,
            attempts=made,
            code=verdict.code,
            reason=verdict.reason,
        )

    def _tell(self, record: Record, endpoint: Endpoint, answer: Answer, verdict: Verdict) -> None:
        self._metrics.attempt_seconds.observe(answer.took_s)
        if verdict.kind == "delivered":
            log.debug("webhook delivered", webhook_id=record.webhook_id, url=record.shown_url, took_s=answer.took_s)
            return
        # A receiver may well repeat what it was called by.
        scrubber = Scrubber()
        scrubber.learn(endpoint.text)
        log.warning(
            "webhook not delivered",
            webhook_id=record.webhook_id,
            url=record.shown_url,
            attempt=record.attempts + 1,
            status=answer.status,
            reason=verdict.reason,
            answer=scrubber.text(answer.excerpt) or None,
            next_in_s=round(verdict.due_s - time.time(), 1) if verdict.kind == "retry" else None,
        )


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

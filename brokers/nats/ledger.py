"""Claims and tries in the bucket ``<P>-ledger``: who works on an id, and what a crash must not forget.

Used by bus, delivery; may import brokers.

One entry per (id, replay), key ``<id>.<replay>``; it names the request by its place in the work queue and holds the
``Tries``. An entry lives from the first delivery to the confirmed acknowledgement. It has no time to live, since a
request may wait for weeks.

Why no id is lost although requests are settled without an event: a request is dropped only while the entry names
another one that still waits, and which came earlier or whose holder has written to the entry (it is ``firm``). An entry
that is not firm passes only to earlier requests, a firm one to nobody while its request exists. So the entry never
returns to a request that was dropped, and the one it names is answered in the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from brokers.base import BrokerUnavailable, Claim, RequestKey, Tries
from brokers.channels import Names
from brokers.nats.answers import EXPECTED, Answers
from brokers.nats.errors import StreamMissing
from brokers.nats.link import Conflict, Link, api_subject
from brokers.nats.stored import StoredMessage

__all__ = ["ClaimLost", "Held", "Ledger", "Place"]

# A conflict means that another worker moved at the same moment; more of them in a row than this is no coincidence.
CONFLICTS = 20
# Two ways to read the broker's time round it differently.
SAME_MOMENT = timedelta(milliseconds=1)
SAME_QUEUE_S = 0.2
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger("comfybus.nats.ledger")


class ClaimLost(Exception):
    """An earlier submission of the same id took the claim over, or it is answered."""


@dataclass(frozen=True)
class Place:
    """A request in the work queue. Sequences begin anew when the stream is made anew, hence the time."""

    sequence: int
    time: datetime

    def is_of(self, message: StoredMessage) -> bool:
        """Whether the message is this one."""
        return message.sequence == self.sequence and abs(message.time - self.time) <= SAME_MOMENT


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)

    sequence: int
    time: datetime
    firm: bool = False
    tries: Tries = Tries()

    def names(self, place: Place) -> bool:
        return self.sequence == place.sequence and abs(self.time - place.time) <= SAME_MOMENT


@dataclass
class Held:
    """A claim this worker holds: the entry as it last knew it, and the entry's revision."""

    key: RequestKey
    entry: _Entry
    revision: int
    found: bool = False
    """The entry was there before: this request, or one of the same id, was in somebody's hands."""

    @property
    def tries(self) -> Tries:
        """What earlier deliveries left, and what was stored since."""
        return self.entry.tries


class Ledger:
    """Reads and writes entries by compare-and-set; every answer is the leader's, never a follower's."""

    def __init__(self, link: Link, answers: Answers) -> None:
        self._link = link
        self._names: Names = link.names
        self._answers = answers
        self._stream = f"KV_{self._names.ledger_bucket}"
        self._queue_since: datetime | None = None
        self._looked = -math.inf

    def _subject(self, key: RequestKey) -> str:
        return f"$KV.{self._names.ledger_bucket}.{key.id}.{key.replay}"

    async def claim(self, key: RequestKey, place: Place) -> tuple[Claim, Held | None]:
        """Claim the key for the request; see ``Delivery.claim``.

        The order is what makes it safe: first the entry is ours, made or taken over from a request that is gone, then
        comes the look for the answer. Whoever settles lets its request and its entry go only after its answer is
        stored, so that answer is found.
        """
        for _ in range(CONFLICTS):
            try:
                held = await self._enter(key, place)
            except Conflict:
                continue
            if held is None:
                return Claim.ANSWERED, None
            answered = await self._answers.find(key) is not None
            return (Claim.ANSWERED if answered else Claim.OWNED), held
        raise BrokerUnavailable(f"the claim of {key.id} changed {CONFLICTS} times in a row")

    async def _enter(self, key: RequestKey, place: Place) -> Held | None:
        """The entry in our name, new or as we left it; None when another request holds it.

        Raises:
            Conflict: The entry changed meanwhile; look again.
        """
        try:
            return await self._write(key, _Entry(sequence=place.sequence, time=place.time), 0)
        except Conflict:
            found = await self._read(key)
        if found is None:
            raise Conflict
        entry, revision = found
        if entry.names(place):
            return Held(key, entry, revision, found=True)
        waits = await self.waits(Place(entry.sequence, entry.time))
        if waits and (entry.firm or entry.sequence < place.sequence):
            return None
        taken = entry.model_copy(update={"sequence": place.sequence, "time": place.time, "firm": False})
        log.info("claim taken over", request_id=key.id, of=entry.sequence, by=place.sequence, gone=not waits)
        held = await self._write(key, taken, revision)
        held.found = True
        return held

    async def store(self, held: Held, tries: Tries) -> None:
        """Write the tries of a claim that is held; from then on no earlier submission can take it over.

        Another worker may have written while it held the same redelivered request: then ours goes on top.

        Raises:
            ClaimLost: An earlier submission took the claim over, or it is answered.
        """
        wanted = held.entry.model_copy(update={"tries": tries, "firm": True})
        for _ in range(CONFLICTS):
            try:
                fresh = await self._write(held.key, wanted, held.revision)
            except Conflict as exc:
                held.revision = await self._revision_of_ours(held, exc)
            else:
                held.revision, held.entry = fresh.revision, fresh.entry
                return
        raise BrokerUnavailable(f"the claim of {held.key.id} changed {CONFLICTS} times in a row")

    async def _revision_of_ours(self, held: Held, cause: Conflict) -> int:
        found = await self._read(held.key)
        if found is not None:
            if not found[0].names(Place(held.entry.sequence, held.entry.time)):
                raise ClaimLost from cause
            return found[1]
        if await self._answers.find(held.key) is not None:
            raise ClaimLost from cause
        # The bucket was emptied or made anew: the claim is made anew too.
        return 0

    async def remove(self, held: Held) -> None:
        """Purge the entry without leaving a marker; called after the confirmed acknowledgement.

        What another worker wrote on top of it since stays, and is swept when its message is gone.
        """
        await self._purge(self._subject(held.key), held.revision)

    async def _purge(self, subject: str, revision: int) -> None:
        with self._link.doing("purge a claim", api_subject("STREAM.PURGE")):
            # `seq` is exclusive: nothing written later than this revision goes.
            await self._link.js.purge_stream(self._stream, seq=revision + 1, subject=subject)

    async def waits(self, place: Place) -> bool:
        """Whether the request is still in the work queue: waiting, or in somebody's hands."""
        if not place.sequence:
            return False
        try:
            message = await self._link.read("look for a request", self._names.request_stream, seq=place.sequence)
        except StreamMissing:
            return False
        return message is not None and place.is_of(message)

    async def made_anew_since(self, place: Place) -> bool:
        """Whether the work queue is a younger one than the request; its sequences then mean other requests.

        Asked for every request that is settled, so one answer serves for ``SAME_QUEUE_S``. To lose a request within
        that time the queue would have to be deleted, declared anew and filled up to the same sequence, and whoever got
        that request be killed before its answer.
        """
        now = anyio.current_time()
        if now - self._looked >= SAME_QUEUE_S:
            self._queue_since = await self._link.created("look at the work queue", self._names.request_stream)
            self._looked = now
        return self._queue_since is None or self._queue_since > place.time

    def look_anew(self) -> None:
        """The server was away: what was known of the work queue may not hold any more."""
        self._looked = -math.inf

    async def _write(self, key: RequestKey, entry: _Entry, revision: int) -> Held:
        body = entry.model_dump_json(exclude_defaults=True).encode()
        return Held(
            key,
            entry,
            await self._link.store("write a claim", self._subject(key), body, {EXPECTED: str(revision)}),
        )

    async def _read(self, key: RequestKey) -> tuple[_Entry, int] | None:
        message = await self._link.read("read a claim", self._stream, last_by_subj=self._subject(key))
        if message is None:
            return None
        try:
            return _Entry.model_validate_json(message.data), message.sequence
        except ValidationError:
            # Written or deleted by hand, or by another version: without a place it claims for nobody.
            log.warning("unreadable claim is taken over", request_id=key.id)
            return _Entry(sequence=0, time=LONG_AGO), message.sequence

    async def sweep(self) -> int:
        """Remove the entries whose request is no longer in the work queue (a crash after its ack); how many."""
        removed = 0
        with self._link.doing("list the claims", api_subject(f"STREAM.INFO.{self._stream}")):
            info = await self._link.js.stream_info(self._stream, subjects_filter=">")
        for subject in info.state.subjects or {}:
            request_id, _, number = subject.removeprefix(f"$KV.{self._names.ledger_bucket}.").rpartition(".")
            if not number.isdecimal():
                continue
            found = await self._read(RequestKey(request_id, int(number)))
            if found is None or await self.waits(Place(found[0].sequence, found[0].time)):
                continue
            await self._purge(subject, found[1])
            removed += 1
        return removed

"""Claims and tries in the bucket ``<P>-ledger``: who works on an id, and what a crash must not forget.

One entry per (id, replay), key ``<id>.<replay>``; it names the request's sequence in the work queue and holds the
``Tries``. An entry lives from the first delivery to the confirmed acknowledgement. It has no time to live, since a
request may wait for weeks.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from nats.js import JetStreamContext
from nats.js.errors import BadRequestError, NotFoundError
from pydantic import BaseModel, ConfigDict, ValidationError

from brokers.base import BrokerUnavailable, Claim, RequestKey, Tries
from brokers.channels import Names
from brokers.nats.connection import foreign_errors

__all__ = ["ClaimLost", "Held", "Ledger", "StoredAnswer"]

WRONG_LAST_SEQUENCE = 10071
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
# A conflict means that another worker moved at the same moment; more of them in a row than this is no coincidence.
CONFLICTS = 20

log = structlog.get_logger("comfybus.nats.ledger")


class ClaimLost(Exception):
    """An earlier submission of the same id took the claim over."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)

    sequence: int
    tries: Tries


@dataclass
class Held:
    """A claim this worker holds: the entry's place and its last known revision."""

    key: RequestKey
    sequence: int
    revision: int
    tries: Tries


@dataclass(frozen=True)
class StoredAnswer:
    """A terminal event that is already stored: its place, its replay, and who wrote it."""

    sequence: int
    replay: int
    writer: str


class Ledger:
    """Reads and writes entries by compare-and-set; every answer is the leader's, never a follower's."""

    def __init__(self, js: JetStreamContext, names: Names, timeout_s: float) -> None:
        self._js = js
        self._names = names
        self._timeout_s = timeout_s
        self._stream = f"KV_{names.ledger_bucket}"

    def _subject(self, key: RequestKey) -> str:
        return f"$KV.{self._names.ledger_bucket}.{key.id}.{key.replay}"

    async def claim(self, key: RequestKey, sequence: int) -> tuple[Claim, Held | None]:
        """Claim the key for the request at ``sequence``; see ``Delivery.claim``.

        The order is what makes it safe: first the entry, then a look for the answer. Whoever settles removes its entry
        only after its answer is stored, so an entry made later finds that answer.
        """
        for _ in range(CONFLICTS):
            try:
                held = await self._create(key, sequence)
            except ClaimLost:
                entry = await self._read(key)
                if entry is None:
                    continue  # settled between the two calls: look again
                found, revision = entry
                if found.sequence == sequence:
                    held = Held(key, sequence, revision, found.tries)
                else:
                    taken = await self._against(key, sequence, found, revision)
                    if taken is None:
                        return Claim.ANSWERED, None
                    if isinstance(taken, ClaimLost):
                        continue
                    held = taken
            if (answer := await self.answer(key)) and answer.replay >= key.replay:
                return Claim.ANSWERED, held
            return Claim.OWNED, held
        raise BrokerUnavailable(f"the claim of {key.id} changed {CONFLICTS} times in a row")

    async def _against(self, key: RequestKey, sequence: int, found: _Entry, revision: int) -> Held | ClaimLost | None:
        """Somebody else's claim: None when it stands, the claim when it could be taken over."""
        waits = await self._message_exists(found.sequence)
        if (answer := await self.answer(key)) and answer.replay >= key.replay:
            return None
        earlier = sequence < found.sequence and not found.tries.begun
        if waits and not earlier:
            return None
        try:
            return await self._write(key, sequence, found.tries if not waits else Tries(), revision)
        except ClaimLost as exc:
            return exc

    async def store(self, held: Held, tries: Tries) -> None:
        """Write the tries of a claim that is held.

        Another worker may have written while it held the same redelivered message: then ours goes on top.

        Raises:
            ClaimLost: An earlier submission took the claim over, or it was settled elsewhere.
        """
        for _ in range(CONFLICTS):
            try:
                fresh = await self._write(held.key, held.sequence, tries, held.revision)
            except ClaimLost:
                entry = await self._read(held.key)
                if entry is None or entry[0].sequence != held.sequence:
                    raise
                held.revision = entry[1]
            else:
                held.revision, held.tries = fresh.revision, tries
                return
        raise BrokerUnavailable(f"the claim of {held.key.id} changed {CONFLICTS} times in a row")

    async def remove(self, held: Held) -> None:
        """Purge the entry without leaving a marker; called after the confirmed acknowledgement.

        What another worker wrote on top of it since stays, and is swept when its message is gone.
        """
        await self._purge(self._subject(held.key), held.revision)

    async def _purge(self, subject: str, revision: int) -> None:
        with foreign_errors("purge a claim"):
            # `seq` is exclusive: nothing written later than this revision goes.
            await self._js.purge_stream(self._stream, seq=revision + 1, subject=subject)

    async def answer(self, key: RequestKey) -> StoredAnswer | None:
        """The last terminal event of the id, of whatever replay."""
        with foreign_errors("look for a terminal event"):
            try:
                message = await self._js.get_last_msg(self._names.result_stream, self._names.of_prompt(key.id))
            except NotFoundError:
                return None
        headers = message.headers or {}
        event_id, writer = headers.get("ce-id", ""), headers.get("ce-source", "")
        replay = event_id.rpartition("/")[2]
        return StoredAnswer(message.seq or 0, int(replay) if replay.isdigit() else 0, writer)

    async def _message_exists(self, sequence: int) -> bool:
        with foreign_errors("look for a request"):
            try:
                await self._js.get_msg(self._names.request_stream, seq=sequence)
            except NotFoundError:
                return False
        return True

    async def _create(self, key: RequestKey, sequence: int) -> Held:
        return await self._write(key, sequence, Tries(), 0)

    async def _write(self, key: RequestKey, sequence: int, tries: Tries, revision: int) -> Held:
        entry = _Entry(sequence=sequence, tries=tries)
        with foreign_errors("write a claim"):
            try:
                ack = await self._js.publish(
                    self._subject(key),
                    entry.model_dump_json(exclude_defaults=True).encode(),
                    timeout=self._timeout_s,
                    headers={EXPECTED: str(revision)},
                )
            except BadRequestError as exc:
                if exc.err_code == WRONG_LAST_SEQUENCE:
                    raise ClaimLost from exc
                raise
        return Held(key, sequence, ack.seq, tries)

    async def _read(self, key: RequestKey) -> tuple[_Entry, int] | None:
        with foreign_errors("read a claim"):
            try:
                message = await self._js.get_last_msg(self._stream, self._subject(key))
            except NotFoundError:
                return None
        try:
            return _Entry.model_validate_json(message.data or b""), message.seq or 0
        except ValidationError:
            # Written by hand or by a later version: without a sequence it claims for nobody.
            log.warning("unreadable claim is taken over", request_id=key.id)
            return _Entry(sequence=0, tries=Tries()), message.seq or 0

    async def sweep(self) -> int:
        """Remove the entries whose request is no longer in the work queue (a crash after its ack); how many."""
        removed = 0
        with foreign_errors("list the claims"):
            info = await self._js.stream_info(self._stream, subjects_filter=">")
        for subject in info.state.subjects or {}:
            request_id, _, replay = subject.removeprefix(f"$KV.{self._names.ledger_bucket}.").rpartition(".")
            if not replay.isdigit():
                continue
            entry = await self._read(RequestKey(request_id, int(replay)))
            if entry is None or await self._message_exists(entry[0].sequence):
                continue
            await self._purge(subject, entry[1])
            removed += 1
        return removed

"""Which bridge has which share: one lease per share, taken and renewed by compare-and-set.

Used by bus; may import brokers, brokers.nats.

Nobody's clock is compared with anybody else's: a lease has run out when it has not changed for the length of a lease by
the clock of whoever watches it. A bridge that cannot renew stops a little earlier by its own clock.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import anyio

from brokers.nats.errors import StreamMissing
from brokers.nats.link import Conflict, Link
from brokers.nats.webhooks.layout import SHARES, WebhookNames
from brokers.nats.webhooks.patience import delete
from brokers.webhook_shares import Changes

__all__ = ["NatsLeases"]

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
DOING = "hold shares of the webhooks"
# Of a lease: after this part of it without a renewal nothing new is begun.
SAFE_PART = 0.6
# Signs of life of bridges that are long gone are removed.
FORGET_AFTER = 6


@dataclass
class _Hold:
    sequence: int
    renewed_at: float


@dataclass
class _Seen:
    sequence: int
    since: float


class NatsLeases:
    """See ``brokers.webhook_shares.Leases``; ``look`` is to be called several times in the length of a lease."""

    def __init__(self, link: Link, own: WebhookNames, bridge: str, lease_s: float) -> None:
        """Prepare.

        Args:
            link: The open connection.
            own: Names.
            bridge: Unique per process; letters, digits, ``-`` and ``_``.
            lease_s: How long a share stays with a bridge that says nothing.
        """
        self._link = link
        self._own = own
        self._bridge = bridge
        self._lease_s = lease_s
        self._held: dict[int, _Hold] = {}
        self._seen: dict[str, _Seen] = {}
        self._retired = False
        # A share that is given back must not be renewed at the same moment.
        self._lock = anyio.Lock()

    def is_safe(self, share: int) -> bool:
        """Whether nobody else can have the share by now."""
        held = self._held.get(share)
        return held is not None and anyio.current_time() - held.renewed_at < self._lease_s * SAFE_PART

    async def look(self) -> Changes:
        """Renew what we hold, see who else is there, take what is free up to our part.

        Raises:
            BrokerUnavailable: No answer; what was renewed stays renewed.
            BrokerRefused: A permission is missing.
        """
        async with self._lock:
            return await self._look()

    async def _look(self) -> Changes:
        began = anyio.current_time()
        if not self._retired:
            await self._link.store(DOING, self._own.subject("bridge", self._bridge), b"{}", {})
        lost = [share for share in list(self._held) if not await self._renew(share)]
        part = math.ceil(SHARES / await self._count_bridges(began))
        won = list[int]()
        for share in range(SHARES):
            if share in self._held:
                continue
            # Also those that are not for us are watched, so that they are known to be silent when they become ours.
            expected = await self._expected_of_free(share, began)
            wanted = expected is not None and len(self._held) < part and not self._retired
            if expected is not None and wanted and await self._take(share, expected):
                won.append(share)
        surplus = sorted(self._held)[part:]
        return Changes(tuple(won), tuple(lost), tuple(surplus))

    async def give_back(self, share: int) -> None:
        """Let another bridge have it at once.

        Raises:
            BrokerUnavailable: No answer; then it takes the length of a lease.
        """
        async with self._lock:
            held = self._held.pop(share, None)
            if held is not None:
                await delete(self._link, DOING, self._own.stream, held.sequence)

    async def say_farewell(self) -> None:
        """Give back what is left.

        Raises:
            BrokerUnavailable: No answer; then it takes the length of a lease.
        """
        for share in list(self._held):
            await self.give_back(share)
        await self.retire()

    async def retire(self) -> None:
        """Keep what we hold, but count no longer as a bridge that wants its part.

        Raises:
            BrokerUnavailable: No answer; then it takes the length of a lease.
        """
        async with self._lock:
            self._retired = True
            await self._remove_sign()

    async def _remove_sign(self) -> None:
        mine = await self._link.read(DOING, self._own.stream, last_by_subj=self._own.subject("bridge", self._bridge))
        if mine is not None:
            await delete(self._link, DOING, self._own.stream, mine.sequence)

    async def _renew(self, share: int) -> bool:
        held = self._held[share]
        # Before the request: the lease counts from when the server got it, at the earliest now.
        now = anyio.current_time()
        try:
            held.sequence = await self._write(share, held.sequence)
        except Conflict:
            if not await self._is_our_own(share, held):
                del self._held[share]
                return False
        held.renewed_at = now
        return True

    async def _is_our_own(self, share: int, held: _Hold) -> bool:
        """Whether the conflict is with our own renewal, whose confirmation was lost."""
        found = await self._link.read(DOING, self._own.stream, last_by_subj=self._lease(share))
        if found is None or json.loads(found.data).get("bridge") != self._bridge:
            return False
        held.sequence = found.sequence
        return True

    async def _expected_of_free(self, share: int, now: float) -> int | None:
        """The sequence to take a share by, if nobody holds it or its holder has been silent for a lease."""
        found = await self._link.read(DOING, self._own.stream, last_by_subj=self._lease(share))
        if found is None:
            return 0
        return found.sequence if self._is_silent(self._lease(share), found.sequence, now) else None

    async def _take(self, share: int, expected: int) -> bool:
        began = anyio.current_time()
        try:
            sequence = await self._write(share, expected)
        except Conflict:
            return False
        self._held[share] = _Hold(sequence, began)
        return True

    async def _write(self, share: int, expected: int) -> int:
        body = json.dumps({"bridge": self._bridge}).encode()
        return await self._link.store(DOING, self._lease(share), body, {EXPECTED: str(expected)})

    async def _count_bridges(self, now: float) -> int:
        """Bridges that live and want their part, we among them."""
        living = 1
        own = self._own.subject("bridge", self._bridge)
        with self._link.doing(DOING):
            info = await self._link.js.stream_info(self._own.stream, subjects_filter=self._own.subject("bridge", "*"))
        for subject in info.state.subjects or {}:
            if subject == own:
                continue
            try:
                found = await self._link.read(DOING, self._own.stream, last_by_subj=subject)
            except StreamMissing:
                break
            if found is None:
                continue
            if not self._is_silent(subject, found.sequence, now):
                living += 1
            elif now - self._seen[subject].since > FORGET_AFTER * self._lease_s:
                await delete(self._link, DOING, self._own.stream, found.sequence)
                del self._seen[subject]
        return living

    def _is_silent(self, subject: str, sequence: int, now: float) -> bool:
        seen = self._seen.get(subject)
        if seen is None or seen.sequence != sequence:
            self._seen[subject] = _Seen(sequence, now)
            return False
        return now - seen.since > self._lease_s

    def _lease(self, share: int) -> str:
        return self._own.subject("lease", str(share))

"""What the log of leases says: who holds which share, and who gives signs of life; no waiting and no network.

Used by bus, leases; may import brokers.kafka.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from brokers.kafka.library import ConsumerRecord

__all__ = ["Epoch", "Lease", "LeaseLog"]

# Of the producer of a share: its id and how often it was started.
Epoch = tuple[int, int]
# Signs of life of bridges that are long gone are removed.
FORGET_AFTER = 6


@dataclass(frozen=True)
class Lease:
    """Who said last, by epoch, that he has a share; None when it was given back."""

    epoch: Epoch
    bridge: str | None


@dataclass
class _Sign:
    offset: int
    since: float
    retired: bool


class LeaseLog:
    """The state after all records that were read so far."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self.position = 0
        self.leases: dict[int, Lease] = {}
        self.last_epoch: dict[int, Epoch] = {}
        self._signs: dict[str, _Sign] = {}

    def read(self, record: ConsumerRecord, now: float) -> None:
        """Take in the next record; what nobody of us wrote is passed over."""
        if record.offset < self.position:
            return
        self.position = record.offset + 1
        kind, _, name = (record.key or b"").decode("utf-8", "replace").partition("/")
        if kind == "bridge":
            self._read_sign(name, record, now)
        elif kind == "lease" and name.isdecimal() and (lease := _parse(record.value)) is not None:
            known = self.leases.get(int(name))
            self.last_epoch[int(name)] = lease.epoch
            if known is None or lease.epoch >= known.epoch:
                self.leases[int(name)] = lease

    def _read_sign(self, bridge: str, record: ConsumerRecord, now: float) -> None:
        if record.value is None:
            self._signs.pop(bridge, None)
        else:
            self._signs[bridge] = _Sign(record.offset, now, b"retired" in record.value)

    def living(self, now: float) -> set[str]:
        """Bridges that want their part."""
        return {
            bridge for bridge in self._signs if not self._signs[bridge].retired and not self._is_silent(bridge, now)
        }

    def long_silent(self, now: float) -> list[str]:
        """Bridges whose signs may be removed."""
        return [name for name, sign in self._signs.items() if now - sign.since > FORGET_AFTER * self._lease_s]

    def plan(self, now: float, living: set[str], me: str, mine: set[int], shares: int, part: int) -> list[int]:
        """Free shares that are for us: all who read the same log come to the same division.

        Args:
            now: By the clock of the loop.
            living: Who wants a part.
            me: Our name.
            mine: What we hold.
            shares: How many there are.
            part: How many each may have.
        """
        free, held = list[int](), dict.fromkeys(living, 0)
        for share in range(shares):
            lease = self.leases.get(share)
            holder = lease.bridge if lease is not None else None
            if share in mine:
                held[me] = held.get(me, 0) + 1
            elif holder is None or holder == me or self._is_silent(holder, now):
                # One that is ours by the log and not in hand was lost by us, and taken by nobody.
                free.append(share)
            else:
                held[holder] = held.get(holder, 0) + 1
        for bridge in sorted(living):
            taken, free = free[: max(0, part - held[bridge])], free[max(0, part - held[bridge]) :]
            if bridge == me:
                return taken
        return []

    def _is_silent(self, bridge: str, now: float) -> bool:
        sign = self._signs.get(bridge)
        return sign is None or now - sign.since > self._lease_s


def _parse(value: bytes | None) -> Lease | None:
    try:
        found = json.loads(value or b"")
        first, second = found["epoch"]
        bridge = found["bridge"]
        return Lease((int(first), int(second)), bridge if isinstance(bridge, str) else None)
    except (ValueError, TypeError, KeyError):
        return None

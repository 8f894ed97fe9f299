"""Offsets of one partition that are finished out of order, as one commit can hold them. Pure.

Used by brokers.kafka; may import its folder alone.

What is committed is the lowest unfinished offset, and as the commit's metadata all that is needed to go on from there:
how far the partition was handed out, which offsets below that are unfinished, and the record of each. Every other
offset between the two is finished, so the size depends on what is in hand and not on how much was finished meanwhile:
a prompt of hours may lie behind a hundred thousand finished ones.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from brokers.base import Tries

__all__ = ["METADATA_LIMIT_BYTES", "Finished", "Mark", "Noted", "Tracker"]

# Kafka refuses metadata over `offset.metadata.max.bytes`, 4096 unless configured; the rest is room for what is
# already in hand to grow.
METADATA_LIMIT_BYTES = 3000
# So many fit whatever their records become, faults aside.
_ALWAYS_FIT = 60
# Below this, compressing saves nothing that matters and the metadata stays readable.
_PLAIN_BYTES = 1000
_COMPRESSED = "z:"
_VERSION = 1
# How much of each fault is kept, tried in this order until all fit; they only word a sentence.
_FAULT_LIMITS = (500, 120, 40, 0)
_FIELDS = ("attempt", "begun", "started_ms", "failures", "stopped", "fault")
_NOTHING = Tries()
_DEFAULTS = [getattr(_NOTHING, name) for name in _FIELDS]


@dataclass(frozen=True)
class Mark:
    """What is committed: the offset and its metadata."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True)
class Finished:
    """The request at this offset is settled."""

    offset: int


@dataclass(frozen=True)
class Noted:
    """The record of an unfinished request."""

    offset: int
    tries: Tries


Change = Finished | Noted


class Tracker:
    """Which offsets of one partition are finished.

    Offsets are taken in rising order; those that are left out (markers of transactions, records that compaction or
    retention removed) count as finished.
    """

    def __init__(self, position: int = 0, unfinished: Mapping[int, Tries] | None = None) -> None:
        self._position = position
        self._unfinished: dict[int, Tries] = dict(unfinished or {})

    @classmethod
    def read(cls, mark: Mark) -> Tracker:
        """Go on from a commit; metadata that is not ours (an offset set by hand) means that nothing is unfinished."""
        try:
            document = _decode(mark.metadata)
            position = mark.offset + int(document["n"])
            unfinished = dict(_read_entry(mark.offset, entry) for entry in document["u"])
        except (ValueError, KeyError, TypeError, zlib.error, ValidationError):
            return cls(mark.offset)
        return cls(position, unfinished)

    @property
    def position(self) -> int:
        """The next offset that was never taken."""
        return self._position

    @property
    def low(self) -> int:
        """The lowest unfinished offset; everything below is finished."""
        return min(self._unfinished, default=self._position)

    @property
    def unfinished(self) -> Mapping[int, Tries]:
        """Taken and not finished, in rising order, with the record of each."""
        return self._unfinished

    def is_finished(self, offset: int) -> bool:
        """Whether an offset was taken and is finished."""
        return offset < self._position and offset not in self._unfinished

    def take(self, offset: int) -> None:
        """The request at this offset is received.

        Raises:
            ValueError: It, or one behind it, was taken before.
        """
        if offset < self._position:
            raise ValueError(f"offset {offset} was taken before; the next one is {self._position} or later")
        self._unfinished[offset] = _NOTHING
        self._position = offset + 1

    def apply(self, changes: Iterable[Change]) -> None:
        """Note what was committed. An offset that is finished already stays so."""
        for change in changes:
            match change:
                case Finished(offset):
                    self._unfinished.pop(offset, None)
                case Noted(offset, tries):
                    if offset in self._unfinished:
                        self._unfinished[offset] = tries

    def after(self, changes: Iterable[Change]) -> Tracker:
        """A copy with the changes applied, to be committed before they count."""
        copy = Tracker(self._position, self._unfinished)
        copy.apply(changes)
        return copy

    def mark(self) -> Mark:
        """What to commit; faults are shortened where the metadata would become too long."""
        low = self.low
        for fault_limit in _FAULT_LIMITS:
            metadata = _encode(low, self._position, self._unfinished, fault_limit)
            if len(metadata) <= METADATA_LIMIT_BYTES:
                break
        return Mark(low, metadata)

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken: the metadata would not become too long, whatever the records become."""
        if len(self._unfinished) < _ALWAYS_FIT:
            return True
        grown = {offset: _grown(offset, tries) for offset, tries in self._unfinished.items()}
        grown[self._position] = _grown(self._position, _NOTHING)
        return len(_encode(self.low, self._position + 1, grown, 0)) <= METADATA_LIMIT_BYTES


def _encode(low: int, position: int, unfinished: Mapping[int, Tries], fault_limit: int) -> str:
    if position == low:
        return ""
    entries = [_write_entry(offset - low, tries, fault_limit) for offset, tries in unfinished.items()]
    text = json.dumps({"v": _VERSION, "n": position - low, "u": entries}, separators=(",", ":"))
    if len(text) <= _PLAIN_BYTES:
        return text
    return _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _decode(metadata: str) -> Any:
    if metadata.startswith(_COMPRESSED):
        try:
            metadata = zlib.decompress(base64.b64decode(metadata[len(_COMPRESSED) :])).decode()
        except binascii.Error as exc:
            raise ValueError("damaged metadata") from exc
    document = json.loads(metadata)
    if not isinstance(document, dict) or document.get("v") != _VERSION:
        raise ValueError("metadata of somebody else")
    return document


def _grown(offset: int, tries: Tries) -> Tries:
    """The record as long as it can become, without a fault; the time spreads, so that it compresses as badly."""
    return Tries(
        attempt=max(tries.attempt, 10),
        begun=True,
        started_ms=tries.started_ms or 10**12 + offset * 2_654_435_761 % 10**12,
        failures=max(tries.failures, 1),
        stopped=tries.stopped or "cancelled",
    )


def _write_entry(delta: int, tries: Tries, fault_limit: int) -> Any:
    """The offset's distance alone, or a list of it and the record's fields without the defaults at its end."""
    fields = [getattr(tries, name) for name in _FIELDS]
    fields[-1] = (fields[-1] or "")[:fault_limit] or None
    while fields and fields[-1] == _DEFAULTS[len(fields) - 1]:
        fields.pop()
    return [delta, *(int(value) if isinstance(value, bool) else value for value in fields)] if fields else delta


def _read_entry(low: int, entry: Any) -> tuple[int, Tries]:
    if isinstance(entry, int):
        return low + entry, _NOTHING
    delta, *fields = entry
    return low + int(delta), Tries.model_validate(dict(zip(_FIELDS, fields, strict=False)))

"""Finds files in a local Xet store: what the Hub's own back end knows, the double reads from what hf_xet wrote."""

from __future__ import annotations

import struct
from pathlib import Path

RECORD = 48
BOOKEND = b"\xff" * 32


def xet_hash(store: Path, sha256: str) -> str | None:
    """The Xet hash of the file with this digest, from the shards of a ``local://`` store; None if it is not there.

    A shard has a header of 48 bytes, then for each file a record with its Xet hash and flags, its segments,
    verifications where the flags say so, and a record with its SHA-256.
    """
    for shard in store.glob("**/shards/*.mdb"):
        data, at = shard.read_bytes(), RECORD
        while at + RECORD <= len(data) and data[at : at + 32] != BOOKEND:
            file_hash = data[at : at + 32]
            flags, segments = struct.unpack("<2I", data[at + 32 : at + 40])
            at += RECORD * (1 + segments + (segments if flags >> 31 else 0))
            if flags >> 30 & 1:
                if _words(data[at : at + 32]) == sha256:
                    return _words(file_hash)
                at += RECORD
    return None


def _words(raw: bytes) -> str:
    """A hash as Xet writes it: four little-endian numbers of 64 bits."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))

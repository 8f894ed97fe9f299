"""Silence as a real FLAC file, so that audio outputs can be fetched, told by their first bytes, and played.

Used by nodes_media; may import nothing of ours.
"""

from __future__ import annotations

import hashlib
import struct

_BLOCK = 4096
_BITS = 16


def silence(samples: int, sample_rate: int, channels: int) -> bytes:
    """Return a FLAC stream of ``samples`` silent 16-bit samples in each of ``channels`` channels."""
    info = struct.pack(">HH", _BLOCK, _BLOCK) + bytes(6)
    packed = (sample_rate << 44) | ((channels - 1) << 41) | ((_BITS - 1) << 36) | samples
    info += packed.to_bytes(8, "big") + hashlib.md5(bytes(samples * channels * 2)).digest()  # noqa: S324 - the format's
    vendor = b"comfybus stand-in"
    comment = struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", 0)
    parts = [b"fLaC", _metadata(0, info, last=False), _metadata(4, comment, last=True)]
    for number, start in enumerate(range(0, samples, _BLOCK)):
        parts.append(_frame(number, min(_BLOCK, samples - start), channels))
    return b"".join(parts)


def _metadata(kind: int, body: bytes, *, last: bool) -> bytes:
    return bytes([(0x80 if last else 0) | kind]) + len(body).to_bytes(3, "big") + body


def _frame(number: int, length: int, channels: int) -> bytes:
    """Return one frame whose every channel is a constant sub-frame of zero."""
    header = b"\xff\xf8" + bytes([0x70, (channels - 1) << 4 | 0x08]) + chr(number).encode("utf-8", "surrogatepass")
    header += struct.pack(">H", length - 1)
    header += bytes([_crc(header, 0x07, 8)])
    frame = header + bytes(3) * channels
    return frame + _crc(frame, 0x8005, 16).to_bytes(2, "big")


def _crc(content: bytes, polynomial: int, bits: int) -> int:
    top, mask, value = 1 << (bits - 1), (1 << bits) - 1, 0
    for byte in content:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial if value & top else value << 1) & mask
    return value

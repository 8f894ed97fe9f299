"""Pictures as a small MP4 file with one Motion-JPEG track: a real container without a video encoder.

Used by nodes_media; may import nothing of ours.
"""

from __future__ import annotations

import io
import struct

from PIL import Image

_SCALE = 1000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def movie(frames: tuple[Image.Image, ...], fps: float) -> bytes:
    """Return an MP4 file that shows ``frames``, all of one size, at ``fps`` pictures a second."""
    pictures = [_jpeg(frame) for frame in frames]
    width, height = frames[0].size
    each = max(1, round(_SCALE / fps))
    length = each * len(pictures)
    head = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isommp41")
    content = _box(b"mdat", *pictures)
    sizes = struct.pack(f">III{len(pictures)}I", 0, 0, len(pictures), *map(len, pictures))
    table = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">II", 0, 1), _sample_entry(width, height)),
        _box(b"stts", struct.pack(">IIII", 0, 1, len(pictures), each)),
        _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, len(pictures), 1)),
        _box(b"stsz", sizes),
        _box(b"stco", struct.pack(">III", 0, 1, len(head) + 8)),
    )
    reference = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", struct.pack(">I", 1))))
    media = _box(
        b"mdia",
        _box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, _SCALE, length, 0x55C4, 0)),
        _box(b"hdlr", struct.pack(">II4s12x", 0, 0, b"vide"), b"video\0"),
        _box(b"minf", _box(b"vmhd", struct.pack(">IHHHH", 1, 0, 0, 0, 0)), reference, table),
    )
    shape = struct.pack(">IIIIII8xHHHH", 7, 0, 0, 1, 0, length, 0, 0, 0, 0)
    track = _box(b"trak", _box(b"tkhd", shape, _MATRIX, struct.pack(">II", width << 16, height << 16)), media)
    overall = struct.pack(">IIIIIIH10x", 0, 0, 0, _SCALE, length, 0x10000, 0x100)
    header = _box(b"mvhd", overall, _MATRIX, bytes(24), struct.pack(">I", 2))
    return head + content + _box(b"moov", header, track)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _sample_entry(width: int, height: int) -> bytes:
    return _box(
        b"jpeg",
        struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 0x480000, 0x480000, 0, 1, 24, -1),
    )


def _jpeg(frame: Image.Image) -> bytes:
    target = io.BytesIO()
    frame.save(target, format="JPEG", quality=80)
    return target.getvalue()

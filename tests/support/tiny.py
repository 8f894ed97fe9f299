"""The smallest picture that every node reads."""

from __future__ import annotations

import io

from PIL import Image

__all__ = ["PNG"]


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 60)).save(out, "PNG")
    return out.getvalue()


PNG = _png()

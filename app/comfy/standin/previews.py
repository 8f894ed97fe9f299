"""Binary websocket frames: pictures that a node shows while it works.

Used by prompt_execution, wire; may import its folder alone.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass

from PIL import Image, ImageOps

from app.comfy.standin.node_types import JsonObject, Preview

_PLAIN, _WITH_NAMES = 1, 4
_ENCODING_NUMBERS = {"JPEG": 1, "PNG": 2}


@dataclass(frozen=True)
class PreviewFrame:
    """An encoded picture with the node it belongs to, ready to be sent in either form."""

    encoding: str
    encoded: bytes
    names: JsonObject

    @classmethod
    def of(cls, preview: Preview, names: JsonObject) -> PreviewFrame:
        """Shrink and encode a picture; ``names`` are node_id, prompt_id and the node's further names."""
        image = preview.image
        if preview.max_size is not None:
            image = ImageOps.contain(image, (preview.max_size, preview.max_size), Image.Resampling.BILINEAR)
        target = io.BytesIO()
        image.save(target, format=preview.encoding, quality=95, compress_level=1)
        return cls(preview.encoding, target.getvalue(), names)

    def plain(self) -> bytes:
        """Return the old form: 4 bytes 1, 4 bytes encoding (1 JPEG, 2 PNG), the picture; numbers big-endian."""
        return struct.pack(">II", _PLAIN, _ENCODING_NUMBERS.get(self.encoding, 1)) + self.encoded

    def with_names(self) -> bytes:
        """Return the newer form: 4 bytes 4, 4 bytes length of a JSON text, that text, the picture."""
        mime = "image/png" if self.encoding == "PNG" else "image/jpeg"
        names = json.dumps({**self.names, "image_type": mime}).encode()
        return struct.pack(">II", _WITH_NAMES, len(names)) + names + self.encoded

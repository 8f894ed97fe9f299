"""Signatures of Standard Webhooks: HMAC-SHA256 over id, time and the exact bytes of the body.

Used by config, endpoints, subscriptions, app.settings.bridge, app.settings.bridge_checks; may import nothing of ours.

The format is that of https://www.standardwebhooks.com (``webhook-id``, ``webhook-timestamp``, ``webhook-signature``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["PREFIX", "Signer", "read_secrets"]

PREFIX: Final = "whsec_"
# What the specification recommends for secrets, in bytes.
SHORTEST_KEY: Final = 24
LONGEST_KEY: Final = 64
_SEPARATORS: Final = re.compile(r"[\s,]+")
_ALPHABET: Final = re.compile(r"[^A-Za-z0-9+/]")


@dataclass(frozen=True)
class Signer:
    """Signs with one or several keys; with several a receiver may have any of them, so that keys can be exchanged.

    Attributes:
        keys: At least one.
        bare: A secret had the bare form of comfyui-api, which is decoded without any check.
    """

    keys: tuple[bytes, ...] = field(repr=False)
    bare: bool = False

    def sign(self, webhook_id: str, timestamp_s: int, body: Iterable[bytes]) -> str:
        """The value of ``webhook-signature``: one ``v1,<base64>`` per key, with spaces between them.

        Args:
            webhook_id: Value of ``webhook-id``.
            timestamp_s: Value of ``webhook-timestamp``, seconds since 1970.
            body: The bytes to be sent, in pieces.
        """
        head = f"{webhook_id}.{timestamp_s}.".encode()
        digests = [hmac.new(key, head, hashlib.sha256) for key in self.keys]
        for piece in body:
            for digest in digests:
                digest.update(piece)
        return " ".join(f"v1,{base64.b64encode(digest.digest()).decode()}" for digest in digests)


def read_secrets(text: str) -> Signer:
    """One secret or several with commas or spaces between them, each ``whsec_<base64>`` or bare.

    Raises:
        ValueError: There is none, or one is unusable; the sentence does not repeat it.
    """
    parts = [part for part in _SEPARATORS.split(text.strip()) if part]
    if not any(part.startswith(PREFIX) for part in parts):
        # A bare secret may hold separators, which its decoding skips.
        parts = [text.strip()] if parts else []
    if not parts:
        raise ValueError("it is empty; it should be whsec_ and base64 of 24 to 64 random bytes")
    keys = tuple(_strict(part) if part.startswith(PREFIX) else _lenient(part) for part in parts)
    return Signer(keys, bare=not all(part.startswith(PREFIX) for part in parts))


def _strict(secret: str) -> bytes:
    encoded = secret[len(PREFIX) :]
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as exc:
        raise ValueError("behind whsec_ there should be base64") from exc
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(
            f"behind whsec_ there should be base64 of {SHORTEST_KEY} to {LONGEST_KEY} bytes, it is of {len(key)}"
        )
    return key


def _lenient(secret: str) -> bytes:
    """Decode as Node does: up to the first ``=``, both alphabets, every other character skipped."""
    body = secret.partition("=")[0].replace("-", "+").replace("_", "/")
    encoded = _ALPHABET.sub("", body)
    # A single character at the end stands for less than a byte.
    encoded = encoded[: len(encoded) - (len(encoded) % 4 == 1)]
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    if not key:
        raise ValueError("it holds no base64; it should be whsec_ and base64 of 24 to 64 random bytes")
    return key

"""The one spelling of prompt ids that newer ComfyUI accepts.

Used by routes_jobs, routes_prompts; may import nothing of ours.
"""

from __future__ import annotations

import uuid


def is_canonical(value: object) -> bool:
    """Tell whether ``value`` is a UUID as text, in lower case and with hyphens."""
    if not isinstance(value, str):
        return False
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False

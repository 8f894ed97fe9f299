"""Whether ComfyUI should be started anew because it holds too much memory; the decision is pure.

Used by app.settings.setup, app.worker.life; may import app.comfy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.comfy.guard import below, parents

__all__ = ["Recycling", "held_memory_bytes"]

# What no page of a file stands behind: weights that are mapped from disk can be dropped by the kernel at any time.
_HELD: Final = ("RssAnon:", "RssShmem:")
_GIB: Final = 1024**3


@dataclass(frozen=True)
class Recycling:
    """The rule of one worker.

    Attributes:
        limit_bytes: COMFY_MEMORY_LIMIT_GB; 0 for never.
        shortest_life_s: A limit below what one prompt needs must not lead to a restart for every prompt.
    """

    limit_bytes: int
    shortest_life_s: float = 60.0

    @classmethod
    def above_gb(cls, limit_gb: float) -> Recycling:
        """The rule for the setting."""
        return cls(int(limit_gb * _GIB))

    def reason(self, held_bytes: int | None, *, up_for_s: float) -> str | None:
        """Why ComfyUI should be started anew as soon as nothing runs in it; None if it should not.

        Args:
            held_bytes: What its processes hold; None if that is not known.
            up_for_s: Seconds since its last start.
        """
        if not self.limit_bytes or held_bytes is None or up_for_s < self.shortest_life_s:
            return None
        if held_bytes <= self.limit_bytes:
            return None
        held, limit = held_bytes / _GIB, self.limit_bytes / _GIB
        return f"it holds {held:.1f} GiB of memory, COMFY_MEMORY_LIMIT_GB is {limit:g}"


def held_memory_bytes(pid: int) -> int | None:
    """Memory that a process and all below it hold and that only their end frees; blocks for a moment.

    None where the kernel does not tell.
    """
    family = parents()
    if pid not in family:
        return None
    sizes = [_held(one) for one in (pid, *below(family, pid))]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _held(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_HELD))
    except (OSError, ValueError, IndexError):
        return None

"""Which prepared inputs prompts in hand need.

Used by inputs, media, models, prepare, uploads, app.worker; may import app.storage.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from app.storage.base import Progress
from app.storage.stores import Hold as CacheHold

__all__ = ["Hold", "Holds"]


@dataclass(eq=False)
class Hold:
    """What was prepared for one prompt in hand and has to stay until it is done.

    Attributes:
        cache: Files of the download cache; models are linked from there.
        names: Prepared inputs, by their names below their folder.
    """

    cache: CacheHold = field(default_factory=CacheHold)
    names: set[str] = field(default_factory=set)

    def telling(self, progress: Progress) -> Hold:
        """The same hold, whose downloads are told to somebody else."""
        return replace(self, cache=self.cache.telling(progress))


class Holds:
    """Counts the holds on every name; used on the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def take(self, hold: Hold, name: str) -> None:
        """Note that the hold needs the name; taking it twice is taking it once."""
        if name not in hold.names:
            hold.names.add(name)
            self._counts[name] += 1

    def release(self, hold: Hold) -> None:
        """Let go of all that the hold has."""
        self._counts.subtract(hold.names)
        self._counts = +self._counts
        hold.names.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._counts

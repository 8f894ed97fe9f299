"""How far the downloads of a prompt's inputs are, as its progress while it is prepared.

Used by inputs; may import schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from schemas.events import Progress

__all__ = ["Fetching"]

MIB: Final = 1024 * 1024


@dataclass
class _Download:
    node: str
    node_class: str | None
    size_bytes: int = 0
    total_bytes: int | None = None

    @property
    def is_whole(self) -> bool:
        return self.size_bytes == self.total_bytes


class Fetching:
    """Adds the downloads of one prompt up: ``step`` of ``steps`` are MiB, ``current_node`` the first that still waits.

    ``value`` stays where it is: it tells of ComfyUI's work, and nobody knows how long that will take beside this.
    ``steps`` is None while a source does not say how much will come. Files that come in one piece are not worth a word.

    Args:
        tell: Takes the progress.
    """

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._downloads: dict[Hashable, _Download] = {}
        self._told = False

    def moved(self, key: Hashable, node: str, node_class: str | None, size_bytes: int, total_bytes: int | None) -> None:
        """Bytes of one download came.

        Args:
            key: Which input; its files come one after the other, and one that begins anew is the same file.
            node: The node that needs the file.
            node_class: Its class.
            size_bytes: What is here.
            total_bytes: How much there is, if it is known.
        """
        before = self._downloads.get(key)
        if before is not None and before.is_whole and size_bytes < before.size_bytes:
            # The next file of an input that has several.
            self._downloads[key, len(self._downloads)] = self._downloads.pop(key)
        download = self._downloads.setdefault(key, _Download(node, node_class))
        download.size_bytes, download.total_bytes = size_bytes, total_bytes
        waiting = next((one for one in self._downloads.values() if not one.is_whole), None)
        if waiting is None and not self._told:
            return
        self._told = True
        shown = waiting or download
        done = sum(one.size_bytes for one in self._downloads.values())
        totals = [one.total_bytes for one in self._downloads.values()]
        known = [total for total in totals if total is not None]
        steps = -(-sum(known) // MIB) if len(known) == len(totals) else None
        self._tell(
            Progress(
                value=0,
                nodes_done=0,
                nodes_total=0,
                current_node=shown.node,
                current_node_class=shown.node_class,
                step=steps if waiting is None else done // MIB,
                steps=steps,
            )
        )

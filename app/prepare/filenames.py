"""Names of outputs: the request's id goes into every ``filename_prefix``, so that files tell whose they are.

Used by prepare; may import brokers, schemas.
"""

from __future__ import annotations

from typing import Final

from brokers.base import RequestKey
from schemas.prompt import Graph

__all__ = ["output_stem", "rename_outputs", "rename_prefix"]

_FIELD: Final = "filename_prefix"
# ComfyUI puts a counter, batch number and ending behind a prefix, and file systems take 255 bytes for a name.
_STEM_LIMIT_BYTES: Final = 200


def output_stem(key: RequestKey, attempt: int) -> str:
    """What every output file name of one run begins with: ``<id>[-a<attempt>][-r<replay>]``.

    Attempt 1 and replay 0 add nothing. A fresh run of the same request thus asks for other names, so ComfyUI's savers
    run again instead of answering from the cache with names of files that are gone.
    """
    again = f"-a{attempt}" if attempt > 1 else ""
    replayed = f"-r{key.replay}" if key.replay > 0 else ""
    return f"{key.id}{again}{replayed}"


def rename_prefix(prefix: str, stem: str, *, prepend: bool) -> str:
    """One ``filename_prefix`` with the stem: ``sub/x`` becomes ``sub/<stem>_x``, or ``sub/<stem>`` without ``prepend``.

    Sub-folders stay as they are, also those that ComfyUI will refuse. An old name so long that the file system would
    refuse the new one after the run is cut at its end.
    """
    # A backslash separates folders on Windows; elsewhere the file name then merely begins before it.
    cut = max(prefix.rfind("/"), prefix.rfind("\\")) + 1
    folder, name = prefix[:cut], prefix[cut:]
    if not prepend or not name:
        return f"{folder}{stem}"
    room = max(_STEM_LIMIT_BYTES - len(stem.encode()) - 1, 0)
    kept = name.encode(errors="replace")[:room].decode(errors="ignore")
    return f"{folder}{stem}_{kept}"


def rename_outputs(graph: Graph, key: RequestKey, attempt: int, *, prepend: bool) -> Graph:
    """A graph in which every node with a ``filename_prefix`` has it renamed, whatever its class.

    A link is left alone. Any other value is taken as ComfyUI takes it: as its text, None as an empty one.

    Args:
        graph: Nodes in API format; not changed. Nodes that need no change are shared with the result.
        key: Whose outputs they are.
        attempt: 1-based.
        prepend: ``PREPEND_FILENAMES``: keep the old prefix behind the id.
    """
    stem = output_stem(key, attempt)
    return {node_id: _renamed(node, stem, prepend=prepend) for node_id, node in graph.items()}


def _renamed(node: dict[str, object], stem: str, *, prepend: bool) -> dict[str, object]:
    inputs = node.get("inputs")
    if not isinstance(inputs, dict) or _FIELD not in inputs:
        return node
    old = inputs[_FIELD]
    # ComfyUI unwraps such an object before it looks at the value.
    if isinstance(old, dict) and "__value__" in old:
        old = old["__value__"]
    if isinstance(old, list):
        return node
    new = rename_prefix("" if old is None else str(old), stem, prepend=prepend)
    return {**node, "inputs": {**inputs, _FIELD: new}}

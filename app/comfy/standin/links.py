"""What counts as a link between nodes in an API-format graph.

Used by execution_order, output_cache, prompt_execution; may import its folder alone.
"""

from __future__ import annotations

from typing import Any

from app.comfy.standin.node_types import Graph


def is_link(value: object) -> bool:
    """Tell whether an input's value is a link: a list of a node id and an output number."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def links(graph: Graph, node_id: str) -> list[tuple[str, str, int]]:
    """Return the links into a node as (input name, source node, output number), in the order of its inputs."""
    inputs: dict[str, Any] = graph[node_id]["inputs"]
    return [(name, value[0], int(value[1])) for name, value in inputs.items() if is_link(value)]

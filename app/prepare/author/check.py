"""Tries a generated file in a process of its own: does it parse, import, and make the graph it was made from?

Used by author, run_once; may import schemas.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from schemas.prompt import Graph

__all__ = ["Unusable", "check_source", "plain_graph"]

_DEADLINE_S: Final = 20.0
# What the instructions allow; anything else is a sign that the file does more than it should.
_IMPORTS: Final = frozenset({"__future__", "typing", "enum", "pydantic", "random", "math", "collections.abc"})
_CALLS: Final = frozenset({"exec", "eval", "compile", "open", "__import__", "input", "breakpoint", "globals", "vars"})
_SAID_BYTES: Final = 64 * 1024


class Unusable(Exception):
    """A generated file is not to be used; the text says why in words that its author understands."""


def plain_graph(graph: Graph) -> Graph:
    """The graph without what only editors need: class types and inputs."""
    return {
        node_id: {"class_type": node.get("class_type"), "inputs": node.get("inputs", {})}
        for node_id, node in graph.items()
    }


async def check_source(source: str, graph: Graph, *, deadline_s: float = _DEADLINE_S) -> None:
    """Accept a file or say what is wrong with it.

    The file is looked at first and then run in another process without this one's environment, with limits on time and
    memory. That keeps accidents away; it is no cage for hostile code, so the file is for its reader to read.

    Raises:
        Unusable: It does not parse, does more than it should, does not import, runs too long, or gives another graph.
    """
    _look(source)
    with tempfile.TemporaryDirectory(prefix="comfybus-author-") as folder:
        path = Path(folder) / "workflow.py"
        await anyio.to_thread.run_sync(path.write_text, source, "utf-8")
        made = await _made(path, deadline_s)
    if difference := _difference(plain_graph(graph), made):
        raise Unusable(f"generate(Input()) gives another graph than the one given: {difference}")


def _look(source: str) -> None:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as exc:
        raise Unusable(f"it is no Python: {exc}") from exc
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "."]
        else:
            modules = []
        if wrong := next((module for module in modules if module not in _IMPORTS), None):
            raise Unusable(f"it imports {wrong}, which is not allowed")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            raise Unusable(f"it calls {node.func.id}(), which is not allowed")
        if isinstance(node, ast.Attribute) and node.attr.startswith("__"):
            raise Unusable(f"it uses {node.attr}, which is not allowed")


async def _made(path: Path, deadline_s: float) -> Any:
    """The graph that the file makes for its defaults, from the process that ran it."""
    command = [sys.executable, "-I", "-m", "app.prepare.author.run_once", str(path)]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    try:
        with anyio.fail_after(deadline_s):
            done = await anyio.run_process(
                command, stdin=subprocess.DEVNULL, check=False, env=environment, cwd=path.parent
            )
    except TimeoutError as exc:
        raise Unusable(f"it did not end within {deadline_s:g} s") from exc
    if done.returncode != 0:
        lines = done.stderr[-_SAID_BYTES:].decode(errors="replace").strip().splitlines()
        raise Unusable(lines[-1][:500] if lines else f"its process ended with {done.returncode}")
    try:
        return json.loads(done.stdout)
    except ValueError as exc:
        raise Unusable("it prints something") from exc


def _difference(wanted: Any, made: Any, path: str = "") -> str | None:
    """The first place where two JSON values differ; 1 and 1.0 are one number, True is none."""
    if isinstance(wanted, dict) and isinstance(made, dict):
        for key in wanted:
            if key not in made:
                return f"{path}.{key} is missing".lstrip(".")
            if found := _difference(wanted[key], made[key], f"{path}.{key}"):
                return found
        extra = next((key for key in made if key not in wanted), None)
        return f"{path}.{extra} is not in the given graph".lstrip(".") if extra is not None else None
    if isinstance(wanted, list) and isinstance(made, list) and len(wanted) == len(made):
        pairs = enumerate(zip(wanted, made, strict=True))
        return next((found for i, (w, m) in pairs if (found := _difference(w, m, f"{path}.{i}"))), None)
    same = wanted == made and isinstance(wanted, bool) == isinstance(made, bool)
    return None if same else f"{path.lstrip('.')} is {json.dumps(made)[:200]} instead of {json.dumps(wanted)[:200]}"

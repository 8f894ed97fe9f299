"""Has a language model write a workflow, checks it, asks again with what was wrong, and writes the file.

Used by its folder's ``__init__``; may import schemas.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio.to_thread

from app.prepare.author.check import Unusable, check_source, plain_graph
from app.prepare.author.language_models import AuthorConfig, AuthorFailed, Turn, choose_model
from app.prepare.author.prompt import CORRECTION, INSTRUCTIONS
from schemas.prompt import Graph

__all__ = ["author_workflow", "code_in", "read_graph"]

_FENCED: Final = re.compile(r"^```[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_LARGEST_GRAPH_BYTES: Final = 1024 * 1024
# How often the model may correct itself, the first answer included.
_TRIES: Final = 3


async def author_workflow(
    graph_file: Path,
    out: Path,
    config: AuthorConfig,
    session: aiohttp.ClientSession,
    *,
    overwrite: bool = False,
) -> None:
    """Turn a graph into a workflow file, which appears only when it has been tried.

    Args:
        graph_file: A graph in API format.
        out: The Python file to write.
        config: Which language model to ask.
        session: With ``trust_env`` where proxies are to be used.
        overwrite: Replace a file that is there.

    Raises:
        ConfigurationError: No language model is set.
        AuthorFailed: The graph cannot be read, the model does not answer, or none of its answers can be used.
    """
    model = choose_model(config)
    graph = await anyio.to_thread.run_sync(read_graph, graph_file)
    if not overwrite and await anyio.to_thread.run_sync(out.exists):
        raise AuthorFailed(f"{out} exists; choose another name or say that it may be replaced.")
    turns = [Turn("user", json.dumps(plain_graph(graph), indent=1))]
    reason = ""
    for _ in range(_TRIES):
        said = await model.answer(session, INSTRUCTIONS, turns)
        source = code_in(said)
        try:
            await check_source(source, graph)
        except Unusable as exc:
            reason = str(exc)
            turns += [Turn("assistant", said), Turn("user", CORRECTION.format(reason=reason))]
            continue
        await anyio.to_thread.run_sync(_write, out, source)
        return
    raise AuthorFailed(f"{model.name} did not write a usable workflow in {_TRIES} tries; at last: {reason}.")


def read_graph(path: Path) -> Graph:
    """The graph of a file.

    Raises:
        AuthorFailed: It cannot be read, or it is no graph in API format.
    """
    try:
        if path.stat().st_size > _LARGEST_GRAPH_BYTES:
            raise AuthorFailed(f"{path} is larger than 1 MiB; take embedded media out of it.")
        graph: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise AuthorFailed(f"{path} cannot be read as JSON: {exc}.") from exc
    if isinstance(graph, dict) and isinstance(graph.get("prompt"), dict):
        graph = graph["prompt"]
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise AuthorFailed(f"{path} is a graph of ComfyUI's editor; export it by `Export (API)`.")
    fine = isinstance(graph, dict) and all(
        isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in graph.values()
    )
    if not graph or not fine:
        raise AuthorFailed(f"{path} is no graph in API format.")
    return graph  # type: ignore[no-any-return]


def code_in(said: str) -> str:
    """The code of an answer: without fences, also a lone one at the beginning, and without talk around them."""
    text = said.strip()
    blocks = _FENCED.findall(text)
    if blocks:
        text = max(blocks, key=len)
    elif text.startswith("```"):
        text = text.partition("\n")[2]
    return text.strip() + "\n"


def _write(out: Path, source: str) -> None:
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(source, encoding="utf-8")
        part.replace(out)
    except OSError as exc:
        raise AuthorFailed(f"{out} cannot be written: {exc.strerror}.") from exc
    finally:
        part.unlink(missing_ok=True)

"""Decides which inputs of a graph have to be prepared, and as what; asks ComfyUI only about nodes it does not know.

Used by prepare, app.worker.inputs; may import app.errors, schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.errors import InvalidRequest
from app.prepare.catalogue import Catalogue, folder_of_choices
from app.prepare.nodes import NODES, Kind, Media, Model
from app.prepare.sources import is_url, unwrap
from schemas.prompt import Graph

__all__ = ["Job", "plan"]

_BASE64_HEAD: Final = re.compile(r"[A-Za-z0-9+/_-]{64}")


@dataclass(frozen=True)
class Job:
    """One input to prepare.

    Attributes:
        node_id: Its node.
        name: The input.
        value: Its text, or for a directory of images also a list of texts.
        row: What the input is.
    """

    node_id: str
    name: str
    value: str | list[str]
    row: Media | Model

    @property
    def location(self) -> str:
        """Where the input stands in the request."""
        return f"prompt.{self.node_id}.inputs.{self.name}"


async def plan(graph: Graph, catalogue: Catalogue) -> list[Job]:
    """The inputs to prepare, in the order of the graph.

    Links, numbers and empty texts are left alone, as is every text of an unknown node that ComfyUI does not call a
    file or an upload; whether they are right is ComfyUI's to say.

    Raises:
        InvalidRequest: A list that should be one of texts has something else in it, or it cannot be told into which
            folder a model belongs.
        ComfyUnavailable: ComfyUI had to be asked and did not answer.
    """
    jobs: list[Job] = []
    for node_id, node in graph.items():
        class_type, inputs = node.get("class_type"), node.get("inputs")
        if not isinstance(class_type, str) or not isinstance(inputs, dict):
            continue
        for name, value in inputs.items():
            row = NODES.get(class_type, {}).get(name)
            if row is not None:
                jobs += _known(node_id, name, unwrap(value), row)
            elif _may_be_media(text := unwrap(value)):
                jobs += await _unknown(Job(node_id, name, str(text), _ANYTHING), class_type, catalogue)
    return jobs


_ANYTHING: Final = Media(Kind.FILE)


def _known(node_id: str, name: str, value: Any, row: Media | Model) -> Iterator[Job]:
    if isinstance(value, str):
        if value.strip() and (isinstance(row, Media) or is_url(value)):
            yield Job(node_id, name, value, row)
    elif isinstance(value, list) and isinstance(row, Media) and row.kind is Kind.IMAGES and not _is_link(value):
        job = Job(node_id, name, value, row)
        if not value or not all(isinstance(item, str) and item.strip() for item in value):
            raise InvalidRequest("A directory is given as a list of images, each a text.", location=job.location)
        yield job


async def _unknown(job: Job, class_type: str, catalogue: Catalogue) -> list[Job]:
    """The job for an input that only ComfyUI knows; none if it is a text and no file."""
    choice = await catalogue.choice(class_type, job.name)
    if choice is None:
        return []
    if choice.upload is not None:
        return [Job(job.node_id, job.name, job.value, Media(choice.upload))]
    if choice.options is None or not is_url(str(job.value)):
        return []
    folder = folder_of_choices(choice.options, job.name, await catalogue.models())
    if folder is None:
        raise InvalidRequest(
            f"It cannot be told into which model folder ComfyUI's node {class_type[:100]!r} looks for "
            f"{job.name[:100]!r}; install one model for it by hand, or give the name of an installed one.",
            location=job.location,
        )
    return [Job(job.node_id, job.name, job.value, Model(folder))]


def _is_link(value: list[Any]) -> bool:
    """As ComfyUI tells: ``[node id, output number]``."""
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)


def _may_be_media(value: Any) -> bool:
    """Whether a text of an unknown node is worth asking ComfyUI about: a URL, content, or a path that leads out."""
    if not isinstance(value, str):
        return False
    text = value.strip().strip('"')
    return (
        is_url(text)
        or text[:5].lower() == "data:"
        or text.startswith(("/", "~", "..", "\\"))
        or "/.." in text[:4096]
        or bool(_BASE64_HEAD.match(text))
    )

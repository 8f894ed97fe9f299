"""The last stage: bring a run's outputs here, convert them, and put them inline or where they are wanted.

Used by outcome, perform, sinks; may import app.comfy, app.errors, schemas.
"""

from __future__ import annotations

import base64
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import anyio
import anyio.to_thread

from app.comfy.outputs import LocalOutput, OutputReader, OutputRef
from app.errors import ExecutionFailed
from app.worker.job import Job
from schemas.events import Output

__all__ = ["Delivered", "OutputFile", "OutputSink", "collect", "distinct", "inline", "links"]

FILES_AT_ONCE = 4
LONGEST_NAME_BYTES = 255
# More find no room in any event; making one of a million takes minutes in which nothing else moves.
MOST_OUTPUTS = 10_000


class OutputSink(Protocol):
    """Where outputs go that do not travel inline."""

    async def put(self, job: Job, file: OutputFile) -> str:
        """Store one file and return its URL, without secrets.

        Raises:
            UploadFailed: The store did not take it.
        """


@dataclass(frozen=True)
class OutputFile:
    """One output file on this machine, as it will be delivered.

    Attributes:
        filename: The name a receiver sees.
        local: Where it is now, its size and digest.
        media_type: Of the delivered file.
    """

    filename: str
    local: LocalOutput
    media_type: str | None


@dataclass(frozen=True)
class Delivered:
    """The parts of ``prompt.complete`` that tell of outputs."""

    images: list[str]
    filenames: list[str]
    outputs: list[Output]


Convert = Callable[[OutputFile, Path], Awaitable[OutputFile]]


async def collect(
    reader: OutputReader, refs: Sequence[OutputRef], scratch: Path, job: Job, convert: Convert | None
) -> dict[int, OutputFile]:
    """Fetch and convert every file among the outputs, a few at once; index of the output to its file.

    Raises:
        OutputMissing: ComfyUI lists a file that cannot be read.
        ExecutionFailed: There are more outputs than an event can have.
    """
    if len(refs) > MOST_OUTPUTS:
        raise ExecutionFailed(
            f"the prompt put out {len(refs)} files and values, and an event has room for {MOST_OUTPUTS} at most; "
            "have it put out fewer, or one that holds the others"
        )
    files: dict[int, OutputFile] = {}
    limit = anyio.CapacityLimiter(FILES_AT_ONCE)
    problems: list[Exception] = []

    async def one(index: int, ref: OutputRef, name: str) -> None:
        async with limit:
            try:
                began = time.monotonic()
                file = OutputFile(name, await reader.fetch(ref, scratch), ref.media_type)
                job.times.fetched += time.monotonic() - began
                if convert is not None:
                    began = time.monotonic()
                    file = await convert(file, scratch)
                    job.times.converted += time.monotonic() - began
                files[index] = file
            except Exception as exc:  # noqa: BLE001 - raised below, outside the group that would wrap it
                problems.append(exc)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for index, ref in enumerate(refs):
            if ref.filename is not None:
                tasks.start_soon(one, index, ref, ref.filename)
    if problems:
        raise problems[0]
    return files


def distinct(refs: Sequence[OutputRef], files: dict[int, OutputFile]) -> dict[int, OutputFile]:
    """The files with a name each, for a target that has one place for each name.

    Outputs of different folders may be called the same, and so may two that were converted. The first in ComfyUI's
    order keeps its name, a further one gets its node's id behind it: the same ones whenever the prompt runs again.
    """
    taken = {file.filename for file in files.values()}
    seen: set[str] = set()
    found = {}
    for index in sorted(files):
        file = files[index]
        if file.filename in seen:
            mark = re.sub(r"[^A-Za-z0-9_-]", "-", refs[index].node_id)[:32]
            names = (_marked(file.filename, f"-{mark}{'' if n == 1 else f'-{n}'}") for n in itertools.count(1))
            name = next(name for name in names if name not in taken)
            taken.add(name)
            file = replace(file, filename=name)
        seen.add(file.filename)
        found[index] = file
    return found


def _marked(filename: str, mark: str) -> str:
    path = PurePosixPath(filename)
    room = LONGEST_NAME_BYTES - len((mark + path.suffix).encode())
    return f"{path.stem.encode()[:room].decode(errors='ignore')}{mark}{path.suffix}"


def total_bytes(files: dict[int, OutputFile]) -> int:
    """Size of all files together."""
    return sum(file.local.size_bytes for file in files.values())


async def inline(refs: Sequence[OutputRef], files: dict[int, OutputFile]) -> Delivered:
    """Every file as base64; for few and small ones."""

    def read(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    paths = [files[index].local.path for index in sorted(files)]
    contents = await anyio.to_thread.run_sync(lambda: [read(path) for path in paths]) if paths else []
    return _delivered(refs, files, contents, [None] * len(contents))


async def links(refs: Sequence[OutputRef], files: dict[int, OutputFile], sink: OutputSink, job: Job) -> Delivered:
    """Every file stored elsewhere, a few at once.

    Raises:
        UploadFailed: One of them was not taken.
    """
    urls: dict[int, str] = {}
    limit = anyio.CapacityLimiter(FILES_AT_ONCE)
    problems: list[Exception] = []

    async def one(index: int) -> None:
        async with limit:
            try:
                urls[index] = await sink.put(job, files[index])
            except Exception as exc:  # noqa: BLE001 - raised below, outside the group that would wrap it
                problems.append(exc)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for index in sorted(files):
            tasks.start_soon(one, index)
    if problems:
        raise problems[0]
    ordered = [urls[index] for index in sorted(files)]
    return _delivered(refs, files, ordered, ordered)


def _delivered(
    refs: Sequence[OutputRef], files: dict[int, OutputFile], images: list[str], urls: Sequence[str | None]
) -> Delivered:
    """ComfyUI's order is kept: ``images[i]`` belongs to ``filenames[i]`` and to the output with ``image: i``."""
    place = {index: position for position, index in enumerate(sorted(files))}
    outputs = []
    for index, ref in enumerate(refs):
        output = Output(node_id=ref.node_id, class_type=ref.class_type, kind=ref.kind, value=ref.value)
        if index in files:
            file, position = files[index], place[index]
            output = output.model_copy(
                update={
                    "filename": file.filename,
                    "media_type": file.media_type,
                    "size_bytes": file.local.size_bytes,
                    "sha256": file.local.sha256,
                    "image": position,
                    "url": urls[position],
                }
            )
        outputs.append(output)
    return Delivered(images, [files[index].filename for index in sorted(files)], outputs)


def renamed(file: OutputFile, filename: str, local: LocalOutput, media_type: str | None) -> OutputFile:
    """The file after a conversion."""
    return replace(file, filename=filename, local=local, media_type=media_type)

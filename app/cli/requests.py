"""From a file or from options to a request that a worker will take.

Used by commands; may import schemas.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.cli.outcome import CommandFailed, ExitCode
from schemas.base import WrongField, load_json
from schemas.prompt import parse_request

__all__ = ["build_request"]


def build_request(file: str, workflow: str, values: Sequence[str], request_id: str) -> dict[str, Any]:
    """The request as JSON data, checked against the contract, with an id.

    Args:
        file: Path of a request or of a bare graph in API format, ``-`` for standard input; empty with ``workflow``.
        workflow: Name of a workflow; empty with ``file``.
        values: ``key=value`` for the workflow; a value that is JSON is taken as such, any other as a string.
        request_id: Goes before the file's own id; without either a UUID is made.

    Raises:
        CommandFailed: Usage: neither or both given, the file cannot be read, or the request breaks the contract.
    """
    if bool(file) == bool(workflow):
        raise _usage("give a FILE or --workflow NAME, one of them; see comfybus submit --help")
    if values and not workflow:
        raise _usage("-i belongs to --workflow, which is missing")
    where = file or f"--workflow {workflow}"
    found = {"workflow": workflow, "input": _inputs(values)} if workflow else _read(file)
    if not isinstance(found, dict):
        raise _usage(f"{where}: the request must be a JSON object")
    document: dict[str, Any] = found
    if _is_editor_format(document):
        raise _usage(f'{where}: this is the editor\'s format; in ComfyUI choose "Export (API)" and submit that file')
    if _is_graph(document):
        document = {"prompt": document}
    if request_id or document.get("id") is None:
        document = {"id": request_id or str(uuid.uuid4()), **{k: v for k, v in document.items() if k != "id"}}
    try:
        parse_request(document)
    except WrongField as exc:
        raise _usage(f"{where}: {exc}") from exc
    return document


def _read(file: str) -> Any:
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as exc:
        raise _usage(f"{file} cannot be read: {exc.strerror}") from exc
    try:
        return load_json(body)
    except WrongField as exc:
        raise _usage(f"{file}: {exc}") from exc


def _inputs(values: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator or not key:
            raise _usage(f"-i {value}: it should be KEY=VALUE")
        if key in found:
            raise _usage(f"-i {key} is given twice")
        try:
            found[key] = load_json(text.encode())
        except WrongField:
            found[key] = text
    return found


def _is_graph(document: dict[str, Any]) -> bool:
    """A bare graph: nothing but nodes."""
    return bool(document) and all(
        isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in document.values()
    )


def _is_editor_format(document: dict[str, Any]) -> bool:
    return isinstance(document.get("nodes"), list) and "links" in document


def _usage(sentence: str) -> CommandFailed:
    return CommandFailed(sentence, ExitCode.USAGE)

"""Reads a manifest from a file or from the text of a variable, and says of each fault in which line it stands.

Used by app.cli.manifest, app.settings.setup; may import its folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from app.setup.manifest import Manifest

__all__ = ["ManifestFault", "WrongManifest", "parse_manifest", "read_manifest"]

_ENDINGS: Final = (".yaml", ".yml", ".json")
_LARGEST_BYTES: Final = 4 * 1024 * 1024
_WORDS: Final = {
    "extra_forbidden": "there is no such field",
    "missing": "it is missing",
    "model_type": "it should be an object with named fields",
    "tuple_type": "it should be a list",
    "string_type": "it should be a text",
    "string_pattern_mismatch": "it should be 64 hex digits",
}


@dataclass(frozen=True)
class ManifestFault:
    """One thing that is wrong.

    Attributes:
        field: Where: ``models.before_start[0].url``; empty for the whole.
        line: Line of the text, 1-based; None where that cannot be told.
        reason: What is wrong, and what it should be.
    """

    field: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line is not None else ""
        return f"{self.field}{where}: {self.reason}" if self.field else f"{self.reason}{where}"


class WrongManifest(ValueError):
    """A manifest that cannot be used, with everything that is wrong with it, in the order of the text."""

    def __init__(self, faults: Sequence[ManifestFault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def read_manifest(path: Path) -> Manifest:
    """Read and check a file; its ending says what it is.

    Raises:
        WrongManifest: It cannot be read, or breaks the schema.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise WrongManifest([ManifestFault("", None, f"its name should end in one of {', '.join(_ENDINGS)}")])
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
        if len(text) > _LARGEST_BYTES:
            raise WrongManifest([ManifestFault("", None, f"it is larger than {_LARGEST_BYTES} bytes")])
        return parse_manifest(text.decode(), json_only=path.suffix.lower() == ".json")
    except OSError as exc:
        raise WrongManifest([ManifestFault("", None, f"it cannot be read ({exc.strerror})")]) from exc
    except UnicodeDecodeError as exc:
        raise WrongManifest([ManifestFault("", None, "it is not UTF-8 text")]) from exc


def parse_manifest(text: str, *, json_only: bool) -> Manifest:
    """Check the text of a manifest.

    Args:
        text: YAML, of which JSON is a part.
        json_only: It has to be JSON.

    Raises:
        WrongManifest: It cannot be parsed, or breaks the schema.
    """
    text = text.removeprefix("\ufeff")
    document = _json(text) if json_only else _yaml(text)
    tree = _tree(text)
    if repeated := list(_repeated(tree)):
        raise WrongManifest(repeated)
    try:
        return Manifest.model_validate({} if document is None else document)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        faults = [_fault(error["loc"], _WORDS.get(error["type"], str(error["msg"])), tree) for error in errors]
        raise WrongManifest(sorted(faults, key=lambda fault: fault.line or 0)) from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        line = exc.lineno if isinstance(exc, json.JSONDecodeError) else None
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
        raise WrongManifest([ManifestFault("", line, f"it is not valid JSON: {reason}")]) from exc
    except RecursionError as exc:
        raise WrongManifest([ManifestFault("", None, "it is nested too deeply")]) from exc


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        reason = getattr(exc, "problem", None) or "the text ends too soon"
        line = mark.line + 1 if mark is not None else None
        raise WrongManifest([ManifestFault("", line, f"it is not valid YAML: {reason}")]) from exc
    except (ValueError, RecursionError) as exc:
        raise WrongManifest([ManifestFault("", None, f"it is not valid YAML: {exc}")]) from exc


def _tree(text: str) -> yaml.Node | None:
    """The text as nodes that know their lines; None where JSON is no YAML, for it may be indented by tabs."""
    try:
        tree: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return tree


def _repeated(tree: yaml.Node | None) -> Iterator[ManifestFault]:
    """Keys that stand twice in one place: the parsers would drop the first without a word."""
    waiting = [("", tree)]
    # What an alias points to is one node, however often it is pointed to.
    looked_at = set()
    while waiting:
        field, node = waiting.pop()
        if id(node) in looked_at:
            continue
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{field}[{index}]", item) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                name = f"{field}.{key.value}" if field else str(key.value)
                if str(key.value) in seen:
                    yield ManifestFault(name, key.start_mark.line + 1, "it stands there twice; keep one")
                seen.add(str(key.value))
                waiting.append((name, value))


def _fault(location: Sequence[int | str], message: str, tree: yaml.Node | None) -> ManifestFault:
    reason = message.removeprefix("Value error, ").replace("Input should", "it should")
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return ManifestFault(field, _line(location, tree), f"{reason[:1].lower()}{reason[1:]}")


def _line(location: Sequence[int | str], tree: yaml.Node | None) -> int | None:
    """The line of a field, or of what it is missing from."""
    node = tree
    line = None
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        node, line = found
    return line


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item, item.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    return None

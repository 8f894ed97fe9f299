"""Reads the typed input of a workflow and describes it: fields, defaults, limits, and what must be chosen from.

Used by workflows, app.cli.workflow; may import app.errors, schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from app.errors import InvalidRequest
from app.prepare.context import Context
from app.prepare.sources import is_url
from schemas.base import first_wrong_field

__all__ = ["CHOICES", "Field", "check_choices", "choices_of", "fields_of", "markdown_table", "read_input"]

CHOICES: Final = "choices"
"""Key of ``json_schema_extra`` that names where the values come from: samplers, schedulers, ``models.<folder>``."""

_SHOWN: Final = 12
_LIMITS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "{} characters or more",
    "maxLength": "{} characters or fewer",
    "minItems": "{} items or more",
    "maxItems": "{} items or fewer",
    "pattern": "pattern {}",
}


@dataclass(frozen=True)
class Field:
    """One row of a workflow's table of inputs.

    Attributes:
        name: As it stands in ``input``.
        type: ``string``, ``integer``, ``number``, ``boolean``, ``string[]``, ``object``, the values of an enumeration.
        description: What the author says, and the limits.
        default: JSON of the default; ``random`` where each request gets another one; None for a required field.
        choices: Where further limits come from, e.g. ``samplers``.
    """

    name: str
    type: str
    description: str
    default: str | None
    choices: str | None = None

    @property
    def required(self) -> bool:
        """There is no default."""
        return self.default is None


def read_input(model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    """Validate what the request gives.

    Raises:
        InvalidRequest: A field is missing, unknown, of the wrong type or beyond its limits; ``location`` is
            ``input.<field>``.
    """
    if model.model_config.get("extra") != "allow":
        known = {alias for name, field in model.model_fields.items() for alias in (name, field.alias) if alias}
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            has = ", ".join(sorted(model.model_fields)) or "none"
            raise InvalidRequest(
                f"The workflow has no input {unknown[:100]!r}; it has {has}.",
                location=f"input.{unknown[:100]}",
            )
    try:
        return model.model_validate(dict(given))
    except ValidationError as exc:
        wrong = first_wrong_field(exc)
        location = f"input.{wrong.location}".rstrip(".")
        raise InvalidRequest(f"{location} cannot be used: {wrong.reason}.", location=location) from exc


def choices_of(model: type[BaseModel]) -> dict[str, str]:
    """Fields whose values must be chosen from what ComfyUI has, with the source of the values."""
    return {name: source for name, field in model.model_fields.items() if (source := _source(field))}


def check_choices(read: BaseModel, context: Context) -> None:
    """Compare the chosen values with what this ComfyUI has; a model may also be a URL, which is fetched later.

    Raises:
        InvalidRequest: It has no such sampler, scheduler or model.
    """
    for name, source in choices_of(type(read)).items():
        value, known = getattr(read, name), context.choices(source)
        if known is None or value is None or value in known or (isinstance(value, str) and is_url(value)):
            continue
        listed = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
        what = source.removeprefix("models.")
        raise InvalidRequest(
            f"ComfyUI has no {str(value)[:100]!r} among its {what}; it has {listed or 'none'}.",
            location=f"input.{name}",
        )


def fields_of(model: type[BaseModel]) -> list[Field]:
    """The table of inputs, in the author's order."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    by_name = schema.get("properties", {})
    return [
        _field(name, info, _resolved(by_name.get(info.alias or name, {}), definitions), definitions)
        for name, info in model.model_fields.items()
    ]


def markdown_table(fields: list[Field]) -> str:
    """The table of inputs in Markdown; a required field says so, a random default is called random."""
    lines = ["| Field | Type | Description | Default |", "|-|-|-|-|"]
    for field in fields:
        default = "**Required**" if field.default is None else f"`{field.default}`"
        cells = (field.name, field.type, field.description, default)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def _field(name: str, info: FieldInfo, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Field:
    source = _source(info)
    parts = [info.description or schema.get("description", ""), *_limits(schema, definitions)]
    if source:
        parts.append(f"one of ComfyUI's {source.removeprefix('models.')}{' or a URL' if '.' in source else ''}")
    return Field(
        name=info.alias or name,
        type=_type(schema, definitions),
        description="; ".join(part.rstrip(".") for part in parts if part),
        default=_default(info),
        choices=source,
    )


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    if info.default_factory is not None:
        # Calling it here would show one random value as if it were the default.
        return "random"
    return json.dumps(info.default, ensure_ascii=False, default=str)


def _source(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    source = extra.get(CHOICES) if isinstance(extra, dict) else None
    return source if isinstance(source, str) else None


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return {**definitions.get(name, {}), **schema} if name else schema


def _branches(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    branches = [_resolved(branch, definitions) for branch in schema.get("anyOf", ())]
    return [branch for branch in branches if branch.get("type") != "null"] or [schema]


def _limits(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    for branch in _branches(schema, definitions):
        for key, text in _LIMITS.items():
            if key in branch:
                yield text.format(branch[key])


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    names = []
    for branch in _branches(schema, definitions):
        if "enum" in branch:
            names.append(", ".join(f"`{value}`" for value in branch["enum"]))
        elif "const" in branch:
            names.append(f"`{branch['const']}`")
        elif branch.get("type") == "array":
            names.append(f"{_type(_resolved(branch.get('items', {}), definitions), definitions)}[]")
        else:
            names.append(str(branch.get("type", "any")))
    return " or ".join(dict.fromkeys(names))

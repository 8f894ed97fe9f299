"""Judges the single inputs of a node: conversion of constants, bounds, choices, and the node's own check.

Used by graph_validation; may import its folder alone.
"""

from __future__ import annotations

from typing import Any

from app.comfy.standin.folders import Folders
from app.comfy.standin.node_types import Input, JsonObject, Node

Problem = JsonObject
"""One error as the API lists it: type, message, details, extra_info."""

_CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_LONGEST_LIST = 20


def problem(kind: str, message: str, name: str, *, details: str | None = None, **extra: Any) -> Problem:
    """Return one error about the input ``name``; ``details`` defaults to that name."""
    return {
        "type": kind,
        "message": message,
        "details": name if details is None else details,
        "extra_info": {"input_name": name, **extra},
    }


def check_constant(node: type[Node], name: str, declared: Input, inputs: JsonObject, folders: Folders) -> list[Problem]:
    """Convert one constant in place and judge it; at most one error is returned, the first that applies."""
    value = inputs[name]
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    kind = declared.kind
    if isinstance(kind, str) and kind in _CONVERSIONS:
        try:
            value = inputs[name] = _CONVERSIONS[kind](value)
        except Exception as failure:  # noqa: BLE001 - any failure of a conversion is an answer, as in ComfyUI
            return [
                problem(
                    "invalid_input_type",
                    f"Failed to convert an input value to a {kind} value",
                    name,
                    details=f"{name}, {value}, {failure}",
                    input_config=shown_config(declared, folders),
                    received_value=value,
                    exception_message=str(failure),
                )
            ]
    if name in node.self_checked:
        return []
    return _check_bounds(name, declared, value, folders) or _check_choice(name, declared, value, folders)


def check_own(node: type[Node], inputs: JsonObject, folders: Folders) -> list[Problem]:
    """Ask a node class that checks some of its inputs itself; inputs that are links are not its business."""
    present = {name: inputs[name] for name in node.self_checked if name in inputs}
    missing = sorted(node.self_checked - set(present))
    if missing:
        # ComfyUI calls the check without the argument, and the failure of that call is what it reports.
        raise TypeError(f"{node.class_type}.VALIDATE_INPUTS() missing 1 required positional argument: '{missing[0]}'")
    if not present:
        return []
    constants = {name: None if isinstance(value, list) else value for name, value in present.items()}
    answer = node.check(folders, constants)
    if answer is True:
        return []
    message = "Custom validation failed for node"
    return [
        problem("custom_validation_failed", message, name, details=name if answer is False else f"{name} - {answer}")
        for name in present
    ]


def _check_bounds(name: str, declared: Input, value: Any, folders: Folders) -> list[Problem]:
    options = declared.options or {}
    message = ""
    if "min" in options and value < options["min"]:
        kind, message = "value_smaller_than_min", f"Value {value} smaller than min of {options['min']}"
    elif "max" in options and value > options["max"]:
        kind, message = "value_bigger_than_max", f"Value {value} bigger than max of {options['max']}"
    if not message:
        return []
    return [problem(kind, message, name, input_config=shown_config(declared, folders), received_value=value)]


def _check_choice(name: str, declared: Input, value: Any, folders: Folders) -> list[Problem]:
    choices = declared.resolved(folders)
    if isinstance(choices, str) or value in choices:
        return []
    config: list[Any] | None = shown_config(declared, folders)
    listed = str(choices)
    if len(choices) > _LONGEST_LIST:
        # Long lists, such as those of models, are not sent back.
        config, listed = None, f"(list of length {len(choices)})"
    return [
        problem(
            "value_not_in_list",
            "Value not in list",
            name,
            details=f"{name}: '{value}' not in {listed}",
            input_config=config,
            received_value=value,
        )
    ]


def shown_config(declared: Input, folders: Folders) -> list[Any]:
    """Return the input as errors show it: always with options, unlike /object_info."""
    return [declared.resolved(folders), dict(declared.options or {})]

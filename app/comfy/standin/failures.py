"""How ComfyUI writes an exception down, in refusals and in execution_error messages.

Used by graph_validation, prompt_execution; may import its folder alone.
"""

from __future__ import annotations

import traceback
from typing import Any

from app.comfy.standin.node_types import JsonObject


def type_name(failure: BaseException) -> str:
    """Return the name of an exception's class, with its module unless it is built in."""
    kind = type(failure)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def described(failure: Exception, given: JsonObject, all_nodes: list[str]) -> JsonObject:
    """Return the fields of an execution_error that tell what went wrong, with the values the node had been given."""
    return {
        "exception_message": f"{failure}\n",
        "exception_type": type_name(failure),
        "traceback": traceback.format_tb(failure.__traceback__),
        "current_inputs": {name: [_plain(value)] for name, value in given.items()},
        "current_outputs": all_nodes,
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)

"""Nodes for text and numbers: PreviewAny, PrimitiveString, PrimitiveInt, PrimitiveFloat, PrimitiveBoolean.

Used by catalogue; may import its folder alone.
"""

from __future__ import annotations

import json
import sys

from app.comfy.standin.node_types import Input, JsonObject, Node, Produced, Workbench


class PreviewAny(Node):
    """Any value as text in the outputs of the prompt."""

    class_type = "PreviewAny"
    category = "utils"
    display_name = "Preview Any"
    python_module = "comfy_extras.nodes_preview_any"
    output_node = True
    required = {"source": Input("*", {})}  # noqa: RUF012

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Show text as it is, numbers as Python writes them, anything else as JSON or by its own description."""
        source = given.get("source")
        if source is None:
            text = "None"
        elif isinstance(source, str):
            text = source
        elif isinstance(source, int | float):
            text = str(source)
        else:
            try:
                text = json.dumps(source)
            except (TypeError, ValueError):
                text = str(source)
        return Produced(ui={"text": [text]})


class _Primitive(Node):
    """A constant."""

    category = "utils/primitive"
    python_module = "comfy_extras.nodes_primitive"
    schema_v3 = True

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Hand the constant on."""
        return Produced((given["value"],))


class PrimitiveString(_Primitive):
    """A constant text."""

    class_type = "PrimitiveString"
    display_name = "String"
    required = {"value": Input("STRING", {"multiline": False})}  # noqa: RUF012
    returns = ("STRING",)


class PrimitiveInt(_Primitive):
    """A constant whole number."""

    class_type = "PrimitiveInt"
    display_name = "Int"
    required = {  # noqa: RUF012
        "value": Input("INT", {"min": -sys.maxsize, "max": sys.maxsize, "control_after_generate": True})
    }
    returns = ("INT",)


class PrimitiveFloat(_Primitive):
    """A constant number."""

    class_type = "PrimitiveFloat"
    display_name = "Float"
    required = {"value": Input("FLOAT", {"min": -sys.maxsize, "max": sys.maxsize})}  # noqa: RUF012
    returns = ("FLOAT",)


class PrimitiveBoolean(_Primitive):
    """A constant yes or no."""

    class_type = "PrimitiveBoolean"
    display_name = "Boolean"
    required = {"value": Input("BOOLEAN", {})}  # noqa: RUF012
    returns = ("BOOLEAN",)

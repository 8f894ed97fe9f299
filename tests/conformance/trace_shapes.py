"""Reduces answers and messages of a ComfyUI server to their shape, so that two runs can be compared.

What differs from run to run is replaced: ids by names such as ``id-1``, numbered files by ``file:lab+0.png`` (the
distance from the first number seen for that name), times, colours and seeds by a word, machine paths by ``<path>``.
Keys, order, types, node ids and texts stay.
"""

from __future__ import annotations

import json
import re
from typing import Any

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBERED = re.compile(r"^(?P<stem>.+)_(?P<number>\d{5})_?\.(?P<ending>\w+)$")
_LOT = re.compile(r"_temp_[a-z]{5}$")
_QUOTED_PATH = re.compile(r"'/(?:[^'/]+/)*([^'/]+)'")
_SET_LIKE = {"executed", "current_outputs"}
_WORDS = {"timestamp": "<time>", "traceback": "<traceback>", "color": "<color>", "seed": "<seed>", "sid": "<sid>"}
_NEWER = {"create_time"}
"""Fields that newer releases add to what is compared."""

_FILE_CHOICES = {"LoadImage", "LoadImageMask", "CheckpointLoaderSimple"}


class Names:
    """Stable names for what a run calls by ids and numbers; ``actual`` gives the way back."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._first_numbers: dict[str, int] = {}
        self.actual: dict[str, str] = {}

    def bind(self, actual: str, name: str) -> None:
        """Give an id a name; text that is no UUID names itself."""
        if UUID.fullmatch(actual):
            self._ids[actual] = name
            self.actual[name] = actual

    def id(self, actual: str) -> str:
        """Return the name of an id, the next free one if it is new."""
        if actual not in self._ids:
            self.bind(actual, f"id-{len(self._ids) + 1}")
        return self._ids[actual]

    def text(self, text: str) -> str:
        """Return a text with ids, numbered files and paths replaced."""
        if text.startswith(("tensor(", "images(")):
            return "<image>"
        if (numbered := _NUMBERED.match(text)) is not None:
            return self._file(text, numbered)
        return _QUOTED_PATH.sub(r"'<path>/\1'", UUID.sub(lambda found: self.id(found.group()), text))

    def _file(self, text: str, numbered: re.Match[str]) -> str:
        stem = _LOT.sub("_temp_<lot>", numbered["stem"])
        number = int(numbered["number"])
        first = self._first_numbers.setdefault(stem, number)
        name = f"file:{stem}+{number - first}.{numbered['ending']}"
        self.actual[name] = text
        return name


def shape(value: Any, names: Names, key: str = "") -> Any:  # noqa: PLR0911 - one for each kind of value
    """Return the shape of a JSON value that stands under ``key``."""
    if key in _WORDS and value is not None:
        return _WORDS[key]
    if key == "ckpt_name":
        return "<checkpoint>"
    if key in ("number", "seconds") and isinstance(value, int | float):
        return _number(value)
    if isinstance(value, dict) and value and all(_is_node(entry) for entry in value.values()):
        return [_node_text(node_id, node, names) for node_id, node in value.items()]
    if isinstance(value, dict):
        return {names.text(name): shape(entry, names, name) for name, entry in value.items() if name not in _NEWER}
    if isinstance(value, list):
        if _is_queue_item(value):
            return [_number(value[0]), *(shape(entry, names) for entry in value[1:4]), sorted(value[4])]
        entries = [shape(entry, names) for entry in value]
        return sorted(entries) if key in _SET_LIKE else entries
    return names.text(value) if isinstance(value, str) else value


def frame_shape(frame: dict[str, Any], names: Names) -> list[Any]:
    """Return the shape of a websocket message: its type and its data.

    The frequent ones are written shorter: ``["status", remaining]``, with ``"<sid>"`` behind it in a greeting,
    ``["progress_state", prompt id, {node id: "state value/max"}]``, ``["executing", prompt id, node]``,
    ``["progress", prompt id, node, "value/max"]``; ``executing`` with other fields than usual stays long.
    """
    content = frame["data"]
    if frame["type"] == "status":
        remaining = content["status"]["exec_info"]["queue_remaining"]
        return ["status", remaining, *(["<sid>"] if "sid" in content else [])]
    if frame["type"] == "executing" and content.get("display_node", "") == content["node"]:
        return ["executing", names.text(content["prompt_id"]), content["node"]]
    if frame["type"] == "progress":
        assert set(content) == {"prompt_id", "node", "value", "max"}, f"unusual progress: {content}"
        prompt_id = names.text(content["prompt_id"])
        return ["progress", prompt_id, content["node"], f"{content['value']}/{content['max']}"]
    if frame["type"] != "progress_state":
        return [frame["type"], shape(content, names)]
    prompt_id = content["prompt_id"]
    nodes = {}
    for node_id, node in content["nodes"].items():
        same = {"node_id": node_id, "display_node_id": node_id, "real_node_id": node_id, "parent_node_id": None}
        told = {name: entry for name, entry in node.items() if name not in ("state", "value", "max")}
        assert told == {**same, "prompt_id": prompt_id}, f"unusual progress_state: {node}"
        nodes[node_id] = f"{node['state']} {node['value']}/{node['max']}"
    return ["progress_state", shape(prompt_id, names), nodes]


def binary_shape(head: bytes) -> list[Any]:
    """Return the shape of a binary message from its first bytes: kind, and encoding if that stands in the head."""
    kind = int.from_bytes(head[:4], "big")
    return ["binary", kind, *([int.from_bytes(head[4:8], "big")] if kind == 1 else [])]


def body_shape(content: bytes) -> str:
    """Name the format of a file by its first bytes."""
    for mark, name in ((b"\x89PNG", "png"), (b"RIFF", "riff"), (b"fLaC", "flac"), (b"\xff\xd8", "jpeg")):
        if content.startswith(mark):
            return name
    return "unknown"


def answer_shape(path: str, answer: Any, names: Names) -> Any:
    """Return the shape of a JSON answer; lists of files on the server's disk are not compared."""
    if path.endswith("system_stats"):
        return {"system": _fields(answer["system"]), "devices": [_fields(device) for device in answer["devices"]]}
    if path.startswith("/models/"):
        return "<files>"
    if path.startswith("/object_info/"):
        for name in _FILE_CHOICES & set(answer):
            first = next(iter(answer[name]["input"]["required"].values()))
            first[0] = "<files>"
        return answer
    shaped = shape(answer, names)
    return json.loads(re.sub(r"not in \['[^\]]*\.safetensors'\]", "not in <files>", _mask_choices(json.dumps(shaped))))


def _mask_choices(text: str) -> str:
    return re.sub(
        r'\[(?:"[^"]*\.safetensors"(?:, )?)*\](?=, \{"tooltip": "The name of the checkpoint)', '"<files>"', text
    )


def _fields(entry: dict[str, Any]) -> list[str]:
    """Return the names of fields, without those by which the stand-in says what it is."""
    return sorted(set(entry) - {"standin", "notice"})


def _number(value: float) -> str:
    return f"<{'-' if value < 0 else ''}{type(value).__name__}>"


def _is_node(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"class_type", "inputs"}


def _node_text(node_id: str, node: dict[str, Any], names: Names) -> str:
    """Write a node of a graph in one line, its inputs in the order in which they stand."""
    inputs = (f"{name}={json.dumps(shape(entry, names, name))}" for name, entry in node["inputs"].items())
    return f"{node_id} {node['class_type']}({', '.join(inputs)})"


def _is_queue_item(value: list[Any]) -> bool:
    return len(value) == 5 and isinstance(value[0], int | float) and isinstance(value[2], dict)

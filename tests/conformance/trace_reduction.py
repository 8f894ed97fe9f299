"""Turns recordings of a real ComfyUI into the small scenarios of ``recorded/``.

Run as ``python tests/conformance/trace_reduction.py FOLDER`` with the folder of recordings (one JSON file each, with
a list ``events``). A scenario is a list of steps:

* ``{"open": socket, "client": name or null, "greeting": [messages]}``, ``{"close": socket}``, ``{"say": socket, ...}``
* ``{"request": "POST /prompt", "body"/"raw"/"form": ..., "answer": {"status", "type", "json"/"text"/"file"}}``
* ``{"hear": socket, "messages": [shapes]}`` and ``{"lost": socket}`` for a socket that broke off
* ``{"signal": "SIGINT"}`` and ``{"restart": true}`` for what was done to the server
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from trace_shapes import Names, answer_shape, binary_shape, body_shape, frame_shape, shape

JSON_TYPE = "application/json; charset=utf-8"
"""The content type of an answer whose step names none."""

RECORDED = Path(__file__).parent / "recorded"

_UPLOAD_NAME = re.compile(r"up_[0-9a-f]{6}")
_NOT_REPEATABLE = re.compile(
    # These ask about what was on the disk or in the history of the recorded server.
    r"^GET (/object_info$|/object_info/SaveWEBM|/$|/history$|/history\?"
    r"|/view\?filename=(lab_00001_|example)|.*subfolder=\.\.)"
)
_SKIPPED = {"22_history_race", "24_progress_state_volume", "25_slow_reader_blocks_everyone"}


def reduce_trace(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps of one recording, in the order of their beginning."""
    names = Names()
    wanted = [
        event
        for event in sorted(events, key=lambda event: event["t"])
        if not _NOT_REPEATABLE.search(f"{event.get('method')} {event.get('path')}")
    ]
    steps = [step for event in wanted for step in _step(event, names)]
    return _with_greetings(_without_foreign_messages(steps))


def _step(event: dict[str, Any], names: Names) -> list[dict[str, Any]]:  # noqa: PLR0911 - one for each kind
    match event["kind"]:
        case "ws_open":
            client = parse_qs(urlsplit(event["path"]).query).get("clientId")
            return [{"open": event["ws"], "client": None if client is None else names.id(client[0])}]
        case "ws_send":
            return [{"say": event["ws"], "message": event["message"]}]
        case "ws":
            return [{"hear": event["ws"], "message": frame_shape(event["message"], names)}]
        case "ws_binary":
            return [{"hear": event["ws"], "message": binary_shape(bytes.fromhex(event["first8_hex"]))}]
        case "ws_closed":
            return [{"lost" if event["close_code"] == 1006 else "close": event["ws"]}]
        case "http":
            return [_request(event, names)]
        case _:
            return _done_to_server(event["note"])


def _done_to_server(note: str) -> list[dict[str, Any]]:
    if note.startswith("SIG"):
        return [{"signal": note.split(maxsplit=1)[0]}]
    return [{"restart": True}] if note.startswith(("--- server restarted", "process gone: False")) else []


def _request(event: dict[str, Any], names: Names) -> dict[str, Any]:
    path = _UPLOAD_NAME.sub("up-name", event["path"])
    step: dict[str, Any] = {"request": f"{event['method']} {_path(path, names)}"}
    body = event.get("request_body")
    if "request_raw" in event:
        step["raw"] = event["request_raw"]
    elif isinstance(body, dict) and "multipart" in body:
        step["form"] = _renamed(body["multipart"])
    elif body is not None:
        step["body"] = _requested(_renamed(body), names)
    answer: dict[str, Any] = {"status": event["status"]}
    if event["status"] is not None:
        answer["type"] = event["response_headers"].get("Content-Type")
        if answer["type"] == JSON_TYPE:
            del answer["type"]
        if "response_binary" in event:
            answer["file"] = body_shape(bytes.fromhex(event["response_binary"]["first8_hex"]))
        elif event.get("response_text") is not None:
            answer["text"] = event["response_text"]
        else:
            answer["json"] = answer_shape(event["path"], _renamed(event["response_body"]), names)
    return {**step, "answer": answer}


def _path(path: str, names: Names) -> str:
    """Name ids and numbered files in a path, without touching how the rest is escaped."""
    path = re.sub(r"(?<=filename=)[^&]+", lambda found: names.text(found.group()), path)
    return names.text(path)


def _requested(body: Any, names: Names) -> Any:
    """Name the ids in a request body and keep everything else as it was sent."""
    if isinstance(body, dict):
        return {key: _requested(entry, names) for key, entry in body.items()}
    if isinstance(body, list):
        return [_requested(entry, names) for entry in body]
    return shape(body, names) if isinstance(body, str) else body


def _renamed(body: Any) -> Any:
    return json.loads(_UPLOAD_NAME.sub("up-name", json.dumps(body)))


def _without_foreign_messages(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what sockets heard about prompts posted before the recording began."""
    posts = (index for index, step in enumerate(steps) if step.get("request") == "POST /prompt")
    first_post = next(posts, len(steps))
    kept = []
    for index, step in enumerate(steps):
        if index < first_post and "message" in step and "hear" in step:
            if step["message"][-1] != "<sid>":
                continue
            step["message"][1] = 0
        kept.append(step)
    return kept


def _with_greetings(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move the messages that greet a socket into the step that opens it, and join the messages of one socket."""
    kept: list[dict[str, Any]] = []
    opened: dict[str, dict[str, Any]] = {}
    for step in steps:
        if "open" in step:
            step["greeting"] = []
            opened[step["open"]] = step
        if "hear" not in step:
            kept.append(step)
            continue
        message = step["message"]
        if message[-1] == "<sid>" or (message[0] == "executing" and set(message[1]) == {"node"}):
            opened[step["hear"]]["greeting"].append(message)
        elif kept and kept[-1].get("hear") == step["hear"]:
            kept[-1]["messages"].append(message)
        else:
            kept.append({"hear": step["hear"], "messages": [message]})
    return kept


def main(folder: Path) -> None:
    """Reduce every recording of ``folder`` that can be replayed step by step."""
    RECORDED.mkdir(exist_ok=True)
    for source in sorted(folder.glob("*.json")):
        if source.stem in _SKIPPED:
            continue
        steps = reduce_trace(json.loads(source.read_text(encoding="utf-8"))["events"])
        lines = ",\n".join(json.dumps(step, ensure_ascii=False, separators=(",", ":")) for step in steps)
        (RECORDED / source.name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

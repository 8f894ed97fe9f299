"""Reading ComfyUI's websocket messages."""

from __future__ import annotations

import json
import time

import pytest

from app.comfy.frames import parse_frame
from schemas.events import COMFY_EVENTS

ALL = frozenset(COMFY_EVENTS)


def _text(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode()


def test_a_frame_has_its_type_prompt_data_and_raw_text() -> None:
    """A wanted message comes out with everything it said."""
    raw = _text("executing", node="2", display_node="2", prompt_id="p")
    frame = parse_frame(raw, ALL)
    assert frame is not None
    assert (frame.type, frame.prompt_id, frame.data["node"], frame.raw) == ("executing", "p", "2", raw)


def test_text_and_bytes_are_read_alike() -> None:
    """A str gives the same frame as its UTF-8."""
    raw = _text("progress", value=1, max=2, prompt_id="p")
    assert parse_frame(raw.decode(), ALL) == parse_frame(raw, ALL)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"\x00\x00\x00\x01\x00\x00\x00\x01\xff\xd8\xff",
        b"\x00\x00\x00\x04\x00\x00\x00\x02{}\xff\xd8",
        b"null",
        b"[]",
        b'"status"',
        b"{}",
        b'{"type": "executing", "data": {"prompt',
        b'{"type": "executing", "data"',
        b"\xff\xfe{}",
        b'{"type": ["executing"], "data": {}}',
        b'{"type": null}',
        b'{"data": {"type": "executing"}}',
        b"[" * 100_000,
        '{"type": "executing", "data": {"node": "\ud800"}}',
    ],
)
def test_what_is_no_frame_is_nothing(raw: bytes | str) -> None:
    """Binary previews, broken JSON and JSON of another form are passed over without an error."""
    assert parse_frame(raw, ALL) is None


@pytest.mark.parametrize("data", ["null", "[]", '"x"', "3"])
def test_a_frame_without_an_object_of_data_is_empty(data: str) -> None:
    """Missing or odd data becomes an empty object."""
    frame = parse_frame(f'{{"type": "status", "data": {data}}}', ALL)
    assert frame is not None
    assert (frame.data, frame.prompt_id) == ({}, None)
    bare = parse_frame('{"type": "status"}', ALL)
    assert bare is not None
    assert bare.data == {}


def test_a_frame_may_name_its_type_last_or_have_no_blanks() -> None:
    """Another way to write the JSON does not hide a frame."""
    for raw in (b'{"data":{"prompt_id":"p"},"type":"executed"}', b' {"type":"executed","data":{"prompt_id":"p"}}'):
        frame = parse_frame(raw, frozenset({"executed"}))
        assert frame is not None
        assert frame.prompt_id == "p"


def test_unwanted_and_unknown_types_are_dropped() -> None:
    """Only what somebody wants is read; a type of a custom node is no error."""
    assert parse_frame(_text("progress_state", prompt_id="p"), ALL - {"progress_state"}) is None
    assert parse_frame(_text("crystools.monitor", cpu=3), ALL) is None
    assert parse_frame(b'{"data": {}, "type": "crystools.monitor"}', ALL) is None


def test_an_unwanted_progress_state_is_not_parsed() -> None:
    """Megabytes of it cost next to nothing, whatever is in them."""
    state = {"value": 1.0, "max": 1.0, "state": "finished", "node_id": "1", "prompt_id": "p", "parent_node_id": None}
    raw = _text("progress_state", prompt_id="p", nodes={str(number): state for number in range(3000)})
    assert len(raw) > 300_000
    began = time.process_time()
    for _ in range(1000):
        assert parse_frame(raw, ALL - {"progress_state"}) is None
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("raw", "is_end"),
    [
        (_text("executing", node=None, prompt_id="p"), True),
        (_text("execution_success", prompt_id="p"), True),
        (_text("execution_error", prompt_id="p"), True),
        (_text("execution_interrupted", prompt_id="p"), True),
        (_text("executing", node="2", prompt_id="p"), False),
        (_text("executing", prompt_id="p"), False),
        (_text("executing", node=None), False),
        (_text("executed", node="2", prompt_id="p"), False),
    ],
)
def test_an_end_is_recognised(raw: bytes, *, is_end: bool) -> None:
    """The last frames of a prompt say so; a node that is null says it only for a prompt."""
    frame = parse_frame(raw, ALL)
    assert frame is not None
    assert frame.is_end is is_end

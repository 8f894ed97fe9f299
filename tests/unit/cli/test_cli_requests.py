"""From a file or from options to a checked request."""

from __future__ import annotations

import io
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from app.cli.outcome import CommandFailed, ExitCode
from app.cli.requests import build_request

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}, "prompt": {"class_type": "SaveImage", "inputs": {}}}


def write(folder: Path, document: Any) -> str:
    """Put a document into a file and return its path."""
    path = folder / "request.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return str(path)


def test_a_bare_graph_is_wrapped_and_gets_an_id(tmp_path: Path) -> None:
    """What ComfyUI exports can be submitted as it is, even with a node called `prompt`."""
    request = build_request(write(tmp_path, GRAPH), "", [], "")
    assert request["prompt"] == GRAPH
    assert uuid.UUID(request["id"]).version == 4


def test_a_request_keeps_its_id_and_its_fields(tmp_path: Path) -> None:
    """A full request goes out as it stands in the file."""
    document = {"id": "mine", "prompt": GRAPH, "metadata": {"seed": 2**70}}
    assert build_request(write(tmp_path, document), "", [], "") == document


def test_the_option_goes_before_the_id_of_the_file(tmp_path: Path) -> None:
    """One file can be submitted many times."""
    request = build_request(write(tmp_path, {"id": "mine", "prompt": GRAPH}), "", [], "other")
    assert request == {"id": "other", "prompt": GRAPH}


def test_a_request_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads bytes, a byte order mark included."""
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + json.dumps(GRAPH).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert build_request("-", "", [], "a") == {"id": "a", "prompt": GRAPH}


def test_values_are_json_where_they_are_json() -> None:
    """Numbers, lists and null are values; anything else, NaN too, is a string."""
    values = [
        "n=3",
        "f=0.5",
        "on=true",
        "none=null",
        "list=[1,2]",
        "text=a cat",
        "empty=",
        "eq=a=b",
        "odd=NaN",
        'q="3"',
    ]
    assert build_request("", "sd15/txt2img", values, "a") == {
        "id": "a",
        "workflow": "sd15/txt2img",
        "input": {
            "n": 3,
            "f": 0.5,
            "on": True,
            "none": None,
            "list": [1, 2],
            "text": "a cat",
            "empty": "",
            "eq": "a=b",
            "odd": "NaN",
            "q": "3",
        },
    }


@pytest.mark.parametrize(
    ("file", "workflow", "values", "request_id", "says"),
    [
        ("", "", [], "", "give a FILE or --workflow NAME"),
        ("a.json", "w", [], "", "give a FILE or --workflow NAME"),
        ("a.json", "", ["a=1"], "", "-i belongs to --workflow"),
        ("", "w", ["a"], "", "KEY=VALUE"),
        ("", "w", ["=1"], "", "KEY=VALUE"),
        ("", "w", ["a=1", "a=2"], "", "-i a is given twice"),
        ("", "w", ["a=1e999"], "", "--workflow w: input.a"),
        ("", "w", [], "a/b", "--workflow w: id"),
        ("/no/such/file.json", "", [], "", "/no/such/file.json cannot be read: No such file"),
        (".", "", [], "", ". cannot be read: Is a directory"),
    ],
)
def test_wrong_options_are_a_usage_error(
    file: str, workflow: str, values: list[str], request_id: str, says: str
) -> None:
    """The sentence names what is wrong, the exit code is 2."""
    with pytest.raises(CommandFailed) as caught:
        build_request(file, workflow, values, request_id)
    assert says in str(caught.value)
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        ([GRAPH], "must be a JSON object"),
        ({"nodes": [], "links": [], "version": 0.4}, "Export (API)"),
        ({}, "exactly one of"),
        ({"prompt": {"1": {"inputs": {}}}}, "prompt.1.class_type"),
        ({"prompt": GRAPH, "webhok": "https://h"}, "webhok: there is no such field"),
    ],
)
def test_a_wrong_file_is_a_usage_error_that_names_file_and_field(tmp_path: Path, document: Any, says: str) -> None:
    """What a worker would refuse is refused here, before it is sent."""
    path = write(tmp_path, document)
    with pytest.raises(CommandFailed) as caught:
        build_request(path, "", [], "")
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert caught.value.code == ExitCode.USAGE

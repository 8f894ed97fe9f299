"""Names of outputs."""

from __future__ import annotations

import copy

import pytest

from app.prepare.filenames import output_stem, rename_outputs, rename_prefix
from brokers.base import RequestKey


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("image", "id_image"),
        ("", "id"),
        ("sub/x", "sub/id_x"),
        ("a/b/x", "a/b/id_x"),
        ("sub/", "sub/id"),
        ("../x", "../id_x"),
        ("/x", "/id_x"),
        ("sub\\x", "sub\\id_x"),
        ("%date%_x", "id_%date%_x"),
    ],
)
def test_prepended(old: str, new: str) -> None:
    """The id stands before the last part of the old prefix, and sub-folders stay."""
    assert rename_prefix(old, "id", prepend=True) == new


@pytest.mark.parametrize(("old", "new"), [("image", "id"), ("", "id"), ("sub/x", "sub/id"), ("a\\x", "a\\id")])
def test_instead(old: str, new: str) -> None:
    """Without PREPEND_FILENAMES the id takes the place of the old name."""
    assert rename_prefix(old, "id", prepend=False) == new


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 150, "😀" * 100])
def test_a_long_name_is_cut(name: str) -> None:
    """No prefix makes a file name that the disk refuses after the run, and no character is cut in halves."""
    made = rename_prefix(f"sub/{name}", "i" * 128, prepend=True)
    assert len(made.removeprefix("sub/").encode()) <= 200
    assert name.startswith(made.removeprefix(f"sub/{'i' * 128}_"))


@pytest.mark.parametrize(
    ("attempt", "replay", "stem"), [(1, 0, "id"), (2, 0, "id-a2"), (1, 3, "id-r3"), (2, 3, "id-a2-r3")]
)
def test_a_fresh_run_has_fresh_names(attempt: int, replay: int, stem: str) -> None:
    """Another attempt or replay asks for other names, so ComfyUI's cache cannot answer with files that are gone."""
    assert output_stem(RequestKey("id", replay), attempt) == stem


def test_any_node_with_a_prefix() -> None:
    """Every class with a filename_prefix is renamed; links and other nodes are left alone; nothing is mutated."""
    graph = {
        "1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        "2": {"class_type": "Anything", "inputs": {"filename_prefix": "sub/y", "z": 1}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": ["2", 0]}},
        "4": {"class_type": "KSampler", "inputs": {"seed": 1}},
        "5": {"class_type": "SaveImage", "inputs": {"filename_prefix": {"__value__": "w"}}},
        "6": {"class_type": "SaveImage", "inputs": {"filename_prefix": 7}},
        "7": {"class_type": "SaveImage", "inputs": {"filename_prefix": None}},
    }
    before = copy.deepcopy(graph)
    made = rename_outputs(graph, RequestKey("id"), 1, prepend=True)
    assert graph == before
    prefixes = {key: made[key]["inputs"].get("filename_prefix") for key in made}
    assert prefixes == {
        "1": "id_x",
        "2": "sub/id_y",
        "3": ["2", 0],
        "4": None,
        "5": "id_w",
        "6": "id_7",
        "7": "id",
    }

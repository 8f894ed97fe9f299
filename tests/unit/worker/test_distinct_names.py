"""Names of outputs in a target: one each, the same in every run."""

from __future__ import annotations

from pathlib import Path

from app.comfy.outputs import LocalOutput, OutputRef
from app.worker.store import OutputFile, distinct


def names(*outputs: tuple[str, str]) -> list[str]:
    """What files of these nodes and names are called."""
    refs = [OutputRef(node, "SaveImage", "image", filename=name) for node, name in outputs]
    local = LocalOutput(Path("x"), 1, "0" * 64, owned=False)
    files = {index: OutputFile(name, local, None) for index, (_, name) in enumerate(outputs)}
    return [file.filename for file in distinct(refs, files).values()]


def test_names_that_differ_stay() -> None:
    """Nothing is renamed without need."""
    assert names(("1", "a.png"), ("2", "b.png")) == ["a.png", "b.png"]


def test_equal_names_get_their_node() -> None:
    """The first keeps its name; several of one node are counted."""
    found = names(("1", "a.png"), ("2", "a.png"), ("3:4", "a.png"), ("2", "a.png"))
    assert found == ["a.png", "a-2.png", "a-3-4.png", "a-2-2.png"]


def test_a_new_name_is_not_one_that_another_output_has() -> None:
    """Whichever of them comes first."""
    assert names(("1", "a.png"), ("2", "a.png"), ("3", "a-2.png")) == ["a.png", "a-2-2.png", "a-2.png"]


def test_names_stay_within_what_disks_take() -> None:
    """A long one is cut before the mark, at a whole character."""
    long = "ü" * 125 + ".png"
    (_, found) = names(("1", long), ("77", long))
    assert found.endswith("-77.png")
    assert len(found.encode()) <= 255

"""Progress of downloads: added up over a prompt's inputs, in MiB, named after the node that waits."""

from __future__ import annotations

from app.worker.fetching import MIB, Fetching
from app.worker.progress import ProgressLimit
from schemas.events import Progress


def shown(told: list[Progress]) -> list[tuple[str | None, int | None, int | None]]:
    return [(one.current_node, one.step, one.steps) for one in told]


def test_downloads_of_several_inputs_are_added_up() -> None:
    """The first node that still waits is named; the last word says that all is there."""
    told: list[Progress] = []
    fetching = Fetching(told.append)
    fetching.moved("a", "4", "CheckpointLoaderSimple", 2 * MIB, 10 * MIB)
    fetching.moved("b", "5", "LoadImage", MIB, 2 * MIB)
    fetching.moved("b", "5", "LoadImage", 2 * MIB, 2 * MIB)
    fetching.moved("a", "4", "CheckpointLoaderSimple", 10 * MIB, 10 * MIB)
    assert shown(told) == [("4", 2, 10), ("4", 3, 12), ("4", 4, 12), ("4", 12, 12)]
    assert {one.value for one in told} == {0.0}
    assert told[0].current_node_class == "CheckpointLoaderSimple"


def test_a_file_in_one_piece_is_not_worth_a_word() -> None:
    """Small pictures make no progress of their own."""
    told: list[Progress] = []
    Fetching(told.append).moved("a", "4", "LoadImage", 5000, 5000)
    assert told == []


def test_a_source_that_does_not_say_how_much_will_come() -> None:
    """The steps are unknown, what is here is told all the same."""
    told: list[Progress] = []
    fetching = Fetching(told.append)
    fetching.moved("a", "4", "LoadImage", 3 * MIB, None)
    assert shown(told) == [("4", 3, None)]


def test_several_files_of_one_input() -> None:
    """They come one after the other and are all counted; one that begins anew is not counted twice."""
    told: list[Progress] = []
    fetching = Fetching(told.append)
    for size in (1, 2, 4):
        fetching.moved("a", "4", "DiffusersLoader", size * MIB, 4 * MIB)
    fetching.moved("a", "4", "DiffusersLoader", 2 * MIB, 6 * MIB)
    fetching.moved("a", "4", "DiffusersLoader", 1 * MIB, 6 * MIB)
    assert shown(told) == [("4", 1, 4), ("4", 2, 4), ("4", 4, 4), ("4", 6, 10), ("4", 5, 10)]


def test_what_was_said_of_downloads_ends_with_them() -> None:
    """The next status does not name the node whose file came."""
    limit = ProgressLimit(10, lambda: 100.0)
    limit.change("preparing")
    limit.value(Progress(value=0, nodes_done=0, nodes_total=0, current_node="4", step=3, steps=7))
    assert limit.change("queued") == (1, "queued", Progress(value=0, nodes_done=0, nodes_total=0))

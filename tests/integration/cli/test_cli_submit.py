"""`submit` and `watch` against a real broker, worker and stand-in."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from tests.integration.cli.command_line import Commands, finished, interrupted, line_of
from tests.support.stack import Stack, graph

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


def write(folder: Path, document: Any) -> str:
    """Put a request into a file of the folder."""
    (folder / "request.json").write_text(json.dumps(document))
    return "request.json"


FAILING = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "FailingNode", "inputs": {"image": ["1", 0], "message": "on purpose"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}


async def test_a_graph_is_run_and_its_picture_saved(commands: Commands) -> None:
    """The path stands alone on standard output, progress on standard error, the exit code is 0."""
    done = await commands.run("submit", write(commands.folder, graph(seconds=0.6, color=0xFF0000)), "--wait")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    assert line.startswith("comfybus-out/")
    with Image.open(commands.folder / line) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert "SlowProgress" in done.err
    assert "100% storing" in done.err
    assert "complete  in" in done.err


async def test_json_prints_the_terminal_event_and_nothing_else(commands: Commands) -> None:
    """Standard output is one JSON document; files are saved only where --out says."""
    file = write(commands.folder, {"prompt": graph(color=1), "metadata": {"n": 2**60 + 1}})
    done = await commands.run("submit", file, "--wait", "--json", "--id", "cli-json")
    assert (done.code, done.document["type"], done.document["id"]) == (0, "prompt.complete", "cli-json")
    assert done.document["metadata"] == {"n": 2**60 + 1}
    assert {path.name for path in commands.folder.iterdir()} == {"request.json"}
    saved = await commands.run("submit", file, "--wait", "--json", "--out", "o", "--id", "cli-json-saved")
    assert saved.document["type"] == "prompt.complete"
    assert [path.name for path in (commands.folder / "o").iterdir()] == saved.document["filenames"]


async def test_a_failed_prompt_is_exit_code_1(commands: Commands) -> None:
    """The reason is one line on standard error, with --json the event says it too."""
    done = await commands.run("submit", write(commands.folder, FAILING), "--wait")
    assert (done.code, done.out) == (1, "")
    assert "failed    execution_error" in done.err
    assert "on purpose" in done.err
    assert "Traceback" not in done.err
    done = await commands.run("submit", "request.json", "--wait", "--json")
    assert (done.code, done.document["type"]) == (1, "prompt.failed")


async def test_no_answer_in_time_is_exit_code_3(commands: Commands) -> None:
    """The sentence says how to go on; the prompt itself goes on."""
    file = write(commands.folder, graph(seconds=3, color=3))
    done = await commands.run("submit", file, "--wait", "--timeout", "0.5", "--id", "cli-late")
    assert (done.code, done.out) == (3, "")
    assert "comfybus watch cli-late" in done.err.splitlines()[-1]
    watched = await commands.run("watch", "cli-late", "--json")
    assert watched.code == 0
    assert json.loads(watched.out.splitlines()[-1])["type"] == "prompt.complete"


NEEDS_A_BROKER = [
    ["submit", "-", "--wait"],
    ["submit", "-"],
    ["watch"],
    ["watch", "a"],
    ["workers"],
    ["cancel", "a"],
    ["dlq", "list"],
    ["dlq", "replay", "--all"],
]


async def test_without_a_broker_the_exit_code_is_3(lonely: Commands) -> None:
    """One line names the address and the cure, after a few seconds."""
    processes = [lonely.start(*arguments) for arguments in NEEDS_A_BROKER]
    for arguments, process in zip(NEEDS_A_BROKER, processes, strict=True):
        done = await finished(process, json.dumps(graph()))
        assert (done.code, done.out) == (3, ""), arguments
        (said,) = done.err.splitlines()
        assert said.startswith("comfybus: ")
        assert "127.0.0.1:1" in said
        assert "BROKER_URL" in said


async def test_a_request_from_standard_input_is_followed_by_its_id(commands: Commands) -> None:
    """Without --wait the id is printed; `watch ID` shows the stored end, again and again."""
    done = await commands.run("submit", "-", stdin=json.dumps(graph(color=4)))
    assert done.code == 0
    request_id = done.out.strip()
    for _ in range(2):
        watched = await commands.run("watch", request_id)
        assert watched.code == 0
        assert f"prompt.complete          {request_id} 1 file(s)" in watched.out.splitlines()[-1]


async def test_an_id_is_run_once(commands: Commands, stack: Stack) -> None:
    """A second submission says that it shows the first one's answer, and saves it without doubling the file."""
    file = write(commands.folder, graph(color=5))
    first = await commands.run("submit", file, "--wait", "--id", "cli-once")
    second = await commands.run("submit", file, "--wait", "--id", "cli-once")
    assert (first.code, second.code, second.out) == (0, 0, first.out)
    assert "answered before" in second.err
    assert len(list((commands.folder / "comfybus-out").iterdir())) == 1
    assert len((await stack.outside.terminals())["cli-once"]) == 1


async def test_watch_shows_everything_until_it_is_interrupted(commands: Commands, stack: Stack) -> None:
    """Lines come while things happen, not at the end; Ctrl-C ends it without a traceback."""

    async def keep_busy() -> None:
        for number in itertools.count():
            await stack.outside.send({"id": f"cli-busy-{number}", "prompt": graph(color=6)})
            await anyio.sleep(0.3)

    watching = commands.start("watch", "--json")
    try:
        types = dict[str, list[str]]()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_busy)
            # The first ones may have gone by before it listened.
            while ["prompt.progress", "prompt.complete"] not in types.values():
                event = json.loads(await line_of(watching.stdout))
                seen = types.setdefault(str(event.get("id")), [])
                seen += [event["type"]] if event["type"] not in seen else []
            tasks.cancel_scope.cancel()
    finally:
        ended = await interrupted(watching, signal.SIGINT)
    assert (ended.code, ended.err) == (130, "")


async def test_an_interrupted_submit_leaves_the_prompt_alone(commands: Commands, stack: Stack) -> None:
    """Ctrl-C ends the waiting, not the prompt."""
    file = write(commands.folder, graph(seconds=2, color=7))
    waiting = commands.start("submit", file, "--wait", "--id", "cli-left")
    assert await line_of(waiting.stderr) == "submitted cli-left\n"
    ended = await interrupted(waiting)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert (await stack.outside.terminal("cli-left")).body["type"] == "prompt.complete"


async def test_a_request_too_large_for_the_broker_goes_by_reference(commands: Commands, stack: Stack) -> None:
    """Its bytes go to the output store; the answer is that of any request, and the message itself is empty."""
    large = graph(color=6)
    large["1"]["_meta"] = {"title": "x" * 3_000_000}
    file = write(commands.folder, {"prompt": large, "metadata": {"n": 1}})
    done = await commands.run("submit", file, "--wait", "--json", "--id", "cli-large")
    assert (done.code, done.document["type"], done.document["metadata"]) == (0, "prompt.complete", {"n": 1}), done.err
    assert "sent by reference" in done.err
    done = await commands.run("submit", file, "--id", "cli-large-2")
    assert (done.code, done.out) == (0, "cli-large-2\n")
    assert (await stack.outside.terminal("cli-large-2")).body["type"] == "prompt.complete"


async def test_no_worker_would_read_a_request_of_any_size(commands: Commands) -> None:
    """Beyond 64 MiB the command says so before anything is sent."""
    file = write(commands.folder, {"prompt": graph(), "metadata": {}, "input": None, "workflow": None})
    document = json.loads((commands.folder / file).read_text())
    document["prompt"]["1"]["_meta"] = {"title": "x" * 68_000_000}
    (commands.folder / file).write_text(json.dumps(document))
    done = await commands.run("submit", file)
    assert (done.code, done.out) == (2, "")
    assert "behind a URL" in done.err

"""How a command ends: one line, an exit code, no traceback, a quick start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from app.cli.outcome import CommandFailed, ExitCode, explain
from app.errors import ComfyUnavailable, ConfigurationError, InvalidPrompt
from brokers.base import BrokerRefused, BrokerUnavailable, MessageTooLarge
from schemas.prompt import parse_request

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (CommandFailed("it failed"), 1, "it failed"),
        (CommandFailed("wrong option", ExitCode.USAGE), 2, "wrong option"),
        (ConfigurationError("PORT='x' is wrong"), 2, "PORT='x' is wrong"),
        (MessageTooLarge(2_000_000, 1_048_576), 2, "put large inputs behind a URL"),
        (BrokerUnavailable("NATS does not answer"), 3, "NATS does not answer"),
        (BrokerRefused("too old"), 3, "too old"),
        (ComfyUnavailable("ComfyUI does not answer"), 3, "ComfyUI does not answer"),
        (InvalidPrompt("no such node"), 1, "no such node"),
        (PermissionError(13, "Permission denied", "/out"), 1, "Permission denied: '/out'"),
        (KeyError("x"), 1, "this is a fault of comfybus"),
        (ExceptionGroup("g", [ExceptionGroup("h", [BrokerRefused("inside")])]), 3, "inside"),
        (CommandFailed("two\nlines  here"), 1, "two lines here"),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    failure: Exception, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cause and cure on standard error, nothing on standard output."""
    assert explain(failure) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("comfybus: ")
    assert says in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["submit"],
        ["submit", "--nonsense"],
        ["submit", "/no/such/file.json"],
        ["submit", "--workflow", "w", "--timeout", "5"],
        ["submit", "--workflow", "w", "--out", "d"],
        ["submit", "--workflow", "w", "--wait", "--timeout", "-1"],
        ["submit", "--workflow", "w", "--wait", "--timeout", "soon"],
        ["submit", "--workflow", "w", "-i", "x"],
        ["watch", "a/b"],
        ["watch", "*"],
        ["cancel"],
        ["cancel", "a/b"],
        ["cancel", "a", "b"],
        ["download", "https://h/m"],
        ["download", "--type", "checkpoints"],
        ["download", "not a url", "--type", "checkpoints"],
        ["download", "https://h/m", "--type", ""],
        ["download", "https://h/m", "--type", "loras", "--filename", "n" * 256],
        ["dlq", "nonsense"],
        ["dlq", "replay"],
        ["dlq", "replay", "a", "--all"],
        ["dlq", "replay", "a/b"],
        ["schema", "json"],
        ["schema", "asyncapi", "--prefix", "a b"],
        ["demo", "--comfyui", "nowhere"],
        ["worker", "extra"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is connected to find out; what was wrong stands on standard error."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("comfybus: ")


def test_a_wrong_setting_is_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable, its value and what it should be."""
    monkeypatch.setenv("TOPIC_PREFIX", "a b")
    assert main(["watch"]) == 2
    assert capsys.readouterr().err.startswith("comfybus: TOPIC_PREFIX='a b' is wrong: it should be")


@pytest.mark.parametrize("group", [[], ["dlq"], ["schema"]])
def test_without_a_command_the_help_is_shown(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A bare call shows what there is, and is a usage error all the same."""
    assert main(group) == 2
    assert "Commands:" in capsys.readouterr().out


def test_a_traceback_is_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    """`--traceback` is for those who want to know where."""
    code = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    for options, shown in (([], False), (["--traceback"], True)):
        done = subprocess.run(
            [sys.executable, "-c", code, *options, "submit", "/no/such"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (2, shown)


def test_help_loads_no_library_of_the_commands() -> None:
    """`comfybus --help` is quick because it imports neither broker, web server, pydantic nor rich."""
    code = (
        "import sys; from app.cli import main; code = main(['--help']); "
        "heavy = {'nats', 'faststream', 'aiohttp', 'pydantic', 'rich', 'anyio', 'structlog', 'PIL', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert "submit" in done.stdout


def test_a_reader_that_leaves_is_no_failure() -> None:
    """`comfybus schema asyncapi | head -1` ends quietly."""
    code = f"{sys.executable} -m app schema asyncapi | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines()[0] == "asyncapi: 3.0.0"
    assert done.stdout.splitlines()[1] in ("0", "141")
    assert done.stderr == ""


def test_schemas_are_written_where_they_are_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`schema json DIR` makes the folder and prints each file."""
    assert main(["schema", "json", str(tmp_path / "a" / "b")]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == sorted((tmp_path / "a" / "b").glob("*.json"))
    assert all(json.loads(path.read_text())["$schema"] for path in printed)


def test_the_document_is_printed_for_any_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    """`schema asyncapi --prefix` names the channels of a deployment."""
    assert main(["schema", "asyncapi", "--prefix", "studio.a"]) == 0
    assert "address: studio.a.prompt.complete.{id}" in capsys.readouterr().out


def test_the_shipped_workflow_is_a_valid_request() -> None:
    """The graph of the demonstration parses, and its photograph is shipped with its origin."""
    folder = ROOT / "workflows" / "demo"
    graph = json.loads((folder / "image_to_image.json").read_text())
    assert parse_request({"prompt": graph}).prompt == graph
    photograph = (folder / graph["1"]["inputs"]["image"]).read_bytes()
    assert photograph.startswith(b"\xff\xd8")
    assert len(photograph) < 120_000
    assert "CC0" in (folder / "ORIGIN.txt").read_text()

"""``workflow generate`` against doubles of the language models' APIs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from author_double import GOOD, GRAPH, Double, run_double

from app.errors import ConfigurationError
from app.prepare.author import AuthorConfig, AuthorFailed, author_workflow
from app.prepare.author.author import code_in
from app.prepare.author.check import Unusable, check_source
from app.prepare.author.language_models import choose_model
from app.prepare.workflows import Workflows

pytestmark = pytest.mark.anyio

double = pytest.fixture(run_double)


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """The graph to turn into a workflow."""
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH))
    return path


async def write(double: Double, graph_file: Path, out: Path, **config: Any) -> None:
    """Ask for a workflow."""
    chosen = AuthorConfig(**({"anthropic_api_key": "k", "anthropic_url": double.url} | config))
    async with aiohttp.ClientSession() as session:
        await author_workflow(graph_file, out, chosen, session)


@pytest.mark.parametrize(
    ("config", "path", "header", "model"),
    [
        ({}, "/v1/messages", ("x-api-key", "k"), "claude-sonnet-4-20250514"),
        ({"model": "other"}, "/v1/messages", ("anthropic-version", "2023-06-01"), "other"),
        (
            {"anthropic_api_key": "", "minimax_api_key": "m"},
            "/v1/chat/completions",
            ("authorization", "Bearer m"),
            "MiniMax-M2.7",
        ),
        (
            {"url": "{url}/api/", "api_key": "o", "model": "llama"},
            "/api/chat/completions",
            ("authorization", "Bearer o"),
            "llama",
        ),
    ],
)
async def test_each_api(
    double: Double, graph_file: Path, config: dict[str, str], path: str, header: tuple[str, str], model: str
) -> None:
    """Each API is called as it wants to be, and the file that comes out of it is a workflow."""
    given = {"minimax_url": double.url} | {key: value.format(url=double.url) for key, value in config.items()}
    out = graph_file.parent / "out" / "made.py"
    await write(double, graph_file, out, **given)
    ((called, headers, body),) = double.asked
    assert called == path
    assert headers[header[0]] == header[1]
    assert body["model"] == model
    instructions = body["system"] if path == "/v1/messages" else body["messages"][0]["content"]
    assert "class Input" in instructions
    assert json.loads(body["messages"][-1]["content"]) == {
        node_id: {"class_type": node["class_type"], "inputs": node["inputs"]} for node_id, node in GRAPH.items()
    }
    made = await Workflows.load(out.parent).generate("made", {"prompt": "a dog"})
    assert made["6"]["inputs"]["text"] == "a dog"


async def test_a_second_try(double: Double, graph_file: Path, tmp_path: Path) -> None:
    """What was wrong is told to the model, which may correct itself."""
    double.answers = ["I cannot do that", GOOD.replace("default=42", "default=43"), f"```python\n{GOOD}```\n"]
    await write(double, graph_file, tmp_path / "made.py")
    assert (tmp_path / "made.py").read_text() == GOOD
    last = double.asked[-1][2]["messages"]
    assert [turn["role"] for turn in last] == ["user", "assistant", "user", "assistant", "user"]
    assert "it is no Python" in last[2]["content"]
    assert "3.inputs.seed is 43 instead of 42" in last[4]["content"]


async def test_never_usable(double: Double, graph_file: Path, tmp_path: Path) -> None:
    """After a few tries it is given up with the last reason, and no file is written."""
    double.answers = ["import os\n"]
    with pytest.raises(AuthorFailed, match="imports os"):
        await write(double, graph_file, tmp_path / "made.py")
    assert len(double.asked) == 3
    assert os.listdir(tmp_path) == ["graph.json"]  # noqa: PTH208 - short


@pytest.mark.parametrize(
    ("status", "words"), [(401, "API key"), (404, "model's name"), (429, "limit"), (500, "try again"), (418, "tea")]
)
async def test_refusals(double: Double, graph_file: Path, tmp_path: Path, status: int, words: str) -> None:
    """A refusal says what to do and what the server says, and never shows the key."""
    double.status = status
    double.body = lambda path, text: {"error": "I am a tea pot, and s3cret is no key"}
    with pytest.raises(AuthorFailed, match=words) as caught:
        await write(double, graph_file, tmp_path / "made.py", anthropic_api_key="s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["anthropic_api_key", "minimax_api_key"])
@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        {},
        [],
        5,
        {"content": []},
        {"choices": []},
        {"content": [{"type": "text", "text": " "}]},
        {"choices": [{"message": {"content": None}}]},
        {"content": [{"type": "text", "text": "x"}], "stop_reason": "max_tokens"},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]},
    ],
)
async def test_odd_answers(double: Double, graph_file: Path, tmp_path: Path, key: str, body: Any) -> None:
    """An answer that is empty, cut off or of another shape is one clear error."""
    double.body = lambda path, text: body
    given = {"anthropic_api_key": "", key: "k", "minimax_url": double.url}
    with pytest.raises(AuthorFailed):
        await write(double, graph_file, tmp_path / "made.py", **given)
    assert len(double.asked) == 1


async def test_nobody_there(graph_file: Path, tmp_path: Path) -> None:
    """An address where nothing listens is told with a cure."""
    with pytest.raises(AuthorFailed, match="cannot be reached"):
        await write(Double(), graph_file, tmp_path / "made.py", anthropic_url="http://127.0.0.1:9")


@pytest.mark.parametrize("config", [{}, {"url": "http://h/v1"}])
def test_no_model_set(config: dict[str, str]) -> None:
    """Without settings it is said which ones there are."""
    with pytest.raises(ConfigurationError, match="WORKFLOW_LLM_MODEL"):
        choose_model(AuthorConfig(**config))


def test_which_goes_first() -> None:
    """A server of one's own goes before Anthropic, and Anthropic before MiniMax."""
    keys = {"anthropic_api_key": "a", "minimax_api_key": "m"}
    assert choose_model(AuthorConfig(url="http://h", model="x", **keys)).url == "http://h/chat/completions"
    assert choose_model(AuthorConfig(**keys)).name == "Anthropic"
    assert choose_model(AuthorConfig(minimax_api_key="m")).name == "MiniMax"


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", '{"nodes": [], "links": []}', '{"1": {"inputs": {}}}', "no"])
async def test_no_graph(double: Double, tmp_path: Path, text: str) -> None:
    """What is no graph in API format is refused before anybody is asked."""
    (tmp_path / "graph.json").write_text(text)
    with pytest.raises(AuthorFailed):
        await write(double, tmp_path / "graph.json", tmp_path / "made.py")
    assert double.asked == []


async def test_a_file_that_exists(double: Double, graph_file: Path, tmp_path: Path) -> None:
    """It is not overwritten unless asked."""
    (tmp_path / "made.py").write_text("mine")
    with pytest.raises(AuthorFailed, match="exists"):
        await write(double, graph_file, tmp_path / "made.py")
    config = AuthorConfig(anthropic_api_key="k", anthropic_url=double.url)
    async with aiohttp.ClientSession() as session:
        await author_workflow(graph_file, tmp_path / "made.py", config, session, overwrite=True)
    assert (tmp_path / "made.py").read_text() == GOOD


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = (", "no Python"),
        ("import os", "imports os"),
        ("import subprocess as enum", "imports subprocess"),
        ("from pathlib import Path", "imports pathlib"),
        ("from . import x", "imports"),
        ("open('/etc/passwd')", "calls open"),
        ("x = ().__class__", "__class__"),
        ("x = 1", "no class `Input`"),
        (GOOD.replace("return {", "return 5 or {"), "gave no graph"),
        (GOOD.replace('default="a cat", ', ""), "prompt"),
        (GOOD.replace("8.0", "7.5"), "3.inputs.cfg is 7.5 instead of 8.0"),
        (GOOD.replace('"6": {', '"7": {'), "6 is missing"),
        (GOOD.replace("42", "True"), "3.inputs.seed is"),
        (GOOD.replace("    return {\n", "    while True: pass\n    return {\n"), "did not end"),
        (GOOD.replace("    return {\n", "    x = [0] * 10**10\n    return {\n"), "MemoryError"),
    ],
)
async def test_what_is_not_believed(source: str, reason: str) -> None:
    """A file that does not parse, does more than it should, hangs or gives another graph is not used."""
    with pytest.raises(Unusable, match=reason):
        await check_source(source, GRAPH, deadline_s=5.0 if reason == "did not end" else 60.0)


@pytest.mark.parametrize("source", [GOOD, GOOD.replace("8.0", "8"), GOOD.replace("The graph.", "Print.")])
async def test_what_is_believed(source: str) -> None:
    """8 and 8.0 are one number."""
    await check_source(source, GRAPH)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("x = 1", "x = 1\n"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```\n", "x = 1\n"),
        ("```python\nx = 1", "x = 1\n"),
        ("Here it is:\n\n```python\nx = 1\n```\nEnjoy!", "x = 1\n"),
        ("```\na\n```\nand\n```python\nlonger = 1\n```", "longer = 1\n"),
        ("", "\n"),
    ],
)
def test_fences(said: str, code: str) -> None:
    """Fences and talk around the code are dropped."""
    assert code_in(said) == code

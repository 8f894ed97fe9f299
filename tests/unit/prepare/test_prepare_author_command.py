"""``comfybus workflow generate`` as a command: settings from the environment, exit codes, one line when it fails."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import pytest
from author_double import GOOD, GRAPH, Double, run_double

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

double = pytest.fixture(run_double)


async def generate(folder: Path, **env: str) -> tuple[int, str, str]:
    """Run the command in a folder with a graph; exit code, output, errors."""
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    command = [sys.executable, "-m", "app", "workflow", "generate", "graph.json", "made.py"]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    root = str(Path(__file__).parents[3])
    with anyio.fail_after(150):
        done = await anyio.run_process(command, cwd=folder, env={**kept, "PYTHONPATH": root, **env}, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("env", "path", "header", "model"),
    [
        (
            {"ANTHROPIC_API_KEY": "k1", "ANTHROPIC_BASE_URL": "{url}", "MINIMAX_API_KEY": "k2"},
            "/v1/messages",
            ("x-api-key", "k1"),
            "claude-sonnet-4-20250514",
        ),
        (
            {"MINIMAX_API_KEY": "k2", "MINIMAX_BASE_URL": "{url}"},
            "/v1/chat/completions",
            ("authorization", "Bearer k2"),
            "MiniMax-M2.7",
        ),
        (
            {
                "WORKFLOW_LLM_URL": "{url}/v1",
                "WORKFLOW_LLM_MODEL": "llama",
                "WORKFLOW_LLM_API_KEY": "k3",
                "ANTHROPIC_API_KEY": "k1",
            },
            "/v1/chat/completions",
            ("authorization", "Bearer k3"),
            "llama",
        ),
    ],
    ids=["Anthropic", "MiniMax", "OpenAI-compatible"],
)
async def test_settings_choose_the_model(
    double: Double, tmp_path: Path, env: dict[str, str], path: str, header: tuple[str, str], model: str
) -> None:
    """Address, key and model come from the variables; the file is written and its path printed."""
    code, out, errors = await generate(tmp_path, **{name: text.format(url=double.url) for name, text in env.items()})
    assert (code, out) == (0, "made.py\n"), errors
    assert (tmp_path / "made.py").read_text() == GOOD
    ((called, headers, body),) = double.asked
    assert (called, headers[header[0]], body["model"]) == (path, header[1], model)


async def test_without_settings_it_says_which_there_are(tmp_path: Path) -> None:
    """One line, and no file."""
    code, out, errors = await generate(tmp_path)
    assert (code, out) == (2, "")
    assert "ANTHROPIC_API_KEY" in errors
    assert "WORKFLOW_LLM_URL" in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "made.py").exists()

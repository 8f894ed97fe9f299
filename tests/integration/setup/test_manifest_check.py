"""``comfybus manifest check``: how a manifest is read, or all that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli import main

GOOD = """\
apt: [git-lfs]
pip: [einops]
custom_nodes:
  - impact
  - https://me:secret-word-1@github.com/owner/pack.git/tree/v1
models:
  before_start:
    - {url: "https://h.example/a?token=secret-word-2", local_path: models/vae/a.pt, sha256: %s}
  after_start:
    - {url: "s3://bucket/b.pt", local_path: models/vae/b.pt}
"""


def test_a_good_one_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each thing: the repository and its reference, the places of models; no secret."""
    path = tmp_path / "m.yaml"
    path.write_text(GOOD % ("ab" * 32))
    assert main(["manifest", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "apt           git-lfs",
        "pip           einops",
        "custom node   impact of the registry",
        "custom node   https://github.com/owner/pack.git at v1 in custom_nodes/pack",
        "model         https://h.example/a to models/vae/a.pt before start, sha256 checked",
        "model         s3://bucket/b.pt to models/vae/b.pt after start",
    ]
    path.write_text("")
    assert main(["manifest", "check", str(path)]) == 0
    assert capsys.readouterr().out == "nothing to install\n"


def test_everything_wrong_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With file, field and line; the exit code is 1."""
    path = tmp_path / "m.yaml"
    path.write_text("apt: [-x]\npip: [-r y]\n")
    assert main(["manifest", "check", str(path)]) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.partition(": it should")[0] for line in err] == [
        f"{path}: apt[0] (line 1)",
        f"{path}: pip[0] (line 2)",
    ]


def test_places_are_checked_where_the_folder_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With COMFY_HOME set a path that leads out of it is found before a worker is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFY_HOME", str(tmp_path / "ComfyUI"))
    path = tmp_path / "m.yaml"
    path.write_text("models:\n  after_start:\n    - {url: 'https://h/x', local_path: ../x.pt}\n")
    assert main(["manifest", "check", str(path)]) == 1
    assert "'../x.pt' leads out of" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is shown; a file that is not there is one line."""
    assert main(["manifest"]) == 2
    assert "check" in capsys.readouterr().out
    assert main(["manifest", "check", "/nowhere/m.yaml"]) == 1
    assert capsys.readouterr().err == "/nowhere/m.yaml: it cannot be read (No such file or directory)\n"

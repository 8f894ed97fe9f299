"""The images: clean by the linter, run without root, and started by what is really there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.unit.deploy.deployment import DOCKERFILES, ROOT, Dockerfile, read_dockerfile, settings_names

# Variables of the programs in the image, not ours.
OTHERS = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def image(request: pytest.FixtureRequest) -> Dockerfile:
    return read_dockerfile(request.param)


def test_both_images_are_there() -> None:
    """The slim one, which is the bridge's too, and the one with ComfyUI."""
    assert [path.name for path in DOCKERFILES] == ["comfyui.Dockerfile", "worker.Dockerfile"]


def test_the_linter_finds_nothing(image: Dockerfile) -> None:
    """hadolint, with the exceptions that the file itself gives reasons for."""
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(image.path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_process_one_is_comfybus_and_no_root(image: Dockerfile) -> None:
    """Exec form throughout, so that SIGTERM reaches us; a numeric user, which Kubernetes can check."""
    assert Path(image.entrypoint[0]).name == "comfybus"
    assert image.command == ["worker"]
    assert image.user == "10001:10001"
    assert "STOPSIGNAL SIGTERM" in image.path.read_text()


def test_versions_are_build_arguments(image: Dockerfile) -> None:
    """Nothing is built from whatever is the latest today."""
    assert all(default for default in image.arguments.values())
    for base in image.bases:
        assert "latest" not in base
        assert "${" in base
    if image.path.name == "comfyui.Dockerfile":
        assert {"PYTORCH_VERSION", "COMFYUI_VERSION", "COMFYUI_MANAGER_VERSION", "COMFY_CLI_VERSION"} <= set(
            image.arguments
        )


def test_variables_are_settings(image: Dockerfile) -> None:
    """A variable that nobody reads is a mistake."""
    assert set(image.environment) - OTHERS <= settings_names()


def test_what_is_copied_is_there_and_reaches_the_builder(image: Dockerfile) -> None:
    """Every source exists and .dockerignore lets it through; nothing that holds secrets or history does."""
    lets_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert image.copies
    for name in image.copies:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, pattern) for pattern in lets_through), name
    assert not {".env", ".git", "tests", "."} & set(lets_through)


def test_comfyui_can_be_installed_into(image: Dockerfile) -> None:
    """The folder and the environment of ComfyUI are the ones that the settings name, and the user's own."""
    if image.path.name != "comfyui.Dockerfile":
        assert "COMFY_HOME" not in image.environment
        return
    env, text = image.environment, image.path.read_text()
    assert env["CMD"].split()[0] == env["COMFY_PYTHON"] == "/opt/comfy-env/bin/python"
    made = text.partition("install -d -o comfybus")[2].splitlines()[0].split()
    assert {env["COMFY_HOME"], "/opt/comfy-env", env["CACHE_DIR"]} <= set(made)
    # What stands on PATH by a link is made by a later step.
    for link in re.findall(r"/opt/\S+/bin/\w+(?= )", text.partition("ln -s")[2].splitlines()[0]):
        assert f"-m venv {link.rpartition('/bin/')[0]}" in text
    assert text.index("USER 10001") < text.index("git clone")

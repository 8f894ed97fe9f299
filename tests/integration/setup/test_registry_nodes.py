"""Custom nodes by their name in the registry, through its client."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.setup.custom_nodes import CustomNodes
from app.setup.git_nodes import GitNodes
from app.setup.packages import Packages
from app.setup.programs import Programs, SetupFailed
from app.setup.record import Record
from tests.integration.setup.sources import Machine

pytestmark = pytest.mark.anyio

# As the client does it: the node is the word after `install`, its folder has the name without the version.
INSTALLS = """
while [ "$1" != install ]; do shift; done
name="${2%@*}"
mkdir -p "custom_nodes/$name"
echo "einops" > "custom_nodes/$name/requirements.txt"
echo "$2" > "custom_nodes/$name/version"
"""


async def install(machine: Machine, home: Path, *nodes: str, python: Path | None = None) -> None:
    """As a new start of the worker does."""
    record = Record(home / ".comfybus")
    await record.load()
    programs = Programs(machine.environment(), 60)
    packages = Packages(programs, record, "here", python)
    git = GitNodes(programs, record, home / "custom_nodes")
    await CustomNodes(programs, record, git, packages, home).install(nodes)


async def test_a_node_and_what_it_requires(machine: Machine, home: Path) -> None:
    """The client is told the workspace and to ask nothing; the requirements are ours to install; once."""
    machine.program("comfy", INSTALLS)
    await install(machine, home, "impact", "kjnodes@1.2.3")
    call = f"comfy --skip-prompt --workspace {home} node install %s --no-deps --exit-on-fail"
    pip = "pip install -r requirements.txt"
    assert machine.calls == [call % "impact", pip, call % "kjnodes@1.2.3", pip]
    machine.forget()
    await install(machine, home, "impact", "kjnodes@1.2.3")
    assert machine.calls == []


async def test_another_version_is_installed_over_it(machine: Machine, home: Path) -> None:
    """A changed pin asks the client again."""
    machine.program("comfy", INSTALLS)
    await install(machine, home, "impact@1.0")
    await install(machine, home, "impact@1.1")
    assert len(machine.called("comfy")) == 2
    assert (home / "custom_nodes" / "impact" / "version").read_text() == "impact@1.1\n"


async def test_a_node_that_vanished_comes_back(machine: Machine, home: Path) -> None:
    """The record alone is not believed."""
    machine.program("comfy", INSTALLS)
    await install(machine, home, "impact")
    for path in (home / "custom_nodes" / "impact").iterdir():
        path.unlink()
    (home / "custom_nodes" / "impact").rmdir()
    await install(machine, home, "impact")
    assert (home / "custom_nodes" / "impact" / "version").exists()


async def test_a_folder_of_another_name_is_recognised(machine: Machine, home: Path) -> None:
    """Whatever the client calls it: what came with the node is the node's."""
    machine.program(
        "comfy", 'mkdir -p custom_nodes/ComfyUI-Pack; echo kornia > "custom_nodes/ComfyUI-Pack/requirements.txt"'
    )
    await install(machine, home, "pack")
    assert machine.called("pip") == ["pip install -r requirements.txt"]


async def test_half_a_node_is_removed_and_nothing_else(machine: Machine, home: Path) -> None:
    """After a crash the client starts from nothing; folders that somebody else made meanwhile stay."""
    machine.program("comfy", "mkdir custom_nodes/Impact; touch custom_nodes/Impact/half; exit 1")
    with pytest.raises(SetupFailed, match="comfy ended with exit code 1"):
        await install(machine, home, "impact")
    (home / "custom_nodes" / "by-hand").mkdir()
    machine.program("comfy", "[ -e custom_nodes/Impact/half ] && exit 7; " + INSTALLS)
    await install(machine, home, "impact")
    assert sorted(path.name for path in (home / "custom_nodes").iterdir()) == ["by-hand", "impact"]


async def test_half_a_node_is_known_by_another_spelling_of_its_name(machine: Machine, home: Path) -> None:
    """The client may clone a repository that is not called exactly like the node."""
    machine.program("comfy", "mkdir custom_nodes/ComfyUI_Impact-Pack; exit 1")
    with pytest.raises(SetupFailed, match="comfy ended with exit code 1"):
        await install(machine, home, "impact-pack")
    folder = "custom_nodes/ComfyUI_Impact-Pack"
    machine.program("comfy", f"[ -e {folder} ] && exit 7; mkdir {folder}; echo einops > {folder}/requirements.txt")
    await install(machine, home, "impact-pack")
    assert machine.called("pip") == ["pip install -r requirements.txt"]


async def test_a_name_that_nobody_knows_fails(machine: Machine, home: Path) -> None:
    """The client says so and ends with 0; that is no success."""
    machine.program("comfy", "echo \"ERROR: An error occurred while installing 'nobody'.\"")
    with pytest.raises(SetupFailed, match="custom node nobody: ERROR: An error occurred while installing 'nobody'"):
        await install(machine, home, "nobody")
    # An error about something else does not undo an installation.
    machine.program("comfy", 'echo "ERROR: no news feed"; ' + INSTALLS)
    await install(machine, home, "impact")


async def test_the_client_works_in_comfyuis_environment(machine: Machine, home: Path, tmp_path: Path) -> None:
    """VIRTUAL_ENV is that of COMFY_PYTHON, where it is one."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(0o755)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    machine.program("comfy", f'printf %s "$VIRTUAL_ENV" > "{tmp_path}/seen"; mkdir -p custom_nodes/impact')
    await install(machine, home, "impact", python=python)
    assert (tmp_path / "seen").read_text() == str(tmp_path / "env")


async def test_without_the_client_it_is_named(machine: Machine, home: Path) -> None:
    """One sentence."""
    (machine.bin / "comfy").unlink()
    with pytest.raises(SetupFailed, match="custom node impact: comfy is needed and is not on PATH"):
        await install(machine, home, "impact")

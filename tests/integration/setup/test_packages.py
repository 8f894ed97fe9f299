"""Packages: the right installer with the right words, once, and again where the machine is another one."""

from __future__ import annotations

import os
import signal
import sys
import zipfile
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from app.setup.packages import Packages
from app.setup.programs import Programs, SetupFailed
from app.setup.record import Record
from tests.integration.setup.sources import Machine

pytestmark = pytest.mark.anyio


async def packages_of(
    machine: Machine, home: Path, *, mark: str = "here", python: Path | None = None, timeout_s: float = 60, **env: str
) -> Packages:
    """As a new start of the worker has them."""
    record = Record(home / ".comfybus")
    await record.load()
    return Packages(Programs(machine.environment(**env), timeout_s), record, mark, python)


async def test_debian_packages_are_installed_once(machine: Machine, home: Path) -> None:
    """Update, then one install without questions; a second start does nothing, a longer list only what is new."""
    machine.program("apt-get", f'echo "$DEBIAN_FRONTEND" >> "{machine.folder}/front"')
    lock = "-o DPkg::Lock::Timeout=300"
    await (await packages_of(machine, home)).apt(["git-lfs", "libgl1=1.6.0-1"])
    assert machine.calls == [f"apt-get update {lock}", f"apt-get install -y {lock} git-lfs libgl1=1.6.0-1"]
    assert (machine.folder / "front").read_text().split() == ["noninteractive"] * 2
    machine.forget()
    await (await packages_of(machine, home)).apt(["git-lfs", "libgl1=1.6.0-1"])
    assert machine.calls == []
    await (await packages_of(machine, home)).apt(["git-lfs", "tmux", "libgl1=1.6.0-1"])
    assert machine.calls[-1] == f"apt-get install -y {lock} tmux"


async def test_a_dpkg_that_was_cut_off_is_repaired_first(machine: Machine, home: Path) -> None:
    """After a failed or killed installation dpkg may finish what it has begun before anything else is asked of it."""
    machine.program("dpkg")
    machine.program("apt-get", '[ "$1" = update ] || exit 100')
    with pytest.raises(SetupFailed, match=r"apt tmux: apt-get ended with exit code 100: apt-get works"):
        await (await packages_of(machine, home)).apt(["tmux"])
    assert machine.called("dpkg") == []
    machine.program("apt-get")
    await (await packages_of(machine, home)).apt(["tmux"])
    assert machine.called("dpkg") == ["dpkg --configure -a"]


@pytest.mark.parametrize(
    ("there", "env", "python", "wanted"),
    [
        (["uv", "pip"], {}, None, "uv pip install --system"),
        (["uv", "pip"], {"VIRTUAL_ENV": "/v"}, None, "uv pip install"),
        (["uv", "pip"], {"CONDA_DEFAULT_ENV": "base"}, None, "uv pip install"),
        (["uv", "pip"], {}, "python", "uv pip install --python {python}"),
        (["pip"], {}, None, "pip install"),
        (["pip"], {"VIRTUAL_ENV": "/v"}, None, "pip install"),
        (["pip3"], {}, None, "pip3 install"),
        (["pip"], {}, "python", "python -m pip install"),
    ],
)
async def test_which_installer(
    machine: Machine, home: Path, there: list[str], env: dict[str, str], python: str | None, wanted: str
) -> None:
    """uv where it is, told of the system only outside an environment; pip never gets that option."""
    (machine.bin / "pip").unlink()
    for name in [*there, *([python] if python else [])]:
        machine.program(name)
    path = machine.bin / python if python else None
    packages = await packages_of(machine, home, python=path, **env)
    await packages.pip(["numpy==2.1", "torch>=2; python_version > '3'"])
    what = "numpy==2.1 torch>=2; python_version > '3'"
    assert machine.calls == [f"{wanted.format(python=path)} {what}"]


async def test_python_packages_come_again_for_another_list_or_another_machine(machine: Machine, home: Path) -> None:
    """The record counts for one list on one machine: a new container with the old volume installs anew."""
    for mark, wanted, calls in (
        ("one", ["a", "b"], 1),
        ("one", ["a", "b"], 1),
        ("one", ["a", "b", "c"], 2),
        ("two", ["a", "b", "c"], 3),
        ("two", [], 3),
    ):
        await (await packages_of(machine, home, mark=mark)).pip(wanted)
        assert len(machine.calls) == calls


async def test_requirements_of_a_node_are_read_where_it_is(machine: Machine, home: Path) -> None:
    """``-r requirements.txt`` in the node's folder, again when the file has changed; no file, no call."""
    node = home / "custom_nodes" / "pack"
    node.mkdir()
    machine.program("pip", 'cat "$3"')
    for name in ("requirements", "my-requirements.txt", "requirements.txt.bak"):
        (node / name).write_text("not this one")
    await (await packages_of(machine, home)).requirements(node, "pack")
    assert machine.calls == []
    (node / "requirements.txt").write_text("einops\n")
    with capture_logs() as logs:
        await (await packages_of(machine, home)).requirements(node, "pack")
    assert {"program": "pip", "line": "einops"}.items() <= logs[2].items()
    await (await packages_of(machine, home)).requirements(node, "pack")
    assert machine.calls == ["pip install -r requirements.txt"]
    (node / "requirements.txt").write_text("einops==1\n")
    await (await packages_of(machine, home)).requirements(node, "pack")
    assert len(machine.calls) == 2


@pytest.mark.full
async def test_the_end_of_a_long_output_is_kept_for_the_failure(machine: Machine, home: Path) -> None:
    """Megabytes of output neither stop an installer nor fill the memory; the last lines stand in the failure."""
    machine.program("pip", "i=0; while [ $i -lt 30000 ]; do echo line $i of some length; i=$((i+1)); done; exit 3")
    with pytest.raises(SetupFailed, match=r"pip broken: pip ended with exit code 3: .*line 29999 of") as failed:
        await (await packages_of(machine, home)).pip(["broken"])
    assert 20 < len(failed.value.output) < 200
    assert failed.value.output[-1] == "line 29999 of some length"


async def test_what_is_missing_is_named(machine: Machine, home: Path) -> None:
    """No apt-get, no pip: one sentence each."""
    for name in ("apt-get", "pip"):
        (machine.bin / name).unlink()
    packages = await packages_of(machine, home)
    with pytest.raises(SetupFailed, match="apt-get is needed and is not on PATH"):
        await packages.apt(["tmux"])
    with pytest.raises(SetupFailed, match="neither uv nor pip"):
        await packages.pip(["numpy"])


async def test_a_program_that_hangs_is_ended(machine: Machine, home: Path) -> None:
    """After SETUP_TIMEOUT_S it is ended with all that it has started."""
    machine.program("pip", f'echo $$ > "{machine.folder}/pid"; sleep 600')
    with pytest.raises(SetupFailed, match=r"did not end within 1 s \(SETUP_TIMEOUT_S\)"):
        await (await packages_of(machine, home, timeout_s=1)).pip(["slow"])
    with pytest.raises(ProcessLookupError):
        os.kill(int((machine.folder / "pid").read_text()), 0)


async def test_installers_get_no_secrets_of_the_worker(
    machine: Machine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages run code while they are installed: keys stay behind, what the installers themselves need does not."""
    from app.settings import load_settings
    from app.settings.setup import setup_config

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:pass@index.example/simple")
    monkeypatch.setenv("MANIFEST_JSON", '{"pip": ["x"]}')
    config = setup_config(load_settings(_env_file=None))
    assert config is not None
    assert "AWS_SECRET_ACCESS_KEY" not in config.environment
    assert config.environment["PIP_INDEX_URL"].startswith("https://user:pass@")


@pytest.mark.full
async def test_with_the_real_pip(tmp_path: Path, machine: Machine, home: Path) -> None:
    """A wheel from this disk goes into ComfyUI's Python, not into ours."""
    target = tmp_path / "venv"
    await anyio.run_process([sys.executable, "-m", "venv", str(target)], check=True)
    wheel = tmp_path / "comfybus_example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "comfybus_example-1.0.dist-info"
        archive.writestr("comfybus_example.py", "HERE = True\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: comfybus-example\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    env = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    packages = await packages_of(machine, home, python=target / "bin" / "python", **env)
    await packages.pip([f"comfybus-example @ {wheel.as_uri()}"])
    await anyio.run_process([str(target / "bin" / "python"), "-c", "import comfybus_example"], check=True)
    with pytest.raises(ImportError):
        __import__("comfybus_example")


@pytest.mark.full
async def test_a_worker_that_is_killed_takes_its_installer_along(machine: Machine, home: Path, tmp_path: Path) -> None:
    """No pip goes on beside the one of the next start."""
    from tests.integration.setup.sources import manifest_settings, start

    machine.program("pip", f'echo $$ > "{machine.folder}/pid"; sleep 600')
    env = manifest_settings(machine, home, tmp_path / "cache", MANIFEST_JSON='{"pip": ["slow"]}')
    process = start(env, tmp_path)
    pid = machine.folder / "pid"
    with anyio.fail_after(30):
        while not pid.exists() or not pid.read_text().strip():
            await anyio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.communicate)
        while True:
            try:
                os.kill(int(pid.read_text()), 0)
            except ProcessLookupError:
                return
            await anyio.sleep(0.02)

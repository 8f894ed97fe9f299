"""A set-up that is killed at any step and started again ends as one that never was."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.integration.setup.sources import Machine, Sources, git, make_machine, manifest_settings, start

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

# apt-get puts a file in two halves, so that a kill in between shows.
APT = """
if [ "$1" = install ]; then
  root="{root}"
  mkdir -p "$root"
  for word in "$@"; do
    case "$word" in
      tmux|git-lfs) printf half > "$root/$word"; sleep 0.05; printf whole > "$root/$word";;
    esac
  done
fi
"""
PIP = """
mkdir -p "{root}"
while [ $# -gt 0 ]; do
  case "$1" in
    install) shift; continue;;
    -r) shift
        while read -r line; do printf half > "{root}/$line"; sleep 0.05; printf whole > "{root}/$line"; done < "$1";;
    *) printf half > "{root}/$1"; sleep 0.05; printf whole > "{root}/$1";;
  esac
  shift
done
"""
COMFY = """
for word in "$@"; do
  case "$word" in
    impact*) mkdir -p "{nodes}/impact"; printf half > "{nodes}/impact/node.py"; sleep 0.05
             printf whole > "{nodes}/impact/node.py";;
  esac
done
"""


def put_programs(machine: Machine, home: Path) -> None:
    machine.program("apt-get", APT.format(root=machine.folder / "apt"))
    machine.program("pip", PIP.format(root=machine.folder / "site"))
    machine.program("comfy", COMFY.format(nodes=home / "custom_nodes"))


def end_state(machine: Machine, home: Path) -> dict[str, Any]:
    """Every file that the set-up made, with its content; of a clone its commit and its cleanliness."""
    found: dict[str, Any] = {}
    for root in (home, machine.folder / "apt", machine.folder / "site"):
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and ".git" not in inside.parts and not inside.parts[0].startswith(".comfybus"):
                found[f"{root.name}/{inside}"] = path.read_bytes()
    pack = home / "custom_nodes" / "pack"
    found["commit"] = git("rev-parse", "HEAD", cwd=pack)
    found["status"] = git("status", "--porcelain", cwd=pack)
    record = json.loads((home / ".comfybus" / "setup.json").read_text())
    found["done"] = sorted(key.rpartition("/")[2] for key in record["done"])
    found["begun"] = sorted(record["begun"])
    return found


class Place:
    """One machine with one ComfyUI and one cache."""

    def __init__(self, folder: Path, sources: Sources, commit: str) -> None:
        self.home = folder / "ComfyUI"
        (self.home / "custom_nodes").mkdir(parents=True)
        self.machine = make_machine(folder / "machine")
        put_programs(self.machine, self.home)
        self.manifest = {
            "apt": ["tmux", "git-lfs"],
            "pip": ["einops"],
            "custom_nodes": [f"{sources.url}/git/anna/pack.git@{commit}", "impact"],
            "models": {
                "before_start": [
                    {"url": f"{sources.url}/files/a", "local_path": "models/vae/a.pt"},
                    {"url": f"{sources.url}/files/b", "local_path": "models/loras/b.pt"},
                ]
            },
        }
        self.folder = folder

    def start(self) -> subprocess.Popen[str]:
        path = self.folder / "manifest.yaml"
        path.write_text(json.dumps(self.manifest))
        env = manifest_settings(self.machine, self.home, self.folder / "cache", MANIFEST=path, LOG_LEVEL="info")
        return start(env, self.folder)

    async def run(self) -> list[dict[str, Any]]:
        """Run it to its end; returns its log."""
        process = self.start()
        _, log = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=240), abandon_on_cancel=True)
        assert process.returncode == 0, log
        return [json.loads(line) for line in log.splitlines()]

    async def kill_at(self, number: int) -> bool:
        """Kill it when it has logged so many lines; False if it had ended before."""
        return await self._kill(number, "")

    async def kill_at_step(self, number: int) -> bool:
        """Kill it when it begins its n-th step."""
        return await self._kill(number, "set-up step begins")

    async def _kill(self, number: int, words: str) -> bool:
        process = self.start()
        assert process.stderr is not None
        while number:
            line = await anyio.to_thread.run_sync(process.stderr.readline, abandon_on_cancel=True)
            if not line:
                break
            number -= words in line
        process.send_signal(signal.SIGKILL)
        code = await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        process.stderr.close()
        return code == -signal.SIGKILL


def fill(sources: Sources) -> str:
    """Offer what the manifest names; returns the commit that it pins."""
    sources.files |= {"a": b"model a" * 5000, "b": b"model b"}
    return sources.repository("anna/pack", requirements="kornia\n").first


STEPS = ["apt", "pip", "custom node", "requirements", "custom node", "model", "model"]


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_killed_again_and_again_it_ends_the_same(tmp_path: Path, sources: Sources) -> None:
    """SIGKILL after one line of the log, after two, after three and so on, until nothing is left to do."""
    commit = fill(sources)
    reference = Place(tmp_path / "reference", sources, commit)
    log = await reference.run()
    done = [entry for entry in log if entry["event"] == "set-up step done"]
    assert [entry["step"] for entry in done] == STEPS
    assert all(entry["duration_s"] >= 0 for entry in done)
    wanted = end_state(reference.machine, reference.home)
    assert (wanted["commit"], wanted["begun"], wanted["site/kornia"]) == (commit, [], b"whole")
    battered = Place(tmp_path / "battered", sources, commit)
    kills = 0
    while await battered.kill_at(kills + 1):
        kills += 1
    assert kills >= 4
    assert end_state(battered.machine, battered.home) == wanted


# The clone is the one that every run tries.
EACH = [number if number == 2 else pytest.param(number, marks=pytest.mark.full) for number in range(len(STEPS))]


@pytest.mark.parametrize("number", EACH)
async def test_killed_at_every_step_it_ends_the_same(tmp_path: Path, sources: Sources, number: int) -> None:
    """Killed once, right at the begin of a step where its program or download is at work; then started again."""
    place = Place(tmp_path / "place", sources, fill(sources))
    assert await place.kill_at_step(number + 1)
    await place.run()
    found = end_state(place.machine, place.home)
    assert found["begun"] == []
    assert found["status"] == ""
    files = {name: content for name, content in found.items() if isinstance(content, bytes)}
    assert set(files) >= {
        "apt/tmux",
        "apt/git-lfs",
        "site/einops",
        "site/kornia",
        "ComfyUI/custom_nodes/impact/node.py",
    }
    assert {files[name] for name in files if name.startswith(("apt/", "site/"))} == {b"whole"}
    assert files["ComfyUI/custom_nodes/impact/node.py"] == b"whole"
    assert files["ComfyUI/models/vae/a.pt"] == sources.files["a"]
    assert files["ComfyUI/models/loras/b.pt"] == sources.files["b"]
    assert sorted(path.name for path in (place.home / "custom_nodes").iterdir()) == ["impact", "pack"]


@pytest.mark.full
async def test_a_second_start_does_nothing(tmp_path: Path, sources: Sources) -> None:
    """No program is run and nothing is fetched."""
    place = Place(tmp_path / "place", sources, fill(sources))
    await place.run()
    assert [call for call in place.machine.calls if "kornia" in call or "einops" in call] == ["pip install einops"]
    place.machine.forget()
    sources.asked.clear()
    log = await place.run()
    assert place.machine.calls == []
    assert sources.asked == {}
    assert [entry["event"] for entry in log] == ["set-up done"]


@pytest.mark.full
async def test_two_workers_that_share_a_folder_install_one_after_the_other(tmp_path: Path, sources: Sources) -> None:
    """The second waits for the first and finds everything done."""
    place = Place(tmp_path / "place", sources, fill(sources))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.run)
        tasks.start_soon(place.run)
    assert len(place.machine.called("apt-get")) == 2
    assert len(place.machine.called("pip")) == 2
    assert len(place.machine.called("comfy")) == 1


@pytest.mark.full
async def test_a_failing_step_stops_with_one_line(tmp_path: Path, sources: Sources) -> None:
    """The exit code is not 0, and what the program said is in the log."""
    place = Place(tmp_path / "place", sources, fill(sources))
    place.machine.program("comfy", "echo no such node; exit 1")
    process = place.start()
    _, log = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=240), abandon_on_cancel=True)
    assert process.returncode == 1
    *entries, last = log.splitlines()
    assert last == "custom node impact: comfy ended with exit code 1: comfy works / no such node"
    failure = json.loads(entries[-1])
    assert (failure["event"], failure["output"]) == ("set-up step failed", ["comfy works", "no such node"])
    assert place.machine.called("comfy")[0].endswith("node install impact --no-deps --exit-on-fail")

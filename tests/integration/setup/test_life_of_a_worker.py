"""The whole life of a real worker: installed, warmed up, given models, started anew, and told why it cannot start."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.integration.setup.sources import Machine, Sources, git
from tests.support.processes import StandIn, Worker, free_port, wait_http
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


def supervised(stack: Stack, machine: Machine, **env: object) -> tuple[StandIn, Worker]:
    """A worker that installs on this machine and launches its own stand-in."""
    folder = stack.folder
    comfy = StandIn(folder / "own", free_port())
    comfy.home.mkdir()
    settings = {
        "COMFYUI_URL": comfy.url,
        "COMFY_HOME": comfy.home,
        "CMD": f"{sys.executable} -m app.comfy.standin --port {comfy.port} --home {comfy.home}",
        "CACHE_DIR": folder / "cache",
        "PATH": machine.environment()["PATH"],
        "PYTHONPATH": Path(__file__).parents[3],
        **env,
    }
    return comfy, stack.worker(comfy, **settings)


async def until(met: Callable[[], Any], within_s: float = 40) -> None:
    with anyio.fail_after(within_s):
        while not met():
            await anyio.sleep(0.02)


async def get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json()


async def failures_counted(worker: Worker) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics") as response:
        families = {family.name: family for family in text_string_to_metric_families(await response.text())}
    return sum(one.value for one in families["comfybus_transfers"].samples if one.labels["event"] == "download_failed")


def storage(stack: Stack, event: str) -> list[dict[str, Any]]:
    return [one.body for one in stack.outside.heard(channel="storage") if one.body["type"] == f"storage.{event}"]


async def test_installed_warmed_up_and_ready_only_then(tmp_path: Path, machine: Machine, sources: Sources) -> None:
    """Everything of the manifest is there before ComfyUI starts; the warm-up publishes nothing and comes again."""
    pack = sources.repository("anna/pack", requirements="einops\n")
    sources.files |= {"base": b"weights", "late": b"late weights"}
    files = f"{sources.url}/files"
    manifest = {
        "apt": ["tmux"],
        "custom_nodes": [f"{sources.url}/git/anna/pack.git@{pack.first}"],
        "models": {
            "before_start": [{"url": f"{files}/base", "local_path": "models/checkpoints/base.safetensors"}],
            "after_start": [
                {"url": f"{files}/gone", "local_path": "models/vae/gone.safetensors"},
                {"url": f"{files}/late", "local_path": "models/vae/late.safetensors"},
            ],
        },
    }
    (tmp_path / "warm.json").write_text(json.dumps(graph(seconds=1, steps=10)))
    async with run_stack(tmp_path) as stack:
        comfy, worker = supervised(
            stack, machine, MANIFEST_JSON=json.dumps(manifest), WARMUP_PROMPT_FILE=tmp_path / "warm.json"
        )
        worker.launch()
        assert worker.process is not None
        await wait_http(f"{worker.url}/health", worker.process, 500)
        await stack.outside.send({"id": "early-1", "prompt": graph()})
        await until(comfy.executions)
        # The warm-up runs: nothing is taken yet.
        assert (await get(f"{worker.url}/health"))[0] == 500
        status, body = await get(f"{worker.url}/ready")
        assert status == 503
        assert body["reason"]
        assert stack.outside.heard("early-1") == []
        await worker.ready()
        assert (await get(f"{worker.url}/health"))[0] == 200
        assert (await stack.outside.terminal("early-1")).body["type"] == "prompt.complete"
        assert [call.split()[0] for call in machine.calls if not call.startswith("git")] == ["apt-get"] * 2 + ["pip"]
        assert git("rev-parse", "HEAD", cwd=comfy.home / "custom_nodes" / "pack") == pack.first
        assert (await get(f"{worker.url}/models"))[1]["checkpoints"] == ["base.safetensors"]
        # What may come later comes later; what cannot come is told and harms nobody.
        await until(lambda: storage(stack, "download_failed") and (comfy.home / "models/vae/late.safetensors").exists())
        (failed,) = storage(stack, "download_failed")
        assert (failed["id"], failed["data"]["url"]) == (None, f"{files}/gone")
        assert await failures_counted(worker) == 1
        assert len(stack.outside.heard(channel="prompt.complete")) == 1
        # Another ComfyUI is warmed up before it gets anything.
        before = len(comfy.executions())
        os.kill(await child_of(comfy), signal.SIGKILL)
        await wait_http(f"{worker.url}/ready", worker.process, 503)
        await worker.ready()
        assert len(comfy.executions()) == before + 1
        assert {one.body["id"] for one in stack.outside.heard(channel="prompt.")} == {"early-1"}
        assert await worker.stop() == 0


async def child_of(comfy: StandIn) -> int:
    """The pid of the ComfyUI that the worker has launched."""
    wanted = f"--port\0{comfy.port}\0".encode()
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if arguments.startswith(sys.executable.encode()) and wanted in arguments and b"guard.py" not in arguments:
            return int(entry.name)
    raise AssertionError("no ComfyUI runs")


async def test_models_on_demand_reach_every_worker(tmp_path: Path, sources: Sources) -> None:
    """Each worker answers the command with one event; the model is listed and can be used at once."""
    sources.files["lora"] = b"weights"
    async with run_stack(tmp_path, ALLOWED_PRIVATE_HOSTS="127.0.0.1") as stack:
        for number in range(2):
            await stack.worker(await stack.comfy(), CACHE_DIR=tmp_path / f"cache-{number}").start()
        url = f"{sources.url}/files/lora"
        command = {"type": "model.download", "id": "get-1", "url": url, "model_type": "loras", "filename": "x.pt"}
        await stack.outside.command(command)
        await until(lambda: len(storage(stack, "file_downloaded")) == 2)
        assert {one["worker"] for one in storage(stack, "file_downloaded")} == {"w0", "w1"}
        assert {one["id"] for one in storage(stack, "file_downloaded")} == {"get-1"}
        for comfy, worker in zip(stack.comfys, stack.workers, strict=True):
            assert (comfy.home / "models/loras/x.pt").read_bytes() == b"weights"
            assert (await get(f"{worker.url}/models"))[1]["loras"] == ["x.pt"]
        models = [one.body for one in stack.outside.heard(channel="worker") if one.body["type"] == "worker.models"]
        assert {one["worker"] for one in models if one["models"]["loras"] == ["x.pt"]} == {"w0", "w1"}
        await stack.outside.command({**command, "id": "get-2", "model_type": "custom_nodes", "filename": "x.py"})
        await until(lambda: len(storage(stack, "download_failed")) == 2)
        assert {one["id"] for one in storage(stack, "download_failed")} == {"get-2"}


@pytest.mark.full
async def test_a_manifest_that_fails_ends_the_worker_with_one_line(
    tmp_path: Path, machine: Machine, sources: Sources
) -> None:
    """The exit code is not 0, the last line names step and reason, and ComfyUI was never started."""
    async with run_stack(tmp_path) as stack:
        manifest = {"models": {"before_start": [{"url": f"{sources.url}/files/no", "local_path": "models/vae/no.pt"}]}}
        comfy, worker = supervised(stack, machine, MANIFEST_JSON=json.dumps(manifest))
        worker.launch()
        assert worker.process is not None
        assert await worker.process.wait() != 0
        assert "models/vae/no.pt: " in worker.process.tail(1)
        assert "404" in worker.process.tail(1)
        assert not comfy.executions()
        with pytest.raises(AssertionError, match="no ComfyUI runs"):
            await child_of(comfy)


@pytest.mark.full
async def test_a_worker_that_is_ended_while_it_installs_ends_at_once(tmp_path: Path, machine: Machine) -> None:
    """SIGTERM in the middle of a long installation: the installer is ended too, and the exit code is 0."""
    machine.program("pip", f'echo $$ > "{machine.folder}/pid"; sleep 600')
    async with run_stack(tmp_path) as stack:
        _, worker = supervised(stack, machine, MANIFEST_JSON='{"pip": ["slow"]}')
        worker.launch()
        pid = machine.folder / "pid"
        await until(lambda: pid.exists() and pid.read_text().strip())
        # Probes answer meanwhile.
        assert (await get(f"{worker.url}/health"))[0] == 500
        assert await worker.stop() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


@pytest.mark.full
async def test_a_wrong_warm_up_prompt_ends_the_worker_with_one_line(tmp_path: Path) -> None:
    """What cannot be read ends it before anything is connected, what ComfyUI refuses at its first run."""
    async with run_stack(tmp_path) as stack:
        comfy = await stack.comfy()
        for text, words in (("{", "not valid JSON"), ('{"1": {"class_type": "NoSuch"}}', "cannot be run")):
            (tmp_path / "warm.json").write_text(text)
            worker = stack.worker(comfy, WARMUP_PROMPT_FILE=tmp_path / "warm.json")
            worker.launch()
            assert worker.process is not None
            assert await worker.process.wait() == 2
            assert words in worker.process.tail(1)
            assert "WARMUP_PROMPT_FILE=" in worker.process.tail(1)

"""What a launched ComfyUI gets from us, and what we get from it."""

from __future__ import annotations

import json
import os

import pytest
from structlog.testing import capture_logs
from supervised import Stage, until, up

pytestmark = pytest.mark.anyio

SECRETS = {
    "BROKER_URL": "nats://user:pw-broker@host",
    "NATS_TOKEN": "pw-nats",
    "KAFKA_SASL_PASSWORD": "pw-kafka",
    "AWS_SECRET_ACCESS_KEY": "pw-aws",
    "AZURE_STORAGE_CONNECTION_STRING": "pw-azure",
    "HF_TOKEN": "pw-hf",
    "WEBHOOK_SECRET": "pw-webhook",
    "HTTP_AUTH_HEADER_VALUE": "pw-http",
    "SALAD_MACHINE_ID": "pw-salad",
    "SOMETHING_NOBODY_THOUGHT_OF": "pw-unknown",
}


async def test_no_secret_reaches_it(stage: Stage) -> None:
    """Neither ComfyUI nor its guard has a secret of ours in its environment or on its command line."""
    config = stage.config("environment", "listen", environment={**os.environ, **SECRETS, "CUDA_VISIBLE_DEVICES": "1"})
    async with stage.running(config) as supervisor:
        await up(supervisor)
        seen = json.loads((stage.folder / "environment").read_text())
        texts = [
            (path / part).read_text(errors="replace")
            for path in stage.family(supervisor.pid)
            for part in ("environ", "cmdline")
        ]
    assert len(texts) == 4
    assert not any("pw-" in text for text in [*texts, json.dumps(seen)])
    assert "pw-" not in repr(config)
    assert seen["CUDA_VISIBLE_DEVICES"] == "1"
    assert seen["PATH"] == os.environ["PATH"]
    told = {"DIRECT_ADDRESS": "127.0.0.1", "COMFYUI_PORT_HOST": str(stage.port), "WEB_ENABLE_AUTH": "false"}
    assert {**told, "CF_QUICK_TUNNELS": "false"}.items() <= seen.items()


async def test_it_runs_in_its_home_and_session(stage: Stage) -> None:
    """The working folder is COMFY_HOME; process group and session are its own, away from a terminal's Ctrl-C."""
    home = stage.folder / "home with spaces"
    home.mkdir()
    async with stage.running(stage.config("listen", home=home)) as supervisor:
        await up(supervisor)
        pid = supervisor.pid
        assert pid is not None
        assert os.readlink(f"/proc/{pid}/cwd") == str(home)  # noqa: PTH115
        assert (os.getpgid(pid), os.getsid(pid)) == (pid, pid)
        guard_pid = int(stage.family(pid)[1].name)
        assert os.getsid(guard_pid) == guard_pid


async def test_its_output_is_logged_line_by_line(stage: Stage) -> None:
    """Each line, the last words before a crash too, becomes one log line, bounded, without what signs a URL."""
    steps = ["say:first line", "say:see https://user:pw@host/x?token=abc", f"say:{'x' * 9000}", "listen"]
    with capture_logs() as logs:
        async with stage.running(stage.config(*steps, "sleep:0.1", "say:last words", "exit:1")) as supervisor:
            await until(lambda: supervisor.starts >= 2)
    said = [line["line"] for line in logs if line["event"] == "ComfyUI says"]
    assert said[0] == "first line"
    assert said[1] == "see https://host/x?token=***"
    assert said[2] == "x" * 4096 + " … (4904 bytes more)"
    assert said[3] == "last words"


async def test_much_output_holds_nobody_up(stage: Stage) -> None:
    """Ten thousand lines before the port opens pass through while it starts."""
    steps = [f"say:{'line ' * 100}"] * 100
    noisy = [f"say:{chr(10).join(['another line'] * 1000)}"] * 10
    with capture_logs() as logs:
        async with stage.running(stage.config(*steps, *noisy, "listen")) as supervisor:
            await up(supervisor)
    assert sum(line["event"] == "ComfyUI says" for line in logs) == 10_100

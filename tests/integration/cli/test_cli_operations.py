"""What an operator does: workers, cancel, download, dead letters, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.integration.cli.command_line import Commands, finished, line_of
from tests.support.stack import Stack, graph

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def test_a_running_prompt_is_cancelled(commands: Commands) -> None:
    """Who waits for it gets exit code 1 and the code `cancelled`."""
    waiting = commands.start("submit", "-", "--wait", "--json", "--id", "cli-cancelled")
    assert waiting.stdin is not None
    waiting.stdin.write(json.dumps(graph(seconds=30, color=8)))
    waiting.stdin.close()
    waiting.stdin = None
    while "running" not in await line_of(waiting.stderr):
        pass
    done = await commands.run("cancel", "cli-cancelled")
    assert (done.code, done.out) == (0, "")
    waited = await finished(waiting)
    assert (waited.code, waited.document["code"]) == (1, "cancelled")


async def test_workers_are_listed(commands: Commands) -> None:
    """One row each: name, state, load, models, version; --json gives the events themselves with the models in them."""
    with anyio.fail_after(90):
        # The list of models follows the first sign of life.
        while not (events := await listed(commands)) or events[0]["models"] is None:
            await anyio.sleep(0.1)
    assert [event["worker"] for event in events] == ["w0"]
    models = events[0]["models"]
    assert {"checkpoints", "loras"} <= set(models)
    done = await commands.run("workers")
    head, row = done.out.splitlines()
    assert (done.code, head.split()[0], row.split()[:2]) == (0, "WORKER", ["w0", "up"])
    assert "0.3.64" in row
    assert "MODELS" in head
    assert f" {sum(len(names) for names in models.values())} " in row


async def listed(commands: Commands) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await commands.run("workers", "--json")).out.splitlines()]


async def test_a_download_is_a_command_on_the_control_channel(commands: Commands) -> None:
    """It is confirmed by the broker; what comes of it is the worker's business."""
    done = await commands.run("download", "https://h/m.safetensors", "--type", "loras", "--filename", "n.safetensors")
    assert (done.code, done.out) == (0, "")
    assert "model.download" in done.err


async def test_dead_letters_are_listed_and_replayed(commands: Commands, stack: Stack) -> None:
    """The list shows why and never the body; a replay answers with its number; what is gone is said."""
    secret = "hunter2-in-a-broken-request"
    for number in (1, 2):
        await stack.outside.send(f'{{"token": "{secret}", {number}'.encode(), {"ce-id": f"cli-dead-{number}"})
        await stack.outside.terminal(f"cli-dead-{number}")
    listed = await commands.run("dlq", "list")
    assert listed.code == 0
    assert "cli-dead-1" in listed.out
    assert "invalid_request" in listed.out
    rows = [json.loads(line) for line in (await commands.run("dlq", "list", "--json")).out.splitlines()]
    assert [row["request_id"] for row in rows] == ["cli-dead-1", "cli-dead-2"]
    assert secret not in listed.out + json.dumps(rows)

    unknown = await commands.run("dlq", "replay", "cli-unknown")
    assert (unknown.code, unknown.out) == (1, "")
    assert "comfybus dlq list" in unknown.err

    one = await commands.run("dlq", "replay", "cli-dead-1")
    assert (one.code, one.out) == (0, "cli-dead-1 runs again as replay 1\n")
    assert (await stack.outside.terminal("cli-dead-1", replay=1)).body["replay"] == 1
    # The replay failed as well, so that there are two letters again.
    both = await commands.run("dlq", "replay", "--all")
    assert both.code == 0
    assert sorted(both.out.splitlines()) == ["cli-dead-1 runs again as replay 2", "cli-dead-2 runs again as replay 1"]
    assert "2 of 2 replayed" in both.err
    await stack.outside.terminal("cli-dead-1", replay=2)
    await stack.outside.terminal("cli-dead-2", replay=1)


def on_kafka(stack: Stack) -> bool:
    """Kafka has topics where NATS has streams, and no store of its own."""
    return stack.broker.url.startswith("kafka://")


async def test_doctor_finds_nothing_wrong(
    stack: Stack, commands: Commands, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A line per check, each ok, the exit code 0, and nothing left in the folders it probed."""
    own = {"OUTPUT_STORE": f"file://{commands.folder}", "CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    done = await commands.run("doctor", **own)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for part in (
        "settings",
        "broker",
        "comfyui",
        "folders",
        "outputs",
        "cache",
        "s3",
        "azure",
        "hf",
        "http",
        f"{stack.env['TOPIC_PREFIX']}.prompt.request" if on_kafka(stack) else "comfyui-request",
        "0.3.64",
    ):
        assert part in done.out
    assert list(commands.folder.iterdir()) == []


async def test_doctor_shows_the_keys_to_their_stores(stack: Stack, commands: Commands) -> None:
    """The worker's store works; keys that nobody answers for are named with the host that was asked."""
    keys = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "canary-key"}
    account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=Y2FuYXJ5;BlobEndpoint=http://127.0.0.1:1/a"
    cache = str(commands.folder / "cache")
    done = await commands.run("doctor", CACHE_DIR=cache, AZURE_STORAGE_CONNECTION_STRING=account, **keys)
    assert (done.code, done.err) == (1, "")
    lines = {line.split()[1]: line for line in done.out.splitlines()}
    assert lines["outputs"].startswith("ok")
    store = "can be written" if on_kafka(stack) else "the object bucket comfyui-outputs takes files"
    assert store in lines["outputs"]
    for name in ("s3", "azure"):
        assert lines[name].startswith("failed")
        assert "http://127.0.0.1:1" in lines[name]
        assert "see whether the server runs" in lines[name]
    assert "canary-key" not in done.out
    assert "Y2FuYXJ5" not in done.out


async def test_doctor_says_what_is_wrong_and_what_to_do(lonely: Commands) -> None:
    """Every check is made although the first ones fail; exit code 1; nothing but lines."""
    done = await lonely.run("doctor", OUTPUT_STORE="file:///no/such/folder")
    assert (done.code, done.err) == (1, "")
    failed = [line for line in done.out.splitlines() if line.startswith("failed")]
    assert [line.split()[1] for line in failed] == ["broker", "comfyui", "outputs"]
    for line, cure in zip(failed, ("BROKER_URL", "COMFYUI_URL", "OUTPUT_STORE"), strict=True):
        assert cure in line


async def test_doctor_sees_folders_that_are_not_comfyuis(commands: Commands, tmp_path: Path) -> None:
    """A folder that ComfyUI does not use would lose every input put there."""
    other = tmp_path / "other"
    other.mkdir()
    done = await commands.run("doctor", INPUT_DIR=str(other))
    assert done.code == 1
    (failed,) = [line for line in done.out.splitlines() if line.startswith("failed")]
    assert "INPUT_DIR" in failed


async def test_doctor_names_a_wrong_setting(commands: Commands) -> None:
    """Without settings there is nothing else to look at."""
    done = await commands.run("doctor", MAX_IN_FLIGHT="many")
    assert (done.code, done.err) == (1, "")
    (line,) = done.out.splitlines()
    assert line.startswith("failed  settings  MAX_IN_FLIGHT='many' is wrong")

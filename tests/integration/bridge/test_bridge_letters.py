"""What was given up: listed, replayed; and the signed sample, by the commands as a user runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.bridge.bridges import Scene, on_each_broker, run_scene
from tests.integration.bridge.receivers import SECRET, Receivers, answers, run_receivers
from tests.integration.cli.command_line import Commands
from tests.support.processes import free_port

# Generous: a machine that is busy with other things starts processes slowly.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


def commands(scene: Scene, **env: Any) -> Commands:
    """``comfybus`` with the settings of the bridge."""
    own = {
        **scene.env,
        "BROKER_URL": scene.stack.broker.url,
        "WEBHOOK_SECRET": SECRET,
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
    }
    return Commands(scene.stack.folder, {**scene.env, **own, **{name: str(value) for name, value in env.items()}})


def recovers(receivers: Receivers, path: str) -> None:
    """From now on the receiver takes everything."""
    receivers.behaviours.pop(path)


@on_each_broker
async def test_what_was_given_up_is_listed_and_replayed(tmp_path: Path, broker: str) -> None:
    """An exhausted webhook is shown with its reason and without secrets; replayed it arrives with its webhook-id."""
    async with run_receivers(hook=answers(500)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(PROMPT_WEBHOOK_RETRIES=1).start()
        run = commands(scene).run
        # Before the bridge had anything to give up.
        empty = await run("webhooks", "list")
        assert (empty.code, empty.out, empty.err) == (0, "", "no webhook was given up\n")
        await scene.complete("d1", webhook_v2=receivers.url("hook") + "?token=verysecret")
        await scene.complete("d2", webhook_v2=receivers.url("hook"))
        await scene.until_kept("dlq", 2)
        listed = await run("webhooks", "list")
        assert listed.code == 0
        assert "the receiver answers 500; given up after 1 attempts" in listed.out
        assert "verysecret" not in listed.out
        rows = await run("webhooks", "list", "--json")
        assert '"webhook_id": "d1/complete"' in rows.out
        assert '"code": "exhausted"' in rows.out

        recovers(receivers, "hook")
        replayed = await run("webhooks", "replay", "d1")
        assert replayed.code == 0, replayed.err
        assert replayed.out == f"d1/complete is delivered again to {receivers.url('hook')}\n"
        calls = await receivers.until("hook", 3)
        assert calls[-1].webhook_id == "d1/complete"
        assert calls[-1].verified()["id"] == "d1"
        everything = await run("webhooks", "replay", "--all")
        assert everything.code == 0, everything.err
        await receivers.until("hook", 4)
        await scene.until_kept("due", 0)
        assert await scene.kept("dlq") == []
        assert await scene.kept("body") == []
        assert (await run("webhooks", "replay", "d1")).code == 1
        assert (await run("webhooks", "replay")).code == 2


@on_each_broker
async def test_an_endpoint_that_is_gone_is_asked_again_after_a_replay(tmp_path: Path, broker: str) -> None:
    """After a 410 nothing is sent to that URL, over restarts too, until one of its webhooks is replayed."""
    async with run_receivers(gone=answers(410)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        bridge = scene.bridge()
        await bridge.start()
        await scene.complete("g1", webhook_v2=receivers.url("gone"))
        await scene.until_kept("dlq", 1)
        await bridge.stop()
        await scene.bridge().start()
        await scene.complete("g2", webhook_v2=receivers.url("gone"))
        # Another URL of the same path is another endpoint.
        await scene.complete("g3", webhook_v2=receivers.url("gone") + "?other=1")
        await scene.until_kept("dlq", 3)
        assert sorted(call.webhook_id for call in receivers.of("gone")) == ["g1/complete", "g3/complete"]
        assert len(await scene.kept("gone")) == 2
        recovers(receivers, "gone")
        assert (await commands(scene).run("webhooks", "replay", "g2/complete")).code == 0
        await receivers.until("gone", 3)
        await scene.complete("g4", webhook_v2=receivers.url("gone"))
        await receivers.until("gone", 4)
        await scene.until_kept("dlq", 2)


@on_each_broker
async def test_what_waits_is_listed_too(tmp_path: Path, broker: str) -> None:
    """`webhooks list --waiting` shows when the next attempt is due and why the last one failed."""
    async with run_receivers(hook=answers(503)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(WEBHOOK_SCHEDULE="1h").start()
        await scene.complete("w1", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", 1)
        await scene.until_kept("due", 1)
        with_reason = [record async for record in _until_deferred(scene)]
        assert with_reason[0]["attempts"] == 1
        done = await commands(scene).run("webhooks", "list", "--waiting")
        assert "w1/complete" in done.out
        assert "the receiver answers 503" in done.out


async def _until_deferred(scene: Scene) -> Any:
    while True:
        [record] = await scene.records("due")
        if record.get("attempts"):
            yield record
            return


@on_each_broker
async def test_a_subscription_that_is_removed_ends_its_deliveries(tmp_path: Path, broker: str) -> None:
    """Deliveries of a subscription follow the file: a corrected URL is used, a removed one ends in the dead letter."""
    async with run_receivers(wrong=answers(404)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        path = tmp_path / "subscriptions.yaml"

        def write(*names: str, url: str) -> None:
            entries = [{"name": name, "url": receivers.url(url), "secrets": [SECRET]} for name in names]
            path.write_text(yaml.safe_dump({"subscriptions": entries}))

        write("kept", "dropped", url="wrong")
        bridge = scene.bridge(WEBHOOK_SUBSCRIPTIONS=path, WEBHOOK_SCHEDULE="4s")
        await bridge.start()
        await scene.complete("s1")
        await receivers.until("wrong", 2)
        await bridge.stop()
        write("kept", url="right")
        await scene.bridge(WEBHOOK_SUBSCRIPTIONS=path, WEBHOOK_SCHEDULE="4s").start()
        [call] = await receivers.until("right", 1)
        assert call.verified()["id"] == "s1"
        await scene.until_kept("due", 0)
        [letter] = await scene.records("dlq")
        assert (letter["code"], letter["subscription"]) == ("unknown_subscription", "dropped")


async def test_a_signed_sample(tmp_path: Path) -> None:
    """`webhooks test URL` sends a sample that the official library accepts, and says what came back."""
    async with run_receivers(no=answers(418)) as receivers:
        run = Commands(tmp_path, {"WEBHOOK_SECRET": SECRET, "ALLOWED_PRIVATE_HOSTS": "127.0.0.1"}).run
        done = await run("webhooks", "test", receivers.url("yes"))
        assert done.code == 0, done.err
        assert f"{receivers.url('yes')} answers 200" in done.out
        [call] = receivers.of("yes")
        assert call.verified()["type"] == "prompt.complete"
        assert call.webhook_id in done.out
        refused = await run("webhooks", "test", receivers.url("no"))
        assert (refused.code, refused.err) == (1, "this is 418\n")
        absent = await run("webhooks", "test", f"http://127.0.0.1:{free_port()}/hook")
        assert absent.code == 3
        assert "nobody answers" in absent.err
        private = await run("webhooks", "test", receivers.url("yes"), ALLOWED_PRIVATE_HOSTS="")
        assert private.code == 2
        assert "ALLOWED_PRIVATE_HOSTS" in private.err
        assert (await run("webhooks", "test", "nonsense")).code == 2


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"WEBHOOK_SECRET": "whsec_hunter2"}, "WEBHOOK_SECRET is wrong"),
        ({"WEBHOOK_SECRET": "whsec_" + "A" * 12}, "24 to 64 bytes"),
        ({"WEBHOOK_SECRET": "!!"}, "it holds no base64"),
        ({"PROMPT_WEBHOOK_RETRIES": "0"}, "PROMPT_WEBHOOK_RETRIES='0' is wrong"),
        ({"WEBHOOK_SCHEDULE": "5s,soon"}, "soon is no delay"),
        ({"SYSTEM_WEBHOOK_URL": "gopher://x"}, "SYSTEM_WEBHOOK_URL is wrong"),
        ({"WEBHOOK_SUBSCRIPTIONS": "/nowhere.yaml"}, "/nowhere.yaml cannot be read"),
    ],
)
async def test_wrong_settings_stop_the_start_with_one_line(tmp_path: Path, env: dict[str, str], words: str) -> None:
    """A setting that cannot be used is named in one line, a secret without its value."""
    done = await Commands(tmp_path, {}).run("bridge", **env)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert "hunter2" not in done.err

"""What each kind of webhook carries, from event to receiver, by the real bridge."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from standardwebhooks import Webhook, WebhookVerificationError

from tests.integration.bridge.bridges import on_each_broker, run_scene
from tests.integration.bridge.receivers import SECRET, answers, run_receivers
from tests.support.stack import graph

# Generous: a machine that is busy with other things starts processes slowly.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@on_each_broker
async def test_webhook_v2_is_one_signed_post_of_the_event(tmp_path: Path, broker: str) -> None:
    """Both terminal events reach webhook_v2 once, as their own JSON, accepted by the official library."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        bridge = scene.bridge()
        await bridge.start()
        await scene.complete("a1", webhook_v2=receivers.url("v2"), metadata={"k": 1})
        await scene.failed("a2", webhook_v2=receivers.url("v2"))
        await scene.complete("a2", webhook_v2=receivers.url("v2"), replay=1)
        await scene.complete("nobody-asked")
        calls = {call.webhook_id: call.verified() for call in await receivers.until("v2", 3)}
        assert set(calls) == {"a1/complete", "a2/failed", "a2/complete/1"}
        event = calls["a1/complete"]
        assert event["type"] == "prompt.complete"
        assert event["images"] == ["aGVsbG8="]
        assert event["metadata"] == {"k": 1}
        # A failure after the run is reported like any other.
        assert calls["a2/failed"]["code"] == "upload_failed"
        await scene.until_kept("due", 0)
        await scene.until_kept("body", 0)
        metrics = await bridge.metrics()
        assert f'comfybus_webhook_delivered_total{{host="127.0.0.1:{receivers.port}"}} 3.0' in metrics
        assert await bridge.stop() == 0
        assert len(receivers.calls) == 3


@on_each_broker
async def test_legacy_webhooks_are_one_unsigned_post_for_each_output(tmp_path: Path, broker: str) -> None:
    """`webhook` gets `output.complete` per file and `prompt.failed`, as comfyui-api sent them, unsigned."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge().start()
        files = {"images": ["b25l", "dHdv"], "filenames": ["l1_00001_.png", "l1_00002_.png"]}
        await scene.complete("l1", webhook=receivers.url("old"), webhook_v2=receivers.url("new"), **files)
        first, second = await receivers.until("old", 2)
        assert (first.body["image"], first.body["filename"]) == ("b25l", "l1_00001_.png")
        assert (second.body["image"], second.body["filename"]) == ("dHdv", "l1_00002_.png")
        assert set(first.body) == {"event", "image", "id", "filename", "prompt", "stats"}
        assert first.body["event"] == "output.complete"
        assert "total_time" not in first.body["stats"]
        assert "webhook-signature" not in first.headers
        assert [first.webhook_id, second.webhook_id] == ["l1/complete/output/0", "l1/complete/output/1"]
        await receivers.until("new", 1)
        await scene.failed("l2", webhook=receivers.url("old"))
        failed = (await receivers.until("old", 3))[2].body
        assert set(failed) == {"event", "id", "prompt", "error"}
        assert failed["event"] == "prompt.failed"


@on_each_broker
async def test_system_webhooks_carry_comfyui_and_storage_events(tmp_path: Path, broker: str) -> None:
    """SYSTEM_WEBHOOK_URL gets the chosen events as {event, data, metadata}, signed, with a unique webhook-id each."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        # The operator's own URL may lie in a private network.
        await scene.bridge(
            SYSTEM_WEBHOOK_URL=receivers.url("system"),
            SYSTEM_WEBHOOK_EVENTS="executed,file_uploaded",
            ALLOWED_PRIVATE_HOSTS="",
        ).start()
        frame = {"type": "executed", "data": {"prompt_id": "r1", "node": "9"}}
        one = await scene.side_event("system.executed", "comfy.executed", data=frame, metadata={"site": "lab"})
        await scene.side_event("system.status", "comfy.status", data={"type": "status", "data": {}})
        data = {"url": "s3://b/k", "size": 3, "duration": 0.1}
        two = await scene.side_event("storage.file_uploaded", "storage.file_uploaded", id="r1", data=data)
        first, second = await receivers.until("system", 2)
        assert first.verified() == {"event": "comfy.executed", "data": frame, "metadata": {"site": "lab"}}
        assert second.verified() == {"event": "storage.file_uploaded", "data": data, "metadata": {}}
        assert [first.webhook_id, second.webhook_id] == [one, two]


def write_subscriptions(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "subscriptions.yaml"
    path.write_text(yaml.safe_dump({"subscriptions": list(entries)}))
    return path


@on_each_broker
async def test_subscriptions_route_by_type_and_metadata_with_own_secrets(tmp_path: Path, broker: str) -> None:
    """A team's endpoint gets the events it asked for, signed with its own secrets, without the producer's webhooks."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        path = write_subscriptions(
            tmp_path,
            {
                "name": "video",
                "url": receivers.url("video"),
                "events": ["prompt.*", "worker.stopped"],
                "metadata": {"team": "video", "tier": ["gold", 1]},
                "secrets": [OTHER_SECRET, SECRET],
            },
            {"name": "all-failures", "url": receivers.url("failures"), "events": ["*.failed"], "secrets": [SECRET]},
        )
        await scene.bridge(WEBHOOK_SUBSCRIPTIONS=path).start()
        await scene.complete("s0", metadata={"team": "audio", "tier": "gold"})
        await scene.complete("s1", metadata={"team": "video", "tier": "gold"}, webhook_v2=receivers.url("v2") + "?t=0")
        await scene.failed("s2", metadata={"team": "video", "tier": 1})
        await scene.side_event("worker.w0.stopped", "worker.stopped")
        video = await receivers.until("video", 2)
        assert sorted(call.webhook_id for call in video) == ["s1/complete", "s2/failed"]
        event = next(call for call in video if call.webhook_id == "s1/complete")
        # Either secret will do, so that they can be exchanged one after the other.
        assert "webhook_v2" not in event.verified(SECRET)
        assert event.verified(OTHER_SECRET)["id"] == "s1"
        assert len(event.headers["webhook-signature"].split(" ")) == 2
        [failure] = await receivers.until("failures", 1)
        assert failure.verified()["id"] == "s2"
        # One event has one webhook-id, wherever it goes.
        assert failure.webhook_id == "s2/failed"
        await receivers.until("v2", 1)


@on_each_broker
async def test_several_secrets_and_the_bare_form(tmp_path: Path, broker: str) -> None:
    """WEBHOOK_SECRET may name an old bare secret and a new one: receivers of both accept, strangers do not."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        bridge = scene.bridge(WEBHOOK_SECRET=f"testsecret,{SECRET}")
        await bridge.start()
        await scene.complete("a1", webhook_v2=receivers.url("v2"))
        [call] = await receivers.until("v2", 1)
        assert call.verified(SECRET)
        assert Webhook("testsecret").verify(call.raw, call.headers)
        with pytest.raises(WebhookVerificationError):
            call.verified(OTHER_SECRET)
        assert any("bare form" in line["event"] for line in bridge.log())


@on_each_broker
async def test_ids_that_no_header_can_carry_are_delivered_all_the_same(tmp_path: Path, broker: str) -> None:
    """An event whose id is not Latin-1 gets a derived webhook-id, the same for every attempt."""
    async with run_receivers(hook=answers(500, 200)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(WEBHOOK_SCHEDULE="0.1s").start()
        event = {"type": "prompt.complete", "id": "日本", "images": [], "webhook_v2": receivers.url("hook")}
        await scene.publish("prompt.complete.x", event, "日本/complete")
        first, second = await receivers.until("hook", 2)
        assert first.webhook_id == second.webhook_id
        assert first.webhook_id.startswith("evt_")
        assert second.verified()["id"] == "日本"


@on_each_broker
async def test_a_prompt_of_a_real_worker_reaches_its_receiver(tmp_path: Path, broker: str) -> None:
    """Request, worker, ComfyUI, event, bridge, receiver: the pictures arrive, large ones fetched from OUTPUT_STORE."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.stack.worker(await scene.stack.comfy(), INLINE_LIMIT_KB=0).start()
        await scene.bridge().start()
        request = {"id": "real", "prompt": graph(), "webhook_v2": receivers.url("v2"), "webhook": receivers.url("old")}
        await scene.stack.outside.send(request)
        [call] = await receivers.until("v2", 1)
        event = call.verified()
        stored = (await scene.stack.outside.terminal("real")).body
        assert "://" in stored["images"][0]
        assert base64.b64decode(event["images"][0]).startswith(b"\x89PNG")
        assert event["outputs"][0]["url"] == stored["images"][0]
        [legacy] = await receivers.until("old", 1)
        assert base64.b64decode(legacy.body["image"]).startswith(b"\x89PNG")


@on_each_broker
async def test_files_above_the_limit_stay_urls(tmp_path: Path, broker: str) -> None:
    """WEBHOOK_INLINE_KB=0 sends claim checks as they are."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(WEBHOOK_INLINE_KB=0).start()
        url = "nats://comfyui-outputs/u1/abc/u1.png"
        outputs = [{"node_id": "9", "kind": "image", "image": 0, "size_bytes": 3, "url": url}]
        await scene.complete("u1", images=[url], outputs=outputs, webhook_v2=receivers.url("v2"))
        [call] = await receivers.until("v2", 1)
        assert call.verified()["images"] == [url]


@on_each_broker
async def test_what_no_worker_wrote_harms_nothing(tmp_path: Path, broker: str) -> None:
    """Foreign messages on the channels are passed over, and the events behind them are delivered."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(SYSTEM_WEBHOOK_URL=receivers.url("system"), SYSTEM_WEBHOOK_EVENTS="all").start()
        deep = b"[" * 5000
        foreign: list[Any] = [7, "x", [], {"type": 3}, {"type": "prompt.complete", "webhook": 1, "images": {"a": 1}}]
        for number, body in enumerate([b"", b"\xff\xfe", deep, *(json.dumps(one).encode() for one in foreign)]):
            await scene.insight.publish(f"prompt.complete.f{number}", body, {})
            await scene.insight.publish("system.status", body, {})
        odd = {"webhook": receivers.url("old"), "images": "none", "stats": 3, "outputs": [1], "metadata": []}
        await scene.complete("odd", **odd)
        await scene.complete("good", webhook_v2=receivers.url("v2"))
        await receivers.until("v2", 1)
        await scene.side_event("system.status", "comfy.status", data={"type": "status", "data": {}})
        await receivers.until("system", 1)


@on_each_broker
async def test_large_results_cost_little_memory(tmp_path: Path, broker: str) -> None:
    """A result of 24 MB is fetched and sent inline while the bridge grows by a fraction of it (D14)."""
    size = 24 * 1024**2
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        store = tmp_path / "store"
        store.mkdir(exist_ok=True)
        (store / "big.bin").write_bytes(b"\x01\x02\x03" * (size // 3))
        bridge = scene.bridge(OUTPUT_STORE=f"file://{store}", LOG_LEVEL="debug")
        await bridge.start()
        await scene.complete("small", webhook_v2=receivers.url("small"))
        await receivers.until("small", 1)
        before = bridge.peak_bytes()
        url = f"file://{store}/big.bin"
        outputs = [{"node_id": "9", "kind": "file", "image": 0, "size_bytes": size, "url": url}]
        await scene.complete("big", images=[url], outputs=outputs, webhook_v2=receivers.url("big"))
        [call] = await receivers.until("big", 1, 60)
        assert len(base64.b64decode(call.verified()["images"][0])) == size
        grown = bridge.peak_bytes() - before
        print(f"{len(call.raw) / 1024**2:.0f} MiB sent, {grown / 1024**2:.1f} MiB more memory")
        assert grown < 16 * 1024**2

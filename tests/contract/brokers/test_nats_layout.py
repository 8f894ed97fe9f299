"""Streams, durable and buckets on the server: exactly the names of the contract, and nothing that exists is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.js import api
from structlog.testing import capture_logs

from brokers.base import BrokerRefused
from brokers.nats import NatsBus, NatsClient
from tests.support.broker_harness import NatsHarness, answer, run_nats, take_claimed

pytestmark = pytest.mark.anyio

HOUR_S = 3600


async def test_a_worker_creates_what_the_contract_names(nats_server: NatsHarness) -> None:
    """Subjects, retention and age of every stream, the durable's settings, and the bucket of claims."""
    js = nats_server.outside.js
    async with nats_server.bus():
        found = {stream.config.name: stream.config for stream in await js.streams_info()}
        subjects = {name: sorted(config.subjects or []) for name, config in found.items()}
        assert subjects == {
            "comfyui-request": ["comfyui.prompt.request"],
            "comfyui-control": ["comfyui.control"],
            "comfyui-result": ["comfyui.prompt.complete.*", "comfyui.prompt.failed.*"],
            "comfyui-progress": ["comfyui.prompt.progress.*"],
            "comfyui-event": ["comfyui.storage.>", "comfyui.system.>", "comfyui.worker.>"],
            "comfyui-dlq": ["comfyui.prompt.request.dlq"],
            "KV_comfyui-ledger": ["$KV.comfyui-ledger.>"],
        }
        ages = {name: config.max_age for name, config in found.items()}
        assert ages == {
            "comfyui-request": 0,
            "comfyui-control": 24 * HOUR_S,
            "comfyui-result": 168 * HOUR_S,
            "comfyui-progress": HOUR_S,
            "comfyui-event": 24 * HOUR_S,
            "comfyui-dlq": 30 * 24 * HOUR_S,
            "KV_comfyui-ledger": 0,
        }
        assert found["comfyui-request"].retention == "workqueue"
        assert found["comfyui-progress"].storage == "memory"
        assert found["comfyui-progress"].max_msgs_per_subject == 1
        durable = (await js.consumer_info("comfyui-request", "worker")).config
        assert (durable.ack_policy, durable.ack_wait, durable.max_deliver) == ("explicit", 30, -1)
        assert (durable.max_ack_pending or -1) < 0


async def test_dots_of_the_prefix_become_underscores(tmp_path: Path) -> None:
    """In subjects the prefix stands as it is; in names of streams and buckets its dots do not."""
    async with run_nats(tmp_path, prefix="it.site-1") as broker, broker.bus() as bus:
        names = {stream.config.name for stream in await broker.outside.js.streams_info()}
        assert {"it_site-1-request", "it_site-1-result", "KV_it_site-1-ledger"} <= names
        await broker.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a"))
        assert set(await broker.outside.terminals()) == {"a"}
        async with NatsClient(broker.config).open() as client:
            assert await client.last_terminal("a") is not None


async def test_what_exists_is_left_as_it_is(nats_server: NatsHarness) -> None:
    """Other ages, limits and ack waits of the operator stay; the lease follows the durable's ack wait."""
    js = nats_server.outside.js
    await js.add_stream(
        name="comfyui-result",
        subjects=["comfyui.prompt.complete.*", "comfyui.prompt.failed.*"],
        max_age=60,
        max_msg_size=5000,
        duplicate_window=30,
    )
    await js.add_stream(name="comfyui-request", subjects=["comfyui.prompt.request"], retention="workqueue")
    await js.add_consumer(
        "comfyui-request",
        api.ConsumerConfig(durable_name="worker", ack_policy=api.AckPolicy.EXPLICIT, ack_wait=7, max_ack_pending=5),
    )
    with capture_logs() as logs:
        async with nats_server.bus() as bus:
            assert bus.max_message_bytes == 5000
            assert bus._declaration.lease_s == 7
    assert [line for line in logs if "waiting retries can block" in line["event"]]
    result = (await js.stream_info("comfyui-result")).config
    assert (result.max_age, result.max_msg_size) == (60, 5000)
    assert (await js.consumer_info("comfyui-request", "worker")).config.ack_wait == 7


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        ({"name": "comfyui-request", "subjects": ["comfyui.prompt.request"]}, "retention limits; it must be workqueue"),
        ({"name": "comfyui-result", "subjects": ["comfyui.prompt.complete.*"]}, "lacks the subject"),
        ({"name": "comfyui-control", "subjects": ["comfyui.>"]}, "NATS refuses"),
    ],
)
async def test_an_unfit_stream_ends_the_start_with_a_line(
    nats_server: NatsHarness, stream: dict[str, object], sentence: str
) -> None:
    """The line names the stream and what it must be like."""
    await nats_server.outside.js.add_stream(**stream)
    with pytest.raises(BrokerRefused, match=sentence):
        async with nats_server.bus():
            pass


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"ack_policy": api.AckPolicy.EXPLICIT, "max_deliver": 3}, "max_deliver 3"),
        ({"ack_policy": api.AckPolicy.EXPLICIT, "deliver_subject": "push"}, "pushes"),
    ],
)
async def test_an_unfit_durable_ends_the_start_with_a_line(
    nats_server: NatsHarness, config: dict[str, object], sentence: str
) -> None:
    """The line says what must change."""
    js = nats_server.outside.js
    await js.add_stream(name="comfyui-request", subjects=["comfyui.prompt.request"], retention="workqueue")
    await js.add_consumer("comfyui-request", api.ConsumerConfig(durable_name="worker", **config))  # type: ignore[arg-type]
    with pytest.raises(BrokerRefused, match=sentence):
        async with nats_server.bus():
            pass


async def test_many_workers_may_start_at_once(nats_server: NatsHarness) -> None:
    """Each finds or creates what it needs, also with different settings."""
    import anyio

    started: list[NatsBus] = []

    async def start(hours: float) -> None:
        config = nats_server.config_at(nats_server.server.port, result_retention_h=hours)
        async with NatsBus(config).open() as bus:
            started.append(bus)
            while len(started) < 6:
                await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for hours in (1, 2, 3, 0.01, 5, 6):
            tasks.start_soon(start, hours)
    assert len(started) == 6


async def test_a_short_retention_is_possible(nats_server: NatsHarness) -> None:
    """Also below the two minutes of the server's own window for duplicates."""
    config = nats_server.config_at(nats_server.server.port, result_retention_h=0.01)
    async with NatsBus(config).open():
        assert (await nats_server.outside.js.stream_info("comfyui-result")).config.max_age == 36


async def test_a_command_is_confirmed_by_the_stream_alone(nats_server: NatsHarness) -> None:
    """Workers that hear a command do not answer it: a producer's confirmation comes from JetStream."""
    async with nats_server.bus(), nats_server.bus():
        for number in range(50):
            ack = await nats_server.outside.js.publish("comfyui.control", b"{}")
            assert (ack.stream, ack.seq) == ("comfyui-control", number + 1)

"""Topics on Kafka: created when they are missing, left alone when they are there, limits read, refusals in one line."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from brokers.base import BrokerRefused, BrokerUnavailable, Letter, MessageTooLarge
from brokers.channels import Channel, Names
from brokers.kafka import KafkaBus, KafkaClient, KafkaConfig
from tests.support.broker_harness import answer, take, take_claimed
from tests.support.kafka_harness import KafkaHarness, run_kafka
from tests.support.kafka_server import PASSWORD, STRANGER, USER, Kafka, KafkaServer, require_kafka

pytestmark = pytest.mark.anyio


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """One partition."""
    async with run_kafka(tmp_path) as harness:
        yield harness


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Kafka]:
    """A broker without our topics."""
    require_kafka()
    kafka = Kafka()
    await kafka.start()
    yield kafka
    await kafka.forget()


def config(kafka: Kafka, **changes: Any) -> KafkaConfig:
    """A worker's settings."""
    return KafkaConfig(**{"servers": (kafka.bootstrap,), "names": Names(kafka.prefix), **changes})


async def settings(kafka: KafkaHarness | Kafka, topics: list[str]) -> dict[str, dict[str, str]]:
    """What the broker says of some topics."""
    from tests.support.kafka_outsider import AIOKafkaAdminClient

    bootstrap = kafka.kafka.bootstrap if isinstance(kafka, KafkaHarness) else kafka.bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        found = {}
        for response in await admin.describe_configs(wanted):
            for _, _, _, name, entries in response.resources:
                found[name] = {entry[0]: entry[1] for entry in entries}
        return found
    finally:
        await admin.close()


async def test_missing_topics_are_created(bare: Kafka) -> None:
    """All of the contract's, with its retention, the broker's clock, and more room for dead letters."""
    async with KafkaBus(config(bare)).open() as bus:
        facts = await bus.link.topics()
    names = Names(bare.prefix)
    assert {names.topic(channel): facts[names.topic(channel)] for channel in Channel} == {
        names.topic(channel): 16 if channel.startswith("prompt") and channel is not Channel.DEAD_LETTER else 1
        for channel in Channel
    }
    found = await settings(bare, [names.topic(channel) for channel in Channel])
    assert {one["message.timestamp.type"] for one in found.values()} == {"LogAppendTime"}
    assert found[names.topic(Channel.REQUEST)]["retention.ms"] == "-1"
    assert found[names.topic(Channel.COMPLETE)]["retention.ms"] == str(168 * 3_600_000)
    assert found[names.topic(Channel.DEAD_LETTER)]["max.message.bytes"] == str(1_048_588 + 65_536)


async def test_existing_topics_are_left_alone_and_their_limits_read(tmp_path: Path) -> None:
    """Events and requests may be as large as their own topics take, and what exists is not changed."""
    async with run_kafka(tmp_path, limit_bytes=300_000) as kafka:
        topics = [kafka.topic(channel) for channel in Channel]
        before = await settings(kafka, topics)
        async with kafka.bus() as bus, KafkaClient(kafka.config).open() as client:
            assert bus.max_message_bytes == 300_000
            await client.submit(b'{"id": "a"}' + b" " * 299_000, request_id="a")
            with pytest.raises(MessageTooLarge) as refused:
                await client.submit(b'{"id": "b"}' + b" " * 300_000, request_id="b")
            assert refused.value.limit_bytes == 300_000
            delivery = await take_claimed(bus, "a")
            with pytest.raises(MessageTooLarge):
                await delivery.settle(answer("a", text="x" * 300_000))
            room = bus.max_message_bytes - bus.size_bytes(answer("a"))
            letter = Letter("too much", "invalid_request", "w1", 1, "a", id_was_derived=False)
            assert await delivery.settle(answer("a", "failed", text="x" * (room - 10)), letter)
            (found,) = await kafka.outside.letters()
            assert found.body == {"id": "a"}
        assert await settings(kafka, topics) == before


async def test_a_broker_with_large_messages_carries_them(tmp_path: Path) -> None:
    """Where the topics take eight megabytes, a request and an event of seven go through."""
    async with run_kafka(tmp_path, limit_bytes=8_000_000) as kafka, kafka.bus() as bus:
        assert bus.max_message_bytes == 8_000_000
        await kafka.outside.send({"id": "a", "x": "y" * 7_000_000})
        delivery = await take_claimed(bus, "a")
        assert len(delivery.body) > 7_000_000
        assert await delivery.settle(answer("a", text="z" * 7_000_000))
        assert len((await kafka.outside.terminal("a", 5)).body["text"]) == 7_000_000


async def test_a_letter_without_room_refers_to_bytes_kept_elsewhere(bare: Kafka) -> None:
    """In a dead letter topic made by somebody else without the room, the body goes where the worker keeps outputs."""
    names, kept = Names(bare.prefix), {}

    async def keep(name: str, body: bytes) -> str:
        kept[name] = body
        return f"s3://outputs/{name}"

    async with KafkaClient(config(bare)).open() as client:
        await client.link.admin.create_topics([NewTopic(names.topic(Channel.DEAD_LETTER), 1, 1)])
        bus = KafkaBus(config(bare))
        bus.letters.keep_body = keep
        async with bus.open():
            body = b'{"id": "a"}' + b" " * 1_048_400
            await client.submit(body, {"ce_id": "e1"}, request_id="a")
            delivery = await take_claimed(bus, "a")
            letter = Letter("too much", "invalid_request", "w1", 1, "a", id_was_derived=False)
            assert await delivery.settle(answer("a", "failed"), letter)
        found = [one async for one in client.dead_letters()]
        assert list(kept.values()) == [body]
        assert [one.headers["ce_dataref"] for one in found] == [f"s3://outputs/{next(iter(kept))}"]
        assert found[0].headers["comfybus-body-bytes"] == str(len(body))
        (told,) = [check.text for check in await client.check() if not check.ok]
        assert names.topic(Channel.DEAD_LETTER) in told
        assert "need 1114124, set its max.message.bytes to that" in told
        # Run again, it is a request by reference: the worker that takes it fetches the body.
        await client.replay(found[0])
        async with KafkaBus(config(bare)).open() as bus:
            again = await take(bus)
            assert (again.body, again.headers["ce_dataref"]) == (b"", found[0].headers["ce_dataref"])


async def test_what_is_missing_and_may_not_be_created_stands_in_one_line(bare: Kafka) -> None:
    """A user without rights is told all that is missing at once, and the cure."""
    server = f"127.0.0.1:{bare.server.sasl_port}"
    stranger = {"servers": (server,), "sasl_mechanism": "PLAIN", "sasl_username": STRANGER, "sasl_password": PASSWORD}
    with pytest.raises(BrokerRefused, match="missing") as refused:
        async with KafkaBus(config(bare, **stranger)).open():
            pass
    names = Names(bare.prefix)
    assert all(names.topic(channel) in str(refused.value) for channel in Channel)
    assert "grant CREATE" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.timeout(300)
async def test_topics_are_created_when_a_kafka_that_was_paused_is_whole_again(bare: Kafka) -> None:
    """It answers before its broker counts as living again, and refuses topics until then: nobody lacks a right."""
    require_kafka(own=True)
    for round_number in range(3):
        process = bare.server.process
        assert process is not None
        process.signal(signal.SIGSTOP)
        try:
            # Longer than its broker's session.
            await anyio.sleep(4)
        finally:
            process.signal(signal.SIGCONT)
        names = Names(f"{bare.prefix}.{round_number}")
        async with KafkaBus(config(bare, names=names, first_connection_s=60)).open() as bus:
            assert names.topic(Channel.REQUEST) in await bus.link.topics()


@pytest.mark.timeout(400)
async def test_a_kafka_that_is_never_whole_is_unavailable_and_refuses_nothing(tmp_path: Path) -> None:
    """No broker of it lives for more than a second: that is what is said, and no right is asked for."""
    require_kafka(own=True)
    lifeless = {"broker.heartbeat.interval.ms": "300000", "broker.session.timeout.ms": "1000"}
    server = KafkaServer(tmp_path / "kafka", extra=lifeless)
    await anyio.to_thread.run_sync(server.launch)
    try:
        with pytest.raises(BrokerUnavailable) as told, anyio.fail_after(300):
            # It lives for a moment after its start, in which topics can be created.
            for number in range(20):
                settings = config(
                    Kafka(), servers=(server.bootstrap,), names=Names(f"n{number}"), first_connection_s=100
                )
                async with KafkaBus(settings).open():
                    await anyio.sleep(0.5)
        assert "grant" not in str(told.value)
    finally:
        await anyio.to_thread.run_sync(server.end)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_sasl_lets_the_right_one_in(kafka: KafkaHarness, mechanism: str) -> None:
    """A whole round trip with each mechanism; a wrong password is refused at once with its cure and never shown."""
    server = f"127.0.0.1:{kafka.kafka.server.sasl_port}"
    sasl = {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": PASSWORD}
    async with KafkaBus(kafka.config_at(server, **sasl)).open() as bus:
        await kafka.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a"))
    wrong = kafka.config_at(server, **{**sasl, "sasl_password": "wrong-secret"})
    with anyio.fail_after(5), pytest.raises(BrokerRefused, match="KAFKA_SASL_") as refused:
        async with KafkaBus(wrong).open():
            pass
    assert "wrong-secret" not in str(refused.value)


async def test_tls_needs_an_authority_that_vouches_for_the_broker(kafka: KafkaHarness) -> None:
    """A round trip over TLS with the broker's authority; without it the connection is refused with its cure."""
    server = kafka.kafka.server
    address = f"127.0.0.1:{server.tls_port}"
    async with KafkaBus(kafka.config_at(address, tls_ca=server.authority)).open() as bus:
        await kafka.outside.send({"id": "a"})
        assert await (await take_claimed(bus, "a")).settle(answer("a"))
    with pytest.raises(BrokerRefused, match="BROKER_TLS_"):
        async with KafkaBus(kafka.config_at(address, tls=True)).open():
            pass


async def test_nobody_at_the_address_is_unavailable() -> None:
    """After the time for the first connection the sentence names the address and the setting."""
    config = KafkaConfig(servers=("127.0.0.1:1",), first_connection_s=0.5)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 .*start it or correct BROKER_URL"):
        async with KafkaBus(config).open():
            pass

"""Kafka in the default run: the core of what the full suites hold it to, in one file, so that one process starts one.

The functions of the contract suite that are imported here run on Kafka by this file's own fixtures.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.contract.brokers.test_broker_answers import (
    test_a_cancelled_settlement_can_be_repeated,
    test_an_event_may_be_as_large_as_the_broker_takes,
    test_complete_and_failed_exclude_each_other,
    test_settling_stores_the_event_and_ends_the_request,
)
from tests.contract.brokers.test_broker_commands import test_old_commands_are_read_back_before_new_ones
from tests.contract.brokers.test_broker_duplicates import (
    test_a_replay_is_answered_once_after_the_first_answer,
    test_a_second_submission_after_the_answer,
    test_a_second_submission_while_the_first_is_worked_on,
)
from tests.contract.brokers.test_broker_letters import test_a_letter_tells_why_when_and_where_from
from tests.contract.brokers.test_broker_requests import (
    test_a_request_comes_as_it_was_sent,
    test_released_comes_back_at_once_and_spends_nothing,
    test_tries_survive_a_killed_process,
    test_waiting_retries_never_block_fresh_requests,
)
from tests.contract.brokers.test_kafka_groups import (
    test_a_fenced_writer_writes_nothing_more,
    test_after_a_kill_exactly_the_unfinished_come_again,
    test_four_in_flight_in_one_partition_settle_in_any_order,
)
from tests.contract.brokers.test_kafka_layout import test_sasl_lets_the_right_one_in
from tests.contract.brokers.test_kafka_workers import test_a_kill_with_four_in_hand_in_one_partition
from tests.integration.cli.command_line import Commands, finished, interrupted, line_of
from tests.support.kafka_harness import KafkaHarness, run_kafka
from tests.support.kafka_stack import run_kafka_stack
from tests.support.stack import Stack, graph

__all__ = [
    "test_a_cancelled_settlement_can_be_repeated",
    "test_a_fenced_writer_writes_nothing_more",
    "test_a_kill_with_four_in_hand_in_one_partition",
    "test_a_letter_tells_why_when_and_where_from",
    "test_a_replay_is_answered_once_after_the_first_answer",
    "test_a_request_comes_as_it_was_sent",
    "test_a_second_submission_after_the_answer",
    "test_a_second_submission_while_the_first_is_worked_on",
    "test_after_a_kill_exactly_the_unfinished_come_again",
    "test_an_event_may_be_as_large_as_the_broker_takes",
    "test_complete_and_failed_exclude_each_other",
    "test_four_in_flight_in_one_partition_settle_in_any_order",
    "test_old_commands_are_read_back_before_new_ones",
    "test_released_comes_back_at_once_and_spends_nothing",
    "test_sasl_lets_the_right_one_in",
    "test_settling_stores_the_event_and_ends_the_request",
    "test_tries_survive_a_killed_process",
    "test_waiting_retries_never_block_fresh_requests",
]

# The first one fetches Kafka's jars on a fresh machine.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """As the contract suite has it: leases longer than any test."""
    async with run_kafka(tmp_path) as harness:
        yield harness


@pytest.fixture
async def hasty_broker(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """As the contract suite has it: delivered again after one second without a sign of life."""
    async with run_kafka(tmp_path, lease_s=1) as harness:
        yield harness


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """One partition, and sessions of a second."""
    async with run_kafka(tmp_path, lease_s=1) as harness:
        yield harness


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A ComfyUI and a worker on Kafka."""
    async with run_kafka_stack(tmp_path_factory.mktemp("stack"), MAX_ATTEMPTS=2, PARTITIONS=4) as stack:
        await stack.worker(await stack.comfy()).start()
        yield stack


@pytest.fixture
def commands(stack: Stack, tmp_path: Path) -> Commands:
    """Commands against that deployment, in an empty folder."""
    comfy = stack.comfys[0]
    env = {"BROKER_URL": stack.broker.url, "COMFYUI_URL": comfy.url, "COMFY_HOME": str(comfy.home), **stack.env}
    return Commands(tmp_path, env)


async def test_a_plain_client_makes_the_round_trip(stack: Stack) -> None:
    """aiokafka and the contract are enough: a keyed request, its progress, one terminal event, a cancel."""
    prefix, bootstrap = stack.env["TOPIC_PREFIX"], stack.broker.url.removeprefix("kafka://")
    channels = [f"{prefix}.prompt.{name}" for name in ("complete", "failed", "progress")]
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(
        *channels, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    heard: dict[str, list[tuple[str, Any]]] = {}

    async def until(request_id: str, channel: str) -> Any:
        with anyio.fail_after(60):
            while True:
                for name, record in heard.get(request_id, []):
                    if name == channel:
                        return record
                for source, records in (await consumer.getmany(timeout_ms=500)).items():
                    for record in records:
                        found = (source.topic.removeprefix(f"{prefix}."), record)
                        heard.setdefault(record.key.decode(), []).append(found)

    await producer.start()
    await consumer.start()
    try:
        request = {"id": "plain-1", "prompt": graph(), "metadata": {"mine": [1, 2]}}
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        await producer.send_and_wait(
            f"{prefix}.prompt.request",
            json.dumps(request).encode(),
            key=b"plain-1",
            headers=[("traceparent", parent.encode())],
        )
        record = await until("plain-1", "prompt.complete")
        headers = {name: value.decode() for name, value in record.headers}
        body = json.loads(record.value)
        assert (headers["ce_id"], headers["ce_type"]) == ("plain-1/complete", body["type"])
        assert (headers["ce_subject"], headers["ce_source"]) == ("plain-1", f"/comfybus/{body['worker']}")
        assert (headers["ce_specversion"], headers["content-type"]) == ("1.0", "application/json")
        assert headers["traceparent"].split("-")[1] == parent.split("-")[1]
        assert (body["id"], body["attempt"], body["metadata"]) == ("plain-1", 1, {"mine": [1, 2]})
        assert len(body["images"]) == len(body["filenames"]) == 1
        assert {name for name, _ in heard["plain-1"]} >= {"prompt.progress", "prompt.complete"}

        await producer.send_and_wait(f"{prefix}.prompt.request", json.dumps(request).encode(), key=b"plain-1")
        long = {"id": "plain-2", "prompt": graph(seconds=60, steps=600)}
        await producer.send_and_wait(f"{prefix}.prompt.request", json.dumps(long).encode(), key=b"plain-2")
        await until("plain-2", "prompt.progress")
        cancel = {"type": "prompt.cancel", "id": "plain-2"}
        await producer.send_and_wait(f"{prefix}.control", json.dumps(cancel).encode())
        assert json.loads((await until("plain-2", "prompt.failed")).value)["code"] == "cancelled"
        # The id that was sent twice is answered once.
        assert [name for name, _ in heard["plain-1"]].count("prompt.complete") == 1
    finally:
        await consumer.stop()
        await producer.stop()


async def test_the_commands_work_on_kafka(commands: Commands, stack: Stack) -> None:
    """submit, watch, workers, cancel, dlq and doctor, as on NATS."""
    (commands.folder / "request.json").write_text(json.dumps(graph(seconds=0.3)))
    done = await commands.run("submit", "request.json", "--wait", "--id", "cli-1")
    assert done.code == 0, done.err
    assert (commands.folder / done.out.strip()).exists()
    watched = await commands.run("watch", "cli-1")
    assert (watched.code, "prompt.complete" in watched.out) == (0, True)
    rows = (await commands.run("workers")).out.splitlines()
    assert rows[1].split()[:2] == ["w0", "up"]

    watching = commands.start("watch", "--json")
    waiting = commands.start("submit", "-", "--wait", "--json", "--id", "cli-2")
    assert waiting.stdin is not None
    waiting.stdin.write(json.dumps(graph(seconds=60, steps=600)))
    waiting.stdin.close()
    waiting.stdin = None
    while "running" not in await line_of(waiting.stderr):
        pass
    assert (await commands.run("cancel", "cli-2")).code == 0
    waited = await finished(waiting)
    assert (waited.code, waited.document["code"]) == (1, "cancelled")
    while json.loads(await line_of(watching.stdout))["type"] != "prompt.failed":
        pass
    assert (await interrupted(watching)).code == 130

    await stack.outside.send(b"{broken", {"ce_id": "cli-3"})
    await stack.outside.terminal("cli-3")
    (row,) = (await commands.run("dlq", "list", "--json")).out.splitlines()
    assert (json.loads(row)["request_id"], json.loads(row)["code"]) == ("cli-3", "invalid_request")
    replayed = await commands.run("dlq", "replay", "cli-3")
    assert (replayed.code, replayed.out) == (0, "cli-3 runs again as replay 1\n")
    assert (await stack.outside.terminal("cli-3", replay=1)).body["replay"] == 1

    examined = await commands.run("doctor")
    assert examined.code == 0, examined.out
    assert "1 worker on 4 partitions" in examined.out

"""The examples as they stand in the repository, run as a reader would run them, against a whole deployment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.support.kafka_stack import run_kafka_stack
from tests.support.services.process import need
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

EXAMPLES = Path(__file__).parents[3] / "examples"
OWN_PACKAGES = re.compile(r"^\s*(from|import) (app|brokers|schemas|workflows)\b", re.MULTILINE)
LONGEST = 60


async def run(stack: Stack, *command: str) -> str:
    """What an example printed; it has to end well."""
    env = {"PATH": os.environ["PATH"], "BROKER_URL": stack.broker.url}
    env["TOPIC_PREFIX"] = stack.env.get("TOPIC_PREFIX", "comfyui")
    with anyio.fail_after(90):
        done = await anyio.run_process([*command], env=env, check=False, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


async def python(stack: Stack, name: str, *arguments: str) -> str:
    return await run(stack, sys.executable, str(EXAMPLES / name), *arguments)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_imports_nothing_of_ours(path: Path) -> None:
    """Under 60 lines, and a reader can take it away."""
    text = path.read_text()
    assert len(text.splitlines()) < LONGEST
    assert not OWN_PACKAGES.search(text)


async def test_examples_on_nats(tmp_path: Path) -> None:
    """Round trip, chain and fan-out, one after the other on one deployment; the FastStream application sees all."""
    async with run_stack(tmp_path, MAX_IN_FLIGHT=8, PREFETCH=4) as stack:
        await stack.worker(await stack.comfy()).start()
        said = await python(stack, "nats_round_trip.py")
        assert re.match(r"prompt\.complete order-\w+ \{'customer': 7\} \['\S+\.png'\]", said)
        said = await python(stack, "chain.py", "order-7")
        assert re.match(r"order-7-1\S*\.png became order-7-2\S*\.png", said), said
        assert await python(stack, "fan_out.py", "b1") == "batch b1: 50 complete, 0 failed\n"
        assert len(await gallery(stack, 53)) == 53


def shown(log: Path) -> list[str]:
    """The lines of the application among FastStream's own."""
    return [line for line in log.read_text().splitlines() if line.startswith("gallery ")]


async def gallery(stack: Stack, results: int) -> list[str]:
    """What the FastStream application printed once it had seen so many results."""
    log = stack.folder / "gallery.log"
    env = {"PATH": os.environ["PATH"], "BROKER_URL": stack.broker.url}
    with log.open("wb") as out:
        child = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, str(EXAMPLES / "faststream_reaction.py")], env=env, stdout=out, stderr=out
        )
        try:
            with anyio.move_on_after(90):
                while len(shown(log)) < results:
                    await anyio.sleep(0.1)
        finally:
            child.terminate()
            await anyio.to_thread.run_sync(child.wait, 20)
    return shown(log)


async def test_a_letter_is_replayed(tmp_path: Path) -> None:
    """A request that was given up because ComfyUI crashed each time gets another answer after the replay."""
    async with run_stack(tmp_path, MAX_ATTEMPTS=1) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        await stack.outside.send({"id": "once", "prompt": graph(seconds=30)})
        with anyio.fail_after(30):
            while not [one for one in stack.outside.heard("once") if one.body.get("status") == "running"]:
                await anyio.sleep(0.02)
        await comfy.kill()
        await comfy.start()
        assert (await stack.outside.terminal("once", 60)).body["code"] == "attempts_exhausted"
        said = await python(stack, "replay_dead_letters.py")
        assert said == "replayed once as replay 1 because of attempts_exhausted\n"
        await stack.outside.command({"type": "prompt.cancel", "id": "once"})
        assert (await stack.outside.terminal("once", 60, replay=1)).body["code"] == "cancelled"
        assert await stack.outside.letters() == []


async def test_a_node_client(tmp_path: Path) -> None:
    """The round trip from Node."""
    node = shutil.which("node")
    place = EXAMPLES / "node"
    need(
        node is not None and (place / "node_modules").is_dir(),
        "no Node client: run `npm ci` in examples/node (needs node)",
    )
    async with run_stack(tmp_path) as stack:
        await stack.worker(await stack.comfy()).start()
        said = await run(stack, str(node), str(place / "round_trip.mjs"))
        assert re.match(r"prompt\.complete order-\S+ \[ '\S+\.png' \]", said), said


async def test_the_round_trip_on_kafka(tmp_path: Path) -> None:
    """aiokafka against a real Apache Kafka."""
    async with run_kafka_stack(tmp_path) as stack:
        await stack.worker(await stack.comfy()).start()
        said = await python(stack, "kafka_round_trip.py")
        assert re.match(r"prompt\.complete order-\w+ \{'customer': 7\} \['\S+\.png'\]", said)

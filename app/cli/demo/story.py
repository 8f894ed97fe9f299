"""The demonstration from its first line to its last: broker, ComfyUI, worker, one picture, nothing left running.

Used by app.cli.commands; may import app.cli, app.comfy, brokers, brokers.nats, schemas.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from app.cli.demo.children import Child, clean_environment, run_child
from app.cli.demo.graph import PHOTOGRAPH, prepare_graph
from app.cli.lines import failure_line
from app.cli.outcome import CommandFailed, ExitCode, say, show
from app.cli.outputs import save_outputs
from app.cli.progress import shown_progress
from app.cli.submit import follow_to_end
from app.comfy.client import ComfyClient
from brokers.embedded import EmbeddedNats, run_embedded
from brokers.nats import NatsClient, NatsConfig
from schemas.base import dump_json

__all__ = ["run_demo"]

STANDIN_WITHIN_S = 20.0
# A real ComfyUI may have work of its own ahead of ours.
ANSWER_WITHIN_S = 600.0
STANDIN_ANSWER_WITHIN_S = 60.0
LOOK_EVERY_S = 0.1

_FAREWELL = """
That was everything: the broker, ComfyUI and the worker of this demonstration have ended. To go on:
  comfybus doctor                      is there a broker at BROKER_URL, a ComfyUI at COMFYUI_URL?
  comfybus worker                      take requests from the one, run them on the other
  comfybus submit GRAPH.json --wait    send a graph (in ComfyUI: Export (API)) and get its pictures"""


async def run_demo(comfyui: str, out: Path) -> int:
    """Run the shipped workflow on the shipped photograph and save the result.

    Args:
        comfyui: URL of a ComfyUI; empty for the stand-in.
        out: Folder for the result.

    Returns:
        0, or 128 and the number of the signal that ended it.

    Raises:
        CommandFailed: A part did not start, ended too early, or the prompt failed.
        BrokerError: There is no usable nats-server.
        ComfyUnavailable: The ComfyUI at the URL does not answer.
    """
    received = 0
    async with anyio.create_task_group() as tasks:

        async def end_on_signal() -> None:
            nonlocal received
            # A further signal changes nothing: the children are being ended, and that has its deadlines.
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                async for number in signals:
                    received = received or number
                    story.cancel()

        with anyio.CancelScope() as story:
            tasks.start_soon(end_on_signal)
            await _tell(comfyui, out)
        tasks.cancel_scope.cancel()
    return 128 + received if received else ExitCode.DONE


async def _tell(comfyui: str, out: Path) -> None:
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfybus-demo-")))
        nats = await stack.enter_async_context(run_embedded(folder / "nats"))
        say(f"broker    an embedded nats-server at {nats.url}")
        url = comfyui or await stack.enter_async_context(_standin(folder))
        graph = await _prepared(url, standin=not comfyui)
        worker = await stack.enter_async_context(_worker(folder, nats, url))
        say(f"worker    process {worker.process.pid}")
        saved = await _run_one(nats, worker, graph, out, STANDIN_ANSWER_WITHIN_S if not comfyui else ANSWER_WITHIN_S)
        say("ending    worker, ComfyUI stand-in and broker" if not comfyui else "ending    worker and broker")
    say(f"done      in {time.monotonic() - began:.1f} s; the result:")
    for path in saved:
        show(path)
    say(_FAREWELL)


@asynccontextmanager
async def _standin(folder: Path) -> AsyncIterator[str]:
    arguments = ("app.comfy.standin", "--port", "0", "--home", str(folder / "comfyui"))
    async with run_child("ComfyUI stand-in", arguments, folder, clean_environment()) as child:
        yield str(json.loads(await child.first_line(STANDIN_WITHIN_S))["url"])


@asynccontextmanager
async def _worker(folder: Path, nats: EmbeddedNats, comfy_url: str) -> AsyncIterator[Child]:
    environment = clean_environment(
        BROKER_URL=nats.url, COMFYUI_URL=comfy_url, HOST="127.0.0.1", PORT="0", LOG_LEVEL="warning", LOG_FORMAT="json"
    )
    async with run_child("worker", ("app", "worker"), folder, environment) as child:
        yield child


async def _prepared(url: str, *, standin: bool) -> dict[str, Any]:
    async with aiohttp.ClientSession(trust_env=False) as session:
        client = ComfyClient(url, session)
        version = ((await client.system_stats()).get("system") or {}).get("comfyui_version", "of unknown version")
        if standin:
            say(f"ComfyUI   A STAND-IN at {url}: it changes pictures but has no models (--comfyui URL for a real one)")
        else:
            say(f"ComfyUI   {version} at {client.base_url}")
        graph = await prepare_graph(client)
    say(f"prompt    {' > '.join(node['class_type'] for node in graph.values())}, on {PHOTOGRAPH.name}")
    return graph


async def _run_one(nats: EmbeddedNats, worker: Child, graph: dict[str, Any], out: Path, within_s: float) -> list[str]:
    request_id = f"demo-{uuid.uuid4().hex[:12]}"
    body = dump_json({"id": request_id, "prompt": graph})
    async with NatsClient(NatsConfig(servers=(nats.url,))).open() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(worker.watch)
        try:
            with anyio.fail_after(within_s):
                await _until_declared(client)
                async with client.follow(request_id) as events:
                    await client.submit(body, request_id=request_id)
                    with shown_progress() as view:
                        event = await follow_to_end(events, view)
        except TimeoutError as exc:
            raise CommandFailed(f"no answer within {within_s:g} s; see whether ComfyUI is busy") from exc
        if event["type"] != "prompt.complete":
            raise CommandFailed(failure_line(event))
        saved = await save_outputs(event, out, client.fetch_object)
        tasks.cancel_scope.cancel()
    return saved


async def _until_declared(client: NatsClient) -> None:
    """Wait until the worker has made the streams: a client makes none."""
    while True:
        if all(found.ok for found in await client.check()):
            return
        await anyio.sleep(LOOK_EVERY_S)

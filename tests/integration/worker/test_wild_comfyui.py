"""A ComfyUI that answers rubbish, endlessly or not at all: no prompt is lost, the worker lives, its memory stays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest

from tests.support.processes import Worker
from tests.support.stack import Stack, graph, run_stack
from tests.support.wild_comfyui import (
    Spoil,
    WildComfy,
    bomb,
    closes,
    endless_body,
    endless_headers,
    half,
    no_http,
    run_wild_comfyui,
    says,
    swaps,
)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

RUBBISH: dict[str, Spoil] = {
    "bytes": says(b"\x00\xff<html>"),
    "error-page": says(b"<html>boom</html>", 500),
    "half": half,
    "closed": closes,
    "no-http": no_http,
    "endless-headers": endless_headers,
    "endless-body": endless_body,
    "bomb": bomb(1000),
    "null": says(b"null"),
    "list": says(b"[]"),
    "numbers": says(b'{"queue_running": NaN, "queue_pending": [1e999], "error": 5, "node_errors": [[]]}'),
    "deep": says(b"[" * 100_000),
    "brackets": says(b"[" + b"[]," * 6_000_000 + b"1]"),
    "redirect": says(b"", 302, Location="http://169.254.169.254/"),
}
FRAMES: list[str | bytes] = [
    "x" * 20_000_000,
    bytes(20_000_000),
    "[" * 100_000,
    '{"type": "executing", "data": {"prompt_id": 5, "node": []}}',
    '{"type": "progress", "data": {"value": 1e308, "max": -1, "prompt_id": "x"}}',
    '{"type": "progress_state", "data": {"nodes": 5, "prompt_id": {}}}',
    '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": "x"}}}}',
    '{"type": "executed", "data": {"output": NaN}}',
    '{"type": "execution_error", "data": {"traceback": 5}}',
    '{"type": "\\ud800"}',
    b"",
    "",
]


@dataclass
class Wild:
    """A worker whose ComfyUI can be driven mad."""

    stack: Stack
    comfy: WildComfy
    worker: Worker

    @property
    def pid(self) -> int:
        assert self.worker.process is not None
        return self.worker.process.pid

    @property
    def memory_mb(self) -> int:
        [line] = [one for one in Path(f"/proc/{self.pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
        return int(line.split()[1]) // 1024

    def faults(self) -> int:
        assert self.worker.process is not None
        return self.worker.process.log.read_text().count("fault of ours")


@pytest.fixture(scope="module")
async def wild(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wild]:
    """A broker, a stand-in behind a proxy, and a worker that knows the proxy alone."""
    async with run_stack(tmp_path_factory.mktemp("wild"), MAX_ATTEMPTS=2, SYSTEM_EVENTS="all") as stack:
        standin = await stack.comfy()
        async with run_wild_comfyui(standin.url) as comfy:
            worker = stack.worker(standin, COMFYUI_URL=comfy.url)
            await worker.start()
            yield Wild(stack, comfy, worker)


@pytest.mark.parametrize("path", ["GET /history", pytest.param("POST /prompt", marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", RUBBISH)
async def test_rubbish_delays_a_prompt_and_no_more(wild: Wild, kind: str, path: str) -> None:
    """While it lasts nothing is believed; afterwards the prompt completes, once, and it ran once."""
    request, pid, faults = f"{kind}-{path[-6:].strip('/ ')}", wild.pid, wild.faults()
    wild.comfy.asked, wild.comfy.spoilt = 0, {path: RUBBISH[kind]}
    await wild.stack.outside.send({"id": request, "prompt": graph(seconds=0.2, steps=2)})
    peak = wild.memory_mb
    with anyio.move_on_after(30):
        while wild.comfy.asked < (2 if path.startswith("GET") else 1):
            peak = max(peak, wild.memory_mb)
            await anyio.sleep(0.02)
    wild.comfy.spoilt = {}
    assert wild.comfy.asked
    event = await wild.stack.outside.terminal(request, 60)
    assert event.channel == "prompt.complete", event.body
    assert max(peak, wild.memory_mb) < 600
    assert (wild.pid, wild.faults()) == (pid, faults)


ODD = {
    "half-characters": (b'"outputs": {', b'"outputs": {"77": {"text": ["a\\udcff"]}, ', ""),
    "no-numbers": (b'"outputs": {', b'"outputs": {"77": {"text": [NaN, Infinity, 1e999]}, ', ""),
    "deep": (b'"outputs": {', b'"outputs": {"77": {"text": [' + b"[" * 150 + b"]" * 150 + b"]}, ", ""),
    "digits": (b'"outputs": {', b'"outputs": {"77": {"text": [' + b"1" * 4000 + b"]}, ", ""),
    "many": (b'"outputs": {', b'"outputs": {"77": {"text": [' + b'"x",' * 300_000 + b"1]}, ", "execution_error"),
    "another-time": (b'"timestamp": ', b'"timestamp": -1e300, "t": ', ""),
    "a-file-outside": (
        b'"outputs": {',
        b'"outputs": {"78": {"images": [{"filename": "../../../../../../etc/passwd", "subfolder": ".."}]}, ',
        "attempts_exhausted",
    ),
    "a-null-name": (
        b'"outputs": {',
        b'"outputs": {"78": {"images": [{"filename": "a\\u0000b", "subfolder": "\\u0000"}]}, ',
        "attempts_exhausted",
    ),
}


@pytest.mark.parametrize("kind", ODD)
async def test_an_odd_history_ends_the_prompt_in_valid_json(wild: Wild, kind: str) -> None:
    """Whatever nodes put out, the event is JSON that everybody reads, and no file of elsewhere is in it."""

    def strict(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    old, new, code = ODD[kind]
    wild.comfy.asked, wild.comfy.spoilt = 0, {"GET /history": swaps(old, new)}
    await wild.stack.outside.send({"id": f"odd-{kind}", "prompt": graph()})
    event = await wild.stack.outside.terminal(f"odd-{kind}", 60)
    wild.comfy.spoilt = {}
    assert wild.comfy.asked
    assert event.body.get("code", "") == code
    document: Any = json.loads(event.data, parse_constant=strict)
    assert document["id"] == f"odd-{kind}"
    assert b"root:" not in event.data


async def test_mad_frames_and_sockets_that_hang_up_change_nothing(wild: Wild) -> None:
    """Prompts complete beside frames of every shape, and without any socket."""
    pid, faults = wild.pid, wild.faults()
    for frames, hang_up in ((FRAMES, False), ([], True), ([], False)):
        wild.comfy.frames, wild.comfy.hang_up = frames, hang_up
        await wild.comfy.drop_sockets()
        for number in range(2):
            request = f"frames-{len(frames)}-{hang_up}-{number}"
            await wild.stack.outside.send({"id": request, "prompt": graph(seconds=0.3, steps=3)})
            assert (await wild.stack.outside.terminal(request, 60)).channel == "prompt.complete"
    assert wild.memory_mb < 400
    assert (wild.pid, wild.faults()) == (pid, faults)

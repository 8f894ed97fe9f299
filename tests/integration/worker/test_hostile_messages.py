"""Messages made to do harm: each has its one answer in time, the worker lives, and the next prompt runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack, graph

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
MEGABYTE = 900_000


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def load(url: str) -> dict[str, Any]:
    return {"prompt": {"1": {"class_type": "LoadImage", "inputs": {"image": url}}}}


def token(text: str, pattern: str = "**") -> dict[str, Any]:
    return {"url_pattern": pattern, "auth": {"type": "bearer", "token": text}}


REFUSED = "input_unavailable"
# Name, request, headers, and the code of its answer; an empty one for success.
HOSTILE: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    # headers
    ("trace-long", {"prompt": graph()}, {"traceparent": f"{TRACE}-{'x' * 64_000}"}, ""),
    ("trace-state-long", {"prompt": graph()}, {"traceparent": TRACE, "tracestate": "x" * 64_000}, ""),
    ("header-flood", {"prompt": graph()}, {f"x-{at}": "y" * 20 for at in range(1500)}, ""),
    ("replay-huge", {"prompt": graph()}, {"comfybus-replay": "9" * 30}, ""),
    # times
    ("expired-before-time", {"prompt": graph(), "expires_at": "0001-01-01T00:00:00+23:59"}, {}, "expired"),
    ("expires-after-time", {"prompt": graph(), "expires_at": "9999-12-31T23:59:59-23:59"}, {}, ""),
    ("no-time-at-all", {"prompt": graph(), "timeout_s": 5e-324}, {}, "timeout"),
    # sizes
    ("long-webhook", {"prompt": graph(), "webhook": "https://h/" + "w" * MEGABYTE}, {}, ""),
    ("long-prefix", {"prompt": graph(), "s3": {"bucket": "b", "prefix": "p" * MEGABYTE}}, {}, "invalid_request"),
    ("long-folder", {"prompt": graph(), "hf_upload": {"repo": "u/r", "directory": "d/" * 400_000}}, {}, ""),
    (
        "long-option",
        {"prompt": graph(), "convert_output": {"format": "webp", "options": {"q" * MEGABYTE: 1}}},
        {},
        "invalid_request",
    ),
    ("long-node-id", {"prompt": {"n" * MEGABYTE: {"class_type": "EmptyImage"}}}, {}, "invalid_prompt"),
    ("long-class", {"prompt": {"1": {"class_type": "C" * MEGABYTE}}}, {}, "invalid_prompt"),
    ("many-nodes", {"prompt": {str(at): {"class_type": "A"} for at in range(20_000)}}, {}, "invalid_prompt"),
    ("deep-metadata", {"prompt": graph(), "metadata": {"m": nested(190)}}, {}, ""),
    ("many-secrets", {"prompt": graph(), "credentials": [token(f"t{at:06}" * 5) for at in range(6000)]}, {}, ""),
    (
        "many-patterns",
        {**load("http://127.0.0.1:1/" + "a" * 9000), "credentials": [token("x", "**a" * 500)] * 300},
        {},
        REFUSED,
    ),
    # names
    ("climbing-prefix", {"prompt": graph(prefix="../../../evil")}, {}, "execution_error"),
    ("null-prefix", {"prompt": graph(prefix="a\0b")}, {}, "execution_error"),
    ("odd-prefix", {"prompt": graph(prefix="\x1b[31m\n\u202eCON")}, {}, ""),
    ("endless-prefix", {"prompt": graph(prefix="p" * 300_000)}, {}, ""),
    ("odd-node-id", {"prompt": {"\0\x1b[2J\r\n": {"class_type": "EmptyImage"}}}, {}, "invalid_prompt"),
    ("climbing-workflow", {"workflow": "../../../etc/passwd"}, {}, "workflow_not_found"),
    ("null-workflow", {"workflow": "a\0b"}, {}, "workflow_not_found"),
    ("deep-workflow", {"workflow": "a/" * 255}, {}, "workflow_not_found"),
    # numbers
    ("negative", {"prompt": graph(size=-5)}, {}, "invalid_prompt"),
    ("gigantic", {"prompt": graph(size=10**300)}, {}, "invalid_prompt"),
    ("gigantic-seed", {"workflow": "sd15/txt2img", "input": {"prompt": "x", "seed": 10**4000}}, {}, "invalid_request"),
    # addresses
    ("local-file", load("file:///etc/passwd"), {}, REFUSED),
    ("the-ledger", load("nats://comfyui-ledger/x"), {}, REFUSED),
    ("cloud-metadata", load("http://169.254.169.254/latest/meta-data"), {}, REFUSED),
    ("octal", load("http://0177.0.0.1/a.png"), {}, REFUSED),
    ("round-digits", load("http://①②⑦.⓪.⓪.①/a.png"), {}, REFUSED),
    ("empty-label", load("http://a..b/x.png"), {}, REFUSED),
    ("long-label", load(f"http://{'a' * 100}.example/x.png"), {}, REFUSED),
    ("port-beyond", load("http://a:99999/a.png"), {}, REFUSED),
]


@pytest.mark.parametrize(("name", "request_", "headers", "code"), HOSTILE, ids=[case[0] for case in HOSTILE])
async def test_a_hostile_request_has_its_answer(
    stack: Stack, name: str, request_: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    """At once, with the code of what is wrong and never a fault of ours; nothing is put outside the folders."""
    worker = stack.workers[0]
    assert worker.process is not None
    pid, faults = worker.process.pid, worker.process.log.read_text().count("fault of ours")
    await stack.outside.send({"id": f"hostile-{name}", **request_}, headers)
    event = await stack.outside.terminal(f"hostile-{name}", 60)
    if name == "long-folder":
        # Where it stops depends on what the Hub's address says of it; that it is a failure of the upload does not.
        assert event.body["code"] in {"invalid_request", "upload_failed", "attempts_exhausted"}
    else:
        assert event.body.get("code", "") == code
    assert len(event.body.get("location") or "") <= 512
    assert len(event.body.get("error", "")) <= 5000
    assert worker.process.log.read_text().count("fault of ours") == faults
    assert worker.process.running
    assert worker.process.pid == pid
    assert not list(stack.folder.rglob("evil*"))


async def test_a_trace_parent_in_the_body_cannot_keep_the_answer_back(stack: Stack) -> None:
    """A structured event brings its trace parent in the body, where no broker bounds it."""
    event = {"specversion": "1.0", "id": "structured", "type": "t", "source": "/s", "data": {"prompt": graph()}}
    await stack.outside.send({**event, "traceparent": f"{TRACE}-{'x' * 200_000}"})
    assert (await stack.outside.terminal("structured", 60)).channel == "prompt.complete"
    await stack.outside.send({**event, "id": "forging", "traceparent": f"{TRACE}-\rce-id: forged"})
    answer = await stack.outside.terminal("forging", 60)
    assert answer.headers["ce-id" if "ce-id" in answer.headers else "ce_id"] == "forging/complete"


async def test_a_bomb_of_brackets_is_put_aside(stack: Stack) -> None:
    """A message of a million brackets is no request, costs little memory, and lies in the dead letter."""
    worker = stack.workers[0]
    assert worker.process is not None
    size = await stack.outside.request_limit_bytes() - 2000
    before = len(await stack.outside.letters())
    memory = resident_mb(worker.process.pid)
    body = b'{"id": "bomb", "metadata": {"m": [' + b"[]," * ((size - 100) // 3) + b"1]}}"
    await stack.outside.send(body)
    await stack.outside.send({"id": "behind-the-bomb", "prompt": graph()})
    assert (await stack.outside.terminal("behind-the-bomb", 60)).channel == "prompt.complete"
    assert len(await stack.outside.letters()) == before + 1
    assert json.loads(body)["id"] == "bomb"
    assert resident_mb(worker.process.pid) - memory < 100


def resident_mb(pid: int) -> int:
    """Memory of a process."""
    [line] = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) // 1024

"""Whatever lies on the request channel gets one clear answer, and the good prompt behind it completes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import anyio
import pytest

from tests.support.outsider import place_in, request_in
from tests.support.stack import Stack, graph

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

GOOD: dict[str, Any] = {"id": "m", "prompt": graph(), "metadata": {"n": 1}, "timeout_s": 5, "s3": None}
GOOD.pop("s3")

UNREADABLE = [
    b"",
    b" ",
    b"{",
    b'{"id": "half", "prompt": {"1": {"class_type"',
    b"null",
    b"true",
    b"0",
    b'"text"',
    b"[]",
    b"[" * 1_000_000,
    b'{"a":' * 100_000,
    b"\xff\xfe{\x00}\x00",
    "{}".encode("utf-16"),
    '{"id": "ü"}'.encode("latin-1"),
    b"\x00" * 1000,
    b'{"id": "x"} trailing',
    b"{'id': 'single quotes'}",
    b'{"id": NaN}',
    b'{"prompt": {"1": {"class_type": "\\ud800"}}}',
    b"not json at all",
    b"\x1f\x8b\x08\x00gzip?",
    b'{"id": 1e}',
]

WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"prompt": {}}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": "x"}, "prompt"),
    ({"prompt": {"1": 5}}, "prompt.1"),
    ({"prompt": {"1": {}}}, "prompt.1.class_type"),
    ({"prompt": {"1": {"class_type": 5}}}, "prompt.1.class_type"),
    ({"prompt": {"1": {"class_type": "SaveImage", "inputs": []}}}, "prompt.1.inputs"),
    ({"prompt": graph(), "workflow": "x"}, None),
    ({"prompt": graph(), "input": {}}, "input"),
    ({"prompt": graph(), "nope": 1}, "nope"),
    ({"prompt": graph(), "timeout_s": "5"}, "timeout_s"),
    ({"prompt": graph(), "timeout_s": 0}, "timeout_s"),
    ({"prompt": graph(), "timeout_s": -1}, "timeout_s"),
    ({"prompt": graph(), "timeout_s": True}, "timeout_s"),
    ({"prompt": graph(), "expires_at": "tomorrow"}, "expires_at"),
    ({"prompt": graph(), "expires_at": "2026-01-01T00:00:00"}, "expires_at"),
    ({"prompt": graph(), "expires_at": 5}, "expires_at"),
    ({"prompt": graph(), "metadata": []}, "metadata"),
    ({"prompt": graph(), "metadata": {"x": "y" * 17_000}}, "metadata"),
    ({"prompt": graph(), "credentials": {}}, "credentials"),
    ({"prompt": graph(), "credentials": [{"url_pattern": "x"}]}, "credentials.0.auth"),
    ({"prompt": graph(), "credentials": [{"url_pattern": "x", "auth": {"type": "no"}}]}, "credentials.0.auth.type"),
    ({"prompt": graph(), "s3": {"prefix": "x"}}, "s3.bucket"),
    ({"prompt": graph(), "s3": {"bucket": "b", "extra": 1}}, "s3.extra"),
    ({"prompt": graph(), "s3": {"bucket": "b"}, "http_upload": {"url_prefix": "http://x"}}, "http_upload"),
    ({"prompt": graph(), "convert_output": {"format": "png"}}, "convert_output.format"),
    ({"prompt": graph(), "webhook_v2": 5}, "webhook_v2"),
    ({"id": "../../etc", "prompt": graph()}, "id"),
    ({"id": 5, "prompt": graph()}, "id"),
    ({"id": "x" * 1000, "prompt": graph()}, "id"),
    ({"ID": "x", "prompt": graph()}, "ID"),
]


def mutations(count: int, seed: int) -> list[bytes]:
    """Good requests with one thing broken: bytes cut, flipped or doubled, fields of another type."""
    rng = random.Random(seed)
    found: list[bytes] = []
    values: list[Any] = [None, True, -1, 1e300, "", "x", [], {}, [[]], {"a": None}, 2**70]
    while len(found) < count:
        document = copy.deepcopy(GOOD)
        document["id"] = f"mut-{seed}-{len(found)}"
        data = json.dumps(document).encode()
        match rng.randrange(4):
            case 0:
                data = data[: rng.randrange(len(data))]
            case 1:
                at = rng.randrange(len(data))
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 2:
                at, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
                data = data[:end] + data[at:]
            case _:
                node = rng.choice(list(document["prompt"]))
                where = rng.choice([document, document["prompt"], document["prompt"][node], document["metadata"]])
                where[rng.choice(list(where))] = rng.choice(values)
                data = json.dumps(document).encode()
        found.append(data)
    return found


async def test_every_malformed_message_has_one_answer_and_the_next_prompt_runs(stack: Stack) -> None:
    """300 malformed messages: one failure each that names the field, a dead letter for the unreadable, worker alive."""
    bodies = [*UNREADABLE, *(json.dumps(body).encode() for body, _ in WRONG)]
    bodies += mutations(300 - len(bodies), seed=7)
    assert len(bodies) == 300
    before, letters = await stack.outside.terminals(), len(await stack.outside.letters())
    for body in bodies:
        await stack.outside.send(body)
    await stack.outside.send({"id": "good-behind", "prompt": graph(prefix="behind")})
    assert (await stack.outside.terminal("good-behind", 120)).channel == "prompt.complete"
    with anyio.fail_after(60):
        while await stack.outside.unsettled():
            await anyio.sleep(0.05)
    after = await stack.outside.terminals()
    new = {request: events for request, events in after.items() if request not in before and request != "good-behind"}
    assert all(len(events) == 1 for events in new.values())
    # Some mutations only change a value and run; the same id may be meant twice.
    events = [events[0] for events in new.values()]
    failed = [event for event in events if event.channel == "prompt.failed"]
    assert len(failed) >= 200
    codes = {event.body["code"] for event in failed}
    assert codes <= {"invalid_request", "invalid_prompt"}, codes
    for event in failed:
        assert event.body["error"]
        assert "Traceback" not in event.body["error"]
    assert len(await stack.outside.letters()) - letters >= len(UNREADABLE)


@pytest.mark.parametrize(("body", "location"), WRONG, ids=[f"{i}-{loc}" for i, (_, loc) in enumerate(WRONG)])
async def test_a_wrong_field_is_named(stack: Stack, body: dict[str, Any], location: str | None) -> None:
    """A readable request that breaks the contract fails with invalid_request at its location, without a letter."""
    letters = len(await stack.outside.letters())
    before = set(await stack.outside.terminals())
    await stack.outside.send({**body, "id": f"wrong-{WRONG.index((body, location))}"} if "id" not in body else body)
    new: set[str] = set()
    with anyio.fail_after(20):
        while not new:
            new = set(await stack.outside.terminals()) - before
    event = (await stack.outside.terminals())[new.pop()][0]
    assert event.body["code"] == "invalid_request"
    assert event.body.get("location") == location
    assert stack.outside.is_request_place(event.body["source"])
    assert len(await stack.outside.letters()) == letters


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
async def test_an_unreadable_message_goes_to_the_dead_letter_untouched(stack: Stack, body: bytes) -> None:
    """What cannot be decoded is kept byte by byte, with the reason and where it came from."""
    before = len(await stack.outside.letters())
    await stack.outside.send(body, {"x-own": "kept"})
    with anyio.fail_after(20):
        while len(letters := await stack.outside.letters()) == before:
            await anyio.sleep(0.02)
    letter = letters[-1]
    assert letter.headers["x-own"] == "kept"
    assert letter.headers["comfybus-code"] == "invalid_request"
    assert letter.headers["comfybus-reason"]
    request_id = letter.headers["comfybus-id"]
    event = await stack.outside.terminal(request_id)
    assert stack.outside.is_request_place(event.body["source"])
    assert place_in(letter) == event.body["source"]
    assert await request_in(stack.outside, letter) == body


async def test_a_dead_letter_as_large_as_the_broker_takes_can_be_replayed(stack: Stack) -> None:
    """A request that leaves no room for the replay's headers is referred to and read back: one more answer."""
    size = await stack.outside.request_limit_bytes()
    before = len(await stack.outside.letters())
    await stack.outside.send(b"{" + b" " * (size - 1))
    with anyio.fail_after(20):
        while len(letters := await stack.outside.letters()) == before:
            await anyio.sleep(0.02)
    request_id = letters[-1].headers["comfybus-id"]
    async with stack.client() as client:
        letter = await client.letter(request_id)
        assert letter is not None
        assert await client.replay(letter) == 1
    body = (await stack.outside.terminal(request_id, replay=1)).body
    assert (body["code"], body["replay"]) == ("invalid_request", 1)
    assert "JSON" in body["error"]

"""One prompt from the broker through ComfyUI to its terminal event, seen by a client that knows only the contract."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from datetime import datetime
from typing import Any

import pytest
from PIL import Image

from tests.support.outsider import Event
from tests.support.stack import Stack, graph

pytestmark = pytest.mark.anyio

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def picture(event: Event, index: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(event.body["images"][index])))


async def test_a_plain_client_gets_its_picture_progress_and_headers(stack: Stack) -> None:
    """The whole round trip by the contract alone: result, echo, progress, CloudEvents headers, trace parent."""
    request = {"id": "plain-1", "prompt": graph(seconds=0.6), "metadata": {"user": 7, "none": None}, "timeout_s": 60}
    await stack.outside.send(request, {"traceparent": TRACE})
    event = await stack.outside.terminal("plain-1")
    body = event.body
    assert event.channel == "prompt.complete"
    assert body["type"] == event.headers["ce-type"] == "prompt.complete"
    assert event.headers["ce-id"] == "plain-1/complete"
    assert event.headers["ce-source"] == "/comfybus/w0"
    assert event.headers["ce-subject"] == body["id"] == "plain-1"
    assert event.headers["ce-specversion"] == "1.0"
    assert event.headers["content-type"] == "application/json"
    assert event.headers["traceparent"] == TRACE
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    assert body["attempt"] == 1
    assert "replay" not in body
    assert body["metadata"] == {"user": 7, "none": None}
    assert body["timeout_s"] == 60
    assert body["prompt"]["9"]["inputs"]["filename_prefix"] == "plain-1_out"
    assert picture(event).size == (64, 64)
    assert body["filenames"] == ["plain-1_out_00001_.png"]
    data = base64.b64decode(body["images"][0])
    assert body["outputs"] == [
        {
            "node_id": "9",
            "class_type": "SaveImage",
            "kind": "image",
            "filename": "plain-1_out_00001_.png",
            "media_type": "image/png",
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "image": 0,
        }
    ]
    stats = body["stats"]
    assert 500 < stats["comfy_execution"]["duration"] < 20_000
    assert set(stats["comfy_execution"]["nodes"]) == {"1", "2", "9"}
    assert stats["total_time"] >= stats["comfy_execution"]["duration"]
    assert stats["queue_time"] >= 0


async def test_progress_is_numbered_rises_and_keeps_every_status(stack: Stack) -> None:
    """Progress has every status once and in order, rising sequence and value, the last value, and the trace."""
    await stack.outside.send({"id": "progress-1", "prompt": graph(seconds=1.2, steps=60)}, {"traceparent": TRACE})
    await stack.outside.terminal("progress-1")
    events = stack.outside.heard("progress-1", "prompt.progress")
    assert [event.body["sequence"] for event in events] == list(range(len(events)))
    values = [event.body["progress"]["value"] for event in events]
    assert values == sorted(values)
    assert values[-1] == 1.0
    statuses = list(dict.fromkeys(event.body["status"] for event in events))
    assert statuses == ["accepted", "preparing", "queued", "running", "storing"]
    # 60 steps were taken; ten values a second were let through, and on a busy machine it takes longer.
    times = [datetime.fromisoformat(event.body["timestamp"]).timestamp() for event in events]
    running = [at for at, event in zip(times, events, strict=True) if event.body["status"] == "running"]
    assert 4 <= len(running) <= 10 * (running[-1] - running[0] + 1) + 1
    assert all(event.headers["traceparent"] == TRACE for event in events)
    steps = [event.body["progress"] for event in events if "step" in event.body["progress"]]
    assert steps[0]["current_node_class"] == "SlowProgress"
    assert steps[0]["steps"] == 60


async def test_outputs_of_every_kind_come_in_comfyui_order(stack: Stack) -> None:
    """Sub-folders, temp files, batches, animations and text are all delivered, each with its kind."""
    prompt: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 3, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/deep/x"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "4": {
            "class_type": "SaveAnimatedWEBP",
            "inputs": {
                "images": ["1", 0],
                "filename_prefix": "anim",
                "fps": 6.0,
                "lossless": True,
                "quality": 80,
                "method": "default",
            },
        },
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    await stack.outside.send({"id": "kinds-1", "prompt": prompt})
    event = await stack.outside.terminal("kinds-1")
    assert event.channel == "prompt.complete", event.body
    outputs = event.body["outputs"]
    by_node: dict[str, list[dict[str, Any]]] = {}
    for output in outputs:
        by_node.setdefault(output["node_id"], []).append(output)
    assert [len(by_node[node]) for node in ("2", "3", "4", "5")] == [3, 3, 1, 1]
    assert [output["filename"] for output in by_node["2"]] == [f"kinds-1_x_0000{n}_.png" for n in (1, 2, 3)]
    assert by_node["4"][0]["media_type"] == "image/webp"
    assert by_node["5"][0]["kind"] == "text"
    assert by_node["5"][0]["value"]
    files = [output for output in outputs if "filename" in output]
    assert [output["image"] for output in files] == list(range(len(event.body["images"])))
    assert event.body["filenames"] == [output["filename"] for output in files]
    assert picture(event, by_node["4"][0]["image"]).format == "WEBP"


async def test_delivered_files_are_removed_and_others_stay(stack: Stack) -> None:
    """Only files with the request's id leave the output folder; neighbours and temp files stay."""
    output = stack.comfys[0].home / "output"
    neighbour = output / "tidy-10_out_00001_.png"
    neighbour.write_bytes(b"mine")
    await stack.outside.send({"id": "tidy-1", "prompt": graph(prefix="sub/out")})
    await stack.outside.terminal("tidy-1")
    await stack.outside.send({"id": "tidy-2", "prompt": graph()})
    await stack.outside.terminal("tidy-2")
    # Files go right after the terminal event; the next prompt's end is later than that.
    await stack.outside.send({"id": "tidy-3", "prompt": graph()})
    await stack.outside.terminal("tidy-3")
    left = [path.name for path in output.rglob("*.png")]
    assert neighbour.name in left
    assert not [name for name in left if name.startswith(("tidy-1_", "tidy-2_"))]


async def test_large_outputs_travel_as_references(stack: Stack) -> None:
    """Beyond the inline limit every file goes to the output store, under id, digest and name."""
    noise = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 2048, "height": 2048, "batch_size": 40, "color": 5}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "big"}},
    }
    await stack.outside.send({"id": "big-1", "prompt": noise})
    event = await stack.outside.terminal("big-1", 60)
    assert event.channel == "prompt.complete", event.body
    assert sum(output["size_bytes"] for output in event.body["outputs"]) > 512 * 1024
    assert len(event.body["images"]) == 40
    output = event.body["outputs"][7]
    assert event.body["images"][7] == output["url"]
    assert output["url"].endswith(f"/big-1/{output['sha256'][:12]}/{output['filename']}")
    stored = await stack.outside.fetch_output(output["url"])
    assert hashlib.sha256(stored).hexdigest() == output["sha256"]


async def test_a_failing_node_is_named_with_its_traceback(stack: Stack) -> None:
    """A node that raises ends in prompt.failed with node, class, exception and traceback."""
    prompt = graph()
    prompt["5"] = {"class_type": "FailingNode", "inputs": {"image": ["1", 0], "message": "no such luck"}}
    prompt["9"]["inputs"]["images"] = ["5", 0]
    await stack.outside.send({"id": "fail-1", "prompt": prompt, "metadata": {"k": "v"}})
    body = (await stack.outside.terminal("fail-1")).body
    assert body["code"] == "execution_error"
    assert "no such luck" in body["error"]
    assert body["node"]["node_id"] == "5"
    assert body["node"]["class_type"] == "FailingNode"
    assert body["node"]["exception_type"] == "RuntimeError"
    assert any("no such luck" in line or "raise" in line or "File" in line for line in body["node"]["traceback"])
    assert body["retryable"] is False
    assert body["metadata"] == {"k": "v"}
    assert body["attempt"] == 1


async def test_comfyui_refusals_carry_its_own_findings(stack: Stack) -> None:
    """A graph that ComfyUI refuses fails with invalid_prompt, its reason and its node errors."""
    wrong = graph()
    wrong["1"]["inputs"]["width"] = -5
    await stack.outside.send({"id": "refused-1", "prompt": wrong})
    body = (await stack.outside.terminal("refused-1")).body
    assert body["code"] == "invalid_prompt"
    assert body["location"] == "prompt.1.inputs.width"
    assert body["node_errors"]["1"]["errors"][0]["type"] == "value_smaller_than_min"
    await stack.outside.send({"id": "refused-2", "prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}})
    body = (await stack.outside.terminal("refused-2")).body
    assert body["code"] == "invalid_prompt"
    assert "NoSuchNode" in body["error"]


async def test_a_graph_needs_an_output_but_no_saver(stack: Stack) -> None:
    """Another output node than a saver is enough; a graph without any fails with ComfyUI's own reason."""
    nodes = {"1": graph()["1"], "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
    await stack.outside.send({"id": "saver-1", "prompt": nodes})
    body = (await stack.outside.terminal("saver-1")).body
    assert body["type"] == "prompt.complete"
    assert body["images"] == []
    assert body["outputs"][0]["kind"] == "text"
    await stack.outside.send({"id": "saver-2", "prompt": {"1": graph()["1"]}})
    body = (await stack.outside.terminal("saver-2")).body
    assert body["code"] == "invalid_prompt"
    assert "no outputs" in body["error"].lower()


async def test_one_id_is_run_and_answered_once(stack: Stack) -> None:
    """Thirty submissions of one id with different bodies: one execution, one event, all settled."""
    before = sum(stack.comfys[0].executions().values())
    for index in range(30):
        await stack.outside.send({"id": "once-1", "prompt": graph(color=index, seconds=0.2)})
    await stack.outside.terminal("once-1")
    await stack.outside.send({"id": "once-1", "prompt": graph(color=99)})
    await stack.outside.send({"id": "once-2", "prompt": graph()})
    await stack.outside.terminal("once-2")
    assert len((await stack.outside.terminals())["once-1"]) == 1
    assert sum(stack.comfys[0].executions().values()) == before + 2


async def test_ids_come_from_body_envelope_or_place(stack: Stack) -> None:
    """Without an id of its own a request takes the CloudEvents id, else one derived from its place."""
    await stack.outside.send({"prompt": graph()}, {"CE-Id": "from-header", "ce-type": "x", "ce-source": "/me"})
    assert (await stack.outside.terminal("from-header")).body["type"] == "prompt.complete"
    structured = {
        "specversion": "1.0",
        "id": "from-structure",
        "type": "t",
        "source": "/me",
        "traceparent": TRACE,
        "data": {"prompt": graph()},
    }
    await stack.outside.send(structured, {"content-type": "application/cloudevents+json"})
    event = await stack.outside.terminal("from-structure")
    assert event.headers["traceparent"] == TRACE
    known = set(await stack.outside.terminals())
    await stack.outside.send({"prompt": graph(color=3)}, {"ce-id": "not/usable"})
    await stack.outside.send({"id": "after-derived", "prompt": graph()})
    await stack.outside.terminal("after-derived")
    while not (new := set(await stack.outside.terminals()) - known - {"after-derived"}):
        pass
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", new.pop())


@pytest.mark.parametrize("bad", ["../up", "a/b", "", ".hidden", "x" * 129, "a b", "a.b", "ä", 5, None, ["a"]])
async def test_an_unusable_id_is_refused_by_name(stack: Stack, bad: object) -> None:
    """An id that could be a path or is no id ends in invalid_request at location id, under a derived id."""
    known = set(await stack.outside.terminals())
    await stack.outside.send({"id": bad, "prompt": graph()})
    new: set[str] = set()
    while not new:
        new = set(await stack.outside.terminals()) - known
    body = (await stack.outside.terminals())[new.pop()][0].body
    if bad is None:
        assert body["type"] == "prompt.complete"
    else:
        assert body["code"] == "invalid_request"
        assert body["location"] == "id"
        assert stack.outside.is_request_place(body["source"])


async def test_an_event_that_is_too_large_is_cut_in_order(stack: Stack) -> None:
    """A failure whose echo would not fit the broker loses its long strings first and still names the request."""
    nodes = {
        "1": {"class_type": "NoSuchNode", "inputs": {"text": "x" * 747_000}},
        "2": {"class_type": "NoSuchNode", "inputs": {"text": "y" * 301_200}},
    }
    await stack.outside.send({"id": "cut-1", "prompt": nodes})
    body = (await stack.outside.terminal("cut-1")).body
    assert body["code"] == "invalid_prompt"
    assert body["prompt"]["1"]["inputs"]["text"] == {
        "omitted": 747_000,
        "sha256": hashlib.sha256(b"x" * 747_000).hexdigest(),
    }
    assert len(json.dumps(body)) < 1_000_000

"""Replays the recordings of a real ComfyUI 0.3.64 and compares what the server under test does.

The server is the stand-in, or the real ComfyUI at COMFYUI_URL.
"""

from __future__ import annotations

import json
from difflib import unified_diff
from typing import Any

import aiohttp
import pytest
from servers import RealServer, ServerMaker
from trace_listening import Listener, lanes, unordered
from trace_reduction import RECORDED
from trace_replay import Replay

pytestmark = pytest.mark.anyio

SERIAL = [
    "01_success_simple",
    "03_cached_runs",
    "04_validation_errors",
    "06_execution_error",
    "10_progress_slow",
    "11_txt2img_ksampler",
    "12_preview_binary_frames",
    "15_same_client_id_two_sockets",
    "17_no_client_id",
    "19_info_and_files",
    "20_upload_and_loadimage",
]
"""One prompt at a time: every message must come in the recorded order."""

OVERLAPPING = [
    "07_interrupt",
    "08_queue_delete_clear",
    "09_two_prompts_two_clients",
    "13_prompt_id_supply",
    "14_number_and_front",
    "14b_equal_number_and_prompt_id_kills_worker",
    "16_reconnect_mid_prompt",
    "18_hard_crash",
    "21_signals",
]
"""Prompts that wait for each other, or sockets that come and go: compared prompt by prompt."""

RACES = {"07_interrupt": 5}
"""How often to try what was recorded as it can go: of two interrupts in a row the second may hit the next prompt."""


@pytest.mark.parametrize("scenario", SERIAL)
async def test_serial_scenario_is_repeated_message_by_message(scenario: str, make_server: ServerMaker) -> None:
    """Answers and messages have the recorded shapes, in the recorded order."""
    for listener in await _replayed(scenario, make_server):
        _assert_same(listener.name, listener.heard, listener.expected)


@pytest.mark.parametrize("scenario", OVERLAPPING)
async def test_overlapping_scenario_is_repeated_prompt_by_prompt(scenario: str, make_server: ServerMaker) -> None:
    """Answers have the recorded shapes; each prompt's messages have theirs, and prompts come in the recorded order."""
    for listener in await _replayed(scenario, make_server):
        heard, expected = lanes(listener.heard), lanes(listener.expected)
        if listener.was_lost:
            _assert_one_begins_the_other(heard, expected)
        else:
            _assert_same(listener.name, _as_list(heard), _as_list(expected))


async def test_every_kind_of_output_is_reported(make_server: ServerMaker) -> None:
    """A prompt with many outputs reports the recorded ones and serves their files, whatever the order of its nodes."""
    for listener in await _replayed("02_success_many_outputs", make_server):
        assert unordered(listener.heard) == unordered(listener.expected)


async def _replayed(scenario: str, make_server: ServerMaker) -> list[Listener]:
    """Replay a scenario on a fresh server, fail for answers that differ, and return the sockets."""
    steps: list[dict[str, Any]] = json.loads((RECORDED / f"{scenario}.json").read_text(encoding="utf-8"))
    for _ in range(RACES.get(scenario, 1)):
        server = await make_server(scenario)
        if isinstance(server, RealServer):
            await server.skip_unless_possible(scenario, steps)
            await server.run_unrelated_prompt()
        async with aiohttp.ClientSession() as session:
            replay = Replay(server, session)
            await replay.run(steps)
        if not replay.differences:
            break
    assert not replay.differences, "\n".join(replay.differences)
    return list(replay.listeners.values())


def _assert_one_begins_the_other(heard: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare what a socket heard before it broke off: how much of the end still got through is chance."""
    assert heard["order"] == expected["order"]
    for prompt, lane in expected["prompts"].items():
        common = min(len(lane), len(heard["prompts"][prompt]))
        assert heard["prompts"][prompt][:common] == lane[:common]


def _as_list(sorted_by_prompt: dict[str, Any]) -> list[Any]:
    lines = [[prompt, *message] for prompt, lane in sorted_by_prompt["prompts"].items() for message in lane]
    return [*lines, ["last status", sorted_by_prompt["last status"]]]


def _assert_same(socket: str, heard: list[Any], expected: list[Any]) -> None:
    """Fail with a line-by-line difference of what a socket heard."""
    recorded, got = ([json.dumps(message, sort_keys=True) for message in messages] for messages in (expected, heard))
    difference = "\n".join(unified_diff(recorded, got, "recorded", "heard", lineterm="", n=2))
    assert not difference, f"messages to {socket}:\n{difference}"

"""Receivers that misbehave: each is handled as the documentation says, and none delays another."""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from tests.integration.bridge.bridges import Scene, on_each_broker, run_scene
from tests.integration.bridge.receivers import Receivers, answers, endless, hangs, resets, run_receivers
from tests.support.processes import free_port

# Generous: a machine that is busy with other things starts processes slowly.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def stays_prompt(scene: Scene, receivers: Receivers, path: str, *, count: int, every_s: float) -> float:
    """Send events to a well-behaved receiver beside whatever goes on; returns the longest delay in seconds."""
    sent = dict[str, float]()
    for number in range(count):
        request = f"{path}-{number}"
        sent[f"{request}/complete"] = time.monotonic()
        await scene.complete(request, webhook_v2=receivers.url(path))
        await anyio.sleep(every_s)
    calls = await receivers.until(path, count, 60)
    return max(call.at - sent[call.webhook_id] for call in calls)


@on_each_broker
@pytest.mark.timeout(300)
async def test_one_bad_receiver_never_delays_another(tmp_path: Path, broker: str) -> None:
    """500, 429, 410, hanging, endless, redirecting, resetting and absent receivers at once: others within a second."""
    elsewhere = free_port()
    behaviours = {
        "broken": answers(500, 500, 200),
        "limited": answers(429, 200, headers={"Retry-After": "2"}),
        "gone": answers(410),
        "hangs": hangs,
        "endless": endless,
        "moved": answers(302, headers={"Location": "/trap"}),
        "resets": resets,
    }
    async with run_receivers(**behaviours) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(WEBHOOK_SCHEDULE="1s,1s,2s", WEBHOOK_TIMEOUT_S=2).start()
        # The first one of all waits for the bridge to take its shares.
        await stays_prompt(scene, receivers, "first", count=1, every_s=0)
        alone = await stays_prompt(scene, receivers, "alone", count=20, every_s=0.1)
        for name in behaviours:
            for number in range(3):
                await scene.complete(f"{name}-{number}", webhook_v2=receivers.url(name))
        for number in range(20):
            await scene.complete(f"absent-{number}", webhook_v2=f"http://127.0.0.1:{elsewhere}/hook")
        # All of them are at it.
        for name in behaviours:
            await receivers.until(name, 1)
        slowest = await stays_prompt(scene, receivers, "good", count=40, every_s=0.1)
        print(f"{broker}: the good receiver waited at most {slowest * 1000:.0f} ms, alone {alone * 1000:.0f} ms")
        # On a machine with more to do than cores everything takes as much longer.
        assert slowest < max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1), 3 * alone)

        # 500: again after the first delay, then again.
        broken = await receivers.until("broken", 5)
        first = [call.at for call in broken if call.webhook_id == broken[0].webhook_id]
        assert len(first) == 2
        assert 0.8 < first[1] - first[0] < 2
        # 429: nothing at all before the time it named, then everything.
        limited = await receivers.until("limited", 4)
        assert min(call.at for call in limited[1:]) - limited[0].at >= 1.99
        # 410: one call, the others are given up without one.
        assert len(receivers.of("gone")) == 1
        # Endless bodies: the status counts, the body is cut off.
        assert len(receivers.of("endless")) == 3
        # Redirects are not followed.
        assert receivers.of("trap") == []
        await scene.until_kept("due", 0, within_s=60)
        letters = await scene.records("dlq")
        reasons = {letter["prompt"]: (letter["code"], letter["reason"]) for letter in letters}
        codes = {
            name: [reasons.get(f"{name}-{number}", ("delivered",))[0] for number in range(3)] for name in behaviours
        }
        assert codes == {
            "broken": ["delivered"] * 3,
            "limited": ["delivered"] * 3,
            "gone": ["gone"] * 3,
            "hangs": ["exhausted"] * 3,
            "endless": ["delivered"] * 3,
            "moved": ["exhausted"] * 3,
            "resets": ["exhausted"] * 3,
        }
        assert "does not answer within 2 s" in reasons["hangs-0"][1]
        assert "redirects are not followed" in reasons["moved-0"][1]
        assert "the connection broke" in reasons["resets-0"][1]
        assert "nobody answers" in reasons["absent-0"][1]
        assert {letter["attempts"] for letter in letters if letter["code"] == "exhausted"} == {4}


@on_each_broker
async def test_prompt_webhook_retries_is_the_number_of_attempts(tmp_path: Path, broker: str) -> None:
    """PROMPT_WEBHOOK_RETRIES=3 means three requests in all, whatever the schedule allows; then a dead letter."""
    async with run_receivers(broken=answers(500)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(WEBHOOK_SCHEDULE="0.2s,1s", PROMPT_WEBHOOK_RETRIES=3).start()
        await scene.complete("r1", webhook_v2=receivers.url("broken"))
        await scene.until_kept("dlq", 1)
        assert len(receivers.of("broken")) == 3
        assert {call.webhook_id for call in receivers.of("broken")} == {"r1/complete"}


@on_each_broker
async def test_the_body_of_an_answer_is_logged_in_part_and_without_secrets(tmp_path: Path, broker: str) -> None:
    """The log shows the beginning of what a receiver answers; secrets of the URL are masked wherever they stand."""

    async def echoes(request: web.Request, _: int) -> web.StreamResponse:
        return web.Response(status=500, text=f"you called {request.url} " + "x" * 5000)

    async with run_receivers(echoes=echoes) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        bridge = scene.bridge(PROMPT_WEBHOOK_RETRIES=1)
        await bridge.start()
        url = receivers.url("echoes").replace("http://", "http://user:pa55word@") + "?token=verysecret"
        await scene.complete("s1", webhook_v2=url)
        await scene.until_kept("dlq", 1)
        [call] = receivers.of("echoes")
        assert call.headers["authorization"].startswith("Basic ")
        assert bridge.process is not None
        text = bridge.process.log.read_text()
        assert "verysecret" not in text
        assert "pa55word" not in text
        [line] = [line for line in bridge.log() if line["event"] == "webhook not delivered"]
        assert line["answer"].startswith("you called http://127.0.0.1")
        assert len(line["answer"]) <= 512
        assert line["url"] == receivers.url("echoes")


@on_each_broker
async def test_urls_of_requests_must_not_reach_into_private_networks(tmp_path: Path, broker: str) -> None:
    """Without ALLOWED_PRIVATE_HOSTS a webhook to loopback is given up at once, and nothing is sent."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge(ALLOWED_PRIVATE_HOSTS="").start()
        for number, url in enumerate(
            [receivers.url("hook"), f"http://localhost:{receivers.port}/hook", "ftp://x/y", "no url", "http://[::1]/x"]
        ):
            await scene.complete(f"p{number}", webhook_v2=url)
        await scene.until_kept("dlq", 5)
        letters = await scene.records("dlq")
        assert {letter["code"] for letter in letters} == {"refused"}
        reasons = {letter["prompt"]: letter["reason"] for letter in letters}
        assert "ALLOWED_PRIVATE_HOSTS" in reasons["p0"]
        assert "ALLOWED_PRIVATE_HOSTS" in reasons["p1"]
        assert receivers.calls == []


@on_each_broker
async def test_connections_are_used_again(tmp_path: Path, broker: str) -> None:
    """Many webhooks to one receiver go over few connections."""
    peers = set[object]()

    async def notes(request: web.Request, _: int) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(text="thank you")

    async with run_receivers(notes=notes) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge().start()
        for number in range(30):
            await scene.complete(f"c{number}", webhook_v2=receivers.url("notes"))
        await receivers.until("notes", 30)
        assert len(peers) <= 2

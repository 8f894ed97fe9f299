"""What the history or the queue shows is known within three seconds, whatever the websocket does."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest
from comfyui import Comfy, Program, ended, slow, until

from app.comfy.ends import ExecutionThreadDead, Gone, Succeeded
from app.comfy.followed import Followed

pytestmark = pytest.mark.anyio

_RULE_S = 3.0


async def known_after(comfy: Comfy, followed: Followed) -> float:
    """How long after the history showed it the end was known, in seconds."""
    shown_s = await comfy.shown_at(followed.prompt_id)
    await ended(followed)
    return time.monotonic() - shown_s


@pytest.mark.parametrize("fault", ["silent", "frozen", "deaf", "closed"])
async def test_an_end_is_known_whatever_the_socket_does(comfy: Comfy, fault: str) -> None:
    """A socket that says nothing, hears nothing or breaks off in the middle of a prompt costs progress only."""
    async with comfy.watching() as watch, comfy.submitted(watch, slow(1.5)) as followed:
        await followed.started.wait()
        await comfy.faults(socket=fault)
        assert await known_after(comfy, followed) < _RULE_S
        assert isinstance(followed.end, Succeeded)


async def test_an_end_is_known_without_any_socket(comfy: Comfy) -> None:
    """A ComfyUI that refuses websockets is followed by looks alone."""
    async with comfy.watching() as watch:
        await comfy.faults(http="refuse", http_paths=["/ws"])
        await comfy.faults(socket="closed")
        await until(lambda: watch.client_id is None)
        async with comfy.submitted(watch, slow(1.2)) as followed:
            with anyio.fail_after(_RULE_S):
                await followed.started.wait()
            assert await known_after(comfy, followed) < _RULE_S
            assert isinstance(followed.end, Succeeded)


@contextmanager
def a_client_that_does_not_read(url: str) -> Iterator[str]:
    """A websocket of somebody else whose buffers fill up; gives its client id."""
    parts = urlsplit(url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((parts.hostname, parts.port))
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET /ws?clientId=stalled HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b" 101 " in sock.recv(200)
        yield "stalled"


async def test_an_end_is_known_while_another_client_stalls_the_sockets(comfy: Comfy) -> None:
    """One client that stops reading silences ComfyUI for everybody; looks go on."""
    chain = slow(0.01, steps=1)
    for number in range(10, 310):
        chain[str(number)] = {
            "class_type": "ImageInvert",
            "inputs": {"image": [str(number - 1 if number > 10 else 1), 0]},
        }
    chain["3"]["inputs"]["images"] = ["309", 0]
    async with comfy.watching() as watch:
        with a_client_that_does_not_read(comfy.url) as client_id:
            await comfy.client.submit(
                chain, prompt_id=(other := "0b3c5f0e-53a4-4d0c-9a0f-0c6f1d7f2f5b"), client_id=client_id
            )
            await comfy.shown_at(other)
            async with comfy.submitted(watch, slow(0.5)) as followed:
                assert await known_after(comfy, followed) < _RULE_S
                assert isinstance(followed.end, Succeeded)
                assert not followed.heard.is_set()


async def test_a_prompt_deleted_by_somebody_else_is_gone(comfy: Comfy) -> None:
    """There is no event and no history of it; the queue alone shows that it is not there any more."""
    async with (
        comfy.watching() as watch,
        comfy.submitted(watch, slow(20)),
        comfy.submitted(watch, slow(1)) as second,
    ):
        await comfy.post("/queue", {"delete": [second.prompt_id]})
        assert isinstance(await ended(second, _RULE_S), Gone)


async def test_a_cleared_queue_leaves_the_running_prompt_alone(comfy: Comfy) -> None:
    """Only what waited is gone."""
    async with (
        comfy.watching() as watch,
        comfy.submitted(watch, slow(2)) as first,
        comfy.submitted(watch, slow(1)) as second,
    ):
        await until(lambda: first.started_ms is not None)
        await comfy.post("/queue", {"clear": True})
        assert isinstance(await ended(second, _RULE_S), Gone)
        assert isinstance(await ended(first), Succeeded)


@pytest.mark.parametrize("lag_s", [0.4, 1.6])
async def test_a_history_that_comes_late_is_waited_for(comfy: Comfy, lag_s: float) -> None:
    """Between the last frame and the history entry a prompt still counts as running, never as gone."""
    await comfy.faults(history_lag_s=lag_s)
    async with comfy.watching() as watch, comfy.submitted(watch, slow(0.2)) as followed:
        assert await known_after(comfy, followed) < _RULE_S
        assert isinstance(followed.end, Succeeded)


async def test_a_history_that_is_gone_makes_the_prompt_gone(comfy: Comfy) -> None:
    """A prompt that ran while the history is not kept has no result."""
    await comfy.faults(drop_history=True)
    async with comfy.watching() as watch, comfy.submitted(watch, slow(0.2)) as followed:
        assert isinstance(await ended(followed, 0.2 + _RULE_S), Gone)


@pytest.mark.parametrize("fault", ["hang", "error", "refuse"])
async def test_an_end_is_known_while_the_queue_does_not_answer(comfy: Comfy, fault: str) -> None:
    """The history alone is enough for an end that it shows."""
    async with comfy.watching() as watch, comfy.submitted(watch, slow(1.5)) as followed:
        await followed.started.wait()
        await comfy.faults(http=fault, http_paths=["/queue", "/api/jobs"], socket="deaf")
        assert await known_after(comfy, followed) < _RULE_S
        assert isinstance(followed.end, Succeeded)


@pytest.mark.parametrize("fault", ["hang", "error", "refuse"])
async def test_a_look_that_is_not_answered_is_no_evidence(comfy: Comfy, fault: str) -> None:
    """A ComfyUI that answers nothing for a while has lost nothing, and is known to be down meanwhile."""
    async with comfy.watching() as watch, comfy.submitted(watch, slow(1)) as followed:
        await comfy.faults(http=fault)
        await until(lambda: not watch.up, 10)
        assert followed.end is None
        await comfy.faults(http="ok")
        assert isinstance(await ended(followed, _RULE_S), Succeeded)
        await until(lambda: watch.up, 3)


async def test_slow_answers_change_nothing(comfy: Comfy) -> None:
    """Half a second for every answer is no reason to doubt a prompt."""
    await comfy.faults(latency_s=0.4)
    async with comfy.watching() as watch, comfy.submitted(watch, slow(1.5)) as followed:
        await comfy.faults(socket="silent")
        assert await known_after(comfy, followed) < _RULE_S
        assert isinstance(followed.end, Succeeded)


async def test_a_deaf_connection_is_replaced(comfy: Comfy) -> None:
    """Once a look has shown what the socket did not say, the next prompt is heard again."""
    async with comfy.watching() as watch:
        await comfy.faults(socket="deaf")
        first = watch.client_id
        assert isinstance(await comfy.run(watch, slow(0.1)), Succeeded)
        await until(lambda: watch.client_id not in {None, first}, 4)
        async with comfy.submitted(watch, slow(0.5)) as followed:
            assert isinstance(await ended(followed), Succeeded)
            assert followed.heard_end.is_set()
        assert (await comfy.stats())["sockets"] == 1


async def test_a_good_connection_is_kept(comfy: Comfy) -> None:
    """Prompts whose ends are heard, or that nobody could hear of, do not cost the connection."""
    async with comfy.watching() as watch:
        first = watch.client_id
        for _ in range(20):
            await comfy.run(watch, slow(0.02, steps=1))
        prompt_id = "1c3c5f0e-53a4-4d0c-9a0f-0c6f1d7f2f5b"
        await comfy.client.submit(graph := slow(0.1), prompt_id=prompt_id, client_id=None)
        with watch.follow(prompt_id, graph) as followed:
            followed.submitted(None)
            await ended(followed)
        async with comfy.submitted(watch, slow(2.5)) as followed:
            await ended(followed)
        assert watch.client_id == first


async def test_a_restarted_comfyui_has_lost_the_prompt(program: Program, mortal: Comfy) -> None:
    """While it is down nothing is decided; when it is back without the prompt, the prompt is gone."""
    async with mortal.watching() as watch, mortal.submitted(watch, slow(60)) as followed:
        await followed.started.wait()
        await anyio.to_thread.run_sync(program.kill)
        await until(lambda: not watch.up and watch.client_id is None, 10)
        assert followed.end is None
        await anyio.to_thread.run_sync(program.start)
        assert isinstance(await ended(followed, 1 + _RULE_S), Gone)
        await until(lambda: watch.up and watch.client_id is not None, 3)
        assert isinstance(await mortal.run(watch, slow(0.1)), Succeeded)


async def test_a_dead_execution_thread_is_found_out(mortal: Comfy) -> None:
    """A prompt that waits while nothing runs ends after 5 s of answered looks, with the reason."""
    await mortal.faults(execution_thread="dead")
    async with mortal.watching() as watch, mortal.submitted(watch, slow(0.1)) as followed:
        began = time.monotonic()
        assert isinstance(await ended(followed, 10), ExecutionThreadDead)
        assert time.monotonic() - began > 4.5
        assert watch.up
        assert not followed.heard.is_set()


async def test_a_thread_that_stalls_for_a_moment_is_not_dead(comfy: Comfy) -> None:
    """Three seconds without work are unloading models, say; and silence does not make up the rest."""
    await comfy.faults(execution_thread="stalled")
    async with comfy.watching() as watch, comfy.submitted(watch, slow(0.1)) as followed:
        await anyio.sleep(3)  # the stall itself
        await comfy.faults(http="hang")
        await anyio.sleep(4)  # the silence itself
        await comfy.faults(http="ok", execution_thread="ok")
        assert isinstance(await ended(followed), Succeeded)


async def test_a_watch_comes_up_with_its_comfyui(program: Program) -> None:
    """Started first, it finds ComfyUI when that is there."""
    program.kill()
    async with aiohttp.ClientSession() as session:
        comfy = Comfy(program.url, session, program.home)
        async with anyio.create_task_group() as starting:
            starting.start_soon(anyio.to_thread.run_sync, program.start)
            async with comfy.watching() as watch:
                assert watch.up
                assert isinstance(await comfy.run(watch, slow(0.1)), Succeeded)

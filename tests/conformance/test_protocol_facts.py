"""Facts about ComfyUI that were measured rather than recorded step by step; run as the recorded scenarios are."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from servers import AnyServer, ServerMaker

pytestmark = pytest.mark.anyio

CHAIN = 302
"""Nodes of the big graph, as in the measurements."""


def _colour() -> int:
    return random.randrange(1 << 24)


def _empty_image(colour: int) -> dict[str, Any]:
    return {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": colour}}


def _chain(nodes: int) -> dict[str, Any]:
    """Return a graph of ``nodes`` nodes in a row."""
    graph: dict[str, Any] = {"1": _empty_image(_colour())}
    for number in range(2, nodes):
        graph[str(number)] = {"class_type": "ImageInvert", "inputs": {"image": [str(number - 1), 0]}}
    graph[str(nodes)] = {"class_type": "PreviewImage", "inputs": {"images": [str(nodes - 1), 0]}}
    return graph


async def _post(session: aiohttp.ClientSession, server: AnyServer, graph: dict[str, Any], client: str) -> str:
    async with session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": client}) as answer:
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["prompt_id"])


async def _hear_to_the_end(listening: aiohttp.ClientWebSocketResponse, prompt_id: str) -> list[dict[str, Any]]:
    """Return the messages up to the last one of a prompt."""
    heard = []
    async for message in listening:
        content = json.loads(message.data)
        heard.append(content)
        if content["type"] == "executing" and content["data"] == {"node": None, "prompt_id": prompt_id}:
            break
    return heard


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/system_stats", {"Origin": "http://evil.example"}, 403),
        ("POST", "/prompt", {"Origin": "http://127.0.0.1:1"}, 403),
        ("GET", "/ws", {"Origin": "http://evil.example"}, 403),
        ("GET", "/system_stats", {"Origin": "{own}"}, 200),
        ("POST", "/queue", {"Origin": "{own}", "Content-Type": "text/plain"}, 200),
        ("OPTIONS", "/prompt", {}, 200),
    ],
)
async def test_foreign_origins_are_refused(
    method: str, path: str, headers: dict[str, str], status: int, make_server: ServerMaker
) -> None:
    """On loopback an Origin that is not the server's own is answered with 403, whatever is asked."""
    server = await make_server("facts")
    sent = {name: value.replace("{own}", server.url) for name, value in headers.items()}
    async with aiohttp.ClientSession() as session:
        answer = await session.request(
            method, server.url + path, headers=sent, data=b"{}" if method == "POST" else None
        )
        assert answer.status == status


async def test_history_is_there_when_the_last_message_comes(make_server: ServerMaker) -> None:
    """At ``executing`` with node null the history entry of that prompt is never missing."""
    server = await make_server("facts")
    client = uuid.uuid4().hex
    async with aiohttp.ClientSession() as session:
        listening = await session.ws_connect(f"{server.url}/ws?clientId={client}")
        for _ in range(25):
            prompt_id = await _post(session, server, _chain(2), client)
            async with asyncio.timeout(server.patience_s):
                await _hear_to_the_end(listening, prompt_id)
            async with session.get(f"{server.url}/history/{prompt_id}") as answer:
                assert (await answer.json())[prompt_id]["status"]["completed"] is True


async def test_progress_states_repeat_every_node_started(make_server: ServerMaker) -> None:
    """Two progress_state messages a node, each with all nodes so far: the volume grows with the square."""
    server = await make_server("facts")
    client = uuid.uuid4().hex
    async with aiohttp.ClientSession() as session:
        listening = await session.ws_connect(f"{server.url}/ws?clientId={client}", max_msg_size=0)
        for nodes in (10, 20):
            prompt_id = await _post(session, server, _chain(nodes), client)
            async with asyncio.timeout(server.patience_s):
                heard = await _hear_to_the_end(listening, prompt_id)
            sizes = [len(message["data"]["nodes"]) for message in heard if message["type"] == "progress_state"]
            assert sizes == [count for count in range(1, nodes + 1) for _ in range(2)]


async def test_a_socket_that_is_not_read_holds_up_all_others(make_server: ServerMaker) -> None:
    """While one client does not read its socket nobody hears anything, though prompts run; it ends when it closes."""
    server = await make_server("facts")
    client, deaf_client = uuid.uuid4().hex, uuid.uuid4().hex
    async with aiohttp.ClientSession() as session:
        listening = await session.ws_connect(f"{server.url}/ws?clientId={client}", max_msg_size=0)
        unread = await _open_unread(server.url, deaf_client)
        try:
            big = await _post(session, server, _chain(CHAIN), deaf_client)
            await _until_in_history(session, server, big)
            prompt_id = await _post(session, server, _chain(2), client)
            await _until_in_history(session, server, prompt_id)
            hearing = asyncio.create_task(_hear_to_the_end(listening, prompt_id))
            done, _ = await asyncio.wait({hearing}, timeout=0.3)
            assert not done
        finally:
            unread.close()
        async with asyncio.timeout(server.patience_s):
            await hearing


async def test_a_prefix_that_leaves_the_output_folder_fails_the_prompt(make_server: ServerMaker) -> None:
    """SaveImage refuses at run time to write outside of the output folder."""
    server = await make_server("facts")
    client = uuid.uuid4().hex
    saver = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../outside"}}
    async with aiohttp.ClientSession() as session:
        listening = await session.ws_connect(f"{server.url}/ws?clientId={client}")
        prompt_id = await _post(session, server, {"1": _empty_image(_colour()), "2": saver}, client)
        async with asyncio.timeout(server.patience_s):
            heard = await _hear_to_the_end(listening, prompt_id)
    failure = next(message["data"] for message in heard if message["type"] == "execution_error")
    assert failure["node_id"] == "2"
    assert failure["exception_message"].startswith("**** ERROR: Saving image outside the output folder is not allowed.")


@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history", "/features", "/models", "/object_info/SaveImage"])
async def test_every_route_is_there_below_api_too(path: str, make_server: ServerMaker) -> None:
    """A path and the same path below /api answer alike."""
    server = await make_server("facts")
    async with aiohttp.ClientSession() as session:
        plain = await session.get(server.url + path)
        below = await session.get(f"{server.url}/api{path}")
        assert plain.status == below.status == 200
        assert await plain.json() == await below.json()


async def _open_unread(url: str, client: str) -> socket.socket:
    """Open a websocket with a small receive buffer and read only the handshake."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    unread.setblocking(False)
    await loop.sock_connect(unread, (address.hostname, address.port))
    head = (
        f"GET /ws?clientId={client} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(unread, head.encode())
    assert (await loop.sock_recv(unread, 12)).endswith(b"101")
    return unread


async def _until_in_history(session: aiohttp.ClientSession, server: AnyServer, prompt_id: str) -> None:
    deadline = time.monotonic() + server.patience_s
    while True:
        async with session.get(f"{server.url}/history/{prompt_id}") as answer:
            if await answer.json():
                return
        assert time.monotonic() < deadline, "the prompt did not end"
        await asyncio.sleep(0.05)

"""One websocket of a replay: what it was expected to hear, what it heard, and how the two are compared."""

from __future__ import annotations

import asyncio
import json
from itertools import groupby
from typing import Any

import aiohttp
from trace_shapes import Names, binary_shape, frame_shape

Message = list[Any]

_PASSING = {"status", "progress", "progress_state", "binary"}


class Listener:
    """Collects the messages of a socket; ``expected`` and ``heard`` are lists of shapes."""

    def __init__(self, name: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.name = name
        self.expected: list[Message] = []
        self.heard: list[Message] = []
        self.was_lost = False
        self._socket = socket
        self._raw: list[aiohttp.WSMessage] = []
        self._came = asyncio.Event()
        self._greeted = 0
        self._shaped = 0
        self._reader = asyncio.create_task(self._read())

    @property
    def closed(self) -> bool:
        """Whether the socket is closed, by whichever side."""
        return self._reader.done()

    async def greeting(self, count: int, names: Names) -> list[Message]:
        """Wait for the first ``count`` messages, or two seconds, and return those that greet."""
        try:
            async with asyncio.timeout(2):
                while len(self._raw) < count:
                    await self._next()
        except TimeoutError:
            pass
        shapes = [_shape(message, names) for message in self._raw[:count]]
        self._greeted = self._shaped = len(shapes)
        return shapes

    async def catch_up(self, patience_s: float) -> None:
        """Wait until the lasting messages, and the last run of progress, are as many as expected; or time is up."""
        try:
            async with asyncio.timeout(patience_s):
                while not self._reader.done() and _lag(self.expected, self._kinds()):
                    await self._next()
        except TimeoutError:
            pass  # the comparison at the end tells what is missing

    async def settle(self, patience_s: float) -> None:
        """Wait for the last status expected, then for a ping's answer: what was sent before it has arrived then."""
        if self._reader.done():
            return
        wanted = [message for message in self.expected if message[0] == "status"][-1:]
        try:
            async with asyncio.timeout(patience_s):
                while wanted and self._last_status() != wanted[0]:
                    await self._next()
        except TimeoutError:
            pass  # the comparison at the end tells what is missing
        await self._socket.ping()
        await self.close()

    async def lost(self, patience_s: float) -> int | None:
        """Wait until the socket breaks off and return its close code."""
        self.was_lost = True
        async with asyncio.timeout(patience_s):
            await self._reader
        return self._socket.close_code

    async def say(self, message: dict[str, Any]) -> None:
        """Send a JSON message."""
        await self._socket.send_str(json.dumps(message))

    async def close(self) -> None:
        """Close the socket with a handshake; everything sent before is still heard."""
        await self._socket.close()
        await self._reader

    def shape(self, names: Names) -> None:
        """Turn what was heard since the last time into shapes; the ids in it must have their names by now."""
        new = self._raw[self._shaped :]
        self._shaped = len(self._raw)
        self.heard += [_shape(message, names) for message in new]

    async def _read(self) -> None:
        async for message in self._socket:
            self._raw.append(message)
            self._came.set()
        self._came.set()

    async def _next(self) -> None:
        self._came.clear()
        await self._came.wait()

    def _kinds(self) -> list[str]:
        return [_kind(message) for message in self._raw[self._greeted :]]

    def _last_status(self) -> Message | None:
        shapes = [_shape(message, Names()) for message in self._raw if _kind(message) == "status"]
        return shapes[-1][:2] if shapes else None


def _kind(message: aiohttp.WSMessage) -> str:
    return "binary" if message.type is aiohttp.WSMsgType.BINARY else str(json.loads(message.data)["type"])


def _shape(message: aiohttp.WSMessage, names: Names) -> Message:
    if message.type is aiohttp.WSMsgType.BINARY:
        return binary_shape(message.data[:8])
    return frame_shape(json.loads(message.data), names)


def _lag(expected: list[Message], kinds: list[str]) -> bool:
    """Tell whether something lasting, or the progress after it, is still to come."""
    wanted, progress_wanted = _count([message[0] for message in expected])
    got, progress_got = _count(kinds)
    return got < wanted or (got == wanted and progress_got < progress_wanted)


def _count(kinds: list[str]) -> tuple[int, int]:
    """Count the lasting messages, and the progress messages after the last of them."""
    lasting = [index for index, kind in enumerate(kinds) if kind not in _PASSING]
    after = kinds[lasting[-1] + 1 :] if lasting else kinds
    return len(lasting), after.count("progress")


def lanes(messages: list[Message]) -> dict[str, Any]:
    """Sort messages by prompt, in order, runs of progress made one: what does not hang on the exact timing.

    Of the status messages only the last is kept; prompts stand in the order in which they were first heard of. How
    far an interrupted prompt still got is chance, so that its progress is left out.
    """
    by_prompt: dict[str, list[Message]] = {}
    status: Message | None = None
    for message in messages:
        if message[0] == "status":
            status = message
        else:
            by_prompt.setdefault(_prompt(message), []).append(_without_values(message))
    for prompt, lane in by_prompt.items():
        if any(message[0] == "execution_interrupted" for message in lane):
            by_prompt[prompt] = [message for message in lane if message[0] != "progress*"]
    tidy = {prompt: [key for key, _ in groupby(lane)] for prompt, lane in by_prompt.items()}
    return {"order": list(tidy), "prompts": tidy, "last status": status}


def unordered(messages: list[Message]) -> dict[str, Any]:
    """Reduce messages to what does not hang on the order of the nodes."""
    kinds = sorted(message[0] for message in messages)
    executed = sorted(json.dumps(message) for message in messages if message[0] == "executed")
    last = [message for message in messages if message[0] == "progress_state"][-1:]
    return {"kinds": {kind: kinds.count(kind) for kind in kinds}, "executed": executed, "last": last}


def _prompt(message: Message) -> str:
    if isinstance(message[1], str):
        return message[1]
    return str(message[1].get("prompt_id", "")) if isinstance(message[1], dict) else ""


def _without_values(message: Message) -> Message:
    """Make the messages of one run of progress equal; the start and the end of a node stay apart."""
    if message[0] == "progress":
        return ["progress*", *message[1:3]]
    if message[0] == "progress_state":
        running = [node for node, told in message[2].items() if told.startswith("running") and "/1.0" not in told]
        if running:
            return ["progress*", message[1], running[-1]]
        return [*message[:2], {node: told.split()[0] for node, told in message[2].items()}]
    return message

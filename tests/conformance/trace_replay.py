"""Replays a reduced recording against a server and reports where the server behaves otherwise.

The order of the recording is kept by waiting: before each step, every socket must have heard what it had heard by
then in the recording. Nothing is slept through. Answers to GET are asked for again until they fit or time is up,
because a queue or a history entry may be a moment late.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import aiohttp
from trace_listening import Listener
from trace_reduction import JSON_TYPE
from trace_shapes import Names, answer_shape, body_shape
from trace_uploads import form_data
from yarl import URL

_T = TypeVar("_T")
_GET_DEADLINE_S = 3.0

RECORDED_CHECKPOINT = "dreamshaper_8.safetensors"
"""The model file that the recorded prompts load."""


class Server(Protocol):
    """A server under test."""

    url: str
    patience_s: float
    """How long to wait for anything that must come."""
    time_factor: float
    """What the seconds in recorded prompts are multiplied with."""
    checkpoint: str
    """The name of a model file that the server has."""

    async def signal(self, name: str) -> None:
        """Send a signal to the server's process."""

    async def restart(self) -> None:
        """Start the server again at the same address, with the same files."""


class Replay:
    """One replay; ``differences`` lists what was not as recorded, ``listeners`` holds what the sockets heard."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.differences: list[str] = []
        self.listeners: dict[str, Listener] = {}
        self._server = server
        self._session = session
        self._names = Names()
        self._last_of_client: dict[str | None, Listener] = {}
        self._colour_shift = random.randrange(1 << 24)
        self._upload_name = f"up_{uuid.uuid4().hex[:8]}"

    async def run(self, steps: list[dict[str, Any]]) -> None:
        """Take all steps, then wait until every socket has heard all it should."""
        for step in steps:
            if "hear" in step:
                self.listeners[step["hear"]].expected += step["messages"]
                continue
            await self._catch_up()
            await self._take(step)
        await self._catch_up()
        for listener in self.listeners.values():
            await listener.settle(self._server.patience_s)
            listener.shape(self._names)

    async def _take(self, step: dict[str, Any]) -> None:
        match step:
            case {"open": socket}:
                await self._open(socket, step)
            case {"close": socket}:
                await self.listeners[socket].close()
            case {"say": socket, "message": message}:
                await self.listeners[socket].say(message)
            case {"lost": socket}:
                code = await self.listeners[socket].lost(self._server.patience_s)
                self._compare(f"close code of {socket}", 1006, code)
            case {"signal": name}:
                await self._server.signal(name)
            case {"restart": _}:
                await self._server.restart()
            case _:
                await self._request(step)

    async def _catch_up(self) -> None:
        for listener in self.listeners.values():
            await listener.catch_up(self._server.patience_s)
            listener.shape(self._names)

    async def _open(self, name: str, step: dict[str, Any]) -> None:
        """Open a socket, again and again until it is greeted as recorded: the server may not be that far yet."""
        before = self._last_of_client.get(step["client"])
        if before is not None and before.closed and step["greeting"][0][1] == 0:
            await self._quiet()
        client = None if step["client"] is None else self._actual(step["client"])
        url = f"{self._server.url}/ws" + ("" if client is None else f"?clientId={client}")
        mid_run = len(step["greeting"]) > 1
        deadline = time.monotonic() + self._server.patience_s
        while True:
            listener = Listener(name, await self._session.ws_connect(url, max_msg_size=0))
            greeting = await listener.greeting(len(step["greeting"]), self._names)
            fits = greeting == step["greeting"]
            if time.monotonic() > deadline or (fits and not mid_run):
                break
            await listener.close()
            if fits:
                # It was greeted with the running node before it could hear of its start: once more, behind that.
                await self._sent_so_far()
                mid_run = False
        self._compare(f"greeting of {name}", step["greeting"], greeting)
        self.listeners[name] = self._last_of_client[step["client"]] = listener

    async def _quiet(self) -> None:
        """Wait until nothing runs and no message is on its way any more.

        The last message of a prompt comes just after the prompt has left the queue, hence twice.
        """
        await _until(self._remaining, lambda remaining: remaining == 0, self._server.patience_s)
        await self._sent_so_far()
        await self._sent_so_far()

    async def _sent_so_far(self) -> None:
        """Wait until the server has sent what it had to send: clearing the queue puts a status behind all that."""
        async with self._session.ws_connect(f"{self._server.url}/ws") as probe:
            await probe.receive(self._server.patience_s)
            await self._session.post(f"{self._server.url}/queue", json={"clear": True})
            await probe.receive(self._server.patience_s)

    async def _remaining(self) -> int:
        async with self._session.get(f"{self._server.url}/prompt") as answer:
            return int((await answer.json())["exec_info"]["queue_remaining"])

    async def _request(self, step: dict[str, Any]) -> None:
        method, path = step["request"].split(" ", 1)
        content = self._content(step)

        async def ask() -> dict[str, Any]:
            return await self._ask(method, path, content(), step["answer"])

        answer = await ask()
        if method == "GET" and answer != step["answer"]:
            answer = await _until(ask, lambda got: got == step["answer"], _GET_DEADLINE_S)
        self._compare(step["request"] + json.dumps(step.get("body", step.get("raw", ""))), step["answer"], answer)

    async def _ask(self, method: str, path: str, content: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
        url = self._server.url + self._filled(path, escape=True)
        try:
            async with self._session.request(method, URL(url, encoded=True), **content) as answer:
                body = await answer.read()
        except aiohttp.ClientConnectionError:
            return {"status": None}
        kind = answer.headers.get("Content-Type")
        shown: dict[str, Any] = {"status": answer.status} | ({} if kind == JSON_TYPE else {"type": kind})
        if "file" in recorded:
            return shown | {"file": body_shape(body)}
        if kind != JSON_TYPE:
            return shown | {"text": body.decode()}
        parsed = json.loads(body.decode().replace(self._upload_name, "up-name"))
        if path == "/prompt" and "prompt_id" in parsed:
            self._names.bind(parsed["prompt_id"], recorded.get("json", {}).get("prompt_id", "unexpected"))
        for listener in self.listeners.values():
            listener.shape(self._names)
        return shown | {"json": answer_shape(path, parsed, self._names)}

    def _content(self, step: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """Return a function that makes the body of a request, with this run's ids, names, colours and seconds."""
        if "raw" in step:
            return lambda: {"data": step["raw"].encode()}
        if "form" in step:
            return lambda: {"data": form_data(step["form"], self._upload_name)}
        if "body" not in step:
            return dict
        text = json.dumps(self._varied(step["body"]))
        return lambda: {"json": json.loads(self._filled(text))}

    def _varied(self, value: Any) -> Any:
        """Shift the colours, so that no earlier run's results are reused, and stretch the seconds."""
        if isinstance(value, list):
            return [self._varied(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        varied = {key: self._varied(entry) for key, entry in value.items()}
        if isinstance(varied.get("color"), int):
            varied["color"] = (varied["color"] + self._colour_shift) % (1 << 24)
        if isinstance(varied.get("seed"), int):
            varied["seed"] += self._colour_shift
        if isinstance(varied.get("seconds"), int | float):
            varied["seconds"] *= self._server.time_factor
        if varied.get("ckpt_name") == RECORDED_CHECKPOINT:
            varied["ckpt_name"] = self._server.checkpoint
        return varied

    def _filled(self, text: str, *, escape: bool = False) -> str:
        """Put this run's ids and file names in the place of the recording's."""
        for name in sorted({*self._names.actual, *_named_ids(text)}, key=len, reverse=True):
            if name in text:
                actual = self._actual(name)
                text = text.replace(name, quote(actual) if escape else actual)
        return text.replace("up-name", self._upload_name)

    def _actual(self, name: str) -> str:
        if name not in self._names.actual:
            self._names.bind(str(uuid.uuid4()), name)
        return self._names.actual[name]

    def _compare(self, what: str, recorded: object, got: object) -> None:
        one, other = json.dumps(recorded, sort_keys=True), json.dumps(got, sort_keys=True)
        if one != other:
            self.differences.append(f"{what}\n  recorded {one}\n  got      {other}")


def _named_ids(text: str) -> set[str]:
    words = text.replace('"', " ").replace("/", " ").split()
    return {word.strip(",}]") for word in words if word.startswith("id-")}


async def _until(ask: Callable[[], Awaitable[_T]], fits: Callable[[_T], bool], deadline_s: float) -> _T:
    deadline = time.monotonic() + deadline_s
    got = await ask()
    while not fits(got) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        got = await ask()
    return got

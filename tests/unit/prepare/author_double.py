"""A double of the language models' APIs, and what it usually answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 42, "cfg": 8.0, "model": ["4", 0]}, "_meta": {"title": "x"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
}
GOOD = '''"""Text to image."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Input(BaseModel):
    """What to draw."""

    prompt: str = Field(default="a cat", description="What it shows.")
    seed: int = Field(default=42, ge=0, description="Seed.")


def generate(input: Input) -> dict[str, Any]:
    """The graph."""
    return {
        "3": {"class_type": "KSampler", "inputs": {"seed": input.seed, "cfg": 8.0, "model": ["4", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": input.prompt, "clip": ["4", 1]}},
    }
'''


class Double:
    """All three APIs on one port; answers come from a list, the last one again and again."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[str] = [GOOD]
        self.status = 200
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.body: Callable[[str, str], Any] = self.usual

    def usual(self, path: str, text: str) -> Any:
        """The answer in the shape of the API that was called."""
        if path == "/v1/messages":
            return {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    async def handle(self, request: web.Request) -> web.Response:
        """Note the request and answer."""
        self.asked.append((request.path, {k.lower(): v for k, v in request.headers.items()}, await request.json()))
        text = self.answers[min(len(self.asked), len(self.answers)) - 1]
        body = self.body(request.path, text)
        content = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=self.status, text=content, content_type="application/json")


async def run_double() -> AsyncIterator[Double]:
    """The APIs on a free port of loopback."""
    double = Double()
    app = web.Application()
    app.router.add_post("/{path:.*}", double.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield double
    await runner.cleanup()

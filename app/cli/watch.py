"""``comfybus watch``: events as they come, one line each."""

from __future__ import annotations

import json

from app.cli.lines import event_line
from app.cli.outcome import ExitCode
from app.settings import Settings
from brokers.nats import NatsClient

__all__ = ["run_watch"]


async def run_watch(settings: Settings, request_id: str, as_json: bool) -> int:
    """Print the events of one request to its end, or all new events for ever.

    Raises:
        BrokerError: The broker does not answer.
    """
    async with NatsClient(settings.nats).open() as client:
        events = client.follow(request_id) if request_id else client.watch()
        async for event in events:
            line = json.dumps(event, ensure_ascii=False) if as_json else event_line(event)
            print(line, flush=True)  # noqa: T201 - the command's result
            if request_id and event.get("type") in ("prompt.complete", "prompt.failed"):
                break
    return ExitCode.DONE

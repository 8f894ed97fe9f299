"""``comfybus watch``: events as they come, one line each.

Used by commands; may import app.settings.
"""

from __future__ import annotations

import json

from app.cli.connection import document_of, open_client
from app.cli.lines import event_line
from app.cli.outcome import ExitCode, show
from app.settings import Settings

__all__ = ["run_watch"]


async def run_watch(settings: Settings, request_id: str, as_json: bool) -> int:
    """Print the events of one request to its end, or all new events for ever.

    Raises:
        BrokerError: The broker does not answer.
    """
    async with (
        open_client(settings) as client,
        client.follow(request_id) if request_id else client.watch() as events,
    ):
        async for message in events:
            event = document_of(message)
            if event is not None:
                line = json.dumps(event, ensure_ascii=False) if as_json else event_line(event)
                show(line)
    return ExitCode.DONE

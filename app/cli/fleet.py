"""``comfybus workers`` and the commands on the control channel.

Used by commands, live_table; may import app.settings, schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from app.cli.connection import document_of, open_client
from app.cli.lines import table
from app.cli.outcome import ExitCode, say, show
from app.settings import Settings
from schemas.base import dump_json

__all__ = ["run_command", "run_workers", "state_of"]

# Three heartbeats missed.
SILENT_AFTER = timedelta(seconds=30)


async def run_command(settings: Settings, command: Mapping[str, Any]) -> int:
    """Publish a checked command, confirmed by the broker; workers act on it when they hear it.

    Raises:
        BrokerError: The broker does not answer or refuses.
    """
    async with open_client(settings) as client:
        await client.command(dump_json(command))
    say(f"sent {command['type']}; comfybus watch shows what comes of it")
    return ExitCode.DONE


async def run_workers(settings: Settings, as_json: bool) -> int:
    """Print the last sign of life of every worker of the last 24 hours, and how many models it listed last.

    Raises:
        BrokerError: The broker does not answer.
    """
    async with open_client(settings) as client:
        found = [event for message in await client.workers() if (event := document_of(message)) is not None]
        listed = [event for message in await client.inventories() if (event := document_of(message)) is not None]
    models = {str(event.get("worker")): event.get("models") for event in listed}
    found = [{**event, "models": models.get(str(event.get("worker")))} for event in found]
    if as_json:
        for event in found:
            show(json.dumps(event, ensure_ascii=False))
    elif not found:
        say("no worker was heard of in the last 24 hours; start one with: comfybus worker")
    else:
        now = datetime.now(UTC)
        head = ("WORKER", "STATE", "IN HAND", "QUEUE", "MODELS", "VERSION", "COMFYUI")
        for line in table([head, *(_row(event, now) for event in found)]):
            show(line)
    return ExitCode.DONE


def state_of(event: Mapping[str, Any], now: datetime) -> str:
    """In a word or two how a worker is, from its last sign of life."""
    if event.get("type") == "worker.stopped":
        return "stopped"
    try:
        silence = now - datetime.fromisoformat(str(event.get("timestamp")))
    except (TypeError, ValueError):
        return "unknown"
    if silence > SILENT_AFTER:
        return f"silent for {silence.total_seconds():.0f} s"
    return "up" if (event.get("comfyui") or {}).get("up") else "up, ComfyUI down"


def _row(event: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    comfy = event.get("comfyui") or {}
    queue, models = event.get("queue_remaining"), event.get("models")
    return (
        str(event.get("worker", "?")),
        state_of(event, now),
        f"{event.get('in_flight', '?')} of {event.get('capacity', '?')}",
        "-" if queue is None else str(queue),
        "-" if not isinstance(models, dict) else str(sum(len(names) for names in models.values())),
        str(event.get("version", "?")),
        f"{comfy.get('version') or '?'} at {comfy.get('url', '?')}",
    )

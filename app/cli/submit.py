"""``comfybus submit``: send a request, follow it, save its outputs.

Used by commands, app.cli.demo.story; may import app.settings, brokers, schemas.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from app.cli.connection import TERMINAL, document_of, open_client
from app.cli.lines import failure_line
from app.cli.outcome import CommandFailed, ExitCode, say, show
from app.cli.outputs import save_outputs
from app.cli.progress import ProgressView, shown_progress
from app.cli.reference import send_request
from app.settings import Settings
from brokers.client import Client, EventMessage
from schemas.base import dump_json

__all__ = ["Wait", "check_wait", "follow_to_end", "run_submit"]

# A worker says that it has taken a request within a moment; longer means that none is free.
FIRST_SIGN_S = 10.0


@dataclass(frozen=True)
class Wait:
    """How to wait for the end of a request.

    Attributes:
        timeout_s: No longer than this; None waits for ever.
        out: Folder for the outputs; None saves nothing.
    """

    timeout_s: float | None
    out: Path | None


def check_wait(*, wait: bool, timeout_s: float | None, out: Path | None) -> None:
    """Refuse options that mean nothing without ``--wait``.

    Raises:
        CommandFailed: Usage.
    """
    for name, value in (("--timeout", timeout_s), ("--out", out)):
        if value is not None and not wait:
            raise CommandFailed(f"{name} belongs to --wait, which is missing", ExitCode.USAGE)


async def run_submit(settings: Settings, request: dict[str, Any], wait: Wait | None, as_json: bool) -> int:
    """Send a checked request that has an id; with ``wait`` follow it to its terminal event.

    Raises:
        CommandFailed: No answer in time, or an output cannot be saved.
        BrokerError: The broker does not answer or refuses.
    """
    request_id, body = str(request["id"]), dump_json(request)
    async with open_client(settings) as client:
        if wait is None:
            await send_request(client, settings, body, request_id)
            show(json.dumps({"id": request_id}) if as_json else request_id)
            return ExitCode.DONE
        if await client.last_terminal(request_id) is not None:
            say(f"{request_id} was answered before, which is what follows; another --id runs it again")
        event = await _answer(client, settings, request_id, body, wait.timeout_s)
        if as_json:
            show(json.dumps(event, ensure_ascii=False))
        if event["type"] == "prompt.failed":
            say(f"failed    {failure_line(event)}")
            return ExitCode.FAILED
        saved = await save_outputs(event, wait.out, client.fetch_object) if wait.out else []
    _tell(event, saved, quiet=as_json)
    return ExitCode.DONE


def _tell(event: Mapping[str, Any], saved: list[str], *, quiet: bool) -> None:
    """Say where outputs are; on standard error when standard output belongs to the event."""
    total_ms = (event.get("stats") or {}).get("total_time") or 0
    say(f"complete  in {total_ms / 1000:.1f} s")
    values = [f"{o.get('node_id')}: {o['value']}" for o in event.get("outputs") or [] if o.get("value") is not None]
    for line in (*saved, *values):
        say(line) if quiet else show(line)


async def _answer(
    client: Client, settings: Settings, request_id: str, body: bytes, timeout_s: float | None
) -> Mapping[str, Any]:
    with anyio.move_on_after(timeout_s):
        async with client.follow(request_id) as events:
            await send_request(client, settings, body, request_id)
            say(f"submitted {request_id}")
            with shown_progress() as view:
                return await follow_to_end(events, view)
    raise CommandFailed(
        f"no terminal event of {request_id} within {timeout_s:g} s; it goes on, see: comfybus watch {request_id}",
        ExitCode.NO_ANSWER,
    )


async def follow_to_end(events: AsyncIterator[EventMessage], view: ProgressView) -> Mapping[str, Any]:
    """Show the progress of a request until its terminal event, which is returned.

    Raises:
        CommandFailed: The events ended without one.
    """
    seen = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_mention_silence, seen, view)
        async for message in events:
            seen.set()
            event = document_of(message) or {}
            if event.get("type") in TERMINAL:
                return event
            view.show(event)
    raise CommandFailed("the events ended without a terminal one; see comfybus watch", ExitCode.NO_ANSWER)


async def _mention_silence(seen: anyio.Event, view: ProgressView) -> None:
    with anyio.move_on_after(FIRST_SIGN_S):
        await seen.wait()
    if not seen.is_set():
        view.note("no worker has taken it yet; comfybus workers lists them")

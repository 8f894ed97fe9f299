"""``comfybus workers --watch``: the fleet and its prompts in hand, live.

Used by commands; may import app.settings.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import anyio
from rich.console import Console
from rich.live import Live

from app.cli.connection import document_of, open_client
from app.cli.fleet_state import Fleet
from app.cli.live_table import render
from app.cli.outcome import CommandFailed, ExitCode, show
from app.settings import Settings

__all__ = ["run_live"]

DRAW_EVERY_S = 0.25


async def run_live(settings: Settings, as_json: bool) -> int:
    """Show the fleet until interrupted, from worker and progress events alone.

    Raises:
        CommandFailed: There is no terminal to draw on.
        BrokerError: The broker does not answer.
    """
    if not as_json and not sys.stdout.isatty():
        raise CommandFailed("--watch draws on a terminal, and there is none; use --watch --json", ExitCode.USAGE)
    fleet = Fleet()
    async with open_client(settings) as client, client.signs() as events:
        for message in await client.workers():
            if (event := document_of(message)) is not None:
                fleet.take(event, datetime.now(UTC))
                if as_json:
                    show(json.dumps(event, ensure_ascii=False))
        async with anyio.create_task_group() as tasks:
            if not as_json:
                tasks.start_soon(_draw, fleet)
            async for message in events:
                if (event := document_of(message)) is None:
                    continue
                fleet.take(event, datetime.now(UTC))
                if as_json:
                    show(json.dumps(event, ensure_ascii=False))
            tasks.cancel_scope.cancel()
    return ExitCode.DONE


async def _draw(fleet: Fleet) -> None:
    """Draw a few times a second, however many events come."""
    console = Console()
    try:
        with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
            while True:
                now = datetime.now(UTC)
                fleet.forget(now)
                live.update(render(fleet, now, height=console.height), refresh=True)
                await anyio.sleep(DRAW_EVERY_S)
    finally:
        # The screen is given back as it was; what was last seen stays below it.
        console.print(render(fleet, datetime.now(UTC)))

"""``comfybus dlq``: requests that were given up.

Used by groups; may import app.settings, brokers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from app.cli.connection import open_client
from app.cli.lines import table
from app.cli.outcome import CommandFailed, ExitCode, say, show
from app.settings import Settings
from brokers.base import BrokerError
from brokers.client import Client, DeadLetter

__all__ = ["run_list", "run_replay"]

# Bodies and original headers may hold secrets.
SHOWN = ("place", "request_id", "time", "code", "attempts", "replay", "worker", "reason")


async def run_list(settings: Settings, as_json: bool) -> int:
    """Print every letter, oldest first, without body and original headers.

    Raises:
        BrokerError: The broker does not answer.
    """
    async with open_client(settings) as client:
        found = [letter async for letter in client.dead_letters()]
    rows = [{name: getattr(letter, name) for name in SHOWN} for letter in found]
    if as_json:
        for row in rows:
            show(json.dumps(row, ensure_ascii=False))
    elif not rows:
        say("the dead letter is empty")
    else:
        columns = ("time", "request_id", "code", "attempts", "replay", "reason")
        head = tuple("ID" if name == "request_id" else name.upper() for name in columns)
        for line in table([head, *(tuple(str(row[name]) for name in columns) for row in rows)]):
            show(line)
    return ExitCode.DONE


async def run_replay(settings: Settings, request_id: str) -> int:
    """Run the newest letter of one id again, or with an empty id every letter; prints what was sent.

    Raises:
        CommandFailed: There is no letter of this id, or one of several could not be replayed.
        BrokerError: The broker does not answer.
    """
    async with open_client(settings) as client:
        if not request_id:
            return await _replay_all(client, [letter async for letter in client.dead_letters()])
        letter = await client.letter(request_id)
        if letter is None:
            raise CommandFailed(f"there is no dead letter of {request_id}; comfybus dlq list shows those there are")
        await _replay(client, letter)
    return ExitCode.DONE


async def _replay_all(client: Client, letters: Sequence[DeadLetter]) -> int:
    failed = 0
    for letter in letters:
        try:
            await _replay(client, letter)
        except BrokerError as exc:
            failed += 1
            say(f"comfybus: {letter.request_id} at {letter.place}: {exc}")
    say(f"{len(letters) - failed} of {len(letters)} replayed")
    return ExitCode.FAILED if failed else ExitCode.DONE


async def _replay(client: Client, letter: DeadLetter) -> None:
    number = await client.replay(letter)
    show(f"{letter.request_id} runs again as replay {number}")

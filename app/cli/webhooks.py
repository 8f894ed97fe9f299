"""``comfybus webhooks``: deliveries that were given up, and a signed sample.

Used by bridge; may import app.bridge, app.settings, brokers, schemas.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.bridge.app import make_posters
from app.bridge.broker import webhook_letters
from app.bridge.deliver import headers_for
from app.bridge.endpoints import Endpoints, NoEndpoint
from app.bridge.payload import Payload
from app.bridge.record import LetterRecord, endpoint_mark, lane_of
from app.bridge.sample import sample_record, sample_webhook
from app.cli.connection import FIRST_CONNECTION_S
from app.cli.lines import table
from app.cli.outcome import CommandFailed, ExitCode, say, show
from app.settings import Settings
from app.settings.bridge import bridge_config
from brokers.base import BrokerError
from brokers.webhooks import Letter, WebhookLetters
from schemas.base import timestamp

__all__ = ["run_list", "run_replay", "run_test"]


async def run_list(settings: Settings, waiting: bool, as_json: bool) -> int:
    """Print what was given up, oldest first, or what waits.

    Raises:
        BrokerError: The broker does not answer.
    """
    letters = webhook_letters(settings, FIRST_CONNECTION_S)
    async with letters.open():
        rows = [_row(letter, waiting) async for letter in (letters.waiting() if waiting else letters.letters())]
    if as_json:
        for row in rows:
            show(json.dumps(row, ensure_ascii=False))
    elif not rows:
        say("no webhook waits" if waiting else "no webhook was given up")
    else:
        columns = ("time", "delivery", "webhook_id", "attempts", "url", "reason")
        head = tuple(name.upper() for name in columns)
        for line in table([head, *(tuple(str(row[name] or "-") for name in columns) for row in rows)]):
            show(line)
    return ExitCode.DONE


def _row(letter: Letter, waiting: bool) -> Mapping[str, Any]:
    record = LetterRecord.decode(letter.record)
    if record is None:
        return dict.fromkeys(("time", "webhook_id", "attempts", "url"), None) | {
            "delivery": letter.id,
            "reason": f"its record at {letter.place} cannot be read",
        }
    row: dict[str, Any] = {
        "time": _moment(record.due_ms if waiting else record.given_up_ms),
        "delivery": record.id,
        "webhook_id": record.webhook_id,
        "event": record.event,
        "request_id": record.prompt,
        "subscription": record.subscription,
        "url": record.shown_url,
        "attempts": record.attempts,
        "created": _moment(record.created_ms),
        "reason": record.reason,
    }
    return row if waiting else row | {"code": record.code, "replays": record.replays}


async def run_replay(settings: Settings, wanted: str) -> int:
    """Deliver again what fits the id, or with an empty one everything; prints what was put back.

    Raises:
        CommandFailed: Nothing fits the id.
        BrokerError: The broker does not answer.
    """
    letters = webhook_letters(settings, FIRST_CONNECTION_S)
    async with letters.open():
        found = [letter async for letter in letters.letters()]
        if wanted:
            found = [letter for letter in found if wanted in _names(letter)]
            if not found:
                raise CommandFailed(f"no webhook of {wanted} was given up; comfybus webhooks list shows the others")
        return await _replay_all(settings, letters, found)


def _names(letter: Letter) -> Sequence[str | None]:
    record = LetterRecord.decode(letter.record)
    return (letter.id, record.webhook_id, record.prompt) if record else (letter.id,)


async def _replay_all(settings: Settings, letters: WebhookLetters, found: Sequence[Letter]) -> int:
    endpoints = Endpoints(bridge_config(settings))
    failed = 0
    for letter in found:
        record = LetterRecord.decode(letter.record)
        if record is None:
            failed += 1
            say(f"comfybus: the record at {letter.place} cannot be read")
            continue
        again = record.renewed(int(time.time() * 1000))
        try:
            mark = endpoint_mark(endpoints.of(record).text)
        except NoEndpoint:
            mark = endpoint_mark(record.url)
        try:
            lane = lane_of(record.url)
            await letters.replay(letter, lane, again.encode(), edition=again.replays, endpoint=mark)
        except BrokerError as exc:
            failed += 1
            say(f"comfybus: {record.webhook_id} at {letter.place}: {exc}")
        else:
            show(f"{record.webhook_id} is delivered again to {record.shown_url}")
    return ExitCode.FAILED if failed else ExitCode.DONE


async def run_test(settings: Settings, url: str) -> int:
    """Send the sample and print status and answer; returns 1 unless the receiver took it.

    Raises:
        CommandFailed: It is no URL, or its address may not be reached.
    """
    config = bridge_config(settings)
    endpoints = Endpoints(config)
    record = sample_record(url, config.subscriptions, int(time.time() * 1000))
    try:
        endpoint = endpoints.of(record)
    except NoEndpoint as exc:
        raise CommandFailed(exc.reason, ExitCode.USAGE) from exc
    payload = Payload((sample_webhook(record),))
    headers = await headers_for(record, endpoint, payload, time.time())
    async with make_posters(config, endpoints) as posters:
        answer = await posters[endpoint.configured].post(endpoint.url, headers, payload)
    if answer.forbidden:
        raise CommandFailed(answer.trouble, ExitCode.USAGE)
    if endpoint.signer is None:
        say("WEBHOOK_SECRET is not set: the sample went out without a signature")
    if answer.status is None:
        say(f"comfybus: {record.shown_url}: {answer.trouble}")
        return ExitCode.NO_ANSWER
    show(f"{record.shown_url} answers {answer.status} in {answer.took_s * 1000:.0f} ms to {record.webhook_id}")
    if answer.excerpt:
        say(answer.excerpt)
    return ExitCode.DONE if 200 <= answer.status < 300 else ExitCode.FAILED


def _moment(milliseconds: int) -> str:
    return timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC))

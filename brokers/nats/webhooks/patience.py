"""Doing a thing until it is done, through outages; and deleting a message without wiping its bytes on the disk.

Used by bus, leases, letters, share; may import brokers, brokers.nats.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import nats.js.errors

from brokers.base import BrokerError, MessageTooLarge
from brokers.nats.link import CONFIRM_TIMEOUT_S, Link
from brokers.nats.trouble import Troubles

__all__ = ["Patience", "delete"]

T = TypeVar("T")

PAUSE_FIRST_S = 0.1
PAUSE_LONGEST_S = 3.0
SEQUENCE_NOT_FOUND = 10043
DELETE_FAILED = 10057


class Patience:
    """Repeats what the broker does not answer; the trouble is logged once and shows in the health until it is over."""

    def __init__(self, link: Link, troubles: Troubles) -> None:
        self._link = link
        self._troubles = troubles

    async def insist(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do it until it is done.

        Args:
            doing: What is done, for the log.
            attempt: Safe to be done twice.

        Raises:
            MessageTooLarge: No patience helps against that.
            Conflict: A compare-and-set lost.
        """
        pause_s = PAUSE_FIRST_S
        while True:
            await self._link.wait_connected()
            try:
                done = await attempt()
            except MessageTooLarge:
                raise
            except BrokerError as exc:
                self._troubles.report(doing, exc)
            else:
                self._troubles.over(doing)
                return done
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)


async def delete(link: Link, doing: str, stream: str, sequence: int) -> bool:
    """Delete one message; False when it is not there any more, e.g. because its subject was written anew.

    Raises:
        BrokerUnavailable: It may or may not be deleted; to try again is safe.
        BrokerRefused: It may not be deleted.
    """
    subject = f"$JS.API.STREAM.MSG.DELETE.{stream}"
    with link.doing(doing, subject):
        # Wiping the bytes too, the server's default, rewrites the block on the disk.
        query = json.dumps({"seq": sequence, "no_erase": True}).encode()
        reply = await link.client.request(subject, query, timeout=CONFIRM_TIMEOUT_S)
        error = json.loads(reply.data).get("error")
        if error is None:
            return True
        code = error.get("err_code")
        # The second one is also what the server says when its disk fails.
        gone = code == SEQUENCE_NOT_FOUND or (
            code == DELETE_FAILED and await link.read(doing, stream, seq=sequence) is None
        )
        if not gone:
            raise nats.js.errors.APIError.from_error(error)
        return False

"""Holding one's part of the queue's shares: work begins with a lease, ends with it, and is handed over at a stop.

Used by brokers.kafka.webhooks, brokers.nats.webhooks; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from brokers.base import BrokerError

__all__ = ["Changes", "HeldShare", "Leases", "ShareKeeper"]

# A lease is looked at so often in its length.
LOOKS = 5
FAREWELL_S = 3.0

log = structlog.get_logger("comfybus.webhooks")


@dataclass(frozen=True)
class Changes:
    """What one look at the leases brought.

    Attributes:
        won: Shares that are ours from now on.
        lost: Shares that somebody else has: end their work at once.
        surplus: Held, but another bridge should have them.
    """

    won: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    surplus: tuple[int, ...] = ()


class Leases(Protocol):
    """Who has which share, as one bridge sees it; every method may raise ``BrokerError``."""

    async def look(self) -> Changes:
        """Renew what we hold, see who else is there, take what is free up to our part."""

    async def retire(self) -> None:
        """Keep what we hold, but count no longer as a bridge that wants its part."""

    async def give_back(self, share: int) -> None:
        """Let another bridge have it at once."""

    async def say_farewell(self) -> None:
        """Give back what is left."""


class HeldShare:
    """What the keeper needs of a share; it lives as long as our lease of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.leave = anyio.Event()
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Around the work; for a share that has to be set up."""
        yield


S = TypeVar("S", bound=HeldShare)


class ShareKeeper(Generic[S]):
    """Runs the work of each share that is ours, one at a time per share."""

    def __init__(
        self,
        leases: Leases,
        lease_s: float,
        make_share: Callable[[int], S],
        wait_connected: Callable[[], Awaitable[object]],
        tell: Callable[[BrokerError | None], None],
    ) -> None:
        """Prepare.

        Args:
            leases: Who has what.
            lease_s: Length of a lease.
            make_share: A share that was won.
            wait_connected: Returns when there is a connection.
            tell: Told of trouble with the leases, and by None of its end.
        """
        self._leases = leases
        self._lease_s = lease_s
        self._make_share = make_share
        self._wait_connected = wait_connected
        self._tell = tell
        self.shares: dict[int, S] = {}

    async def serve(self, work: Callable[[S], Awaitable[None]], stop: anyio.Event) -> None:
        """Hold our part and work on it; see ``WebhookBus.serve``."""
        try:
            async with anyio.create_task_group() as running, anyio.create_task_group() as keeping:
                keeping.start_soon(self._keep, running, work, stop)
                await stop.wait()
                # The others shall take at once what is given back while one receiver is still waited for.
                with anyio.move_on_after(FAREWELL_S), suppress(BrokerError):
                    await self._leases.retire()
                for share in self.shares.values():
                    share.leave.set()
                # Leases are kept meanwhile.
                while self.shares:
                    await next(iter(self.shares.values())).ended.wait()
                keeping.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(FAREWELL_S, shield=True), suppress(BrokerError):
                await self._leases.say_farewell()

    async def _keep(self, running: TaskGroup, work: Callable[[S], Awaitable[None]], stop: anyio.Event) -> None:
        while True:
            await self._wait_connected()
            try:
                changes = await self._leases.look()
            except BrokerError as exc:
                self._tell(exc)
            else:
                self._tell(None)
                self._follow(changes, stop)
                for number in changes.won:
                    running.start_soon(self._work_on, number, work, stop)
            await anyio.sleep(self._lease_s / LOOKS)

    def _follow(self, changes: Changes, stop: anyio.Event) -> None:
        told = {name: list(value) for name, value in vars(changes).items() if value}
        if told and not stop.is_set():
            log.info("shares changed", **told)
        for number in changes.lost:
            if share := self.shares.get(number):
                share.scope.cancel()
        for number in changes.surplus:
            if share := self.shares.get(number):
                share.leave.set()

    async def _work_on(self, number: int, work: Callable[[S], Awaitable[None]], stop: anyio.Event) -> None:
        while former := self.shares.get(number):
            # It was lost and won again: the work that was cancelled has to end first.
            await former.ended.wait()
        share = self._make_share(number)
        if stop.is_set():
            share.leave.set()
        self.shares[number] = share
        try:
            with share.scope:
                async with share.held():
                    await work(share)
        finally:
            if not share.scope.cancelled_caught:
                with anyio.move_on_after(FAREWELL_S, shield=True), suppress(BrokerError):
                    await self._leases.give_back(number)
            del self.shares[number]
            share.ended.set()

"""What goes on beside the requests: leases kept, streams declared again, claims swept.

Used by bus; may import brokers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog
from anyio.abc import TaskGroup

from brokers.base import BrokerError, BrokerUnavailable
from brokers.nats.declare import Declaration
from brokers.nats.trouble import Troubles

if TYPE_CHECKING:
    from brokers.nats.bus import NatsBus

__all__ = ["Upkeep"]

DECLARE = "declare the streams"
# Also without any sign of trouble: a stream may be deleted while nothing is taken from it.
DECLARE_EVERY_S = 15.0
PAUSE_FIRST_S = 0.5
PAUSE_LONGEST_S = 5.0
SWEEP_EVERY_S = 600.0

log = structlog.get_logger("comfybus.nats")


class Upkeep:
    """The bus's side tasks; if one dies, the bus ends with it."""

    def __init__(self, bus: NatsBus, declaration: Declaration) -> None:
        self._bus = bus
        self._declaration = declaration
        self._look = anyio.Event()
        self._renew = anyio.Event()

    def look(self) -> None:
        """Something may be missing on the server, or leases may be about to end: see to both now."""
        self._look.set()
        self._renew.set()

    def start(self, tasks: TaskGroup, troubles: Troubles) -> None:
        """Run until the group is cancelled."""
        tasks.start_soon(self._keep_leases)
        tasks.start_soon(self._keep_layout, troubles)
        tasks.start_soon(self._keep_ledger)

    async def _keep_leases(self) -> None:
        """Renew at a third of the lease, and at once after a reconnect: the server's clock went on meanwhile."""
        while True:
            with anyio.move_on_after(self._declaration.lease_s / 3):
                await self._renew.wait()
            self._renew = anyio.Event()
            for delivery in list(self._bus.in_hand.values()):
                if self._bus.link.is_connected:
                    await delivery.renew()
                    self._bus.counts.lease_extensions += 1

    async def _keep_layout(self, troubles: Troubles) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            with anyio.move_on_after(DECLARE_EVERY_S):
                await self._look.wait()
            self._look = anyio.Event()
            await self._bus.link.wait_connected()
            try:
                await self._declaration.make()
            except BrokerError as exc:
                troubles.report(DECLARE, exc)
                pause_s = min(pause_s * 2, PAUSE_LONGEST_S)
            else:
                troubles.over(DECLARE)
                troubles.over_unless_refused("take requests")
                pause_s = PAUSE_FIRST_S
            await anyio.sleep(pause_s)

    async def _keep_ledger(self) -> None:
        while True:
            try:
                if removed := await self._bus.ledger.sweep():
                    log.info("claims of settled requests removed", count=removed)
            except BrokerUnavailable as exc:
                log.debug("claims not swept", reason=str(exc))
            except BrokerError as exc:
                log.warning("claims cannot be swept", reason=str(exc))
            await anyio.sleep(SWEEP_EVERY_S)

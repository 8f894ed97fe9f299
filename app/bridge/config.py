"""Everything the bridge needs to know, given from outside: nothing in this package reads the environment.

Used by app.bridge.app, broker, endpoints, feeding, plan, app.settings; may import app.storage, brokers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.bridge.schedule import Schedule
from app.bridge.signature import Signer
from app.bridge.subscriptions import Subscription
from app.storage.config import StorageConfig
from brokers.webhooks import Feed

__all__ = ["BridgeConfig"]


@dataclass(frozen=True)
class BridgeConfig:
    """One frozen set of settings.

    Attributes:
        storage: Where claim checks are, which hosts may be reached, which proxies to use.
        signer: Signs ``webhook_v2`` and system webhooks; None without WEBHOOK_SECRET: they go out unsigned.
        system_url: SYSTEM_WEBHOOK_URL; empty for none.
        system_events: Full types of the events for it.
        subscriptions: Static endpoints.
        schedule: When deliveries are tried again.
        timeout_s: How long a receiver may take to answer; large bodies give it more.
        concurrency: Deliveries at once for one endpoint.
        inline_limit_bytes: Files of OUTPUT_STORE are sent inline while those of one event are no larger than this.
        signed_links: S3 and Azure URLs are sent as links that are good for an hour.
    """

    storage: StorageConfig
    signer: Signer | None = None
    system_url: str = ""
    system_events: frozenset[str] = frozenset()
    subscriptions: tuple[Subscription, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    timeout_s: float = 30
    concurrency: int = 1
    inline_limit_bytes: int = 32 * 1024 * 1024
    signed_links: bool = False

    @property
    def feeds(self) -> frozenset[Feed]:
        """What has to be read: the side channels only if somebody wants their events."""
        wanted = (self.system_url and self.system_events) or any(
            one.wants_other_than_results for one in self.subscriptions
        )
        return frozenset(Feed) if wanted else frozenset({Feed.RESULTS})

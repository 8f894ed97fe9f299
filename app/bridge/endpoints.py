"""Where a delivery goes and who signs it, by the settings of now: a subscription may have been corrected meanwhile.

Used by app.bridge.app, deliver, app.cli.webhooks; may import app.storage.
"""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from app.bridge.config import BridgeConfig
from app.bridge.record import Record
from app.bridge.signature import Signer
from app.storage.faults import Fault
from app.storage.urls import parse_http

__all__ = ["Endpoint", "Endpoints", "NoEndpoint"]


class NoEndpoint(Exception):
    """A delivery has nowhere to go; carries the sentence and the code of its dead letter."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True)
class Endpoint:
    """One receiver.

    Attributes:
        text: The URL as it was given.
        url: Without user info.
        authorization: The header that its user info stands for.
        signer: None for a webhook that goes out unsigned.
        configured: The operator wrote the URL: it may be a private address.
    """

    text: str
    url: URL
    authorization: str | None
    signer: Signer | None
    configured: bool


class Endpoints:
    """Finds the receiver of a record."""

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._subscriptions = {one.name: one for one in config.subscriptions}
        self._signers = {one.name: one.signer for one in config.subscriptions}

    def of(self, record: Record) -> Endpoint:
        """The receiver.

        Raises:
            NoEndpoint: The subscription is no longer there, or the URL is none.
        """
        text, signer = record.url, self._config.signer
        if record.origin == "webhook":
            signer = None
        elif record.origin == "subscription":
            subscription = self._subscriptions.get(record.subscription or "")
            if subscription is None:
                reason = (
                    f"there is no subscription {record.subscription} any more; WEBHOOK_SUBSCRIPTIONS does not list it"
                )
                raise NoEndpoint(reason, "unknown_subscription")
            text, signer = subscription.url, self._signers[subscription.name]
        try:
            parsed = parse_http(text)
        except Fault as exc:
            raise NoEndpoint(f"the webhook's URL is wrong: {exc.reason}", "refused") from exc
        configured = record.origin in ("system", "subscription")
        return Endpoint(text, parsed.url, parsed.authorization, signer, configured)

    def concurrency(self, record: Record) -> int:
        """How many deliveries may go to the receiver at once."""
        subscription = self._subscriptions.get(record.subscription or "")
        return (subscription.concurrency if subscription else None) or self._config.concurrency

    @property
    def configured_urls(self) -> list[str]:
        """URLs that the operator wrote."""
        return [url for url in (self._config.system_url, *(one.url for one in self._config.subscriptions)) if url]

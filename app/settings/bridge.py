"""What the webhook bridge is told of the settings.

Used by app.bridge.app, app.cli.webhooks; may import app.bridge.
"""

from __future__ import annotations

from app.bridge.config import BridgeConfig
from app.bridge.schedule import STANDARD_S, Schedule
from app.bridge.signature import read_secrets
from app.bridge.subscriptions import load_subscriptions
from app.settings.broker import reveal
from app.settings.checks import BRIDGE_EVENTS
from app.settings.parts import storage_config
from app.settings.tree import Settings

__all__ = ["bridge_config"]


def bridge_config(settings: Settings) -> BridgeConfig:
    """Settings of the bridge; reads the file of subscriptions.

    Raises:
        ConfigurationError: That file cannot be used; the sentence names the place.
    """
    secret = reveal(settings.webhook_secret)
    path = settings.webhook_subscriptions
    return BridgeConfig(
        storage=storage_config(settings),
        signer=read_secrets(secret) if secret else None,
        system_url=reveal(settings.system_webhook_url) or "",
        system_events=frozenset(
            f"storage.{name}" if name in BRIDGE_EVENTS else f"comfy.{name}" for name in settings.system_webhook_events
        ),
        subscriptions=load_subscriptions(path) if path else (),
        schedule=Schedule(settings.webhook_schedule or STANDARD_S, settings.prompt_webhook_retries),
        timeout_s=settings.webhook_timeout_s,
        concurrency=settings.webhook_concurrency,
        inline_limit_bytes=settings.webhook_inline_kb * 1024,
        signed_links=settings.webhook_signed_links,
    )

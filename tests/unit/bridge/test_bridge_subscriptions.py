"""The file of subscriptions: what it may hold, and what is said of what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.bridge.subscriptions import EVENT_TYPES, Subscription, load_subscriptions
from app.errors import ConfigurationError
from schemas.events import COMFY_EVENTS

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GOOD = {"name": "one", "url": "https://one.example/hook", "secrets": [SECRET]}


def load(folder: Path, document: Any) -> tuple[Subscription, ...]:
    path = folder / "subscriptions.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return load_subscriptions(path)


def test_a_good_file(tmp_path: Path) -> None:
    """Names, URLs, events, metadata and secrets are read; terminal events are the default."""
    [one] = load(tmp_path, {"subscriptions": [GOOD]})
    assert one.wants("prompt.complete", None)
    assert one.wants("prompt.failed", {})
    assert not one.wants("comfy.status", {})
    assert load(tmp_path, {"subscriptions": []}) == ()


def test_metadata_has_to_fit() -> None:
    """Every key has to be there with the value, or with one of the values; types count."""
    one = Subscription(**{**GOOD, "metadata": {"team": "video", "tier": ["gold", 1], "deep": {"a": [1]}}})
    fits = {"team": "video", "tier": 1, "deep": {"a": [1]}, "more": True}
    assert one.wants("prompt.complete", fits)
    for wrong in ({"team": "audio"}, {"tier": "1"}, {"deep": {"a": [2]}}, {"tier": None}):
        assert not one.wants("prompt.complete", fits | wrong)
    assert not one.wants("prompt.complete", None)
    assert Subscription(**{**GOOD, "metadata": {"tags": ["a", "b"]}}).wants("prompt.failed", {"tags": ["a", "b"]})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("subscriptions: [", "no YAML at line 1"),
        ("a: 1", "one list, `subscriptions`"),
        ([], "one list, `subscriptions`"),
        ({"subscriptions": [GOOD, GOOD]}, "two subscriptions have the name one"),
        ({"subscriptions": [1]}, "subscription 1"),
        ({"subscriptions": [{**GOOD, "name": "a b"}]}, "name"),
        ({"subscriptions": [{**GOOD, "url": "ftp://x"}]}, "url"),
        ({"subscriptions": [{**GOOD, "event": ["x"]}]}, "there is no such field"),
        ({"subscriptions": [{**GOOD, "events": ["prompt.progress"]}]}, "prompt.progress fits no event"),
        ({"subscriptions": [{**GOOD, "events": []}]}, "events"),
        ({"subscriptions": [{"name": "one", "url": "https://x.example"}]}, "subscription one: secrets: it is missing"),
        ({"subscriptions": [{**GOOD, "secrets": []}]}, "secrets"),
        ({"subscriptions": [{**GOOD, "secrets": ["hunter2"]}]}, "each should begin with whsec_"),
        ({"subscriptions": [{**GOOD, "secrets": ["whsec_hunter2"]}]}, "secrets: behind whsec_"),
        ({"subscriptions": [{**GOOD, "concurrency": 0}]}, "concurrency"),
    ],
)
def test_what_is_wrong_is_named_without_secrets(tmp_path: Path, document: Any, words: str) -> None:
    """The sentence names file, subscription and field; never a secret."""
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_SUBSCRIPTIONS=.*subscriptions.yaml") as caught:
        load(tmp_path, document)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_known_types_are_those_of_the_settings() -> None:
    """Every ComfyUI event that can be published can be subscribed to."""
    assert {f"comfy.{name}" for name in COMFY_EVENTS} == {name for name in EVENT_TYPES if name.startswith("comfy.")}

"""BROKER_URL: which addresses are taken, and that a wrong one is not repeated to anybody."""

from __future__ import annotations

import pytest

from app.errors import ConfigurationError
from app.settings import load_settings
from app.settings.broker import kafka_config


@pytest.mark.parametrize("scheme", ["kafka", "kafka+ssl"])
def test_a_password_in_kafkas_address_is_refused_and_not_repeated(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be read as part of a host's name, and stand in every message about that host."""
    monkeypatch.setenv("BROKER_URL", f"{scheme}://user:hunter2@broker:9092,other:9092")
    with pytest.raises(ConfigurationError, match=r"BROKER_URL is wrong: .*KAFKA_SASL_PASSWORD") as wrong:
        load_settings()
    assert "hunter2" not in str(wrong.value)
    assert "user:" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://one:9092,two:9093/", ("one:9092", "two:9093")),
        ("kafka+ssl://one,10.0.0.1:19092", ("one:9092", "10.0.0.1:19092")),
        ("kafka://[fd00::1]:9094,[fd00::2]", ("[fd00::1]:9094", "[fd00::2]:9092")),
    ],
)
def test_hosts_of_kafka(url: str, servers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an address to begin with; 9092 is Kafka's usual port."""
    monkeypatch.setenv("BROKER_URL", url)
    config = kafka_config(load_settings())
    assert config.servers == servers
    assert config.is_encrypted == url.startswith("kafka+ssl")


@pytest.mark.parametrize(
    "rest", ["one:port", "one:0", "one:65536", "one,,two", "one:", "fd00::1:9092", "one:9092/topic", "a b:1"]
)
def test_what_is_no_address_of_kafka(rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable, before anything is connected."""
    monkeypatch.setenv("BROKER_URL", f"kafka://{rest}")
    with pytest.raises(ConfigurationError, match=r"BROKER_URL is wrong: it should be kafka://host:port"):
        load_settings()

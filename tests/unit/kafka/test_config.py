"""The settings of the connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.base import BrokerRefused
from brokers.kafka.config import KafkaConfig


def test_group_timings_follow_from_two_settings() -> None:
    """Signs of life at a third of the session and one a second at least; a rebalance waits half a minute at most."""
    assert (KafkaConfig().heartbeat_ms, KafkaConfig().rebalance_ms) == (1000, 30_000)
    short = KafkaConfig(session_timeout_ms=1500, max_poll_interval_ms=5000)
    assert (short.heartbeat_ms, short.rebalance_ms) == (500, 5000)


@pytest.mark.parametrize(
    ("changes", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        ({"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}, "SASL_PLAINTEXT"),
        ({"tls": True, "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u", "sasl_password": ""}, "SASL_SSL"),
    ],
)
def test_the_protocol_follows_from_tls_and_sasl(changes: dict[str, object], protocol: str) -> None:
    """Each combination has its name in Kafka."""
    options = KafkaConfig(**changes).client_options()
    assert options["security_protocol"] == protocol
    assert ("ssl_context" in options) == protocol.endswith("SSL")


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"sasl_mechanism": "GSSAPI"}, "should be one of PLAIN"),
        ({"sasl_mechanism": "PLAIN", "sasl_username": "me"}, "KAFKA_SASL_PASSWORD"),
        ({"sasl_mechanism": "PLAIN", "sasl_password": "secret"}, "KAFKA_SASL_USERNAME"),
        ({"tls_ca": Path("/nowhere/ca.pem")}, "BROKER_TLS_"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_their_cure(changes: dict[str, object], cure: str) -> None:
    """The sentence names the variable and never the password."""
    with pytest.raises(BrokerRefused, match=cure) as refused:
        KafkaConfig(**changes).client_options()
    assert "secret" not in str(refused.value)


def test_the_password_is_not_shown() -> None:
    """Neither in the settings' own words nor in the address."""
    config = KafkaConfig(servers=("a:1", "b:2"), sasl_password="secret")
    assert "secret" not in repr(config)
    assert config.where == "a:1, b:2"

"""The small decisions of the NATS side that need no server: names, headers, letters, errors, settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from faststream.nats.security import NatsToken, NatsUserPassword
from nats.js import api

from brokers.base import BrokerRefused, BrokerUnavailable, Letter, Message, RequestOrigin
from brokers.channels import Channel, Names
from brokers.client import DeadLetter
from brokers.nats import NatsConfig
from brokers.nats.connection import _security, make_broker
from brokers.nats.dlq import replay_headers
from brokers.nats.errors import StreamMissing, translated
from brokers.nats.headers import encoded_size, for_message, safe
from brokers.nats.layout import unfit_consumer, wanted_streams
from brokers.nats.ledger import Place
from brokers.nats.letters import fit, letter_headers
from brokers.nats.objects import parse_url
from brokers.nats.stored import StoredMessage, from_leader, parse_headers
from schemas.events import RequestSource

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ORIGIN = RequestOrigin(RequestSource(stream="comfyui-request", sequence=17), NOON)
LETTER = Letter("it failed", "internal", "w1", 2, "a", id_was_derived=False)


def test_names_are_those_of_the_contract() -> None:
    """Subjects keep the prefix as it is; streams, buckets and groups have no dots in it."""
    names = Names("it.ai")
    assert names.subject(Channel.COMPLETE, "a") == "it.ai.prompt.complete.a"
    assert names.subject(Channel.WORKER, "w1", "heartbeat") == "it.ai.worker.w1.heartbeat"
    assert names.topic(Channel.DEAD_LETTER) == "it.ai.prompt.request.dlq"
    assert names.of_prompt("a") == "it.ai.prompt.*.a"
    assert names.request_stream == "it_ai-request"
    assert names.ledger_bucket == "it_ai-ledger"
    assert names.output_bucket == "it_ai-outputs"
    assert names.dead_letter_bucket == "it_ai-dlq"
    assert names.worker_group == "it_ai.workers"


def test_an_event_has_the_headers_of_cloudevents() -> None:
    """Attributes with ce-, both content types, and the event's own headers."""
    message = Message(Channel.COMPLETE, ("a",), "a", b"", {"id": "a/complete"}, {"traceparent": "00"})
    assert for_message(message) == {
        "ce-id": "a/complete",
        "ce-datacontenttype": "application/json",
        "content-type": "application/json",
        "traceparent": "00",
    }


@pytest.mark.parametrize(
    ("value", "sent"),
    [("plain", "plain"), ("a\r\nb: c", "a  b: c"), ("grün\t1", "grün\t1"), ("\ud800", "?")],
)
def test_header_values_stay_on_their_line(value: str, sent: str) -> None:
    """Line breaks become blanks, what is no text a question mark; all else stays."""
    assert safe(value) == sent


def test_the_size_of_headers_is_that_on_the_wire() -> None:
    """Version line, one line for each header, and the empty line; nothing at all without headers."""
    assert encoded_size({}) == 0
    assert encoded_size({"a": "ü"}) == len("NATS/1.0\r\na: ü\r\n\r\n".encode())


def test_headers_written_by_anybody_are_read() -> None:
    """Names are tokens, values any bytes; what is neither is left out."""
    block = b"NATS/1.0 503 Sorry\r\nA: 1\r\nb:2\r\nno colon\r\nwith blank: x\r\n\xff: x\r\nraw: \xff\r\nA: 3\r\n\r\n"
    assert parse_headers(block) == {"A": "3", "b": "2", "raw": "\ufffd"}
    assert parse_headers(b"") == {}


def test_a_stored_message_is_read_from_the_servers_answer() -> None:
    """Body and headers are base64, absent ones empty; nanoseconds are cut off."""
    said: dict[str, Any] = {"seq": 3, "subject": "s", "time": "2026-01-01T12:00:00.123456789Z", "data": "YQ=="}
    assert from_leader(said) == StoredMessage(3, "s", NOON + timedelta(microseconds=123456), b"a", {})
    assert from_leader({**said, "data": None, "time": "2026-01-01T12:00:00Z"}).data == b""


def test_a_place_is_its_number_and_its_time() -> None:
    """The same number at another time is another request; a rounded microsecond is not."""
    place = Place(3, NOON)
    assert place.is_of(StoredMessage(3, "s", NOON + timedelta(microseconds=1), b""))
    assert not place.is_of(StoredMessage(3, "s", NOON + timedelta(seconds=1), b""))
    assert not place.is_of(StoredMessage(4, "s", NOON, b""))


# --- letters


def test_reserved_headers_become_originals_in_a_letter() -> None:
    """What the server acts on in any case of letters, and what would be ours; the rest stays as it was."""
    found = letter_headers(
        {"Nats-Msg-Id": "m", "NATS-Rollup": "all", "comfybus-Worker": "x", "X": "1", "comfybus-mine": "2"},
        ORIGIN,
        LETTER,
    )
    assert found["comfybus-original-Nats-Msg-Id"] == "m"
    assert found["comfybus-original-NATS-Rollup"] == "all"
    assert found["comfybus-original-comfybus-Worker"] == "x"
    assert (found["X"], found["comfybus-mine"], found["comfybus-worker"]) == ("1", "2", "w1")
    assert found["Nats-Msg-Id"] == "dlq/comfyui-request/17/2026-01-01T12:00:00+00:00"
    assert [name for name in found if name.lower().startswith("nats-")] == ["Nats-Msg-Id"]


def test_the_letter_of_a_replay_keeps_the_first_originals() -> None:
    """What the replay added is not taken for an original."""
    sent = {
        "comfybus-replay": "1",
        "comfybus-id": "a",
        "Nats-Msg-Id": "a/replay/1",
        "comfybus-original-Nats-Msg-Id": "m",
    }
    found = letter_headers(sent, ORIGIN, Letter("", "internal", "w1", 1, "a", id_was_derived=False, replay=1))
    assert found["comfybus-original-Nats-Msg-Id"] == "m"
    assert found["comfybus-replay"] == "1"
    assert "comfybus-id" not in found


def test_the_largest_originals_go_first() -> None:
    """Until it fits; what is ours stays, and the names of those left out are told."""
    headers = {"x": "1" * 100, "y": "2" * 300, "comfybus-reason": "r" * 200, "comfybus-original-Nats-A": "3" * 200}
    kept = fit(headers, 450)
    assert set(kept) == {"x", "comfybus-reason", "comfybus-omitted"}
    assert kept["comfybus-omitted"] == "y,comfybus-original-Nats-A"
    assert encoded_size(kept) <= 450
    assert fit({"a": "b"}, 450) == {"a": "b"}


def test_a_replay_restores_what_the_server_does_not_act_on() -> None:
    """Originals get their names back but for those of the server, which would act on them again."""
    stored = {
        "X": "1",
        "comfybus-original-comfybus-reason": "mine",
        "comfybus-original-Nats-Rollup": "all",
        "comfybus-original-ce-dataref": "https://a",
        "comfybus-reason": "ours",
        "comfybus-body-bytes": "7",
        "ce-dataref": "nats://comfyui-dlq/a",
        "Nats-Msg-Id": "dlq/1",
    }
    letter = DeadLetter("comfyui-dlq#1", "a", "", "", "", 1, 0, id_was_derived=True, time="", headers=stored)
    assert replay_headers(letter, stored, 1) == {
        "X": "1",
        "comfybus-reason": "mine",
        "comfybus-original-Nats-Rollup": "all",
        "ce-dataref": "https://a",
        "comfybus-replay": "1",
        "comfybus-id": "a",
        "Nats-Msg-Id": "a/replay/1",
    }


# --- errors


@pytest.mark.parametrize(
    ("exc", "kind", "text"),
    [
        (nats.js.errors.NoStreamResponseError(), StreamMissing, "a worker creates"),
        (nats.js.errors.NotFoundError(code=404, err_code=10059, description="x"), StreamMissing, "missing"),
        (nats.js.errors.ServiceUnavailableError(), BrokerUnavailable, "is it enabled"),
        (nats.js.errors.ServiceUnavailableError(code=503, err_code=10008, description="x"), BrokerUnavailable, "temp"),
        (nats.js.errors.ServiceUnavailableError(code=503, err_code=10077, description="full"), BrokerRefused, "full"),
        (nats.js.errors.BadRequestError(code=400, err_code=1, description="bad"), BrokerRefused, "bad"),
        (nats.errors.NoRespondersError(), BrokerUnavailable, "is it enabled"),
        (nats.errors.AuthorizationError(), BrokerRefused, "refuses"),
        (nats.errors.BadHeaderError("a:b"), BrokerRefused, "cannot carry"),
        (nats.errors.TimeoutError(), BrokerUnavailable, "no answer"),
        (ConnectionResetError(), BrokerUnavailable, "no answer"),
    ],
)
def test_what_nats_py_raises_is_translated(exc: Exception, kind: type[Exception], text: str) -> None:
    """What passes by itself is unavailable, what an operator has to see to is refused; both say what was tried."""
    error = translated("do it", exc)
    assert type(error) is kind
    assert str(error).startswith("do it: ")
    assert text in str(error)


# --- settings


@pytest.mark.parametrize(
    ("url", "kind", "secret"),
    [
        ("nats://me:p%40ss@h:1", NatsUserPassword, "p@ss"),
        ("me:pass@h", NatsUserPassword, "pass"),
        ("nats://tok%2Fen@h:1", NatsToken, "tok/en"),
    ],
)
def test_credentials_in_the_address_are_decoded(url: str, kind: type[Any], secret: str) -> None:
    """User and password or a token, percent signs resolved; none of it is part of what is shown."""
    config = NatsConfig(servers=(url, "nats://other:2"))
    found = _security(config)
    assert isinstance(found, kind)
    assert secret in (getattr(found, "password", None), getattr(found, "token", None))
    assert config.where.startswith("h")
    assert config.where.endswith("other:2")


def test_without_credentials_there_is_no_security() -> None:
    """A plain address needs none; a token of the settings counts before the address."""
    assert _security(NatsConfig()) is None
    found = _security(NatsConfig(servers=("nats://me:pass@h",), token="t"))
    assert isinstance(found, NatsToken)
    assert "pass" not in repr(NatsConfig(servers=("nats://me:pass@h",)))
    assert "secret" not in repr(NatsConfig(token="secret"))


def test_files_that_cannot_be_read_are_told_at_the_start(tmp_path: Path) -> None:
    """A missing certificate or credentials file is one sentence."""
    for wrong in ({"tls_ca": tmp_path / "no.pem"}, {"credentials_file": tmp_path / "no.creds"}):
        with pytest.raises(BrokerRefused, match="cannot be read"):
            make_broker(NatsConfig(**wrong), {})  # type: ignore[arg-type]


def test_streams_are_judged_by_what_they_must_hold() -> None:
    """A wider subject is fine, a missing one, another retention and a sealed stream are not."""
    request = wanted_streams(NatsConfig())[0]
    config = request.config
    assert request.unfit(config) == ""
    assert request.unfit(config.evolve(subjects=["comfyui.prompt.*"])) == ""
    assert request.unfit(config.evolve(subjects=["comfyui.>"])) == ""
    assert "lacks the subject" in request.unfit(config.evolve(subjects=["comfyui.*"]))
    assert "lacks the subject" in request.unfit(config.evolve(subjects=None))
    assert "retention" in request.unfit(config.evolve(retention=api.RetentionPolicy.LIMITS))
    assert "sealed" in request.unfit(config.evolve(sealed=True))
    assert "max_deliver 2" in unfit_consumer("s", api.ConsumerConfig(ack_policy=api.AckPolicy.EXPLICIT, max_deliver=2))
    assert "explicitly" in unfit_consumer("s", api.ConsumerConfig(ack_policy=api.AckPolicy.NONE))
    assert unfit_consumer("s", api.ConsumerConfig(ack_policy=api.AckPolicy.EXPLICIT, max_deliver=-1)) == ""


@pytest.mark.parametrize("url", ["https://b/k", "nats://b", "nats:///k", "nats://b.c/k", "nats://b/", "b/k"])
def test_what_is_no_object(url: str) -> None:
    """Only nats://<bucket>/<key> is."""
    with pytest.raises(BrokerRefused, match="nats://<bucket>/<key>"):
        parse_url(url)


def test_the_key_of_an_object_may_have_folders() -> None:
    """Everything behind the bucket is the key, as it stands there."""
    assert parse_url("nats://comfyui-outputs/a/1f/x 1%.png") == ("comfyui-outputs", "a/1f/x 1%.png")

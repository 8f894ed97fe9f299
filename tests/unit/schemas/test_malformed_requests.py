"""Every way to get a request wrong: the error names the field, and says nothing of the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.base import WrongField, load_json
from schemas.prompt import PromptRequest, parse_request

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}}
S3 = {"bucket": "b"}
HTTP = {"url_prefix": "https://h/"}
BEARER = {"type": "bearer", "token": "t"}


def auth(**block: Any) -> dict[str, Any]:
    """Name a credential with this authentication."""
    return {"prompt": GRAPH, "credentials": [{"url_pattern": "https://h/**", "auth": block}]}


def with_field(**fields: Any) -> dict[str, Any]:
    """Add fields to a request that is valid without them."""
    return {"prompt": GRAPH, **fields}


MALFORMED: list[tuple[str, Any, str]] = [
    # the whole
    ("a list", [], ""),
    ("a string", "prompt", ""),
    ("null", None, ""),
    ("a number", 5, ""),
    ("nothing in it", {}, ""),
    ("both prompt and workflow", {"prompt": GRAPH, "workflow": "sd15/txt2img"}, ""),
    ("both as null", {"prompt": None, "workflow": None}, ""),
    ("input without workflow", with_field(input={}), "input"),
    # ids
    ("an empty id", with_field(id=""), "id"),
    ("a number as id", with_field(id=7), "id"),
    ("an id with a slash", with_field(id="a/b"), "id"),
    ("an id that climbs", with_field(id=".."), "id"),
    ("an id with a dot", with_field(id="a.b"), "id"),
    ("an id with a wildcard", with_field(id="*"), "id"),
    ("an id with a space", with_field(id="a b"), "id"),
    ("an id with a line break at its end", with_field(id="abc\n"), "id"),
    ("an id with a null character", with_field(id="a\0"), "id"),
    ("an id that begins with a dash", with_field(id="-rf"), "id"),
    ("an id of 129 characters", with_field(id="a" * 129), "id"),
    ("an id in other letters", with_field(id="ä"), "id"),
    ("a list as id", with_field(id=["a"]), "id"),
    # graphs
    ("an empty graph", {"prompt": {}}, "prompt"),
    ("a list as graph", {"prompt": [GRAPH]}, "prompt"),
    ("a graph as a string", {"prompt": json.dumps(GRAPH)}, "prompt"),
    ("a node that is a string", {"prompt": {"1": "x"}}, "prompt.1"),
    ("a node named like an authentication", {"prompt": {"header": 5}}, "prompt.header"),
    ("a node without a class", {"prompt": {"1": {"inputs": {}}}}, "prompt.1.class_type"),
    ("a node with an empty class", {"prompt": {"1": {"class_type": ""}}}, "prompt.1.class_type"),
    ("a node with a number as class", {"prompt": {"1": {"class_type": 3}}}, "prompt.1.class_type"),
    ("inputs as a list", {"prompt": {"1": {"class_type": "A", "inputs": []}}}, "prompt.1.inputs"),
    ("inputs as null", {"prompt": {"1": {"class_type": "A", "inputs": None}}}, "prompt.1.inputs"),
    (
        "infinity in a node",
        {"prompt": {"1": {"class_type": "A", "inputs": {"x": [1, float("inf")]}}}},
        "prompt.1.inputs.x.1",
    ),
    # workflows
    ("an empty name of a workflow", {"workflow": ""}, "workflow"),
    ("a number as workflow", {"workflow": 1}, "workflow"),
    ("a name of 513 characters", {"workflow": "w" * 513}, "workflow"),
    ("input as a list", {"workflow": "w", "input": []}, "input"),
    ("not a number in the input", {"workflow": "w", "input": {"a": {"b": float("nan")}}}, "input.a.b"),
    # unknown fields at every level
    ("an unknown field", with_field(promt=1), "promt"),
    ("the old name of an option", with_field(convert=1), "convert"),
    ("a field of the model by its Python name", with_field(s3={**S3, "async_": True}), "s3.async_"),
    ("an unknown field of s3", with_field(s3={**S3, "key": "k"}), "s3.key"),
    ("an unknown field of azure", with_field(azure_blob_upload={"container": "c", "x": 1}), "azure_blob_upload.x"),
    ("an unknown field of hf", with_field(hf_upload={"repo": "u/r", "x": 1}), "hf_upload.x"),
    ("an unknown field of http", with_field(http_upload={**HTTP, "x": 1}), "http_upload.x"),
    ("an unknown field of the conversion", with_field(convert_output={"format": "webp", "q": 1}), "convert_output.q"),
    (
        "an unknown field of a credential",
        with_field(credentials=[{"url_pattern": "u", "auth": BEARER, "x": 1}]),
        "credentials.0.x",
    ),
    ("an unknown field of an authentication", auth(**BEARER, x=1), "credentials.0.auth.x"),
    # targets
    ("two targets", with_field(s3=S3, http_upload=HTTP), "http_upload"),
    ("two other targets", with_field(azure_blob_upload={"container": "c"}, hf_upload={"repo": "r"}), "hf_upload"),
    ("s3 without a bucket", with_field(s3={}), "s3.bucket"),
    ("s3 with an empty bucket", with_field(s3={"bucket": ""}), "s3.bucket"),
    ("s3 as a string", with_field(s3="s3://b"), "s3"),
    ("a prefix that is null", with_field(s3={**S3, "prefix": None}), "s3.prefix"),
    ("async as a string", with_field(s3={**S3, "async": "yes"}), "s3.async"),
    ("azure without a container", with_field(azure_blob_upload={}), "azure_blob_upload.container"),
    ("hf without a repository", with_field(hf_upload={}), "hf_upload.repo"),
    ("hf with a space", with_field(hf_upload={"repo": "r", "repo_type": "space"}), "hf_upload.repo_type"),
    ("http without a prefix", with_field(http_upload={}), "http_upload.url_prefix"),
    # conversion
    ("a conversion without a format", with_field(convert_output={}), "convert_output.format"),
    ("a conversion to gif", with_field(convert_output={"format": "gif"}), "convert_output.format"),
    ("options as a list", with_field(convert_output={"format": "webp", "options": []}), "convert_output.options"),
    (
        "infinity in the options",
        with_field(convert_output={"format": "webp", "options": {"q": float("-inf")}}),
        "convert_output.options.q",
    ),
    # credentials
    ("credentials as an object", with_field(credentials={}), "credentials"),
    ("a credential without a pattern", with_field(credentials=[{"auth": BEARER}]), "credentials.0.url_pattern"),
    ("a credential without auth", with_field(credentials=[{"url_pattern": "u"}]), "credentials.0.auth"),
    ("auth without a type", auth(token="t"), "credentials.0.auth.type"),
    ("auth of an unknown type", auth(type="kerberos"), "credentials.0.auth.type"),
    ("a bearer without a token", auth(type="bearer"), "credentials.0.auth.token"),
    ("a bearer with a number", auth(type="bearer", token=5), "credentials.0.auth.token"),
    ("basic without a password", auth(type="basic", username="u"), "credentials.0.auth.password"),
    (
        "a header with a line break",
        auth(type="header", header_name="a\nb", header_value="v"),
        "credentials.0.auth.header_name",
    ),
    ("a query without a name", auth(type="query", query_value="v"), "credentials.0.auth.query_param"),
    ("s3 keys without the key", auth(type="s3"), "credentials.0.auth.access_key_id"),
    # time
    ("a time-out of zero", with_field(timeout_s=0), "timeout_s"),
    ("a negative time-out", with_field(timeout_s=-1), "timeout_s"),
    ("a time-out of more than a year", with_field(timeout_s=31_536_001), "timeout_s"),
    ("a time-out beyond all numbers", with_field(timeout_s=10**400), "timeout_s"),
    ("an infinite time-out", with_field(timeout_s=float("inf")), "timeout_s"),
    ("a time-out in words", with_field(timeout_s="60"), "timeout_s"),
    ("a time-out of true", with_field(timeout_s=True), "timeout_s"),
    ("an expiry without offset", with_field(expires_at="2026-01-01T00:00:00"), "expires_at"),
    ("an expiry without a time", with_field(expires_at="2026-01-01"), "expires_at"),
    ("an expiry as a number", with_field(expires_at=1_767_225_600), "expires_at"),
    ("an expiry in basic ISO form", with_field(expires_at="20260101T000000Z"), "expires_at"),
    ("an expiry by weeks", with_field(expires_at="2026-W01-1T00:00:00Z"), "expires_at"),
    ("an expiry on no day", with_field(expires_at="2026-02-30T00:00:00Z"), "expires_at"),
    ("an expiry in words", with_field(expires_at="tomorrow"), "expires_at"),
    # metadata and webhooks
    ("metadata as a list", with_field(metadata=[1]), "metadata"),
    ("metadata as a string", with_field(metadata="m"), "metadata"),
    ("metadata over 16 KiB", with_field(metadata={"m": "x" * 16 * 1024}), "metadata"),
    ("metadata over 16 KiB in bytes", with_field(metadata={"m": "ä" * 8 * 1024}), "metadata"),
    ("infinity in metadata", with_field(metadata={"m": [float("inf")]}), "metadata.m.0"),
    ("a webhook that is an object", with_field(webhook={"url": "https://h"}), "webhook"),
    ("a webhook that is a number", with_field(webhook_v2=1), "webhook_v2"),
]


@pytest.mark.parametrize(("document", "location"), [pytest.param(*rest, id=name) for name, *rest in MALFORMED])
def test_a_malformed_request_names_its_field(document: Any, location: str) -> None:
    """The error's location is the first field that breaks the contract, and its sentence begins with it."""
    with pytest.raises(WrongField) as caught:
        parse_request(document)
    assert caught.value.location == location
    assert str(caught.value).startswith(location)
    assert caught.value.reason


BODIES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("blanks", b"  \n"),
    ("half a document", b'{"prompt": {'),
    ("two documents", b"{} {}"),
    ("NaN", b'{"a": NaN}'),
    ("Infinity", b'{"a": Infinity}'),
    ("a lone leading surrogate", b'{"a": "\\ud800"}'),
    ("a lone trailing surrogate", b'{"a": "\\udc00"}'),
    ("Latin-1", '{"a": "é"}'.encode("latin-1")),
    ("UTF-16", '{"a": 1}'.encode("utf-16")),
    ("UTF-16 without a mark", '{"a": 1}'.encode("utf-16-le")),
    ("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbf{}"),
    ("an overlong encoding", b'{"a": "\xc0\xaf"}'),
    ("a raw control character", b'{"a": "\x00"}'),
    ("single quotes", b"{'a': 1}"),
    ("a comment", b"{} // no"),
    ("a comma too many", b'{"a": 1,}'),
    ("a number of 5000 digits", b'{"a": ' + b"9" * 5000 + b"}"),
    ("lists nested 300 deep", b"[" * 300 + b"]" * 300),
    ("objects nested 100 000 deep", b'{"a":' * 100_000),
]


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BODIES])
def test_a_body_that_is_no_json_is_an_error_without_location(body: bytes) -> None:
    """Undecodable bytes raise WrongField about the whole message, never anything else."""
    with pytest.raises(WrongField) as caught:
        load_json(body)
    assert caught.value.location == ""


def test_a_number_beyond_json_is_found_where_it_stands() -> None:
    """1e999 is valid JSON, reads as infinity, and could not be written back."""
    with pytest.raises(WrongField) as caught:
        parse_request(load_json(b'{"prompt": {"1": {"class_type": "A", "inputs": {"x": 1e999}}}}'))
    assert caught.value.location == "prompt.1.inputs.x"


@pytest.mark.parametrize(
    ("document", "secret"),
    [
        (auth(type="hunter2"), "hunter2"),
        (auth(type="bearer", token=["hunter2"]), "hunter2"),
        (auth(type="header", header_name="hunter2\n", header_value="v"), "hunter2"),
        (with_field(webhook=["https://user:hunter2@h"]), "hunter2"),
    ],
)
def test_an_error_does_not_repeat_the_value(document: Any, secret: str) -> None:
    """A value may be a secret, so the sentence that travels in an event is without it."""
    with pytest.raises(WrongField) as caught:
        parse_request(document)
    assert secret not in str(caught.value)


def test_a_field_name_of_a_megabyte_is_cut() -> None:
    """The location goes into an event that has to fit the broker."""
    with pytest.raises(WrongField) as caught:
        parse_request(with_field(**{"x" * 1_000_000: 1}))
    assert len(caught.value.location) == 512
    assert len(str(caught.value)) < 1024


CREDENTIALS = [
    {"url_pattern": "a", "auth": BEARER},
    {"url_pattern": "b", "auth": {"type": "basic", "username": "u", "password": "p"}},
    {"url_pattern": "c", "auth": {"type": "header", "header_name": "X-Key", "header_value": "v"}},
    {"url_pattern": "d", "auth": {"type": "query", "query_param": "k", "query_value": "v"}},
    {"url_pattern": "e", "auth": {"type": "s3", "access_key_id": "a", "secret_access_key": "s"}},
]
DATASET = {"repo": "u/r", "repo_type": "dataset", "revision": "x", "directory": "d"}

VALID: list[tuple[str, dict[str, Any]]] = [
    ("the least", {"prompt": GRAPH}),
    ("a node without inputs", {"prompt": {"1": {"class_type": "A"}}}),
    ("a workflow", {"workflow": "sd15/txt2img"}),
    ("a workflow with input", {"workflow": "w", "input": {"prompt": "a cat", "n": None}}),
    ("nulls for what is absent", {"prompt": GRAPH, "workflow": None, "s3": None, "id": None}),
    ("an id of 128 characters", with_field(id="a" * 128)),
    ("an id with dash and underscore", with_field(id="A-b_c")),
    ("metadata of 16 KiB", with_field(metadata={"m": "x" * (16 * 1024 - len('{"m":""}'))})),
    ("a whole number as time-out", with_field(timeout_s=600)),
    ("half a second as time-out", with_field(timeout_s=0.5)),
    ("an expiry with offset", with_field(expires_at="2026-01-01T00:00:00.123+05:30")),
    ("an expiry in lower case", with_field(expires_at="2026-01-01t00:00:00z")),
    ("an expiry at the end of time", with_field(expires_at="9999-12-31T23:59:59-23:59")),
    ("s3 with everything", with_field(s3={"bucket": "b", "prefix": "p/", "async": True})),
    ("hf with everything", with_field(hf_upload=DATASET)),
    ("all kinds of credentials", with_field(credentials=CREDENTIALS)),
]


@pytest.mark.parametrize("document", [pytest.param(document, id=name) for name, document in VALID])
def test_a_valid_request_is_taken(document: dict[str, Any]) -> None:
    """What the contract allows parses, also after a byte order mark."""
    assert isinstance(parse_request(load_json(b"\xef\xbb\xbf" + json.dumps(document).encode())), PromptRequest)


def test_what_a_node_holds_besides_passes_unchanged() -> None:
    """Inside a node everything but its class and inputs is the producer's, types and null included."""
    node = {"class_type": "A", "inputs": {"x": ["2", 0], "n": None}, "_meta": {"title": "t"}, "is_changed": [1.5]}
    assert parse_request({"prompt": {"1": node}}).prompt == {"1": node}


def test_a_request_keeps_big_numbers() -> None:
    """A seed of 64 bits and more is the same number afterwards."""
    seed = 2**70 + 1
    request = parse_request(load_json(json.dumps({"workflow": "w", "input": {"seed": seed}}).encode()))
    assert request.input == {"seed": seed}


def test_a_printed_request_shows_no_secret() -> None:
    """Secrets of credentials are masked wherever a request is printed or logged."""
    request = parse_request(auth(type="bearer", token="hunter2"))
    assert "hunter2" not in repr(request)
    assert "hunter2" not in request.model_dump_json()

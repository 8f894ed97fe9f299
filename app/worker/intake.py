"""Read a delivery: which id and replay it is, and the request it carries or why it cannot be one. Pure.

Used by inputs, job, pipeline, worker; may import app.errors, brokers, schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import ValidationError

from app.errors import InvalidRequest, PromptError, Undecodable
from brokers.base import RequestKey, RequestOrigin
from schemas.base import WrongField
from schemas.envelope import attributes, derived_id, open_envelope, traceparent_of, tracestate_of, usable_id
from schemas.prompt import Graph, PromptOptions, PromptRequest, parse_request

__all__ = ["Intake", "read_delivery"]

log = structlog.get_logger("comfybus.intake")

REPLAY = "comfybus-replay"
REPLAYED_ID = "comfybus-id"


@dataclass(frozen=True)
class Intake:
    """What is known of a delivery before anything is done with it.

    Attributes:
        key: Request id and replay number.
        id_was_derived: The request brought no usable id; a replay of it needs the derived one in a header.
        request: The validated request, unless ``refusal`` says why there is none.
        refusal: The failure to answer with.
        echo: Fields of the request that its events give back; what of a refused request is sound.
        prompt: The graph as sent, as far as it is one.
        headers: Trace headers that every event of the prompt carries.
        dataref: Where the request is, when the message only refers to it; then nothing else is known yet.
    """

    key: RequestKey
    id_was_derived: bool
    request: PromptRequest | None = None
    refusal: PromptError | None = None
    echo: Mapping[str, Any] = field(default_factory=dict)
    prompt: Graph | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    dataref: str | None = None


def read_delivery(body: bytes, headers: Mapping[str, str], origin: RequestOrigin) -> Intake:
    """Decode and validate one message; never raises, whatever the message is."""
    try:
        return _read(body, headers, origin)
    except (ValueError, TypeError, RecursionError, MemoryError) as exc:
        key, derived = _key(None, {}, headers, _replay(headers), origin)
        log.exception("message could not be read")
        return Intake(key, derived, refusal=Undecodable(f"the message cannot be read ({type(exc).__name__})"))


def _read(body: bytes, headers: Mapping[str, str], origin: RequestOrigin) -> Intake:
    replay = _replay(headers)
    found = attributes(headers)
    trace = _trace(headers)
    try:
        envelope = open_envelope(body, headers)
    except WrongField as exc:
        key, derived = _key(None, found, headers, replay, origin)
        return Intake(key, derived, refusal=Undecodable(_sentence(exc)), headers=trace)
    if envelope.traceparent:
        trace["traceparent"] = envelope.traceparent
    document = envelope.document
    own = document.get("id") if isinstance(document, dict) else None
    key, derived = _key(own, envelope.attributes, headers, replay, origin)
    if document is None and envelope.dataref:
        return Intake(key, derived, headers=trace, dataref=envelope.dataref)
    try:
        request = _request(document)
    except PromptError as exc:
        echo, prompt = _sound_parts(document)
        return Intake(key, derived, refusal=exc, echo=echo, prompt=prompt, headers=trace)
    return Intake(key, derived, request, echo=_echo(request), prompt=request.prompt, headers=trace)


def _request(document: object) -> PromptRequest:
    if not isinstance(document, dict):
        raise Undecodable("the request is not a JSON object; send an object with `prompt` or `workflow`")
    try:
        return parse_request(document)
    except WrongField as exc:
        raise InvalidRequest(_sentence(exc), location=exc.location or None) from exc


def _sentence(exc: WrongField) -> str:
    where = f"the field `{exc.location}`" if exc.location else "the request"
    return f"{where} cannot be used: {exc.reason}"


def _replay(headers: Mapping[str, str]) -> int:
    """Only a positive whole number makes a replay; anything else is ignored."""
    value = next((value for name, value in headers.items() if name.lower() == REPLAY), "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0


def _key(
    own: object, found: Mapping[str, str], headers: Mapping[str, str], replay: int, origin: RequestOrigin
) -> tuple[RequestKey, bool]:
    if usable_id(own):
        return RequestKey(str(own), replay), False
    if own is None and usable_id(found.get("id")):
        return RequestKey(found["id"], replay), False
    if replay:
        kept = next((value for name, value in headers.items() if name.lower() == REPLAYED_ID), None)
        if usable_id(kept):
            return RequestKey(str(kept), replay), True
    return RequestKey(derived_id(*origin.parts), replay), True


def _trace(headers: Mapping[str, str]) -> dict[str, str]:
    trace = {}
    if parent := traceparent_of(headers):
        trace["traceparent"] = parent
        if state := tracestate_of(headers):
            trace["tracestate"] = state
    return trace


def _echo(request: PromptRequest) -> dict[str, Any]:
    return {name: value for name in PromptOptions.model_fields if (value := getattr(request, name)) is not None}


def _sound_parts(document: object) -> tuple[dict[str, Any], Graph | None]:
    """Of a refused request: the fields that are right by themselves, so that its sender recognises the failure."""
    if not isinstance(document, dict):
        return {}, None
    echo: dict[str, Any] = {}
    for name in PromptOptions.model_fields:
        if document.get(name) is None:
            continue
        try:
            part = PromptOptions.model_validate({name: document[name]})
        except ValidationError:
            continue
        echo[name] = getattr(part, name)
    prompt = document.get("prompt")
    whole = isinstance(prompt, dict) and all(isinstance(node, dict) for node in prompt.values())
    return echo, prompt if whole else None

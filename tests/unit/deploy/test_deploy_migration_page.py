"""The messages of docs/migration.md fit the schemas; the integration suite sends every one of them."""

from __future__ import annotations

import json
import re

import pytest

from schemas.control import parse_command
from schemas.prompt import parse_request
from tests.unit.deploy.deployment import ROOT

PAGE = (ROOT / "docs" / "migration.md").read_text()
BLOCKS = re.findall(r"<!-- (send|command): ([\w-]+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
SEVEN = ["format", "base64", "webhook", "s3", "s3-webhook", "azure", "azure-webhook"]


def test_the_seven_come_first() -> None:
    """In the order of comfyui-api's README, and no message of the page is passed over here."""
    assert [name for kind, name, _ in BLOCKS if kind == "send"][:7] == SEVEN
    assert PAGE.count("```json") == len(BLOCKS)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, _, t in BLOCKS], ids=[name for _, name, _ in BLOCKS])
def test_every_message_can_be_read(kind: str, text: str) -> None:
    """By what the worker reads requests and commands with."""
    document = json.loads(text)
    if kind == "send":
        assert parse_request(document)
    else:
        assert parse_command(document)

"""Commands on the control channel: three types, strict fields."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.base import WrongField
from schemas.control import ModelDownload, PromptCancel, WorkerDrain, parse_command

DOWNLOAD = {"type": "model.download", "url": "https://h/m.safetensors", "model_type": "checkpoints"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"type": "prompt.cancel", "id": "a"}, PromptCancel),
        (DOWNLOAD, ModelDownload),
        ({**DOWNLOAD, "id": "a", "filename": "m.pt", "auth": {"type": "bearer", "token": "t"}}, ModelDownload),
        ({"type": "worker.drain", "worker": "host-1a2b3c"}, WorkerDrain),
    ],
)
def test_a_command_is_known_by_its_type(document: dict[str, Any], expected: type) -> None:
    """The type decides which fields there are."""
    assert isinstance(parse_command(document), expected)


@pytest.mark.parametrize(
    ("document", "location"),
    [
        (None, ""),
        ([], ""),
        ("prompt.cancel", ""),
        ({}, "type"),
        ({"type": "prompt.stop", "id": "a"}, "type"),
        ({"type": 5}, "type"),
        ({"type": "prompt.cancel"}, "id"),
        ({"type": "prompt.cancel", "id": ""}, "id"),
        ({"type": "prompt.cancel", "id": "a/b"}, "id"),
        ({"type": "prompt.cancel", "id": "a", "reason": "r"}, "reason"),
        ({**DOWNLOAD, "url": ""}, "url"),
        ({**DOWNLOAD, "model_type": None}, "model_type"),
        ({**DOWNLOAD, "model_type": "m" * 129}, "model_type"),
        ({**DOWNLOAD, "filename": ""}, "filename"),
        ({**DOWNLOAD, "filename": "f" * 256}, "filename"),
        ({**DOWNLOAD, "auth": {"type": "bearer"}}, "auth.token"),
        ({**DOWNLOAD, "auth": {"type": "s3", "access_key_id": "a"}}, "auth.secret_access_key"),
        ({**DOWNLOAD, "auth": {}}, "auth.type"),
        ({"type": "worker.drain", "worker": ""}, "worker"),
        ({"type": "worker.drain", "id": "a"}, "worker"),
    ],
)
def test_a_malformed_command_names_its_field(document: Any, location: str) -> None:
    """The error's location is the field, without the names of types."""
    with pytest.raises(WrongField) as caught:
        parse_command(document)
    assert caught.value.location == location

"""Any variable may hold anything: the start ends with one short line, and never with a secret in it."""

from __future__ import annotations

import pytest

from app.errors import ConfigurationError
from app.settings import Settings, load_settings

ODD = ["nan", "9" * 5000, "\x1b[2J", "postgres://user:pa55@word@h:99999/"]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_variable_of_rubbish_is_taken_or_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other exception, no line break or escape sequence, no password, and not the whole of a long value."""
    for value in ODD:
        monkeypatch.setenv(name.upper(), value)
        try:
            load_settings()
        except ConfigurationError as exc:
            sentence = str(exc)
            assert sentence.isprintable(), value
            assert "pa55" not in sentence
            assert len(sentence) < 1500

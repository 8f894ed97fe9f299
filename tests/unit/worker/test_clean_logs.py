"""No secret on any line of the log, whoever writes it and whatever stands in an exception."""

from __future__ import annotations

import subprocess
import sys

import pytest

WRITES = """
import logging, sys, structlog
from app.logs import hide_in_logs, set_up_logs
set_up_logs("info", sys.argv[1])
hide_in_logs(["operators-own"])
log = structlog.get_logger("test")
url = "https://user:canary@h/x?X-Amz-Signature=canary&a=canary#canary"
log.info("one", url=url, deep={"a": [url, {"b": "operators-own"}]}, error=ValueError(url))
try:
    raise ValueError(f"cannot open {url} with operators-own")
except ValueError:
    log.exception("two")
    logging.getLogger("library").exception("three %s", url)
log.info("plain", host="h", count=3, path="/a/b?c", nothing=None)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_are_clean(form: str) -> None:
    """Values, nested ones, exceptions with their tracebacks, and lines of libraries; the rest stays as it is."""
    done = subprocess.run([sys.executable, "-c", WRITES, form], capture_output=True, text=True, timeout=60, check=True)
    for word in ("one", "two", "three", "ValueError", "Traceback", "https://h/x"):
        assert word in done.stderr
    assert "/a/b?c" in done.stderr
    assert "canary" not in done.stderr
    assert "operators-own" not in done.stderr

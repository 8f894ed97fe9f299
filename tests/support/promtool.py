"""Prometheus' own checker: found where it is installed, else built once where there is Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

VERSION = "v0.305.0"
PACKAGE = "github.com/prometheus/prometheus/cmd/promtool"
BUILT = Path(__file__).parents[2] / ".services" / f"promtool-{VERSION}"
BUILD_WITHIN_S = 800


def promtool(*, build: bool = False) -> Path:
    """Its path; skips the test where it is not to be had. A build takes minutes."""
    named = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if named:
        return Path(named)
    if BUILT.exists():
        return BUILT
    go = shutil.which("go")
    if go is None:
        pytest.skip("promtool is not on PATH, and there is no Go to build it with")
    if not build:
        pytest.skip("promtool is not on PATH; `make test-full` builds it")
    BUILT.parent.mkdir(exist_ok=True)
    with FileLock(f"{BUILT}.lock"):
        if not BUILT.exists():
            _build(go)
    return BUILT


def _build(go: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "go.mod").write_text("module promtoolbuild\n\ngo 1.24\n")
        for arguments in (("get", f"{PACKAGE}@{VERSION}"), ("build", "-o", "promtool", PACKAGE)):
            try:
                done = subprocess.run(
                    [go, *arguments], cwd=folder, capture_output=True, text=True, timeout=BUILD_WITHIN_S, check=False
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"promtool was not built within {BUILD_WITHIN_S} s; Go goes on from there the next time")
            if done.returncode:
                pytest.skip(f"promtool cannot be built: {done.stderr.strip().splitlines()[-1:]}")
        # Whoever finds it finds it whole.
        shutil.copy2(Path(folder) / "promtool", f"{BUILT}.new")
        Path(f"{BUILT}.new").replace(BUILT)


def run_promtool(program: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run it; exit code and all it says."""
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()

"""What a process has used so far, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.processes import Worker

__all__ = ["cpu_seconds", "peak_mebibytes", "reset_peak"]


def cpu_seconds(worker: Worker) -> float:
    """User and system time of the worker process, in seconds."""
    fields = (_of(worker) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mebibytes(worker: Worker) -> float:
    """The most memory the worker process has had, its resident set, in MiB."""
    for line in (_of(worker) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the peak of a process")


def reset_peak(worker: Worker) -> None:
    """Let the peak count from now on."""
    (_of(worker) / "clear_refs").write_text("5")


def _of(worker: Worker) -> Path:
    assert worker.process is not None
    return Path(f"/proc/{worker.process.pid}")

"""Runs a transfer with the Hub in a process of its own, watches that it moves, and ends it when it does not.

Used by backends, huggingface; may import its folder alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
import anyio.abc
from anyio.streams.text import TextReceiveStream

import app
from app.storage.base import Progress
from app.storage.config import ProxyConfig, Timings
from app.storage.faults import Fault, status_fault
from app.storage.outgoing import Pace
from app.storage.threads import disk

__all__ = ["HubProcess"]

# At once; each had up to 0.75 GB when it moved 768 MiB by Xet (hf_xet 1.8).
_PROCESSES: Final = 2
# The slowest upload that is waited for, in bytes a second, and what it may need besides.
_SLOWEST_UPLOAD: Final = 128 * 1024
_UPLOAD_BESIDES_S: Final = 300.0
# What a child needs of our own environment: where programs and certificates are, and how the operator tunes Xet.
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_INHERITED_PREFIXES: Final = ("HF_XET_", "HF_HUB_DISABLE_XET")


class HubProcess:
    """Starts the children of ``hub_child``.

    Args:
        timings: A child that says nothing for ``stall_s`` is ended.
        proxies: Given to the library by its environment.
    """

    def __init__(self, timings: Timings, proxies: ProxyConfig) -> None:
        self._timings = timings
        self._proxies = proxies
        self._limit = anyio.CapacityLimiter(_PROCESSES)

    async def run(self, job: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Do one job; the child is gone when this returns, also when the caller is cancelled.

        Raises:
            Fault: It was not done.
        """
        async with self._limit:
            home = await disk(TemporaryDirectory, prefix="comfybus-hub-")
            try:
                return await self._run(job, home.name, progress)
            finally:
                with anyio.CancelScope(shield=True):
                    await disk(home.cleanup)

    async def _run(self, job: Mapping[str, Any], home: str, progress: Progress | None) -> dict[str, Any]:
        command = [sys.executable, "-m", "app.storage.hub_child"]
        process = await anyio.open_process(
            command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=self._environment(home), start_new_session=True
        )
        try:
            with anyio.CancelScope() as scope:
                pace = Pace(scope, self._timings)
                if (size := job.get("size")) is not None:
                    scope.deadline = anyio.current_time() + _UPLOAD_BESIDES_S + int(size) / _SLOWEST_UPLOAD
                assert process.stdin is not None  # noqa: S101 - asked for above
                with suppress(anyio.BrokenResourceError):
                    document = {**job, "longest_sleep_s": self._timings.longest_delay_s / 10}
                    await process.stdin.send(json.dumps(document).encode() + b"\n")
                return await _follow(process, pace, progress, is_upload=size is not None)
            raise Fault(f"{pace.reason}; try again later", passing=True)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()

    def _environment(self, home: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
        }
        proxies = {
            "HTTP_PROXY": self._proxies.http,
            "HTTPS_PROXY": self._proxies.https,
            "NO_PROXY": self._proxies.no_proxy,
        }
        return {
            # Unless it is told the library goes by the machine's memory.
            "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT": "256mb",
            **kept,
            **{name: value for name, value in proxies.items() if value},
            "PYTHONPATH": str(Path(app.__file__).parents[1]),
            # Nobody's token, cache or settings but what the job says.
            "HOME": home,
            "HF_HOME": home,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_XET_TELEMETRY_ENABLED": "0",
            "DO_NOT_TRACK": "1",
        }


async def _follow(
    process: anyio.abc.Process, pace: Pace, progress: Progress | None, *, is_upload: bool
) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - asked for where it was started
    rest, moved = "", 0
    async for text in TextReceiveStream(process.stdout):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            message = json.loads(line)
            if "done" in message:
                return dict(message["done"])
            if "fault" in message:
                raise _fault(message["fault"])
            if "at" in message:
                size, total = message["at"]
                pace.moved(max(size - moved, 0))
                moved = size
                if progress is not None:
                    progress(size, total)
            elif not is_upload:
                pace.await_bytes()
    raise Fault("the process of the Hub's library ended by itself; see whether memory was short", passing=True)


def _fault(told: Mapping[str, Any]) -> Fault:
    if "reason" in told:
        return Fault(str(told["reason"]), passing=bool(told["passing"]), status=told["status"])
    return status_fault(int(told["status"]), told["headers"])

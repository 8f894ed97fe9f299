"""What ComfyUI needs around the prompts: waited for, asked for its folders, warmed up after each start, recycled.

Used by readiness, worker; may import app.comfy, app.errors, app.prepare, app.setup.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from app.comfy.client import ComfyClient
from app.comfy.folders import Shared, probe_shared
from app.comfy.outputs import OutputReader
from app.comfy.process import Supervisor
from app.comfy.run import Runs
from app.comfy.watch import Watch
from app.errors import ComfyUnavailable, PromptError
from app.prepare.prepare import Preparer
from app.setup.recycle import Recycling, held_memory_bytes
from app.setup.warmup import WarmUp, warm_up

__all__ = ["Recycler", "Warmth", "find_folders", "until_answers"]

WARM_UP_AGAIN_S = 5.0
LOOK_AT_MEMORY_S = 5.0
COMFY_PAUSE_S = 1.0

log = structlog.get_logger("comfybus.life")


class Warmth:
    """Runs the warm-up prompt when ComfyUI is new, and says whether requests may be taken."""

    def __init__(self, prompt: WarmUp | None, timeout_s: float) -> None:
        self._prompt = prompt
        self._timeout_s = timeout_s
        self._cold = anyio.Event()
        self._cold.set()
        self.warm = False

    def cool(self) -> None:
        """ComfyUI was started anew."""
        self.warm = False
        self._cold.set()

    async def run(self, preparer: Preparer, runs: Runs, reader: OutputReader) -> None:
        """Warm up whenever ComfyUI is cold, until cancelled.

        Raises:
            ConfigurationError: The warm-up prompt itself is wrong.
        """
        while True:
            await self._cold.wait()
            self._cold = anyio.Event()
            await self._warm_up(preparer, runs, reader)

    async def _warm_up(self, preparer: Preparer, runs: Runs, reader: OutputReader) -> None:
        while self._prompt is not None:
            try:
                await warm_up(self._prompt, preparer, runs, reader, timeout_s=self._timeout_s)
            except PromptError:
                await anyio.sleep(WARM_UP_AGAIN_S)
            else:
                break
        self.warm = not self._cold.is_set()


async def until_answers(watch: Watch, client: ComfyClient) -> None:
    """Wait until ComfyUI answers on its websocket and over HTTP."""
    while not (watch.up and await client.alive()):
        log.warning("waiting for ComfyUI", url=client.base_url)
        await anyio.sleep(COMFY_PAUSE_S)


async def find_folders(client: ComfyClient, input_folder: Path | None, output_folder: Path | None) -> Shared:
    """Which of ComfyUI's folders are ours too, asked until it says; the others' files travel over HTTP."""
    while True:
        try:
            shared = await probe_shared(client, input_folder, output_folder)
        except ComfyUnavailable as exc:
            log.warning("folders not probed", reason=str(exc))
            await anyio.sleep(COMFY_PAUSE_S)
        else:
            log.info("folders probed", input_shared=shared.input, output_shared=shared.output)
            return shared


class Recycler:
    """Starts ComfyUI anew when it holds too much memory, between prompts.

    While prompts come without a break nothing would ever be in between: so none is taken as soon as it holds too much,
    and it is started anew when those in hand have ended.

    Args:
        rule: What is too much.
        supervisor: Starts it.
        busy: Whether a prompt is in hand.
        look_s: Pause between two looks.

    Attributes:
        reason: Why no prompt is to be taken now; empty most of the time.
    """

    def __init__(
        self,
        rule: Recycling,
        supervisor: Supervisor,
        busy: Callable[[], bool],
        *,
        look_s: float = LOOK_AT_MEMORY_S,
    ) -> None:
        self._rule = rule
        self._supervisor = supervisor
        self._busy = busy
        self._look_s = look_s
        self.reason = ""

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        seen, since = 0, time.monotonic()
        while self._rule.limit_bytes:
            await anyio.sleep(self._look_s)
            if self._supervisor.starts != seen:
                seen, since = self._supervisor.starts, time.monotonic()
            if not self._supervisor.up or self._supervisor.pid is None:
                self.reason = ""
                continue
            held = await anyio.to_thread.run_sync(held_memory_bytes, self._supervisor.pid)
            reason = self._rule.reason(held, up_for_s=time.monotonic() - since) or ""
            if reason and not self.reason:
                log.info("ComfyUI is to be recycled, no further prompt is taken", reason=reason)
            self.reason = reason
            if reason and not self._busy():
                log.info("ComfyUI is recycled", reason=reason)
                await self._supervisor.restart(reason, seen_start=seen)
                self.reason = ""

"""Launches ComfyUI and watches over it: one start at a time, started again after every end, never left behind.

Used by app.worker.life, app.worker.readiness, app.worker.worker; may import app.errors, app.storage.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio
import structlog

from app.comfy.child_environment import child_environment
from app.comfy.guard import KILL_WITHIN_S
from app.comfy.guarded import Guarded, LaunchFailed, guarded
from app.comfy.listeners import listener_at
from app.comfy.process_config import ComfyEnded, ComfyPortTaken, ComfyStartFailed, ProcessConfig
from app.comfy.signs_of_life import End, SignsOfLife
from app.errors import ComfybusError
from app.storage.secrets import Scrubber

__all__ = ["ComfyEnded", "ComfyPortTaken", "ComfyStartFailed", "ProcessConfig", "Supervisor"]

_RESTART_MARGIN_S: Final = 15.0

_log = structlog.get_logger("comfybus.process")
_comfyui = structlog.get_logger("comfyui")
_scrubber = Scrubber()
_T = TypeVar("_T")


class _Life:
    """One launch of ComfyUI, until it and all it started have ended."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.up_since_s: float | None = None
        self.asked = anyio.Event()
        self.reason = ""
        self.over = anyio.Event()

    @property
    def up_for_s(self) -> float:
        return 0.0 if self.up_since_s is None else time.monotonic() - self.up_since_s

    def ask_to_end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.asked.set()


class Supervisor:
    """Keeps one ComfyUI running while ``run`` runs.

    There is one sequence of starts, in one task: a crash during a start ends that start before the next one begins. A
    port that somebody else listens at is waited for. Whatever happens to this process, SIGKILL included, ComfyUI and
    what it has started end with it (``guard`` says how).

    Args:
        config: What to launch and how patiently.
        answers: Asks ComfyUI for a sign of life; must not raise. A try has a deadline of its own.
        on_start: Called when ComfyUI has come up, every time: the moment for a warm-up. Must return at once.
        on_exit: Called with a sentence when a ComfyUI has ended, on request too, but not when ``run`` is cancelled.
            Must return at once.

    Attributes:
        up: It runs, has answered since its launch, and nobody else is seen to listen in its place.
        starts: How often it was launched.
        pid: Its process id while it runs.
        last_exit: How it last ended, a sentence; None if it never did.
        trouble: Why it is not up, a sentence; None while it is.
    """

    def __init__(
        self,
        config: ProcessConfig,
        answers: Callable[[], Awaitable[bool]],
        *,
        on_start: Callable[[], None] | None = None,
        on_exit: Callable[[str], None] | None = None,
    ) -> None:
        self._config = config
        self._signs = SignsOfLife(config, answers)
        self._on_start = on_start
        self._on_exit = on_exit
        self._life: _Life | None = None
        self.up = False
        self.starts = 0
        self.pid: int | None = None
        self.last_exit: str | None = None
        self.trouble: str | None = "ComfyUI has not been started yet"

    async def run(self) -> None:
        """Launch ComfyUI, and again after every end, until cancelled; then end it, within its grace and about 10 s.

        Raises:
            ComfyStartFailed: CMD cannot be launched at the first start; or, without ``always_restart``, ComfyUI did
                not come up.
            ComfyPortTaken: Without ``always_restart``: somebody else keeps the port.
            ComfyEnded: Without ``always_restart``: it ended by itself, with any exit code.
        """
        failures = 0
        try:
            while True:
                await self._until_the_port_is_free()
                life = _Life()
                end = await self._live(life)
                if end.error is not None and not self._config.always_restart:
                    raise end.error(end.sentence)
                failures = self._config.failures_after(failures, up_for_s=life.up_for_s, asked=end.error is None)
                pause_s = self._config.pause_s(failures)
                _log.info("ComfyUI is started again", pause_s=round(pause_s, 2), failures=failures)
                await anyio.sleep(pause_s)
        except ComfybusError as exc:
            self.trouble = str(exc)
            raise

    async def restart(self, reason: str, *, seen_start: int | None = None) -> None:
        """End the ComfyUI that is up, so that a new one is started; returns when it has ended.

        Does nothing while none is up: the next one is a new one anyway. Calls at the same time are one restart.

        Args:
            reason: For the log and ``last_exit``.
            seen_start: ``starts`` when the caller saw the fault; a ComfyUI launched later is left alone.
        """
        life = self._life
        if life is None or life.up_since_s is None or seen_start not in (None, self.starts):
            _log.info("restart not needed any more", reason=reason, starts=self.starts)
            return
        life.ask_to_end(reason)
        with anyio.move_on_after(self._config.stop_grace_s + KILL_WITHIN_S + _RESTART_MARGIN_S):
            await life.over.wait()

    # --- one life

    async def _until_the_port_is_free(self) -> None:
        """Wait for somebody else at the port to go: an orphan that is being ended, or a program of its own right.

        Raises:
            ComfyPortTaken: Without ``always_restart``, after as many tries as a start has.
        """
        config, tries = self._config, 0
        named: set[int | None] = set()
        while (listener := await listener_at(config.host, config.port)) is not None:
            self.trouble = (
                f"port {config.port} of {config.host}, where ComfyUI is to listen, is taken by {listener}; "
                "end that, or give ComfyUI another port by COMFYUI_PORT_HOST and CMD"
            )
            if not named or listener.pid not in {*named, None}:
                named.add(listener.pid)
                _log.error("ComfyUI waits for its port", reason=self.trouble)
            tries += 1
            if tries >= config.check_max_tries and not config.always_restart:
                raise ComfyPortTaken(self.trouble)
            await anyio.sleep(config.check_interval_s)

    async def _live(self, life: _Life) -> End:
        config = self._config
        self._life = life
        self.starts += 1
        self.trouble = "ComfyUI is starting"
        _log.info("ComfyUI starts", program=config.argv[0], url=config.url, start=self.starts)
        try:
            async with guarded(
                config.argv,
                cwd=config.home,
                environment=child_environment(
                    config.environment, host=config.host, port=config.port, passed_on=config.passed_on
                ),
                grace_s=config.stop_grace_s,
                on_line=_pass_on,
            ) as child:
                self.pid = child.pid
                end = await _first_of(
                    partial(self._exited, child, life),
                    partial(self._asked, life),
                    partial(self._watched, child, life),
                )
                self._went_down(end.sentence)
        except LaunchFailed as exc:
            end = self._not_launched(exc)
        finally:
            self._went_down("the supervision of ComfyUI has ended" if self.up else None)
            self.pid = None
            self._life = None
            life.over.set()
        self.last_exit = end.sentence
        if self._on_exit is not None:
            _call_hook(partial(self._on_exit, end.sentence))
        return end

    def _not_launched(self, failure: LaunchFailed) -> End:
        """A launch that failed; at the first one it is CMD that is wrong, later it was right before.

        Raises:
            ComfyStartFailed: It was the first.
        """
        sentence = (
            f"CMD={self._config.command!r} cannot be launched in {self._config.home or 'the working folder'}: {failure}"
            "; it needs a program on PATH and runs without a shell (variables and && need sh -c '…')"
        )
        if self.starts == 1:
            raise ComfyStartFailed(sentence) from failure
        _log.error("ComfyUI cannot be launched", reason=sentence)
        self._went_down(sentence)
        return End(sentence, ComfyStartFailed)

    async def _exited(self, child: Guarded, life: _Life) -> End:
        how = await child.exited()
        after_s = time.monotonic() - life.began_s
        when = ", before it answered" if life.up_since_s is None else ""
        cure = "its last lines in the log say why"
        if how.code == 0:
            cure = "CMD has to stay in the foreground as long as ComfyUI runs"
        elif how.code == -signal.SIGKILL:
            cure = "if nobody did that, memory was short: see the kernel's log"
        sentence = f"ComfyUI {how} after {after_s:.1f} s{when}; {cure}"
        _log.error("ComfyUI has ended", reason=sentence, pid=child.pid)
        return End(sentence, ComfyStartFailed if life.up_since_s is None else ComfyEnded)

    async def _asked(self, life: _Life) -> End:
        await life.asked.wait()
        _log.warning("ComfyUI is ended to be started anew", reason=life.reason, pid=self.pid)
        return End(f"ComfyUI was ended to be started anew: {life.reason}", None)

    async def _watched(self, child: Guarded, life: _Life) -> End:
        """Wait until it answers, then for as long as it does."""
        if (unfit := await self._signs.until_it_answers(child.guard_pid)) is not None:
            _log.error("ComfyUI did not come up", reason=unfit.sentence, pid=child.pid)
            return unfit
        life.up_since_s = time.monotonic()
        _log.info("ComfyUI is up", pid=child.pid, start=self.starts, after_s=round(life.up_since_s - life.began_s, 2))
        self.up = True
        self.trouble = None
        if self._on_start is not None:
            _call_hook(self._on_start)
        silent = await self._signs.until_it_is_silent()
        _log.error("ComfyUI hangs", reason=silent.sentence, pid=child.pid)
        return silent

    def _went_down(self, trouble: str | None) -> None:
        self.trouble = trouble or self.trouble
        self.up = False


async def _first_of(*waits: Callable[[], Awaitable[_T]]) -> _T:
    """The result of whichever is there first; the others are cancelled."""
    results: list[_T] = []
    async with anyio.create_task_group() as tasks:

        async def wait_for(wait: Callable[[], Awaitable[_T]]) -> None:
            results.append(await wait())
            tasks.cancel_scope.cancel()

        for wait in waits:
            tasks.start_soon(wait_for, wait)
    return results[0]


def _pass_on(line: str) -> None:
    """Log a line of ComfyUI's output, without the signatures and user infos of URLs in it."""
    _comfyui.info("ComfyUI says", line=_scrubber.text(line))


def _call_hook(hook: Callable[[], None]) -> None:
    """Call a hook; its own fault must not end the supervision."""
    try:
        hook()
    except Exception:  # noqa: BLE001 - a hook's own fault, logged with its traceback
        _log.exception("hook of the supervision failed")

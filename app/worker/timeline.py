"""Where a prompt's time went: its stages one behind the other without a gap, and the nodes of its run. Pure.

Used by measure, app.tracing.prompts; may import app.comfy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from app.comfy.ends import Failed, Interrupted, Succeeded
from app.comfy.followed import Followed
from app.worker.job import Times

__all__ = ["NodeRun", "Stage", "node_runs", "stages"]

PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one delivery.

    Attributes:
        name: ``claim``, ``prepare``, ``comfyui_queue``, ``run``, ``collect``, ``store``, ``publish``, in this order; or
            ``adopt`` in the place of the middle ones, when an earlier delivery had it run.
        begin_s: On the monotonic clock.
        end_s: The same; where the next one begins.
        ended_early: It did not get to its own end: it failed, or was stopped.
    """

    name: str
    begin_s: float
    end_s: float
    ended_early: bool = False


@dataclass(frozen=True, slots=True)
class NodeRun:
    """ComfyUI at work on one node of the graph; times in milliseconds since 1970 by our clock."""

    node_id: str
    class_type: str | None
    begin_ms: int
    end_ms: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0, self.end_ms - self.begin_ms) / 1000


def stages(times: Times, followed: Followed | None, now_s: float) -> list[Stage]:
    """All stages from the broker's delivery to ``times.answered``, or to ``now_s`` when there was no answer.

    A stage that was not reached is missing; the one in which the work ended has ``ended_early``.
    """
    began_s, ended_s = _run(times, followed)
    run = "run" if followed is not None or times.prepared else "adopt"
    moments = (
        ("claim", times.picked_up),
        ("prepare", times.prepared),
        ("comfyui_queue", began_s),
        (run, ended_s),
        ("collect", times.collected),
        ("store", times.delivered),
    )
    found: list[Stage] = []
    at_s, following = times.received or times.picked_up, "claim"
    for number, (name, moment_s) in enumerate(moments):
        if moment_s:
            found.append(Stage(name, at_s, max(moment_s, at_s)))
            at_s = found[-1].end_s
            following = moments[number + 1][0] if number + 1 < len(moments) else PUBLISH
    failed_s = times.answering or now_s
    if following != PUBLISH and failed_s > at_s:
        found.append(Stage(following, at_s, failed_s, ended_early=True))
        at_s = failed_s
    if times.answering:
        found.append(Stage(PUBLISH, at_s, max(times.answered or now_s, at_s), ended_early=not times.answered))
    return found


def node_runs(followed: Followed) -> Iterator[NodeRun]:
    """The nodes in the order in which ComfyUI turned to them, each until the next one or the end."""
    visits = followed.visits
    if not visits:
        return
    ended_s = time.monotonic() if followed.ended_s is None else followed.ended_s
    ended_ms = int((ended_s + time.time() - time.monotonic()) * 1000)
    ends = [begin_ms for _, begin_ms in visits[1:]]
    for (node_id, begin_ms), end_ms in zip(visits, [*ends, ended_ms], strict=True):
        yield NodeRun(node_id, followed.class_of(node_id), begin_ms, max(begin_ms, end_ms))


def _run(times: Times, followed: Followed | None) -> tuple[float, float]:
    """When it began and ended in ComfyUI, 0 for what did not happen."""
    if followed is None:
        return 0.0, times.ended
    ended_s = times.ended or followed.ended_s or 0.0
    began_s = followed.began_s or 0.0
    end = followed.end
    if not began_s and isinstance(end, Succeeded | Failed | Interrupted):
        # Nothing was heard of its run; the history knows how long it took.
        entry = end.entry
        if entry.start_ms is not None and entry.end_ms is not None:
            began_s = ended_s - max(0, entry.end_ms - entry.start_ms) / 1000
    return began_s, ended_s if began_s else 0.0

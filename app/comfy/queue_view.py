"""ComfyUI's queue at one moment, read the cheaper of two ways.

Used by client; may import its folder alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.comfy.transport import Transport

__all__ = ["NOT_THERE", "QueueReader", "QueueView"]

_BULKY_BYTES: Final = 1024 * 1024
_BULKY_JOBS: Final = 200
# How versions without a jobs API answer to it: the folder of the front end takes no POST.
NOT_THERE: Final = frozenset({404, 405, 501})


@dataclass(frozen=True)
class QueueView:
    """ComfyUI's queue at one moment.

    Attributes:
        running: Ids of what runs, one at most in today's ComfyUI.
        pending: Ids of what waits, in no particular order.
        size_bytes: What it took to find out.
    """

    running: tuple[str, ...]
    pending: tuple[str, ...]
    size_bytes: int = 0


class QueueReader:
    """Reads the queue.

    ``/queue`` carries every graph: 8 MB for 2,000 small ones, a third of a second for ComfyUI and us. When it gets
    bulky and this ComfyUI has a jobs API, the next looks use that: the same ids without the graphs, in 20 ms.

    Args:
        transport: The way to ComfyUI.
        deadline_s: For one look.
    """

    def __init__(self, transport: Transport, *, deadline_s: float) -> None:
        self._transport = transport
        self._deadline_s = deadline_s
        self._is_bulky = False
        self._lists_jobs = True  # until ComfyUI says that it cannot

    async def read(self) -> QueueView:
        """Look at the queue.

        Raises:
            ComfyUnavailable: No usable answer.
        """
        if self._is_bulky and self._lists_jobs:
            view = await self._job_list()
            if view is not None:
                return view
        answer = (await self._transport.call("GET", "/queue", deadline_s=self._deadline_s)).expect_ok()
        size_bytes = len(answer.body)
        self._is_bulky = size_bytes > _BULKY_BYTES
        match answer.json():
            case {"queue_running": list(running), "queue_pending": list(pending)}:
                return QueueView(_ids(running), _ids(pending), size_bytes)
            case _:
                raise answer.unusable()

    async def _job_list(self) -> QueueView | None:
        """The queue by the jobs API; None where that is missing, gives a part only, or breaks on an odd prompt."""
        answer = await self._transport.call(
            "GET", "/api/jobs", deadline_s=self._deadline_s, params={"status": "pending,in_progress"}
        )
        document = answer.object()
        jobs, pages = document.get("jobs"), document.get("pagination")
        self._lists_jobs = answer.status not in NOT_THERE
        if answer.status != 200 or not isinstance(jobs, list) or (isinstance(pages, dict) and pages.get("has_more")):
            return None
        self._is_bulky = len(jobs) > _BULKY_JOBS
        found = [(job["id"], job.get("status")) for job in jobs if isinstance(job, dict) and "id" in job]
        return QueueView(
            running=tuple(job_id for job_id, status in found if status == "in_progress"),
            pending=tuple(job_id for job_id, status in found if status != "in_progress"),
            size_bytes=len(answer.body),
        )


def _ids(items: list[Any]) -> tuple[str, ...]:
    return tuple(item[1] for item in items if isinstance(item, list) and len(item) > 1 and isinstance(item[1], str))

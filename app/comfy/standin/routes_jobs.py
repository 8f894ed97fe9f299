"""The jobs API that newer ComfyUI has: one view of all prompts, and a cancel that cannot hit the wrong one.

Used by server; may import its folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from app.comfy.standin.engine import ENGINE, Engine
from app.comfy.standin.jobs import STATUSES, all_jobs, one_job
from app.comfy.standin.node_types import JsonObject
from app.comfy.standin.prompt_ids import is_canonical

routes = web.RouteTableDef()


class _BadQueryError(ValueError):
    """A part of the query that the API refuses with 400."""


@routes.get("/api/jobs")
async def list_jobs(request: web.Request) -> web.Response:
    """Answer jobs, filtered by ``status`` and ``workflow_id``, sorted and cut as the query says."""
    query = request.rel_url.query
    try:
        wanted = _statuses(query)
        jobs = [
            job
            for job in all_jobs(request.app[ENGINE].queue)
            if job["status"] in wanted
            and ("workflow_id" not in query or job.get("workflow_id") == query["workflow_id"])
        ]
        _sort(jobs, query)
        limit = _whole_number(query, "limit")
        offset = max(_whole_number(query, "offset") or 0, 0)
    except _BadQueryError as failure:
        return web.json_response({"error": str(failure)}, status=400)
    part = jobs[offset:] if limit is None else jobs[offset : offset + limit]
    more = offset + len(part) < len(jobs)
    pagination = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": more}
    return web.json_response({"jobs": part, "pagination": pagination})


@routes.get("/api/jobs/{job_id}")
async def show_job(request: web.Request) -> web.Response:
    """Answer one job, 404 for an unknown id."""
    job = one_job(request.app[ENGINE].queue, request.match_info["job_id"])
    return web.json_response({"error": "Job not found"}, status=404) if job is None else web.json_response(job)


@routes.post("/api/jobs/{job_id}/cancel")
async def cancel_one(request: web.Request) -> web.Response:
    """Cancel one job, running or waiting; ended and unknown ones are no error."""
    return web.json_response({"cancelled": _cancel(request.app[ENGINE], request.match_info["job_id"])})


@routes.post("/api/jobs/cancel")
async def cancel_several(request: web.Request) -> web.Response:
    """Cancel the jobs in ``job_ids``; answers whether any of them was running or waiting."""
    try:
        body: Any = await request.json()
    except json.JSONDecodeError:
        return web.json_response({"error": "Request body must be valid JSON"}, status=400)
    ids = body.get("job_ids") if isinstance(body, dict) else None
    if not isinstance(ids, list):
        return web.json_response({"error": "job_ids must be a list"}, status=400)
    invalid = [each if isinstance(each, str) else repr(each) for each in ids if not is_canonical(each)]
    if invalid:
        return web.json_response({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}, status=400)
    cancelled = [_cancel(request.app[ENGINE], each) for each in ids]
    return web.json_response({"cancelled": any(cancelled)})


def _cancel(engine: Engine, job_id: str) -> bool:
    return engine.queue.while_running(job_id, engine.interruption.ask) or engine.queue.delete(job_id)


def _statuses(query: Mapping[str, str]) -> list[str]:
    asked = [part.strip().lower() for part in query.get("status", "").split(",") if part.strip()]
    unknown = [part for part in asked if part not in STATUSES]
    if unknown:
        raise _BadQueryError(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}")
    return asked or STATUSES


def _sort(jobs: list[JsonObject], query: Mapping[str, str]) -> None:
    by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if by not in ("created_at", "execution_duration"):
        raise _BadQueryError("sort_by must be 'created_at' or 'execution_duration'")
    if order not in ("asc", "desc"):
        raise _BadQueryError("sort_order must be 'asc' or 'desc'")
    jobs.sort(key=_duration if by == "execution_duration" else _created, reverse=order == "desc")


def _created(job: JsonObject) -> int:
    return int(job.get("create_time", 0))


def _duration(job: JsonObject) -> int:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return int(end - start) if start and end else 0


def _whole_number(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        number = int(query[name])
    except ValueError as failure:
        raise _BadQueryError(f"{name} must be an integer") from failure
    if name == "limit" and number <= 0:
        raise _BadQueryError("limit must be a positive integer")
    return number

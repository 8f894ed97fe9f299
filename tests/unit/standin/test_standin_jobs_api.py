"""The rules and the jobs API of newer ComfyUI."""

from __future__ import annotations

import uuid

import pytest
from standin_client import Client, empty_image, node, saved

pytestmark = pytest.mark.anyio

SLOW = {
    "1": empty_image(),
    "2": node("SlowProgress", image=["1", 0], steps=1000, seconds=30.0),
    "3": node("PreviewAny", source=["2", 0]),
}


CANONICAL = uuid.UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")


@pytest.mark.parametrize("prompt_id", ["plain-id", "", 5, str(CANONICAL).upper(), CANONICAL.hex, "x" * 36])
async def test_only_canonical_uuids_are_prompt_ids(prompt_id: object, new_client: Client) -> None:
    """Anything but a lower-case UUID with hyphens is refused; null counts as absent."""
    answer = await new_client.post("/prompt", {"prompt": saved(), "prompt_id": prompt_id}, 400)
    assert answer["error"]["type"] == "invalid_prompt_id"
    made = await new_client.queue(saved(), prompt_id=None)
    assert str(uuid.UUID(made)) == made


async def test_a_finished_job_tells_its_outputs_and_times(new_client: Client) -> None:
    """A job that ended well has its outputs, its times, a picture to show and its graph."""
    prompt_id = str(uuid.uuid4())
    graph = saved()
    await new_client.run(graph, prompt_id=prompt_id, extra_data={"extra_pnginfo": {"workflow": {"id": "wf"}}})
    job = await new_client.get(f"/api/jobs/{prompt_id}")
    assert job["status"] == "completed"
    assert job["create_time"] <= job["execution_start_time"] <= job["execution_end_time"]
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (1, 1)
    file = {"filename": "t_00001_.png", "subfolder": "", "type": "output"}
    assert job["preview_output"] == {**file, "nodeId": "2", "mediaType": "images"}
    assert job["outputs"] == {"2": {"images": [file]}}
    assert job["execution_status"]["completed"] is True
    assert job["workflow"]["prompt"] == graph
    assert job["workflow_id"] == "wf"


async def test_a_text_is_shown_but_does_not_count(new_client: Client) -> None:
    """A job whose only output is text counts no outputs and shows the text."""
    prompt_id = str(uuid.uuid4())
    await new_client.run({"1": node("PreviewAny", source="x" * 2000)}, prompt_id=prompt_id)
    job = await new_client.get(f"/api/jobs/{prompt_id}")
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (0, 0)
    assert job["preview_output"] == {"content": "x" * 1024, "truncated": True, "nodeId": "1", "mediaType": "text"}


async def test_a_failed_job_has_its_error_and_what_was_saved(new_client: Client) -> None:
    """A failed job tells the failing node and keeps the outputs saved before."""
    prompt_id = str(uuid.uuid4())
    graph = saved() | {"3": node("FailingNode", image=["1", 0]), "4": node("PreviewAny", source=["3", 0])}
    await new_client.run(graph, prompt_id=prompt_id)
    job = await new_client.get(f"/api/jobs/{prompt_id}")
    assert job["status"] == "failed"
    assert job["execution_error"]["node_id"] == "3"
    assert job["outputs_count"] == 1


async def test_running_and_waiting_jobs_can_be_cancelled(new_client: Client) -> None:
    """A cancelled waiting job is unknown afterwards, a cancelled running one ends as cancelled."""
    first, second, third = (str(uuid.uuid4()) for _ in range(3))
    for prompt_id in (first, second, third):
        await new_client.queue(SLOW, prompt_id=prompt_id)
    await new_client.until(f"/api/jobs/{first}", lambda job: job["status"] == "in_progress")
    await new_client.until("/standin/stats", lambda stats: stats["total"]["begun"] == 1)
    waiting = await new_client.get(f"/api/jobs/{second}")
    assert set(waiting) == {"id", "status", "priority", "create_time", "outputs_count", "previewable_outputs_count"}
    assert await new_client.post(f"/api/jobs/{second}/cancel", {}) == {"cancelled": True}
    assert await new_client.get(f"/api/jobs/{second}", 404) == {"error": "Job not found"}
    assert await new_client.post("/api/jobs/cancel", {"job_ids": [third, first]}) == {"cancelled": True}
    job = await new_client.until(f"/api/jobs/{first}", lambda job: job["status"] != "in_progress")
    assert job["status"] == "cancelled"
    assert job["execution_status"]["status_str"] == "error"
    assert await new_client.post(f"/api/jobs/{first}/cancel", {}) == {"cancelled": False}


async def test_cancelling_the_unknown_is_no_error(new_client: Client) -> None:
    """Unknown ids are answered with false, ids of the wrong form with 400 in a batch only."""
    assert await new_client.post("/api/jobs/not-a-uuid/cancel", {}) == {"cancelled": False}
    assert await new_client.post("/api/jobs/cancel", {"job_ids": []}) == {"cancelled": False}
    answer = await new_client.post("/api/jobs/cancel", {"job_ids": ["x", 5]}, 400)
    assert answer == {"error": "job_ids contains invalid id(s)", "invalid_ids": ["x", "5"]}
    assert await new_client.post("/api/jobs/cancel", {}, 400) == {"error": "job_ids must be a list"}


async def test_jobs_are_listed_newest_first(new_client: Client) -> None:
    """The list can be filtered, sorted, and cut, and says how much there is."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for prompt_id in ids:
        await new_client.run(saved(), prompt_id=prompt_id)
    listed = await new_client.get("/api/jobs?sort_order=asc&limit=2&status=completed")
    assert [job["status"] for job in listed["jobs"]] == ["completed"] * 2
    assert listed["pagination"] == {"offset": 0, "limit": 2, "total": 3, "has_more": True}
    assert all("outputs" not in job and "workflow" not in job for job in listed["jobs"])
    assert (await new_client.get("/api/jobs?status=pending,in_progress"))["jobs"] == []


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("status=bogus", "Invalid status value(s): bogus. Valid values: "),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
        ("sort_by=x", "sort_by must be"),
        ("sort_order=x", "sort_order must be"),
    ],
)
async def test_bad_queries_are_refused(query: str, error: str, new_client: Client) -> None:
    """Wrong parameters of the list are answered with 400 and the reason."""
    assert (await new_client.get(f"/api/jobs?{query}", 400))["error"].startswith(error)


async def test_unknown_nodes_have_an_error_of_their_own(new_client: Client) -> None:
    """Newer releases name the node that is missing, by its title if it has one."""
    broken = {"class_type": "Nope", "inputs": {}, "_meta": {"title": "My node"}}
    answer = await new_client.post("/prompt", {"prompt": {"1": broken}}, 400)
    assert answer["error"]["type"] == "missing_node_type"
    assert answer["error"]["extra_info"] == {"node_id": "1", "class_type": "Nope", "node_title": "My node"}
    answer = await new_client.post("/prompt", {"prompt": {"1": {"inputs": {}}}}, 400)
    assert answer["error"]["type"] == "missing_node_type"
    assert answer["error"]["message"].startswith("Node 'ID #1' has no class_type.")


async def test_the_older_version_has_no_jobs_api(client: Client) -> None:
    """0.3.64 answers 404 to GET and 405 to POST."""
    await client.get("/api/jobs", 404)
    await client.post("/api/jobs/cancel", {"job_ids": []}, 405)

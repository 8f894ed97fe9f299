"""The fault switches and the counts, which tests of other parts rely on."""

from __future__ import annotations

import asyncio
import json
import uuid

import aiohttp
import pytest
from standin_client import Client, empty_image, node, saved

pytestmark = pytest.mark.anyio


async def _listen(client: Client, name: str = "c") -> aiohttp.ClientWebSocketResponse:
    listening = await client.session.ws_connect(f"{client.standin.url}/ws?clientId={name}")
    assert (await listening.receive_json(timeout=5))["type"] == "status"
    return listening


async def _hears_a_prompt(client: Client, listening: aiohttp.ClientWebSocketResponse) -> bool:
    """Run a prompt for the listener and tell whether it heard of its end before the next answer to a ping."""
    await client.run(saved(), client_id="c")
    heard = []
    try:
        async with asyncio.timeout(0.3):
            while "execution_success" not in heard:
                heard.append((await listening.receive_json())["type"])
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("switch", ["silent", "frozen"])
async def test_a_silent_socket_stays_open_and_hears_nothing(switch: str, client: Client) -> None:
    """No messages go out while the switch is on, to no socket; afterwards they do again."""
    listening = await _listen(client)
    await client.faults(socket=switch)
    assert not await _hears_a_prompt(client, listening)
    assert not listening.closed
    await client.faults(socket="ok")
    again = await _listen(client)
    await client.post("/queue", {"clear": True})
    assert (await again.receive_json(timeout=5))["type"] == "status"


async def test_only_a_frozen_socket_leaves_pings_unanswered(client: Client) -> None:
    """A client with a heartbeat notices a frozen socket, not a silent one."""
    for switch, noticed in (("silent", False), ("frozen", True)):
        await client.faults(socket="ok")
        listening = await client.session.ws_connect(f"{client.standin.url}/ws", heartbeat=0.1)
        await listening.receive(5)
        await client.faults(socket=switch)
        try:
            # Not receive(0.6): every pong starts its time anew.
            message = await asyncio.wait_for(listening.receive(), 0.6)
            closed = message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        except TimeoutError:
            closed = False
        assert closed is noticed
        await listening.close()


async def test_deaf_hits_the_sockets_that_are_open_now(client: Client) -> None:
    """Sockets open at the switch never hear again; one opened later does, without switching back."""
    deaf = await _listen(client)
    await client.faults(socket="deaf")
    assert not await _hears_a_prompt(client, deaf)
    assert await _hears_a_prompt(client, await _listen(client))


async def test_closed_breaks_all_sockets_off(client: Client) -> None:
    """Open sockets end with close code 1006; new ones work."""
    listening = await _listen(client)
    await client.faults(socket="closed")
    assert (await listening.receive(5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert listening.close_code == 1006
    await _listen(client)


async def test_refused_requests_are_not_carried_out(client: Client) -> None:
    """A refused POST /prompt leaves no trace; the switch wears off after the number of requests given."""
    await client.faults(http="refuse", http_paths=["/prompt"], http_times=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.queue(saved())
    assert (await client.get("/history")) == {}
    await client.run(saved())


async def test_a_lost_answer_still_runs_the_prompt(client: Client) -> None:
    """The connection breaks off after the prompt was taken: it runs, once."""
    prompt_id = str(uuid.uuid4())
    await client.faults(http="lose_answer", http_paths=["/prompt"], http_times=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.queue(saved(), prompt_id=prompt_id)
    await client.until(f"/history/{prompt_id}", bool)
    assert await client.begun(prompt_id) == 1


async def test_an_error_answer_is_comfyuis_500(client: Client) -> None:
    """The switch ``error`` answers as an unhandled exception would."""
    await client.faults(http="error", http_paths=["/queue"])
    assert (await client.get("/queue", 500)).startswith(b"500 Internal Server Error")
    await client.get("/prompt")


async def test_a_hanging_request_goes_on_when_the_switch_moves(client: Client) -> None:
    """Nothing is answered while ``hang`` is on; the request is answered afterwards."""
    await client.faults(http="hang")
    asked = asyncio.create_task(client.get("/queue"))
    done, _ = await asyncio.wait({asked}, timeout=0.1)
    assert not done
    await client.session.delete(f"{client.standin.url}/standin/faults")
    assert (await asyncio.wait_for(asked, 5)) == {"queue_running": [], "queue_pending": []}


async def test_a_dead_thread_takes_prompts_and_runs_none(client: Client) -> None:
    """HTTP goes on, prompts stay pending for ever, and the counts say that the thread is dead."""
    await client.faults(execution_thread="dead")
    await client.until("/standin/stats", lambda stats: not stats["execution_thread_alive"])
    prompt_id = await client.queue(saved())
    assert (await client.get("/queue"))["queue_pending"][0][1] == prompt_id
    assert await client.begun(prompt_id) == 0


async def test_a_stalled_thread_goes_on_later(client: Client) -> None:
    """Prompts wait while the thread is stalled and run when it is not any more."""
    await client.faults(execution_thread="stalled")
    prompt_id = await client.queue(saved())
    assert (await client.get("/prompt"))["exec_info"]["queue_remaining"] == 1
    await client.faults(execution_thread="ok")
    await client.until(f"/history/{prompt_id}", bool)


async def test_dropped_history_is_gone_and_stays_away(client: Client) -> None:
    """Entries vanish and no new ones come while the switch is on, though prompts run."""
    await client.run(saved(1))
    await client.faults(drop_history=True)
    assert await client.get("/history") == {}
    prompt_id = await client.queue(saved(2))
    await client.until("/standin/stats", lambda stats: stats["executions"].get(prompt_id, {}).get("ended") == 1)
    await client.until("/prompt", lambda state: state["exec_info"]["queue_remaining"] == 0)
    assert await client.get("/history") == {}


async def test_an_interrupt_before_the_start_is_lost(client: Client) -> None:
    """Between leaving the queue and starting, a prompt is shown as running, and an interrupt has no effect."""
    await client.faults(start_lag_s=0.2)
    prompt_id = await client.queue(saved())
    await client.until("/queue", lambda queue: bool(queue["queue_running"]))
    await client.post("/interrupt", {"prompt_id": prompt_id})
    entry = (await client.until(f"/history/{prompt_id}", bool))[prompt_id]
    assert entry["status"]["completed"] is True


async def test_the_history_entry_can_be_made_late(client: Client) -> None:
    """With a lag the client hears of the success while there is no entry yet, and of the end when there is."""
    listening = await _listen(client)
    await client.faults(history_lag_s=0.2)
    prompt_id = await client.queue(saved(), client_id="c")
    while (await listening.receive_json(timeout=5))["type"] != "execution_success":
        pass
    assert await client.get(f"/history/{prompt_id}") == {}
    while (await listening.receive_json(timeout=5))["type"] != "executing":
        pass
    assert prompt_id in await client.get(f"/history/{prompt_id}")


async def test_latency_delays_every_answer(client: Client) -> None:
    """A request takes at least the time set."""
    await client.faults(latency_s=0.15)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await client.get("/queue")
    assert loop.time() - before >= 0.15


@pytest.mark.parametrize("switches", [{"socket": "loud"}, {"nonsense": 1}, {"latency_s": -1}, {"drop_history": "yes"}])
async def test_unknown_switches_are_refused(switches: dict[str, object], client: Client) -> None:
    """A wrong name or value is answered with 400 and changes nothing."""
    before = await client.get("/standin/faults")
    assert "error" in await client.post("/standin/faults", {**switches, "http": "error"}, 400)
    assert await client.get("/standin/faults") == before


async def test_executions_are_counted_and_written_down(client: Client) -> None:
    """Each execution counts, also of a prompt id used twice, and has a line in executions.jsonl."""
    for color in (1, 2):
        await client.run(saved(color), prompt_id="twice", client_id="c")
        await client.until("/prompt", lambda state: state["exec_info"]["queue_remaining"] == 0)
    stats = await client.get("/standin/stats")
    assert stats["executions"] == {"twice": {"begun": 2, "ended": 2}}
    assert stats["total"] == {"begun": 2, "ended": 2}
    lines = (client.standin.home / "executions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["prompt_id"], json.loads(line)["client"]) for line in lines] == [("twice", "c")] * 2


async def test_null_extra_data_kills_the_execution_thread(client: Client) -> None:
    """As in ComfyUI 0.3.64, a prompt with extra_data null is taken and ends the thread when its turn comes."""
    await client.queue(saved(), extra_data=None)
    await client.until("/standin/stats", lambda stats: not stats["execution_thread_alive"])


async def test_an_output_without_inputs_kills_the_execution_thread(client: Client) -> None:
    """As in ComfyUI 0.3.64, it is refused as an output, but beside a good output it ends the thread."""
    graph = saved() | {"3": {"class_type": "PreviewImage"}}
    answer = await client.post("/prompt", {"prompt": graph})
    assert list(answer["node_errors"]) == ["3"]
    await client.until("/standin/stats", lambda stats: not stats["execution_thread_alive"])


async def test_stubborn_work_is_cut_short_when_the_server_stops(client: Client) -> None:
    """Leaving the context ends a long sleep at once."""
    graph = {"1": empty_image(), "2": node("StubbornSleep", image=["1", 0], seconds=600.0)}
    await client.queue(graph | {"3": node("PreviewAny", source=["2", 0])})
    await client.until("/queue", lambda queue: bool(queue["queue_running"]))
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.to_thread(client.standin.engine.thread.stop)
    assert loop.time() - before < 2

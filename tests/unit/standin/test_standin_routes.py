"""Routes of the stand-in that the recorded scenarios do not reach."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import pytest
from PIL import Image
from standin_client import Client, empty_image, node, saved

from app.comfy.standin.catalogue import NODE_CLASSES

pytestmark = pytest.mark.anyio


def _png(color: tuple[int, int, int, int] = (10, 20, 30, 128), size: tuple[int, int] = (6, 4)) -> bytes:
    target = io.BytesIO()
    Image.new("RGBA", size, color).save(target, format="PNG")
    return target.getvalue()


async def _upload(client: Client, content: bytes, path: str = "/upload/image", **fields: str) -> Any:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", content, filename=fields.pop("filename", "up.png"))
    for name, value in fields.items():
        form.add_field(name, value)
    async with client.session.post(client.standin.url + path, data=form) as answer:
        return await answer.json() if answer.status == 200 else answer.status


async def test_it_says_everywhere_that_it_is_a_stand_in(client: Client) -> None:
    """Page, system_stats and the Server header leave no doubt."""
    assert b"not ComfyUI" in await client.get("/")
    stats = await client.get("/system_stats")
    assert stats["system"]["standin"] is True
    assert stats["system"]["comfyui_version"] == "0.3.64"
    assert "stand-in" in stats["devices"][0]["name"]
    for path in ("/queue", "/nosuch", "/view"):
        async with client.session.get(client.standin.url + path) as answer:
            assert answer.headers["Server"] == "comfybus-standin"


async def test_object_info_describes_every_class(client: Client) -> None:
    """The whole list has each class as it is described alone."""
    everything = await client.get("/object_info")
    assert set(everything) == set(NODE_CLASSES)
    for name in ("SaveImage", "ImageBlend", "SlowProgress", "FailingNode"):
        assert await client.get(f"/object_info/{name}") == {name: everything[name]}


async def test_models_are_the_files_in_their_folders(client: Client) -> None:
    """A model type lists its files, in order, with the file endings that count, in sub-folders too."""
    folder = client.standin.home / "models" / "loras"
    (folder / "style").mkdir()
    for name in ("b.safetensors", "a.pt", "readme.txt", "style/c.safetensors"):
        (folder / name).touch()
    assert await client.get("/models/loras") == ["a.pt", "b.safetensors", "style/c.safetensors"]
    (client.standin.home / "models" / "embeddings" / "word.pt").touch()
    assert await client.get("/embeddings") == ["word"]
    await client.get("/models/nosuch", 404)


async def test_loadable_files_are_choices(client: Client) -> None:
    """LoadImage offers the pictures at the top of the input folder, nothing else."""
    folder = client.standin.home / "input"
    for name in ("z.png", "a.webp", "notes.txt"):
        (folder / name).touch()
    described = await client.get("/object_info/LoadImage")
    assert described["LoadImage"]["input"]["required"]["image"][0] == ["a.webp", "z.png"]


async def test_history_can_be_asked_for_in_parts(client: Client) -> None:
    """max_items takes the newest entries, offset the oldest ones from a place on."""
    for number in range(4):
        await client.run(saved(number), prompt_id=f"p{number}")
    assert list(await client.get("/history?max_items=2")) == ["p2", "p3"]
    assert list(await client.get("/history?max_items=2&offset=1")) == ["p1", "p2"]
    assert list(await client.get("/history?offset=3")) == ["p3"]
    await client.post("/history", {"clear": True})
    assert await client.get("/history") == {}


async def test_secrets_of_paid_services_do_not_reach_the_history(client: Client) -> None:
    """Keys that a client passes for paid services are left out of the history entry."""
    entry = await client.run(saved(), extra_data={"api_key_comfy_org": "secret", "other": 1})
    assert entry["prompt"][3] == {"other": 1}


async def test_free_makes_everything_run_again(client: Client) -> None:
    """After POST /free with free_memory an identical graph is not answered from the cache."""
    first = await client.run(saved())
    again = await client.run(saved())
    assert again["outputs"] == first["outputs"]
    await client.post("/free", {"free_memory": True})
    assert (await client.run(saved()))["outputs"]["2"]["images"][0]["filename"] == "t_00002_.png"


async def test_a_changed_input_file_runs_again(client: Client) -> None:
    """LoadImage is taken from the cache only while the file's content is the same."""
    graph = {"1": node("LoadImage", image="up.png"), "2": node("PreviewImage", images=["1", 0])}
    cached = []
    for color in ((1, 1, 1, 255), (1, 1, 1, 255), (2, 2, 2, 255)):
        await _upload(client, _png(color), overwrite="true")
        entry = await client.run(graph)
        cached.append(entry["status"]["messages"][1][1]["nodes"])
    assert cached == [[], ["1", "2"], []]


async def test_a_picture_can_be_viewed_in_other_forms(client: Client) -> None:
    """preview converts to WebP or JPEG, channel splits colour and transparency."""
    await _upload(client, _png())
    for query, form in (
        ("preview=webp;50", ("WEBP", "RGBA")),
        ("preview=jpeg;50", ("JPEG", "RGB")),
        ("preview=png", ("WEBP", "RGBA")),
        ("channel=rgb", ("PNG", "RGB")),
        ("channel=a", ("PNG", "RGBA")),
        ("channel=rgba", ("PNG", "RGBA")),
    ):
        with Image.open(io.BytesIO(await client.get(f"/view?filename=up.png&type=input&{query}"))) as picture:
            assert (picture.format, picture.mode) == form, query


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("?filename=", 400),
        ("?filename=missing.png", 404),
        ("?filename=../executions.jsonl", 400),
        ("?filename=/etc/passwd", 400),
        ("?filename=up.png&type=nosuch", 400),
        ("?filename=up.png&type=input&subfolder=../..", 403),
        ("?filename=up.png&type=input&subfolder=/etc", 403),
        ("?filename=up.png%20[input]", 200),
        ("?filename=deep/up.png&type=input", 200),
    ],
)
async def test_files_outside_the_folders_are_not_shown(query: str, status: int, client: Client) -> None:
    """/view refuses what leads out of its folders and takes only the last part of a name."""
    await _upload(client, _png())
    await client.get(f"/view{query}", status)


async def test_a_web_page_is_only_handed_out_for_download(client: Client) -> None:
    """HTML is never answered with its own content type."""
    (client.standin.home / "output" / "page.html").write_text("<html></html>", encoding="utf-8")
    async with client.session.get(f"{client.standin.url}/view?filename=page.html") as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"subfolder": "../x"}, 400),
        ({"filename": "../x.png"}, 400),
        ({"subfolder": "/abs"}, 400),
        ({"type": "bogus"}, 500),
        ({"subfolder": "s/t"}, {"name": "up.png", "subfolder": "s/t", "type": "input"}),
        ({"type": "output"}, {"name": "up.png", "subfolder": "", "type": "output"}),
    ],
)
async def test_uploads_stay_in_their_folders(fields: dict[str, str], expected: object, client: Client) -> None:
    """An upload goes below the folder of its type or is refused."""
    assert await _upload(client, _png(), **fields) == expected


async def test_a_mask_becomes_the_transparency_of_its_picture(client: Client) -> None:
    """POST /upload/mask stores the picture named with the alpha channel of the upload."""
    await _upload(client, _png((200, 100, 50, 255)))
    reference = json.dumps({"filename": "up.png", "type": "input"})
    answer = await _upload(client, _png((0, 0, 0, 77)), "/upload/mask", filename="m.png", original_ref=reference)
    assert answer == {"name": "m.png", "subfolder": "", "type": "input"}
    with Image.open(client.standin.home / "input" / "m.png") as picture:
        assert picture.getpixel((0, 0)) == (200, 100, 50, 77)


async def test_temp_is_emptied_at_the_start_and_output_is_not(client: Client) -> None:
    """A second server in the same home finds no temporary files, and all saved ones."""
    from app.comfy.standin import StandinConfig, serve

    graph = saved() | {"3": node("PreviewImage", images=["1", 0])}
    entry = await client.run(graph)
    (preview,) = entry["outputs"]["3"]["images"]
    assert preview["type"] == "temp"
    home = client.standin.home
    assert (home / "temp" / preview["filename"]).exists()
    async with serve(StandinConfig(home=home)):
        assert list((home / "temp").iterdir()) == []
        assert (home / "output" / "t_00001_.png").exists()


async def test_a_long_list_of_choices_is_not_sent_back(client: Client) -> None:
    """A refusal names a list of more than 20 choices only by its length."""
    folder = client.standin.home / "models" / "checkpoints"
    for number in range(21):
        (folder / f"m{number}.safetensors").touch()
    graph = {"1": node("CheckpointLoaderSimple", ckpt_name="x"), "2": node("PreviewAny", source=["1", 0])}
    answer = await client.post("/prompt", {"prompt": graph}, 400)
    (problem,) = answer["node_errors"]["1"]["errors"]
    assert problem["details"] == "ckpt_name: 'x' not in (list of length 21)"
    assert problem["extra_info"]["input_config"] is None


async def test_partial_execution_runs_only_the_targets(client: Client) -> None:
    """partial_execution_targets limits the outputs that run."""
    graph = saved() | {"3": node("PreviewAny", source="x")}
    entry = await client.run(graph, partial_execution_targets=["3"])
    assert entry["prompt"][4] == ["3"]
    assert list(entry["outputs"]) == ["3"]


async def test_interrupting_a_prompt_keeps_what_was_saved(client: Client) -> None:
    """An interrupted prompt ends as error in the history, with the outputs saved before."""
    graph = saved() | {
        "3": node("SlowProgress", image=["1", 0], steps=1000, seconds=20.0),
        "4": node("PreviewImage", images=["3", 0]),
    }
    prompt_id = await client.queue(graph)
    await client.until("/standin/stats", lambda stats: stats["executions"].get(prompt_id, {}).get("begun"))
    await client.post("/interrupt", {"prompt_id": prompt_id})
    entry = (await client.until(f"/history/{prompt_id}", bool))[prompt_id]
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


async def test_a_big_upload_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body above the limit is answered with 413."""
    content = bytes(100 * 1024 * 1024 + 1)
    form = aiohttp.FormData()
    form.add_field("image", io.BytesIO(content), filename="big.png")
    try:
        async with client.session.post(f"{client.standin.url}/upload/image", data=form) as answer:
            assert answer.status == 413
    except aiohttp.ClientConnectionError:
        pass  # the server may hang up while the client still sends


async def test_lower_numbers_run_first(client: Client) -> None:
    """Among waiting prompts the number decides, then the prompt id; front puts a prompt before the others."""
    await client.faults(execution_thread="stalled")
    await client.queue({"1": empty_image(), "2": node("PreviewAny", source="first")}, prompt_id="counted")
    for prompt_id, more in (
        ("b", {"number": 0.5}),
        ("a", {"number": 0.5}),
        ("c", {"number": -2}),
        ("f", {"front": True}),
    ):
        await client.queue({"1": node("PreviewAny", source=prompt_id)}, prompt_id=prompt_id, **more)
    await client.faults(execution_thread="ok")
    await client.until("/prompt", lambda state: state["exec_info"]["queue_remaining"] == 0)
    assert list(await client.get("/history")) == ["c", "f", "counted", "a", "b"]

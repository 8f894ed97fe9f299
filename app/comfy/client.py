"""The calls of ComfyUI's HTTP API that Comfybus makes, one method each.

Used by most of its folder, app.cli, app.cli.demo, app.worker; may import app.errors.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import anyio
import anyio.to_thread

from app.comfy.history import HistoryEntry, read_history
from app.comfy.queue_view import NOT_THERE, QueueReader, QueueView
from app.comfy.refusal import refusal
from app.comfy.stored import Stored, store
from app.comfy.transport import Transport
from app.errors import ComfyUnavailable, InputRefused, InputUnavailable, OutputMissing

__all__ = ["Accepted", "ComfyClient", "QueueView", "Stored"]

_LOOK_S: Final = 10.0
_CALL_S: Final = 30.0
# Validation may list network folders; a bulky graph has to travel.
_SUBMIT_S: Final = 120.0
_SILENCE_S: Final = 60.0
# A running prompt gets as many requests to stop as it takes to survive ComfyUI losing one (see `stop`).
_STOP_PAUSES_S: Final = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Accepted:
    """ComfyUI queued the prompt.

    Attributes:
        node_errors: Findings per node. Not empty when ComfyUI accepted some outputs and silently skips the others.
    """

    node_errors: dict[str, Any] = field(default_factory=dict)


class ComfyClient:
    """One ComfyUI over HTTP.

    Every method has a deadline and raises only types of ``app.errors``; unless it says more, that is
    ``ComfyUnavailable`` when ComfyUI cannot be reached, does not answer in time or answers something unusable.

    Args:
        base_url: ``http(s)://host:port``, a path behind it if a proxy asks for one.
        session: Belongs to the caller and must not trust the environment's proxies (``trust_env`` stays False).
    """

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self._transport = Transport(base_url, session)
        self._queue = QueueReader(self._transport, deadline_s=_LOOK_S)
        self._cancels_jobs: bool | None = None  # whether the jobs API can; None until known

    @property
    def base_url(self) -> str:
        """The address as given, without a slash at its end."""
        return self._transport.base_url

    async def submit(self, graph: Mapping[str, Any], *, prompt_id: str, client_id: str | None) -> Accepted:
        """Queue a graph.

        Args:
            graph: Nodes in API format.
            prompt_id: Our own id, a canonical lower-case UUID; ComfyUI takes it verbatim and does not deduplicate it.
            client_id: That of the open websocket. With None a random one is sent, so nobody hears of the run: looks
                alone tell its end.

        Raises:
            InvalidPrompt: ComfyUI refused the graph; ``node_errors`` and ``location`` say where.
            ComfyUnavailable: No verdict. After no answer the prompt may have been queued all the same.
        """
        document = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id or uuid.uuid4().hex}
        answer = await self._transport.call("POST", "/prompt", deadline_s=_SUBMIT_S, document=document)
        if answer.status != 200:
            raise refusal(answer)
        accepted = answer.object()
        if accepted.get("prompt_id") != prompt_id:
            raise ComfyUnavailable(
                f"ComfyUI at {answer.server} queued the prompt under an id of its own; run ComfyUI 0.3.64 or newer."
            )
        node_errors = accepted.get("node_errors")
        return Accepted(node_errors if isinstance(node_errors, dict) else {})

    async def queue(self) -> QueueView:
        """What runs and what waits, anybody's, both from one moment."""
        return await self._queue.read()

    async def queue_remaining(self) -> int | None:
        """How many prompts run or wait: the cheapest sign of life; None if ComfyUI does not say."""
        match (await self._transport.call("GET", "/prompt", deadline_s=_LOOK_S)).expect_ok().json():
            case {"exec_info": {"queue_remaining": int(remaining)}}:
                return remaining
            case _:
                return None

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """The account of a finished prompt; None while it waits or runs, and when ComfyUI knows nothing of it."""
        path = f"/history/{quote(prompt_id, safe='')}"
        answer = (await self._transport.call("GET", path, deadline_s=_CALL_S)).expect_ok()
        match answer.json():
            case dict(document):
                entry = document.get(prompt_id)
                return read_history(prompt_id, entry) if isinstance(entry, dict) else None
            case _:
                raise answer.unusable()

    async def stop(self, prompt_id: str) -> None:
        """End one prompt, waiting or running, and no other.

        Returns when ComfyUI has it no longer, or has been told three times to interrupt it: a node that does not heed
        interrupts runs on, and the end shows in the history as ever. An unknown or finished id is no error.

        Three times, because ComfyUI forgets an interrupt that arrives between taking a prompt from its queue and
        beginning it. Each one names the prompt, and only after a look that shows it; so a neighbour is never hit.
        """
        for pause_s in _STOP_PAUSES_S:
            await anyio.sleep(pause_s)
            view = await self.queue()
            running = prompt_id in view.running
            if not running and prompt_id not in view.pending:
                return
            if not await self._cancel_job(prompt_id):
                await self._interrupt_or_delete(prompt_id, running=running)

    async def _cancel_job(self, prompt_id: str) -> bool:
        """Stop a prompt by the jobs API, which is atomic; False where that does not exist."""
        if self._cancels_jobs is False:
            return False
        path = f"/api/jobs/{quote(prompt_id, safe='')}/cancel"
        answer = await self._transport.call("POST", path, deadline_s=_CALL_S)
        self._cancels_jobs = answer.status not in NOT_THERE
        if self._cancels_jobs and "cancelled" not in answer.expect_ok().object():
            self._cancels_jobs = False  # something else lives there
        return self._cancels_jobs

    async def _interrupt_or_delete(self, prompt_id: str, *, running: bool) -> None:
        document: dict[str, Any]
        if running:
            path, document = "/interrupt", {"prompt_id": prompt_id}  # never without: that one hits whatever runs
        else:
            path, document = "/queue", {"delete": [prompt_id]}
        (await self._transport.call("POST", path, deadline_s=_CALL_S, document=document)).expect_ok()

    async def forget(self, prompt_id: str) -> None:
        """Remove a finished prompt from the history; no error if it is not there."""
        document = {"delete": [prompt_id]}
        (await self._transport.call("POST", "/history", deadline_s=_CALL_S, document=document)).expect_ok()

    async def free(self) -> None:
        """Ask ComfyUI to unload its models and empty its caches; it does so when the running prompt has ended."""
        document = {"unload_models": True, "free_memory": True}
        (await self._transport.call("POST", "/free", deadline_s=_CALL_S, document=document)).expect_ok()

    async def system_stats(self) -> dict[str, Any]:
        """``/system_stats`` as ComfyUI gives it; ``system.comfyui_version`` is its version."""
        return await self._object("/system_stats")

    async def object_info(self) -> dict[str, Any]:
        """Every node class with its inputs, as ComfyUI gives it; megabytes with many custom nodes."""
        return await self._object("/object_info")

    async def _object(self, path: str) -> dict[str, Any]:
        answer = (await self._transport.call("GET", path, deadline_s=_CALL_S)).expect_ok()
        document = answer.json()
        if not isinstance(document, dict):
            raise answer.unusable()
        return document

    async def models(self) -> dict[str, list[str]]:
        """The file names ComfyUI lists per model folder; a folder it will not list is left out."""
        folders = (await self._transport.call("GET", "/models", deadline_s=_CALL_S)).expect_ok().json()
        found = {}
        for folder in folders if isinstance(folders, list) else []:
            answer = await self._transport.call("GET", f"/models/{quote(str(folder), safe='')}", deadline_s=_CALL_S)
            names = answer.json() if answer.status == 200 else None
            if isinstance(names, list):
                found[str(folder)] = [name for name in names if isinstance(name, str)]
        return found

    async def model_folders(self) -> dict[str, list[str]]:
        """The folders, as ComfyUI sees them, that it looks into per kind of model; the first is where new ones go."""
        answer = await self._transport.call("GET", "/experiment/models", deadline_s=_CALL_S)
        listed = answer.expect_ok().json()
        found: dict[str, list[str]] = {}
        for each in listed if isinstance(listed, list) else []:
            name, folders = (each.get("name"), each.get("folders")) if isinstance(each, dict) else (None, None)
            if isinstance(name, str) and isinstance(folders, list):
                found[name] = [folder for folder in folders if isinstance(folder, str)]
        return found

    async def view(self, filename: str, subfolder: str, folder: str, into: Path) -> Stored:
        """Fetch one file of ComfyUI's folders to disk, in pieces, whatever its size.

        Args:
            filename: Its name.
            subfolder: Below the folder, ``/`` between parts; may be empty.
            folder: ``output``, ``temp`` or ``input``.
            into: Path of the file to write; what is there is overwritten. After a failure nothing is left of it.

        Raises:
            OutputMissing: ComfyUI has no such file or does not hand it out.
            OSError: The disk took no more.
        """
        params = {"filename": filename, "subfolder": subfolder, "type": folder}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_LOOK_S, sock_read=_SILENCE_S)
        call = "GET /view"
        async with self._transport.stream("GET", "/view", timeout=timeout, params=params) as response:
            if response.status in {400, 403, 404}:
                raise OutputMissing(
                    f"ComfyUI has no file {filename!r} in its {folder} folder (HTTP {response.status}); see that "
                    "nothing deletes or moves outputs while Comfybus stores them."
                )
            if response.status != 200:
                raise ComfyUnavailable(
                    f"ComfyUI at {self._transport.server} answered {call} with HTTP {response.status}; "
                    "look into ComfyUI's log."
                )
            return await store(self._transport.chunks(response, call), into)

    async def upload(self, path: Path, *, subfolder: str, filename: str, overwrite: bool) -> str:
        """Put one file into ComfyUI's input folder, streamed from disk.

        Args:
            path: The file to send.
            subfolder: Below the input folder, ``/`` between parts; ComfyUI makes it. May be empty.
            filename: Name to give it.
            overwrite: Replace another file of this name; else ComfyUI takes the next free name, unless the bytes
                are the same.

        Returns:
            The name for a node's input: ``subfolder/name``.

        Raises:
            InputRefused: ComfyUI does not take the file: too large for it, or a place outside its folder.
            InputUnavailable: The file to send cannot be read.
        """
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("type", "input")
        form.add_field("subfolder", subfolder)
        if overwrite:
            form.add_field("overwrite", "true")
        try:
            file = await anyio.to_thread.run_sync(path.open, "rb")
        except OSError as exc:
            raise InputUnavailable(f"The prepared input {filename!r} cannot be read: {exc.strerror}.") from exc
        with file:
            form.add_field("image", file, filename=filename, content_type="application/octet-stream")
            answer = await self._transport.call("POST", "/upload/image", deadline_s=600.0, form=form)
        if answer.status in {400, 413}:
            raise InputRefused(
                f"ComfyUI does not take the input {filename!r} (HTTP {answer.status}); it may be larger than ComfyUI's "
                "--max-upload-size: raise that, or share INPUT_DIR with Comfybus."
            )
        stored = answer.expect_ok().json()
        if not isinstance(stored, dict) or not isinstance(stored.get("name"), str):
            raise answer.unusable()
        below = str(stored.get("subfolder") or "").strip("/")
        return f"{below}/{stored['name']}" if below else stored["name"]

    async def alive(self) -> bool:
        """Whether ComfyUI answers at all; never raises."""
        try:
            await self.queue_remaining()
        except ComfyUnavailable:
            return False
        return True

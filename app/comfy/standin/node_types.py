"""What a node class of the stand-in is: its inputs as ComfyUI shows them, and one method that does the work.

Used by most of its folder; may import its folder alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from app.comfy.standin.file_names import FileNumbers
from app.comfy.standin.folders import Folders

JsonObject = dict[str, Any]
Graph = dict[str, JsonObject]
"""A prompt in API format: node id to ``{"class_type", "inputs"}``."""

MAX_RESOLUTION = 16384
"""Largest width or height an input takes, as in ComfyUI."""

Choices = list[str] | Callable[[Folders], list[str]]


@dataclass(frozen=True)
class Input:
    """One input of a node class: a type name, or the list of values to choose from, and its options.

    ``options`` None means that /object_info shows the type alone. A list that depends on files is given as a
    function of the folders, so that it is read only when somebody asks for it.
    """

    kind: str | Choices
    options: Mapping[str, Any] | None = None

    def resolved(self, folders: Folders) -> str | list[str]:
        """Return the type name, or the list of choices as the files are now."""
        return self.kind(folders) if callable(self.kind) else self.kind

    def described(self, folders: Folders) -> list[Any]:
        """Return the input as /object_info shows it."""
        kind = self.resolved(folders)
        return [kind] if self.options is None else [kind, dict(self.options)]


@dataclass(frozen=True)
class Preview:
    """An image for the client to look at while a node works; ``encoding`` is JPEG or PNG, ``max_size`` in pixels."""

    encoding: str
    image: Image.Image
    max_size: int | None = None


@dataclass
class Produced:
    """What a node's work gave: ``outputs`` one value a slot, ``ui`` the lists that clients and history get."""

    outputs: tuple[Any, ...] = ()
    ui: JsonObject = field(default_factory=dict)


class Workbench(Protocol):
    """What a node may use while it works; every method is called in the execution thread."""

    folders: Folders
    numbers: FileNumbers
    graph: Graph
    memory_limit_bytes: int
    previews: bool

    @property
    def extra_pnginfo(self) -> JsonObject | None:
        """What the client wants to stand in saved files, by name."""

    def progress(self, value: int, total: int, preview: Preview | None = None) -> None:
        """Tell the clients how far the running node is; raises Interrupted when an interrupt was asked for."""

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted when an interrupt was asked for, and forget the wish."""

    def sleep(self, seconds: float) -> None:
        """Let time pass without heeding interrupts; cut short only when the whole server stops."""


class Node(ABC):
    """A node class. Class attributes say what /object_info shows, ``run`` does the work.

    One object is made for each node of a graph and kept while consecutive prompts have the same id and class.
    ``self_checked`` names the inputs that ``check`` judges instead of the general rules (bounds, choices).
    ``schema_v3`` marks the classes that newer ComfyUI code describes in its second style.
    """

    class_type: ClassVar[str]
    category: ClassVar[str]
    display_name: ClassVar[str | None] = None
    description: ClassVar[str] = ""
    python_module: ClassVar[str] = "nodes"
    output_node: ClassVar[bool] = False
    schema_v3: ClassVar[bool] = False
    required: ClassVar[Mapping[str, Input]] = {}
    optional: ClassVar[Mapping[str, Input]] = {}
    hidden: ClassVar[Mapping[str, str]] = {}
    returns: ClassVar[tuple[str, ...]] = ()
    output_tooltips: ClassVar[tuple[str, ...] | None] = None
    self_checked: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    @classmethod
    def check(cls, folders: Folders, values: JsonObject) -> str | bool:  # noqa: ARG003 - for subclasses
        """Judge the ``self_checked`` constants of a prompt: True, or what is wrong with them."""
        return True

    @classmethod
    def fingerprint(cls, folders: Folders, values: JsonObject) -> object:  # noqa: ARG003 - for subclasses
        """Return a value that changes when the node must run again although its inputs did not change.

        False means that the inputs alone decide. ``values`` has the constants of the node, links are left out.
        """
        return False

    @abstractmethod
    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Do the work in the execution thread; ``given`` has the values of all inputs present in the graph."""


@dataclass(frozen=True)
class ImageBatch:
    """Value of an IMAGE slot: at least one RGB picture, all of one size."""

    frames: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frames[0].size

    def __str__(self) -> str:
        width, height = self.size
        return f"images(batch={len(self.frames)}, height={height}, width={width}, channels=3)"


def demand_memory(bench: Workbench, batch: int, width: int, height: int) -> None:
    """Raise RuntimeError, as torch's allocator does, when a batch of pictures is too big for the limit set."""
    wanted = batch * width * height * 12
    if wanted > bench.memory_limit_bytes:
        raise RuntimeError(
            f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {wanted} bytes. "
            "Error code 12 (Cannot allocate memory)"
        )


def file_entry(path: Path, subfolder: str, kind: str) -> JsonObject:
    """Return a saved file as ``executed`` messages and history list it."""
    return {"filename": path.name, "subfolder": subfolder, "type": kind}

"""The manifest: what is to be installed before and after ComfyUI starts. Every section may be missing or empty.

Used by config, custom_nodes, installation, manifest_file, models, app.cli, app.settings; may import its folder alone.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.setup.git_refs import GitSource, NotARepository, same_repository, source_of

__all__ = ["Manifest", "ModelFile", "Models", "is_url"]

# The Debian policy's names; behind them an architecture, a version or a release.
_APT: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:[=/][A-Za-z0-9.+:~-]+)?")
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:@[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MODEL_SCHEMES: Final = frozenset({"http", "https", "s3"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def is_url(node: str) -> bool:
    """Whether a custom node is given by the address of its repository, not by its name in the registry."""
    return bool(_URL.match(node.strip()))


def _apt(name: str) -> str:
    if not _APT.fullmatch(name):
        raise ValueError("it should be the name of a Debian package, with =version behind it if need be")
    return name


def _requirement(text: str) -> str:
    if text.startswith("-") or _CONTROL.search(text) or not text.strip():
        raise ValueError(
            "it should be a requirement such as numpy==2.1; options are given by the variables of pip and uv"
        )
    return text.strip()


def _node(text: str) -> str:
    text = text.strip()
    if is_url(text):
        try:
            source_of(text)
        except NotARepository as exc:
            raise ValueError(f"the URL cannot be used: {exc}") from exc
        return text
    # The registry's client takes this word for every node it knows.
    if not _NODE.fullmatch(text) or text.lower() == "all":
        raise ValueError("it should be a name in the node registry, or http(s)://host/owner/name of a Git repository")
    return text


def _model_url(url: str) -> str:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    blank = " " in url and scheme != "s3"
    if scheme not in _MODEL_SCHEMES or not parts.netloc or _CONTROL.search(url) or blank:
        raise ValueError("it should be a URL: https://…, http://… or s3://bucket/key")
    return url


def _local_path(path: str) -> str:
    if _CONTROL.search(path) or not PurePosixPath(path).name or path.endswith("/") or PurePosixPath(path).name == "..":
        raise ValueError("it should be the path of a file, below COMFY_HOME or MODEL_DIR")
    return path


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def _nothing_is_empty(value: Any) -> Any:
    """``apt:`` without anything behind it is an empty list."""
    return [] if value is None else value


def _listed(value: Any) -> Any:
    """A list as the tuple that is kept."""
    return tuple(value) if isinstance(value, list) else value


Empty = BeforeValidator(lambda value: _listed(_nothing_is_empty(value)))


class ModelFile(_Part):
    """One file to fetch.

    Attributes:
        url: Where it is.
        local_path: Where it is wanted: absolute, or relative to COMFY_HOME.
        sha256: What its content must be, in hex; not checked when missing.
    """

    url: Annotated[str, AfterValidator(_model_url)]
    local_path: Annotated[str, AfterValidator(_local_path)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


class Models(_Part):
    """Files to fetch before ComfyUI starts, and while it runs already."""

    before_start: Annotated[tuple[ModelFile, ...], Empty] = ()
    after_start: Annotated[tuple[ModelFile, ...], Empty] = ()


class Manifest(_Part):
    """Everything to install; an empty manifest installs nothing."""

    apt: Annotated[tuple[Annotated[str, AfterValidator(_apt)], ...], Empty] = ()
    pip: Annotated[tuple[Annotated[str, AfterValidator(_requirement)], ...], Empty] = ()
    custom_nodes: Annotated[tuple[Annotated[str, AfterValidator(_node)], ...], Empty] = ()
    models: Annotated[Models, BeforeValidator(lambda value: {} if value is None else value)] = Models()

    @model_validator(mode="after")
    def _no_two_in_one_place(self) -> Self:
        folders: dict[str, GitSource] = {}
        for source in (source_of(node) for node in self.custom_nodes if is_url(node)):
            first = folders.setdefault(source.folder.lower(), source)
            if (first.base, first.reference) != (source.base, source.reference):
                what = "references" if same_repository(first.base, source.base) else "repositories"
                raise ValueError(
                    f"custom_nodes: {first.base} and {source.base} are different {what} for one folder, "
                    f"custom_nodes/{source.folder}; keep one of them"
                )
        paths: dict[str, str] = {}
        for model in (*self.models.before_start, *self.models.after_start):
            if paths.setdefault(model.local_path, model.url) != model.url:
                raise ValueError(f"models: two URLs are wanted at {model.local_path}; keep one of them")
        return self

    @property
    def sources(self) -> list[GitSource]:
        """The repositories among the custom nodes, in their order, each once."""
        found: dict[str, GitSource] = {}
        for node in self.custom_nodes:
            if is_url(node):
                source = source_of(node)
                found.setdefault(source.folder, source)
        return list(found.values())

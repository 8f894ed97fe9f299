"""Commands on ``<P>.control``, heard by every worker.

Used by app.cli, app.documents, app.worker; may import its folder alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.base import Strict, first_wrong_field
from schemas.credentials import Auth
from schemas.prompt import ID_PATTERN

__all__ = ["Command", "ModelDownload", "PromptCancel", "WorkerDrain", "parse_command"]


class PromptCancel(Strict):
    """End one prompt wherever it is; without effect once its terminal event is stored."""

    type: Literal["prompt.cancel"] = "prompt.cancel"
    id: str = Field(pattern=f"^{ID_PATTERN.pattern}$")


class ModelDownload(Strict):
    """Bring a model into the folder of its type on every worker."""

    type: Literal["model.download"] = "model.download"
    id: str | None = Field(default=None, pattern=f"^{ID_PATTERN.pattern}$")
    url: str = Field(min_length=1)
    model_type: str = Field(min_length=1, max_length=128, description="A folder that ComfyUI lists.")
    filename: str | None = Field(default=None, min_length=1, max_length=255, description="One path segment.")
    auth: Auth | None = None


class WorkerDrain(Strict):
    """Ask one worker to finish or hand back what it has and to end."""

    type: Literal["worker.drain"] = "worker.drain"
    worker: str = Field(min_length=1)


Command = Annotated[PromptCancel | ModelDownload | WorkerDrain, Field(discriminator="type")]
_ADAPTER: TypeAdapter[PromptCancel | ModelDownload | WorkerDrain] = TypeAdapter(Command)


def parse_command(document: Any) -> PromptCancel | ModelDownload | WorkerDrain:
    """Validate a decoded command.

    Raises:
        WrongField: The command is of no known type or one of its fields is wrong.
    """
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as exc:
        raise first_wrong_field(exc) from exc

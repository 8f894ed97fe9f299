"""The prompt request: what a producer puts on ``<P>.prompt.request``.

Used by control, envelope, events, all of app; may import its folder alone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator

from schemas.base import Strict, WrongField, dump_json, first_wrong_field, wrong_number
from schemas.credentials import Credential

__all__ = [
    "ID_PATTERN",
    "METADATA_LIMIT_BYTES",
    "TARGETS",
    "AzureBlobUpload",
    "ConvertOutput",
    "Graph",
    "HttpUpload",
    "HuggingFaceUpload",
    "PromptOptions",
    "PromptRequest",
    "S3Upload",
    "parse_request",
]

ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
METADATA_LIMIT_BYTES = 16 * 1024
TARGETS = ("s3", "azure_blob_upload", "hf_upload", "http_upload")

Node = dict[str, Any]
Graph = dict[str, Node]

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class S3Upload(Strict):
    """Outputs go to ``s3://<bucket>/<prefix><filename>``."""

    bucket: str = Field(min_length=1)
    prefix: str = ""
    async_: bool = Field(default=False, alias="async", description="Accepted and ignored: everything is asynchronous.")


class AzureBlobUpload(Strict):
    """Outputs go to blobs of a container."""

    container: str = Field(min_length=1)
    blob_prefix: str = ""
    async_: bool = Field(default=False, alias="async", description="Accepted and ignored.")


class HuggingFaceUpload(Strict):
    """Outputs go to a folder of a Hugging Face repository."""

    repo: str = Field(min_length=1)
    repo_type: Literal["model", "dataset"] = "model"
    revision: str = "main"
    directory: str = "/"
    async_: bool = Field(default=False, alias="async", description="Accepted and ignored.")


class HttpUpload(Strict):
    """Outputs are sent by PUT to ``<url_prefix>/<filename>``."""

    url_prefix: str = Field(min_length=1)
    async_: bool = Field(default=False, alias="async", description="Accepted and ignored.")


class ConvertOutput(Strict):
    """Image outputs are converted before they are delivered."""

    format: Literal["jpeg", "jpg", "webp"]
    options: dict[str, Any] = Field(default_factory=dict)


def _rfc3339(value: Any) -> Any:
    """Take a moment in writing only: a bare number says nothing about its unit."""
    if not isinstance(value, str):
        return value
    wrong = WrongField("", "it should be RFC 3339 with offset, such as 2026-01-01T00:00:00Z")
    if not _RFC3339.fullmatch(value):
        raise wrong
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError as exc:
        raise wrong from exc
    try:
        moment.astimezone(UTC)
    except OverflowError:
        # Its offset carries it out of the calendar: as far off as that goes.
        return datetime.min.replace(tzinfo=UTC) if moment.year == 1 else datetime.max.replace(tzinfo=UTC)
    return moment


class PromptOptions(Strict):
    """The fields of a request that its terminal events give back: all but the id, the prompt and the credentials."""

    workflow: str | None = Field(default=None, min_length=1, max_length=512, description="Name of a workflow.")
    input: dict[str, Any] | None = Field(default=None, description="Typed input of the named workflow.")
    convert_output: ConvertOutput | None = None
    s3: S3Upload | None = None
    azure_blob_upload: AzureBlobUpload | None = None
    hf_upload: HuggingFaceUpload | None = None
    http_upload: HttpUpload | None = None
    webhook: str | None = Field(default=None, description="Legacy webhook, called by the bridge.")
    webhook_v2: str | None = Field(default=None, description="Standard webhook, called by the bridge.")
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=31_536_000,
        description="Seconds from the start of execution; overrides PROMPT_TIMEOUT_S.",
    )
    expires_at: Annotated[AwareDatetime, BeforeValidator(_rfc3339)] | None = Field(
        default=None, description="RFC 3339 with offset; the prompt is not submitted to ComfyUI after it."
    )
    metadata: dict[str, Any] | None = Field(
        default=None, description="Any JSON object up to 16 KiB; given back on every event of this prompt."
    )


class PromptRequest(PromptOptions):
    """One request to run one prompt. Unknown fields are errors; inside a node everything passes unchanged."""

    id: str | None = Field(
        default=None, pattern=f"^{ID_PATTERN.pattern}$", description="Idempotency key; derived when absent."
    )
    prompt: Graph | None = Field(default=None, description="A graph in ComfyUI's API format.")
    credentials: list[Credential] | None = Field(default=None, description="Never echoed, never logged.")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.prompt is None) == (self.workflow is None):
            raise WrongField("", "give exactly one of `prompt` and `workflow`")
        if self.input is not None and self.workflow is None:
            raise WrongField("input", "it belongs to `workflow`, which is missing")
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        if len(targets) > 1:
            raise WrongField(targets[1], f"at most one upload target is allowed and `{targets[0]}` is given too")
        if self.metadata is not None and len(dump_json(self.metadata)) > METADATA_LIMIT_BYTES:
            raise WrongField("metadata", "it is larger than 16 KiB")
        if self.prompt is not None:
            _check_graph(self.prompt)
        options = self.convert_output.options if self.convert_output else None
        free = {"prompt": self.prompt, "input": self.input, "metadata": self.metadata}
        for name, value in {**free, "convert_output.options": options}.items():
            if found := wrong_number(value, name):
                raise WrongField(found, "the number is too large for JSON")
        return self


def _check_graph(graph: Graph) -> None:
    """Check of each node what Comfybus itself reads: a class and its inputs."""
    if not graph:
        raise WrongField("prompt", "the graph has no nodes")
    for node_id, node in graph.items():
        class_type = node.get("class_type")
        if not isinstance(class_type, str) or not class_type:
            raise WrongField(f"prompt.{node_id}.class_type", "it must be the name of a node class")
        if not isinstance(node.setdefault("inputs", {}), dict):
            raise WrongField(f"prompt.{node_id}.inputs", "it must be an object")


def parse_request(document: Any) -> PromptRequest:
    """Validate a decoded request.

    Raises:
        WrongField: With the location of the first field that breaks the contract.
    """
    if not isinstance(document, dict):
        raise WrongField("", "the request must be a JSON object")
    try:
        return PromptRequest.model_validate(document)
    except ValidationError as exc:
        raise first_wrong_field(exc) from exc

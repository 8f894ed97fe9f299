"""Every failure has a type, a stable code and a sentence that names the cause and the cure.

Used by all of app; may import schemas.

::

    ComfybusError
    ├── ConfigurationError          a setting is wrong; the start stops with one line
    └── PromptError                 ends or delays a prompt; has a code of the contract
        ├── InvalidRequest          invalid_request      the message breaks the contract
        │   └── Undecodable         invalid_request      it could not even be read: dead letter too
        ├── InvalidPrompt           invalid_prompt       ComfyUI refused the graph
        ├── WorkflowNotFound        workflow_not_found
        ├── WorkflowFailed          workflow_failed      the workflow's own code raised
        ├── InputUnavailable        input_unavailable    an input could not be fetched          (surroundings)
        │   └── InputRefused        input_unavailable    the host says it will never be there   (request)
        ├── ExecutionFailed         execution_error      a node raised
        │   └── OutOfMemory         execution_error      the GPU had no room: freed, then tried again
        ├── Cancelled               cancelled
        ├── TimedOut                timeout
        ├── Expired                 expired
        ├── ComfyUnavailable        comfyui_unavailable  it refused, died or hung               (surroundings)
        ├── OutputMissing           output_missing       ComfyUI lists a file that is not there (surroundings)
        ├── UploadFailed            upload_failed        the store did not take an output       (surroundings)
        ├── AttemptsExhausted       attempts_exhausted   a retried failure came too often: dead letter too
        └── InternalError           internal             a fault of ours

``retryable`` on the class says that another try of the same request may succeed without any change to it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from schemas.events import ErrorCode, FailedNode

__all__ = [
    "AttemptsExhausted",
    "Cancelled",
    "ComfyUnavailable",
    "ComfybusError",
    "ConfigurationError",
    "ExecutionFailed",
    "Expired",
    "InputRefused",
    "InputUnavailable",
    "InternalError",
    "InvalidPrompt",
    "InvalidRequest",
    "OutOfMemory",
    "OutputMissing",
    "PromptError",
    "TimedOut",
    "Undecodable",
    "UploadFailed",
    "WorkflowFailed",
    "WorkflowNotFound",
]


class ComfybusError(Exception):
    """Anything Comfybus raises on purpose."""


class ConfigurationError(ComfybusError):
    """A setting is wrong; the sentence names the variable, its value and what it should be."""


class PromptError(ComfybusError):
    """A prompt cannot go on.

    Attributes:
        code: Stable code of the ``prompt.failed`` event.
        retryable: Another try of the unchanged request may succeed.
        location: Field of the request at fault, if one is.
        node: The node at fault, if one is.
        node_errors: ComfyUI's own findings per node, if it refused the graph.
        saved: What ComfyUI listed as outputs before the end, as in its history; removed after the answer.
    """

    code: ClassVar[ErrorCode] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        location: str | None = None,
        node: FailedNode | None = None,
        node_errors: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.location = location
        self.node = node
        self.node_errors = node_errors
        self.saved: dict[str, Any] = {}


class InvalidRequest(PromptError):
    """The message breaks the contract; the sender has to change it."""

    code = "invalid_request"


class Undecodable(InvalidRequest):
    """The message could not be read at all; its bytes go to the dead letter."""


class InvalidPrompt(PromptError):
    """ComfyUI refused the graph; ``node_errors`` says why."""

    code = "invalid_prompt"


class WorkflowNotFound(PromptError):
    """No workflow of that name is installed on this worker."""

    code = "workflow_not_found"


class WorkflowFailed(PromptError):
    """The workflow's own code raised on this input."""

    code = "workflow_failed"


class InputUnavailable(PromptError):
    """An input could not be fetched now."""

    code = "input_unavailable"
    retryable = True


class InputRefused(InputUnavailable):
    """An input will not be there on a second try either: not found, forbidden, not an image."""

    retryable = False


class ExecutionFailed(PromptError):
    """A node raised; the same graph would raise again."""

    code = "execution_error"


class OutOfMemory(ExecutionFailed):
    """ComfyUI ran out of GPU memory; after freeing it another try may succeed."""

    retryable = True


class Cancelled(PromptError):
    """Somebody asked for the prompt's end."""

    code = "cancelled"


class TimedOut(PromptError):
    """The prompt ran longer than it may."""

    code = "timeout"


class Expired(PromptError):
    """The prompt's ``expires_at`` passed before it could be submitted."""

    code = "expired"


class ComfyUnavailable(PromptError):
    """ComfyUI refused the connection, died or hung."""

    code = "comfyui_unavailable"
    retryable = True


class OutputMissing(PromptError):
    """ComfyUI lists an output that cannot be read."""

    code = "output_missing"
    retryable = True


class UploadFailed(PromptError):
    """The target or the output store did not take a file."""

    code = "upload_failed"
    retryable = True


class AttemptsExhausted(PromptError):
    """A failure of the surroundings came on every allowed attempt."""

    code = "attempts_exhausted"
    retryable = True


class InternalError(PromptError):
    """A fault of Comfybus itself; the log has the traceback."""

    code = "internal"
    retryable = True

"""Workflows written in Python: a pydantic model ``Input`` and a function ``generate``.

Used by workflow_graph, workflows, app.prepare.author.run_once; may import app.errors, schemas.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import anyio
import anyio.to_thread
from pydantic import BaseModel

from app.errors import InvalidRequest, PromptError, WorkflowFailed
from app.prepare.context import Context
from schemas.base import WrongField

__all__ = ["CodeWorkflow", "NotAWorkflow", "load_code"]

_DEADLINE_S: Final = 30.0


class NotAWorkflow(Exception):
    """A file in WORKFLOW_DIR cannot be used; the text is one line that says why."""


class CodeWorkflow:
    """One Python file.

    Attributes:
        model: Its ``Input``.
        description: The module's docstring.
        wants_context: ``generate`` takes a second argument.
    """

    def __init__(self, module: ModuleType) -> None:
        self.model = _model(module)
        self.description = inspect.getdoc(module) or ""
        self._generate = _function(module)
        parameters = inspect.signature(self._generate).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.wants_context = len(positional) > 1

    async def generate(self, read: BaseModel, context: Context) -> Any:
        """Call the file's own code; a function that is not async runs in a thread.

        Raises:
            InvalidRequest: The code raised ``WrongField``: the input is at fault in a way that only the code can tell.
            WorkflowFailed: It raised something else, or took longer than the deadline. A thread that does not end is
                left behind then.
        """
        arguments = (read, context) if self.wants_context else (read,)
        try:
            with anyio.fail_after(_DEADLINE_S):
                if inspect.iscoroutinefunction(self._generate):
                    return await self._generate(*arguments)
                return await anyio.to_thread.run_sync(
                    _contained, self._generate, arguments, abandon_on_cancel=True, limiter=_threads()
                )
        except PromptError:
            raise
        except WrongField as exc:
            location = f"input.{exc.location}".rstrip(".")
            raise InvalidRequest(f"{location} cannot be used: {exc.reason}.", location=location) from exc
        except TimeoutError as exc:
            raise WorkflowFailed(f"The workflow's code did not end within {_DEADLINE_S:g} s; see its log.") from exc
        except Exception as exc:
            raise WorkflowFailed(f"The workflow's code raised {_named(exc)}; correct it or the input.") from exc


_limiter: anyio.CapacityLimiter | None = None


def _threads() -> anyio.CapacityLimiter:
    """Threads of their own, so that code that hangs does not take those that files and images need."""
    global _limiter  # noqa: PLW0603 - one for the process
    _limiter = _limiter or anyio.CapacityLimiter(8)
    return _limiter


def _contained(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except SystemExit as exc:
        raise RuntimeError(f"SystemExit({exc.code})") from exc


def load_code(path: Path) -> CodeWorkflow:
    """Run a file of WORKFLOW_DIR, which is the operator's own, and take its workflow. Blocks.

    Nothing is written beside it, and it gets a module name that nothing else has.

    Raises:
        NotAWorkflow: It does not run, or lacks ``Input`` or ``generate``.
    """
    name = f"comfybus_workflow_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    # Where pydantic looks for the names in annotations.
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - operator's
        return CodeWorkflow(module)
    except NotAWorkflow:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise NotAWorkflow(f"it does not load: {_named(exc)}") from exc


def _model(module: ModuleType) -> type[BaseModel]:
    model = getattr(module, "Input", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise NotAWorkflow("it has no class `Input` that is a pydantic model")
    # Names that mean nothing are noticed here and not at the first request.
    model.model_json_schema()
    return model


def _function(module: ModuleType) -> Callable[..., Any]:
    function = getattr(module, "generate", None)
    if not callable(function):
        raise NotAWorkflow("it has no function `generate(input)`")
    return function  # type: ignore[no-any-return]


def _named(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {str(exc)[:300]}".replace("\n", " ")

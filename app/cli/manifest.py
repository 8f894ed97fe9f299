"""``comfybus manifest``: look at what would be installed before anything is.

Used by commands; may import app.settings, app.setup, app.storage.
"""
# ruff: noqa: PLC0415 - `comfybus --help` must not wait for libraries that it does not need

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.groups import show_help

if TYPE_CHECKING:
    from app.setup.manifest import Manifest

__all__ = ["manifest"]

manifest = typer.Typer(help="What is installed before ComfyUI starts.", rich_markup_mode=None)


@manifest.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Show the help when no command follows."""
    if context.invoked_subcommand is None:
        show_help(context)


@manifest.command("check")
def check(file: Annotated[Path, typer.Argument(help="A .yaml, .yml or .json file.")]) -> None:
    """Check a manifest and say how it is read.

    Nothing is installed. Everything that is wrong is printed, one line each, with its field and line; the exit code is
    1 then.
    """
    from app.cli.outcome import ExitCode, say, show
    from app.setup.manifest_file import WrongManifest, read_manifest

    try:
        found = read_manifest(file)
    except WrongManifest as exc:
        for fault in exc.faults:
            say(f"{file}: {fault}")
        raise typer.Exit(ExitCode.FAILED) from None
    faults = _wrong_places(found)
    for line in faults or _described(found):
        (say if faults else show)(f"{file}: {line}" if faults else line)
    raise typer.Exit(ExitCode.FAILED if faults else ExitCode.DONE)


def _wrong_places(found: Manifest) -> list[str]:
    """Paths of models that lead out of ComfyUI's folders, as far as the settings name these."""
    from app.settings import load_settings
    from app.setup.models import place_of
    from app.setup.programs import SetupFailed

    settings = load_settings()
    faults = []
    if settings.comfy_home is None and settings.model_dir is None:
        return []
    for item in (*found.models.before_start, *found.models.after_start):
        try:
            place_of(item.local_path, settings.comfy_home, settings.model_dir)
        except SetupFailed as exc:
            faults.append(str(exc))
    return faults


def _described(found: Manifest) -> list[str]:
    """One line for each thing that would be installed."""
    from app.setup.git_refs import source_of
    from app.setup.manifest import is_url
    from app.storage.secrets import public_url

    lines = [f"apt           {name}" for name in found.apt]
    lines += [f"pip           {name}" for name in found.pip]
    for node in found.custom_nodes:
        if is_url(node):
            source = source_of(node)
            at = f" at {source.reference}" if source.reference else ""
            lines.append(f"custom node   {source.base}{at} in custom_nodes/{source.folder}")
        else:
            lines.append(f"custom node   {node} of the registry")
    for when, items in (("before start", found.models.before_start), ("after start", found.models.after_start)):
        for item in items:
            checked = ", sha256 checked" if item.sha256 else ""
            lines.append(f"model         {public_url(item.url)} to {item.local_path} {when}{checked}")
    return lines or ["nothing to install"]

"""The commands that come in groups: the dead letter and the documents.

Used by bridge, commands, manifest; may import app.documents, app.logs, app.prepare, app.settings.
"""
# ruff: noqa: PLC0415 - `comfybus --help` must not wait for libraries that it does not need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "letters", "schema", "show_help", "workflow"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of words.")]

letters = typer.Typer(help="Requests given up: the dead letter.", rich_markup_mode=None)
workflow = typer.Typer(help="Named workflows.", rich_markup_mode=None)
schema = typer.Typer(help="Documents of the wire contract.", rich_markup_mode=None)


def show_help(context: typer.Context) -> None:
    """Print the help of a call without a command, which is a usage error all the same."""
    from app.cli.outcome import ExitCode

    typer.echo(context.get_help())
    raise typer.Exit(ExitCode.USAGE)


@letters.callback(invoke_without_command=True)
@schema.callback(invoke_without_command=True)
@workflow.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Show the help when no command follows."""
    if context.invoked_subcommand is None:
        show_help(context)


@letters.command("list")
def list_letters(*, as_json: AsJson = False) -> None:
    """List requests that were given up.

    Id, code, reason and time; their bodies are not shown, since they may hold secrets.
    """
    from app.cli.letters import run_list
    from app.cli.running import run

    raise typer.Exit(run(run_list, as_json))


@letters.command("replay")
def replay_letters(
    request_id: Annotated[str, typer.Argument(metavar="[ID]", help="Id of the request.")] = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
) -> None:
    """Run requests that were given up again.

    With their original bytes; the answer's event id has the number of the replay behind it.
    """
    from app.cli.checks import checked_id
    from app.cli.letters import run_replay
    from app.cli.outcome import CommandFailed, ExitCode
    from app.cli.running import run

    if bool(request_id) == everything:
        raise CommandFailed("give an ID or --all, one of them; see comfybus dlq replay --help", ExitCode.USAGE)
    raise typer.Exit(run(run_replay, checked_id(request_id) if request_id else ""))


@schema.command("asyncapi")
def print_asyncapi(
    prefix: Annotated[str, typer.Option(metavar="P", help="TOPIC_PREFIX of the channel names.")] = "comfyui",
    workflows: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="WORKFLOW_DIR; else the shipped workflows."),
    ] = None,
) -> None:
    """Print the AsyncAPI 3 document as YAML.

    With a schema of the inputs of each named workflow.
    """
    from app.cli.checks import checked_prefix
    from app.documents.asyncapi import asyncapi_yaml
    from app.logs import set_up_logs
    from app.prepare.workflows import Workflows
    from app.settings.tree import SHIPPED_WORKFLOWS

    # What cannot be loaded is said beside the document, not in it.
    set_up_logs("warning")
    described = Workflows.load(workflows or SHIPPED_WORKFLOWS).describe_all()
    typer.echo(asyncapi_yaml(checked_prefix(prefix), described), nl=False)


@schema.command("json")
def write_schemas(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if need be.")]) -> None:
    """Write one JSON Schema per message.

    Into a folder; the path of each is printed.
    """
    from app.documents.json_schemas import write_json_schemas

    for path in write_json_schemas(folder):
        typer.echo(path)


@workflow.command("list")
def list_workflows() -> None:
    """List the workflows of WORKFLOW_DIR, by default the shipped ones."""
    from app.cli.running import run
    from app.cli.workflow import run_list

    raise typer.Exit(run(run_list))


@workflow.command("show")
def show_workflow(name: Annotated[str, typer.Argument(metavar="NAME", help="As `workflow list` has it.")]) -> None:
    """Print what a workflow does and a table of its inputs."""
    from app.cli.running import run
    from app.cli.workflow import run_show

    raise typer.Exit(run(run_show, name))


@workflow.command("generate")
def generate_workflow(
    graph: Annotated[Path, typer.Argument(metavar="IN.json", help="A graph in API format.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.py", help="The workflow to write.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.py if it is there.")] = False,
) -> None:
    """Have a language model write a workflow for a graph.

    Its answer is tried before the file appears: it must give the same graph for its default inputs.
    """
    from app.cli.running import run
    from app.cli.workflow import run_generate

    raise typer.Exit(run(run_generate, graph, out, overwrite=overwrite))

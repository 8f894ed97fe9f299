"""Every command with its arguments; what it does is imported when it is called."""
# ruff: noqa: PLC0415 - `comfybus --help` must not wait for libraries that it does not need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["application"]

application = typer.Typer(
    name="comfybus",
    help="Run ComfyUI from a message broker. Settings come from the environment and a .env file.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
letters = typer.Typer(help="Requests that were given up: the dead letter.", rich_markup_mode=None)
schema = typer.Typer(help="The documents of the wire contract.", rich_markup_mode=None)
application.add_typer(letters, name="dlq")
application.add_typer(schema, name="schema")

RequestId = Annotated[str, typer.Argument(metavar="ID", help="Id of the request.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of words.")]


@application.callback(invoke_without_command=True)
def comfybus(
    context: typer.Context,
    *,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failure comes from.")] = False,
) -> None:
    """Run ComfyUI from a message broker. Settings come from the environment and a .env file."""
    from app.cli.outcome import ExitCode, show_tracebacks

    if traceback:
        show_tracebacks()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


@application.command()
def demo(
    comfyui: Annotated[str, typer.Option(metavar="URL", help="Use this ComfyUI instead of the stand-in.")] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the result goes.")] = Path("comfybus-demo"),
) -> None:
    """Run everything on this machine: an embedded NATS server, a stand-in ComfyUI, a worker, one picture."""
    from app.cli.demo.story import run_demo
    from app.cli.running import run

    raise typer.Exit(run(run_demo, comfyui, out))


@application.command()
def worker() -> None:
    """Run the worker: requests from the broker, prompts on ComfyUI, until SIGTERM or SIGINT."""
    import anyio

    from app.logs import set_up_logs
    from app.settings import load_settings
    from app.worker.app import run_worker

    settings = load_settings()
    set_up_logs(settings.log_level, settings.log_format)
    anyio.run(run_worker, settings)


@application.command()
def submit(
    file: Annotated[str, typer.Argument(help="A request, or a graph in API format, as JSON; - for stdin.")] = "",
    *,
    workflow: Annotated[str, typer.Option(metavar="NAME", help="A named workflow instead of a file.")] = "",
    values: Annotated[
        list[str] | None, typer.Option("-i", "--input", metavar="KEY=VALUE", help="A value for the workflow.")
    ] = None,
    request_id: Annotated[str, typer.Option("--id", metavar="ID", help="The request's id; else a new UUID.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end and save its outputs.")] = False,
    timeout: Annotated[float | None, typer.Option(metavar="S", min=0, help="Wait no longer than this.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where outputs go: ./comfybus-out, with --json only when given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the terminal event and nothing else.")] = False,
) -> None:
    """Send a request and print its id. With --wait the exit code is 0 complete, 1 failed, 3 no answer."""
    from app.cli.requests import build_request
    from app.cli.running import run
    from app.cli.submit import Wait, check_wait, run_submit

    document = build_request(file, workflow, values or [], request_id)
    check_wait(wait=wait, timeout_s=timeout, out=out)
    plan = Wait(timeout, out or (None if as_json else Path("comfybus-out"))) if wait else None
    raise typer.Exit(run(run_submit, document, plan, as_json))


@application.command()
def watch(
    request_id: Annotated[str, typer.Argument(metavar="[ID]", help="Only this request, to its end.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Print events as they come, one line each: of everything, or of one request to its end."""
    from app.cli.running import run
    from app.cli.watch import run_watch

    raise typer.Exit(run(run_watch, request_id, as_json))


@application.command()
def workers(*, as_json: AsJson = False) -> None:
    """List the workers that live, with what they do."""
    from app.cli.fleet import run_workers
    from app.cli.running import run

    raise typer.Exit(run(run_workers, as_json))


@application.command()
def cancel(request_id: RequestId) -> None:
    """Ask for the end of one request, wherever it is; one that has ended stays as it is."""
    from app.cli.fleet import cancel_command, run_command
    from app.cli.running import run

    raise typer.Exit(run(run_command, cancel_command(request_id)))


@application.command()
def download(
    url: Annotated[str, typer.Argument(help="Where the model is.")],
    *,
    model_type: Annotated[str, typer.Option("--type", metavar="T", help="A model folder, e.g. checkpoints.")],
    filename: Annotated[str, typer.Option(metavar="NAME", help="Name to give the file.")] = "",
) -> None:
    """Have every worker fetch a model into the folder of its type."""
    from app.cli.fleet import download_command, run_command
    from app.cli.running import run

    raise typer.Exit(run(run_command, download_command(url, model_type, filename)))


@application.command()
def doctor() -> None:
    """Check settings, broker, ComfyUI and output store: one line each, with the cure of what is wrong."""
    import anyio

    from app.cli.doctor import run_doctor
    from app.logs import set_up_logs

    set_up_logs("fatal")
    raise typer.Exit(anyio.run(run_doctor))


@letters.command("list")
def list_letters(*, as_json: AsJson = False) -> None:
    """List requests given up: id, code, reason, when. Their bodies are not shown."""
    from app.cli.letters import run_list
    from app.cli.running import run

    raise typer.Exit(run(run_list, as_json))


@letters.command("replay")
def replay_letters(
    request_id: Annotated[str, typer.Argument(metavar="[ID]", help="Id of the request.")] = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
) -> None:
    """Run requests given up again, with their original bytes."""
    from app.cli.letters import check_choice, run_replay
    from app.cli.running import run

    check_choice(request_id, everything=everything)
    raise typer.Exit(run(run_replay, request_id))


@schema.command("asyncapi")
def print_asyncapi(
    prefix: Annotated[str, typer.Option(metavar="P", help="TOPIC_PREFIX of the channel names.")] = "comfyui",
) -> None:
    """Print the AsyncAPI 3 document of every channel as YAML."""
    from app.documents.asyncapi import asyncapi_yaml

    typer.echo(asyncapi_yaml(prefix), nl=False)


@schema.command("json")
def write_schemas(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if need be.")]) -> None:
    """Write one JSON Schema per message into a folder and print their paths."""
    from app.documents.json_schemas import write_json_schemas

    for path in write_json_schemas(folder):
        typer.echo(path)

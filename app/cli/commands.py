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
letters = typer.Typer(help="Requests given up: the dead letter.", rich_markup_mode=None)
schema = typer.Typer(help="Documents of the wire contract.", rich_markup_mode=None)


@letters.callback(invoke_without_command=True)
@schema.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        _show_help(context)


def _show_help(context: typer.Context) -> None:
    from app.cli.outcome import ExitCode

    typer.echo(context.get_help())
    raise typer.Exit(ExitCode.USAGE)


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
    from app.cli.outcome import show_tracebacks

    if traceback:
        show_tracebacks()
    if context.invoked_subcommand is None:
        _show_help(context)


@application.command()
def demo(
    comfyui: Annotated[str, typer.Option(metavar="URL", help="Use this ComfyUI instead of the stand-in.")] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the result goes.")] = Path("comfybus-demo"),
) -> None:
    """Run everything here, nothing installed.

    An embedded NATS server, a stand-in ComfyUI (or a real one by --comfyui), a worker, a shipped workflow on a shipped
    photograph; the result is saved and its path printed. Nothing keeps running.
    """
    import anyio

    from app.cli.checks import checked_http_url
    from app.cli.demo.story import run_demo
    from app.logs import set_up_logs

    url = checked_http_url(comfyui, "--comfyui") if comfyui else ""
    set_up_logs("fatal")
    raise typer.Exit(anyio.run(run_demo, url, out))


@application.command()
def worker() -> None:
    """Run the worker until SIGTERM or SIGINT.

    It takes requests from the broker, runs them on ComfyUI and publishes their results.
    """
    import anyio

    from app.logs import set_up_logs
    from app.settings import load_settings
    from app.worker.app import run_worker

    settings = load_settings()
    set_up_logs(settings.log_level, settings.log_format)
    anyio.run(run_worker, settings)


@application.command()
def submit(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A request, or a graph in API format, as JSON; - for stdin.")
    ] = "",
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
    """Send a request and print its id.

    With --wait it is followed to its end and its outputs are saved; the exit code is 0 complete, 1 failed, 2 usage,
    3 no answer.
    """
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
    """Print events as they come.

    One line each: new events of everything, or those of one request to its end.
    """
    from app.cli.checks import checked_id
    from app.cli.running import run
    from app.cli.watch import run_watch

    raise typer.Exit(run(run_watch, checked_id(request_id) if request_id else "", as_json))


@application.command()
def workers(*, as_json: AsJson = False) -> None:
    """List the workers that live."""
    from app.cli.fleet import run_workers
    from app.cli.running import run

    raise typer.Exit(run(run_workers, as_json))


@application.command()
def cancel(request_id: RequestId) -> None:
    """Ask for the end of one request.

    Wherever it is: waiting, running, or not yet sent. One that has ended stays as it is.
    """
    from app.cli.checks import checked_command
    from app.cli.fleet import run_command
    from app.cli.running import run

    raise typer.Exit(run(run_command, checked_command(type="prompt.cancel", id=request_id)))


@application.command()
def download(
    url: Annotated[str, typer.Argument(help="Where the model is.")],
    *,
    model_type: Annotated[str, typer.Option("--type", metavar="T", help="A model folder, e.g. checkpoints.")],
    filename: Annotated[str, typer.Option(metavar="NAME", help="Name to give the file.")] = "",
) -> None:
    """Have every worker fetch a model.

    It goes into the folder of its type; comfybus watch shows how it went.
    """
    from app.cli.checks import checked_command, checked_model_url
    from app.cli.fleet import run_command
    from app.cli.running import run

    url = checked_model_url(url)
    command = checked_command(type="model.download", url=url, model_type=model_type, filename=filename or None)
    raise typer.Exit(run(run_command, command))


@application.command()
def doctor() -> None:
    """Check settings, broker, ComfyUI and output store.

    One line each, with the cure of what is wrong. The exit code is 1 when something is.
    """
    import anyio

    from app.cli.doctor import run_doctor
    from app.logs import set_up_logs

    set_up_logs("fatal")
    raise typer.Exit(anyio.run(run_doctor))


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
) -> None:
    """Print the AsyncAPI 3 document as YAML."""
    from app.cli.checks import checked_prefix
    from app.documents.asyncapi import asyncapi_yaml

    typer.echo(asyncapi_yaml(checked_prefix(prefix)), nl=False)


@schema.command("json")
def write_schemas(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if need be.")]) -> None:
    """Write one JSON Schema per message.

    Into a folder; the path of each is printed.
    """
    from app.documents.json_schemas import write_json_schemas

    for path in write_json_schemas(folder):
        typer.echo(path)

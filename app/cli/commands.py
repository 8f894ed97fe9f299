"""Every command with its arguments; what it does is imported when it is called.

Used by its folder's ``__init__``; may import app.cli.demo, app.logs, app.settings, app.worker.
"""
# ruff: noqa: PLC0415 - `comfybus --help` must not wait for libraries that it does not need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.bridge import bridge, webhooks
from app.cli.groups import AsJson, letters, schema, show_help, workflow
from app.cli.manifest import manifest

__all__ = ["application"]

application = typer.Typer(
    name="comfybus",
    help="Run ComfyUI from a message broker. Settings come from the environment and a .env file.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
application.add_typer(letters, name="dlq")
application.add_typer(schema, name="schema")
application.add_typer(workflow, name="workflow")
application.add_typer(manifest, name="manifest")
application.add_typer(webhooks, name="webhooks")

RequestId = Annotated[str, typer.Argument(metavar="ID", help="Id of the request.")]


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
        show_help(context)


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


application.command()(bridge)


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
def workers(
    *,
    live: Annotated[bool, typer.Option("--watch", help="Go on, with the prompts in hand, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the workers that live.

    With --watch a table of them and of the prompts they have in hand, kept up to date; with --json their events, one
    line each.
    """
    from app.cli.fleet import run_workers
    from app.cli.running import run

    if live:
        from app.cli.live import run_live

        raise typer.Exit(run(run_live, as_json))
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

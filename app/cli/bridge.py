"""``comfybus bridge`` and ``comfybus webhooks``: their arguments.

Used by commands; may import app.bridge, app.logs, app.settings.
"""
# ruff: noqa: PLC0415 - `comfybus --help` must not wait for libraries that it does not need

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.groups import AsJson, show_help

__all__ = ["bridge", "webhooks"]

webhooks = typer.Typer(help="Webhooks of the bridge: those given up, and a sample.", rich_markup_mode=None)


def bridge() -> None:
    """Run the webhook bridge until SIGTERM or SIGINT.

    It reads the events and delivers webhooks, signed and with days of patience; several of them share the work.
    """
    import anyio

    from app.bridge.app import run_bridge
    from app.logs import set_up_logs
    from app.settings import load_settings

    settings = load_settings()
    set_up_logs(settings.log_level, settings.log_format)
    anyio.run(run_bridge, settings)


@webhooks.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Show the help when no command follows."""
    if context.invoked_subcommand is None:
        show_help(context)


@webhooks.command("list")
def list_webhooks(
    *,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those that are still tried.")] = False,
    as_json: AsJson = False,
) -> None:
    """List webhooks that were given up.

    URLs are shown without user and query; bodies are not shown.
    """
    from app.cli.running import run
    from app.cli.webhooks import run_list

    raise typer.Exit(run(run_list, waiting, as_json))


@webhooks.command("replay")
def replay_webhooks(
    wanted: Annotated[
        str, typer.Argument(metavar="[ID]", help="A delivery, a webhook-id, or a request with all its webhooks.")
    ] = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every webhook that was given up.")] = False,
) -> None:
    """Deliver webhooks that were given up again.

    With their webhook-id and from the beginning of the schedule; an endpoint that answered 410 is asked again.
    """
    from app.cli.outcome import CommandFailed, ExitCode
    from app.cli.running import run
    from app.cli.webhooks import run_replay

    if bool(wanted) == everything:
        raise CommandFailed("give an ID or --all, one of them; see comfybus webhooks replay --help", ExitCode.USAGE)
    raise typer.Exit(run(run_replay, wanted))


@webhooks.command("test")
def test_webhook(url: Annotated[str, typer.Argument(help="The receiver.")]) -> None:
    """Send a signed sample to a receiver and say what it answers.

    From here and at once, as the bridge would: with WEBHOOK_SECRET, or the secrets of the subscription with this URL.
    """
    from app.cli.running import run
    from app.cli.webhooks import run_test

    raise typer.Exit(run(run_test, url))

"""``comfybus workflow``: what the named workflows are and take, and a new one from a graph.

Used by groups; may import app.prepare, app.prepare.author, app.settings.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import anyio.to_thread
import typer

from app.cli.outcome import ExitCode
from app.prepare.author import AuthorConfig, author_workflow
from app.prepare.workflow_inputs import markdown_table
from app.prepare.workflows import Workflows
from app.settings import Settings
from app.settings.broker import reveal
from app.settings.tree import SHIPPED_WORKFLOWS

__all__ = ["run_generate", "run_list", "run_show"]


async def _load(settings: Settings) -> Workflows:
    return await anyio.to_thread.run_sync(Workflows.load, settings.workflow_dir or SHIPPED_WORKFLOWS)


async def run_list(settings: Settings) -> int:
    """One line each: name and what it does."""
    for info in (await _load(settings)).describe_all():
        typer.echo(f"{info.name}  {info.summary}" if info.summary else info.name)
    return ExitCode.DONE


async def run_show(settings: Settings, name: str) -> int:
    """The description and the table of inputs of one workflow."""
    info = (await _load(settings)).describe(name)
    table = markdown_table(info.fields) if info.fields else "It takes no inputs."
    typer.echo("\n\n".join(part for part in (info.name, info.description, table) if part))
    return ExitCode.DONE


async def run_generate(settings: Settings, graph: Path, out: Path, *, overwrite: bool) -> int:
    """Have a language model write a workflow for a graph; the file appears only when it has been tried."""
    config = AuthorConfig(
        url=settings.workflow_llm_url,
        api_key=reveal(settings.workflow_llm_api_key) or "",
        model=settings.workflow_llm_model,
        anthropic_api_key=reveal(settings.anthropic_api_key) or "",
        minimax_api_key=reveal(settings.minimax_api_key) or "",
        anthropic_url=settings.anthropic_base_url,
        minimax_url=settings.minimax_base_url,
    )
    async with aiohttp.ClientSession(trust_env=True) as session:
        await author_workflow(graph, out, config, session, overwrite=overwrite)
    typer.echo(str(out))
    return ExitCode.DONE

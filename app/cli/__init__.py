"""The command line. Only what a command needs is imported: ``comfybus --help`` loads neither broker nor web server.

Used by app.__main__; may import its folder alone.
"""
# ruff: noqa: PLC0415 - imported as a module, the package should cost nothing

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises but for a request to end.

    Args:
        arguments: Without the program's name; those of the process when None.

    Returns:
        0 done, 1 failed, 2 usage or settings, 3 no answer, 130 interrupted.
    """
    from app.cli.commands import application
    from app.cli.outcome import explain, run_application

    try:
        return run_application(application, arguments)
    except Exception as exc:  # noqa: BLE001 - the last place: one line instead of a traceback
        return explain(exc)

"""Does the set-up of its settings once, as a worker does before it starts ComfyUI; exit code 1 if it fails."""

from __future__ import annotations

import sys

import anyio

from app.errors import ComfybusError
from app.logs import set_up_logs
from app.settings import load_settings
from app.settings.setup import setup_config
from app.setup.installation import installation


async def main() -> None:
    """Install everything."""
    config = setup_config(load_settings())
    assert config is not None
    async with installation(config) as setup:
        await setup.before_start()


if __name__ == "__main__":
    set_up_logs("info", "json")
    try:
        anyio.run(main)
    except ComfybusError as exc:
        sys.exit(str(exc))

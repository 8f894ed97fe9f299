"""What the set-up, the warm-up and the watch over memory are told of the settings.

Used by app.worker.app, app.worker.worker; may import app.comfy, app.errors, app.setup.
"""

from __future__ import annotations

import os
from pathlib import Path

from app.comfy.child_environment import child_environment
from app.errors import ConfigurationError
from app.settings.broker import reveal
from app.settings.parts import storage_config
from app.settings.tree import Settings
from app.setup.config import SetupConfig
from app.setup.manifest import Manifest
from app.setup.manifest_file import WrongManifest, parse_manifest, read_manifest
from app.setup.recycle import Recycling
from app.setup.warmup import WarmUp, read_warm_up

__all__ = ["read_settings_manifest", "recycling", "setup_config", "warm_up_prompt"]

# Where packages and repositories are may be secret, and the installers have to know it; ComfyUI does not.
_INDEXES = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "PIP_CERT", "PIP_CLIENT_CERT"),
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
)


def read_settings_manifest(settings: Settings) -> Manifest | None:
    """MANIFEST_JSON, else MANIFEST; None if neither is set.

    Raises:
        ConfigurationError: It is wrong; one line with the first fault, its field and line.
    """
    text = reveal(settings.manifest_json)
    try:
        if text and text.strip():
            return parse_manifest(text, json_only=True)
        return read_manifest(settings.manifest) if settings.manifest else None
    except WrongManifest as exc:
        name = "MANIFEST_JSON" if text else f"MANIFEST={settings.manifest}"
        more = f" (and {len(exc.faults) - 1} more)" if len(exc.faults) > 1 else ""
        raise ConfigurationError(f"{name} is wrong: {exc.faults[0]}{more}") from exc


def setup_config(settings: Settings) -> SetupConfig | None:
    """What to install and with what; None without a manifest.

    Raises:
        ConfigurationError: The manifest is wrong.
    """
    manifest = read_settings_manifest(settings)
    if manifest is None:
        return None
    git = tuple(name for name in os.environ if name.startswith(("GIT_", "SSH_")))
    return SetupConfig(
        manifest=manifest,
        storage=storage_config(settings),
        environment=child_environment(
            os.environ, host=settings.direct_address, port=settings.comfyui_port_host, passed_on=(*_INDEXES, *git)
        ),
        comfy_home=_absolute(settings.comfy_home),
        model_dir=_absolute(settings.model_dir),
        comfy_python=settings.comfy_python,
        program_timeout_s=settings.setup_timeout_s,
    )


async def warm_up_prompt(settings: Settings) -> WarmUp | None:
    """The warm-up prompt; None if there is none.

    Raises:
        ConfigurationError: It cannot be had or is no graph.
    """
    url = reveal(settings.warmup_prompt_url)
    return await read_warm_up(settings.warmup_prompt_file, url or None, storage_config(settings))


def recycling(settings: Settings) -> Recycling:
    """When ComfyUI is started anew for its memory."""
    return Recycling.above_gb(settings.comfy_memory_limit_gb)


def _absolute(path: Path | None) -> Path | None:
    return Path(os.path.abspath(path)) if path is not None else None  # noqa: PTH100 - Path.absolute keeps ".."

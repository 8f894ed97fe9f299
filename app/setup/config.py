"""What the set-up is told: everything from outside, nothing read from the environment here.

Used by installation, app.settings.setup; may import app.storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.setup.manifest import Manifest
from app.storage.config import StorageConfig

__all__ = ["SetupConfig"]


@dataclass(frozen=True)
class SetupConfig:
    """One frozen set of settings for what is installed.

    Attributes:
        manifest: What to install.
        storage: For the models.
        environment: What the programs of the set-up may see.
        comfy_home: COMFY_HOME.
        model_dir: MODEL_DIR, if it is not below COMFY_HOME.
        comfy_python: COMFY_PYTHON.
        program_timeout_s: SETUP_TIMEOUT_S.
        lock_wait_s: How long another process that installs is waited for.
    """

    manifest: Manifest
    storage: StorageConfig
    environment: Mapping[str, str] = field(repr=False)
    comfy_home: Path | None = None
    model_dir: Path | None = None
    comfy_python: Path | None = None
    program_timeout_s: float = 3600.0
    lock_wait_s: float = 4 * 3600.0

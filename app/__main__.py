"""``python -m app`` is ``comfybus``.

Run by the command ``comfybus`` and by ``python -m app``; may import app.cli.
"""

from __future__ import annotations

import sys

from app.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m app.prepare.author.run_once FILE``: prints the graph that a workflow makes for its defaults.

Run by check as a process of its own; may import app.prepare.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import resource
import sys
from pathlib import Path

from app.prepare.author.check import plain_graph
from app.prepare.workflow_code import load_code
from app.prepare.workflows import Workflows

_MEMORY_BYTES = 2 * 1024**3
_CPU_S = 15


def main() -> None:
    """Load the one workflow of the file's folder, make its graph, print it; everything it prints itself is dropped."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    # It may write no file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    path = Path(sys.argv[1])
    with contextlib.redirect_stdout(io.StringIO()):
        workflow = load_code(path)
        graph = asyncio.run(Workflows({path.stem: workflow}).generate(path.stem, {}))
    sys.stdout.write(json.dumps(plain_graph(graph)))


if __name__ == "__main__":
    main()

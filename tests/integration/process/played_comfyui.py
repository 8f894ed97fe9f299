"""A program that plays ComfyUI's life as the arguments say, one step after the other.

``python -I -S played_comfyui.py PORT FOLDER STEP…``; every launch adds a line to FOLDER/launches, every process it
makes a line ``kind pid`` to FOLDER/pids. Steps:

``say:TEXT`` prints; ``sleep:S`` waits; ``listen`` answers ``GET /prompt`` at the port from now on, in a thread;
``exit:CODE`` and ``die:SIGNAL`` end it; ``first:N:STEP`` does the step in the first N launches only;
``deaf`` ignores SIGTERM; ``child`` starts a process of its group, ``heir`` one whose parent ends at once,
``runaway`` one that leaves group and session too, each deaf to SIGTERM; ``environment`` writes its environment to
FOLDER/environment; ``alone`` fails if another launch is still alive; ``ask:PATH`` waits until the file exists.
Without an end it lives for ever.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ANSWER = b'{"exec_info": {"queue_remaining": 0}}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


def main() -> None:
    """Play."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    note(folder / "launches", f"{time.monotonic()} {os.getpid()}")
    note(folder / "pids", f"leader {os.getpid()}")
    for step in sys.argv[3:]:
        play(step, port, folder)
    while True:
        time.sleep(60)


def play(step: str, port: int, folder: Path) -> None:
    """Do one step."""
    name, _, given = step.partition(":")
    if name == "first":
        launches, _, given = given.partition(":")
        if len((folder / "launches").read_text().splitlines()) <= int(launches):
            play(given, port, folder)
        return
    steps: dict[str, Callable[[], object]] = {
        "say": lambda: os.write(1, given.encode() + b"\n"),
        "sleep": lambda: time.sleep(float(given)),
        "listen": lambda: listen(port),
        "exit": lambda: os._exit(int(given)),
        "die": lambda: os.kill(os.getpid(), int(given)),
        "deaf": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        "environment": lambda: (folder / "environment").write_text(json.dumps(dict(os.environ))),
        "alone": lambda: alone(folder),
        "ask": lambda: wait_for(Path(given)),
        **dict.fromkeys(("child", "heir", "runaway"), lambda: spawn(name, folder)),
    }
    steps[name]()


def wait_for(path: Path) -> None:
    """Wait until a file exists."""
    while not path.exists():
        time.sleep(0.01)


def listen(port: int) -> None:
    """Answer at the port from now on."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen(64)
    threading.Thread(target=serve, args=(server,), daemon=True).start()


def serve(server: socket.socket) -> None:
    """Answer everything."""
    while True:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(HEAD % len(ANSWER) + ANSWER)


def spawn(kind: str, folder: Path) -> None:
    """Start a process that lives for ever and heeds no SIGTERM; returns when it has said who it is."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        if kind == "runaway":
            os.setsid()
        if kind != "child" and os.fork() != 0:
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(folder / "pids", f"{kind} {os.getpid()}")
        os.close(writer)
        while True:
            time.sleep(60)
    os.close(writer)
    os.read(reader, 1)


def alone(folder: Path) -> None:
    """See that all launches before this one are over."""
    for line in (folder / "launches").read_text().splitlines()[:-1]:
        pid = line.split()[1]
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
        if state != "Z":
            note(folder / "overlaps", pid)


def note(path: Path, line: str) -> None:
    """Add a line."""
    with path.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()

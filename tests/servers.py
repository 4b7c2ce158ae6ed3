"""What the real servers have in common: a free port, a start that is waited for, and an end that is not for ever."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from socket import socket

START_LIMIT = 10.0  # seconds: hang guard
STOP_LIMIT = 5.0  # seconds that a server may take to close what it has open


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: Sequence[str], port: int, error: Callable[[], str]) -> subprocess.Popen[bytes]:
    """Return the process once somebody accepts connections at the port; the caller is to `stop` it.

    If it does not come up nothing is left of it, and what is raised has what ``error`` knows of the reason.
    """
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        _wait_until_it_listens(process, port, error)
    except BaseException:
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and wait until it has; one that does not is killed."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def log_with(path: Path, words: str, times: int = 1) -> str:
    """Return a log that has the words so often by now: servers write it after the response."""
    deadline = time.monotonic() + START_LIMIT
    while (log := path.read_text()).count(words) < times:
        assert time.monotonic() < deadline, f"{words!r} is not {times} times in {log!r}"
        time.sleep(0.02)
    return log


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, error: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        with closing(socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not run: {error()}")

"""What the real servers have in common: a free port, and a start that is waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from socket import socket

START_LIMIT = 10.0  # seconds: hang guard


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int, error: Callable[[], str]) -> None:
    """Return when somebody accepts connections there, or raise with what the server has said of it."""
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        with closing(socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not run: {error()}")

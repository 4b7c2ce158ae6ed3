"""A real SOCKS 5 proxy on a free loopback port: microsocks."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import closing
from socket import socket
from typing import Self

from tests.nginx import START_LIMIT, free_port


class Microsocks:
    """Forward while the context lasts, for whoever logs in as that user, or for everybody."""

    def __init__(self, program: str, login: tuple[str, str] | None = None) -> None:
        self._command = [program, "-i", "127.0.0.1", *(["-u", login[0], "-P", login[1]] if login else [])]

    @staticmethod
    def find() -> str | None:
        """Return the path of the program, None if there is none."""
        return shutil.which("microsocks")

    def __enter__(self) -> Self:
        self.port = free_port()
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen([*self._command, "-p", str(self.port)], stdin=nothing, stderr=nothing)
        deadline = time.monotonic() + START_LIMIT
        while self._process.poll() is None and time.monotonic() < deadline:
            with closing(socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError("microsocks does not run")

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

"""A real SOCKS 5 proxy on a free loopback port: microsocks."""

from __future__ import annotations

import shutil
import subprocess
from typing import Self

from tests.servers import free_port, wait_until_it_listens


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
        try:
            wait_until_it_listens(self._process, self.port, lambda: "it does not say why")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

"""A real SOCKS 5 proxy on a free loopback port: microsocks."""

from __future__ import annotations

import shutil
from typing import Self

from tests.servers import free_port, start, stop


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
        command = [*self._command, "-p", str(self.port)]
        self._process = start(command, self.port, lambda: "it does not say why")
        return self

    def __exit__(self, *exc_info: object) -> None:
        stop(self._process)

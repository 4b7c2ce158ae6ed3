"""A real squid on free loopback ports: a forward proxy, open or for one user."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.servers import free_port, start, stop

CONFIG = """
http_port 127.0.0.1:{port}
pid_filename {folder}/pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache deny all
coredump_dir {folder}
shutdown_lifetime 0 seconds
{auth}
http_access allow known
http_access deny all
"""
LOGIN = """auth_param basic program {helper} {folder}/passwords
acl known proxy_auth REQUIRED"""
HELPER = "/usr/lib/squid/basic_ncsa_auth"


class Squid:
    """Forward while the context lasts, for whoever logs in as that user, or for everybody.  ``url`` is where it is."""

    def __init__(self, program: str, login: tuple[str, str] | None = None) -> None:
        self._program = program
        self.login = login

    @staticmethod
    def find() -> str | None:
        """Return the path of the program, None if there is none with its helper."""
        program = shutil.which("squid", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin")
        return program if program and Path(HELPER).exists() else None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # It gives up its rights, and the folders of pytest let nobody in.
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="squid-")))
            self._folder.chmod(0o777)
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            self._write(port)
            command = [self._program, "-N", "-f", str(self._folder / "conf")]
            stack.callback(stop, start(command, port, (self._folder / "cache.log").read_text))
            self._end = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.close()

    def _write(self, port: int) -> None:
        auth = "acl known src all"
        if self.login is not None:
            auth = LOGIN.format(helper=HELPER, folder=self._folder)
            hashed = subprocess.run(
                ["openssl", "passwd", "-apr1", self.login[1]], capture_output=True, text=True, check=True
            )
            (self._folder / "passwords").write_text(f"{self.login[0]}:{hashed.stdout.strip()}\n")
            (self._folder / "passwords").chmod(0o644)
        (self._folder / "conf").write_text(CONFIG.format(port=port, folder=self._folder, auth=auth))

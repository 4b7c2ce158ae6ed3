"""How a program that embeds rawdl is run: as a process of its own, with every warning an error."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARD = 60.0  # seconds: no program here takes a tenth of it


class Program:
    """Start programs in a folder of their own; what is still alive at the end of the test is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
        self.environment.pop("PYTHONUNBUFFERED", None)  # they are to flush what is to be seen at once
        self._started: list[subprocess.Popen[bytes]] = []
        self._guards: list[threading.Timer] = []

    def start(self, script: Path, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "error", str(script), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, bufsize=0, **pipes)
        self._started.append(process)
        self._guards.append(threading.Timer(GUARD, process.kill))
        self._guards[-1].start()
        return process

    def line(self, process: subprocess.Popen[bytes]) -> str:
        """Return the next line that it writes; it must not end before."""
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line, self.end(process)
        return line

    def end(self, process: subprocess.Popen[bytes], code: int = 0) -> str:
        """Return what it wrote until its end, which must come with this exit code and without a complaint."""
        stdout, stderr = process.communicate(timeout=GUARD)
        assert (process.returncode, stderr.decode()) == (code, "")
        return stdout.decode()

    def run(self, script: Path, *arguments: str, code: int = 0) -> str:
        return self.end(self.start(script, *arguments), code)

    def close(self) -> None:
        for guard in self._guards:
            guard.cancel()
            guard.join()
        for process in self._started:
            process.kill()
            with suppress(ValueError):  # its pipes are closed already
                process.communicate()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.close()


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Return what makes sure of an X display, and returns its name; it skips the test where there can be none."""
    servers: list[subprocess.Popen[bytes]] = []

    def ensure() -> str:
        pytest.importorskip("tkinter", reason="this Python has no tkinter (Debian: apt-get install python3-tk)")
        if name := os.environ.get("DISPLAY"):
            return name
        reader, writer = os.pipe()
        command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "320x240x24", "-nolisten", "tcp"]
        try:
            with (tmp_path / "Xvfb.log").open("wb") as log:
                servers.append(subprocess.Popen(command, pass_fds=[writer], stdout=log, stderr=log))
        except FileNotFoundError:
            os.close(reader)
            pytest.skip("there is no display, and no Xvfb to make one (Debian: apt-get install xvfb)")
        finally:
            os.close(writer)
        with os.fdopen(reader) as pipe:
            number = pipe.readline().strip()
        assert number, (tmp_path / "Xvfb.log").read_text()
        return f":{number}"

    yield ensure
    for server in servers:
        server.terminate()
        server.wait(GUARD)

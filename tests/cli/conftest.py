"""Fixtures that run the command as a user does: as a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.register_assert_rewrite("tests.cli.scenarios")  # its assertions are tests, too

ROOT = Path(__file__).parents[2]
GUARD = 60.0  # seconds: no command here takes a tenth of it


class Outcome(NamedTuple):
    code: int
    stdout: bytes
    stderr: str

    @property
    def complaint(self) -> str:
        """The one line that a failure is told with."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, f"not one line: {self.stderr!r}"
        assert self.stdout == b""
        return lines[0]


class Command:
    """The command, run in a folder of its own, with every warning an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "TMPDIR": str(folder)}
        self.environment["XDG_CONFIG_HOME"] = str(folder.parent / "config")
        self.environment.pop("PYTHONUNBUFFERED", None)  # what is printed lies in a buffer, as for everybody

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "rawdl", *arguments]

    def __call__(self, *arguments: str) -> Outcome:
        return self.outcome(self.argv(*arguments))

    def after(self, preparation: str, *arguments: str) -> Outcome:
        """Run Python statements first, in the same process."""
        code = f"import sys; {preparation}; from rawdl.cli.main import main; sys.exit(main(sys.argv[1:]))"
        return self.outcome([sys.executable, "-W", "error", "-c", code, *arguments])

    def outcome(self, argv: list[str]) -> Outcome:
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=GUARD
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    def shell(self, line: str) -> Outcome:
        """Have bash carry out a line, in which `rawdl` and `python` are what the tests run with."""
        programs = self.folder.parent / "bin"
        programs.mkdir(exist_ok=True)
        for name, arguments in (("python", ""), ("rawdl", "-m rawdl ")):
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -W error {arguments}"$@"\n')
            (programs / name).chmod(0o755)
        self.environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return self.outcome(["bash", "-c", line])

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv(*arguments), cwd=self.folder, env=self.environment, **options)

    def on_terminal(self, *arguments: str, columns: int = 80, rows: int = 24) -> tuple[int, str]:
        """Run it with a terminal for its standard output and error; return the status and all that it wrote there."""
        master, slave = open_terminal(columns, rows)
        with self.start(*arguments, stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            written = b"".join(_pieces(master))
            os.close(master)
            return process.wait(GUARD), written.decode()

    def files(self) -> list[str]:
        """Name what is in its folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def open_terminal(columns: int, rows: int) -> tuple[int, int]:
    """Return both ends of a terminal of that size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return master, slave


def wait_for_event(process: subprocess.Popen[bytes], event: str) -> dict[str, object]:
    """Read the lines of --json up to an event, and return that."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, object] = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"there was no event {event}")


def _pieces(master: int) -> Iterator[bytes]:
    with suppress(OSError):  # Linux tells the end of a terminal by EIO
        while piece := os.read(master, 65536):
            yield piece


def screen(written: str) -> list[str]:
    """Return what a terminal shows after that: CR goes back, what follows overwrites, CSI K erases what is behind."""
    shown = []
    for line in written.split("\n"):
        cells: list[str] = []
        for drawn in line.split("\r"):
            text, erase, rest = drawn.partition("\x1b[K")
            assert not re.search(r"[\x00-\x1f\x7f]", text + rest), f"a control character in {drawn!r}"
            cells = [*text, *rest] if erase else [*text, *cells[len(text) :]]
        shown.append("".join(cells))
    return shown


@pytest.fixture
def rawdl(tmp_path: Path) -> Command:
    folder = tmp_path / "here"
    folder.mkdir()
    return Command(folder)


@pytest.fixture
def make_folder(rawdl: Command) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = rawdl.folder / name
        path.mkdir()
        return path

    return make

"""A terminal that shows what a user would see: a shell in tmux, which keys are sent to and whose screen is read."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest

PATIENCE = 20.0  # seconds: hang guard, far above what anything here takes
_POLL = 0.03
_numbers = itertools.count()


class Terminal:
    """A server of its own with one shell, in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str], columns: int, rows: int) -> None:
        self._name = f"rawdl-{os.getpid()}-{next(_numbers)}"
        self._folder = folder
        kept = {name: value for name, value in environment.items() if name not in ("TMUX", "NO_COLOR", "COLORTERM")}
        self._sockets = TemporaryDirectory(prefix="rawdl-tmux-")
        self._environment = {**kept, "LC_ALL": "C.UTF-8", "TMUX_TMPDIR": self._sockets.name}
        self._size = ["-x", str(columns), "-y", str(rows)]

    def __enter__(self) -> Self:
        try:
            shell = "exec env PS1='$ ' bash --norc --noprofile -i"
            self.tmux("new-session", "-d", "-c", str(self._folder), *self._size, shell)
            self.tmux("set-option", "-g", "window-size", "manual")
            self.prompt()
            self.run("stty -g > before")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(AssertionError):  # there was none
            self.tmux("kill-server")
        self._sockets.cleanup()

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-L", self._name, "-f", "/dev/null", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    # What is typed

    def type(self, line: str) -> None:
        """Type a line and the return key."""
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        self.tmux("send-keys", key)

    def run(self, line: str) -> list[str]:
        """Type a line, wait until it has run, and return the screen without it."""
        # Its prompt is to be told from the one that is there.
        number = next(_numbers)
        self.type(f"clear; {line}; echo {number}-done > told")
        end = time.monotonic() + PATIENCE
        while not self._told(f"{number}-done"):
            assert time.monotonic() < end, "it still runs:\n" + "\n".join(self.screen())
            time.sleep(_POLL)
        return self.prompt()

    def _told(self, text: str) -> bool:
        path = self._folder / "told"
        return path.exists() and path.read_text().strip() == text

    def resize(self, columns: int, rows: int) -> None:
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    # What is shown

    def screen(self, *, attributes: bool = False) -> list[str]:
        """Return the rows that have something in them."""
        shown = self.tmux("capture-pane", "-p", *(["-e"] if attributes else []))
        return [row.rstrip() for row in shown.split("\n") if row.strip()]

    def wait(self, seen: Callable[[list[str]], object]) -> list[str]:
        """Look until the screen is as expected, and return it."""
        end = time.monotonic() + PATIENCE
        while not seen(rows := self.screen()):
            assert time.monotonic() < end, "the terminal shows:\n" + "\n".join(rows)
            time.sleep(_POLL)
        return rows

    def prompt(self) -> list[str]:
        """Wait until the shell asks for a command, at the beginning of a row, and return what stands above."""
        end = time.monotonic() + PATIENCE
        while not self._is_at_prompt():
            assert time.monotonic() < end, "no prompt, but:\n" + "\n".join(self.screen())
            time.sleep(_POLL)
        return self.screen()[:-1]

    def _is_at_prompt(self) -> bool:
        rows = self.screen()
        return bool(rows) and rows[-1] == "$" and self.tmux("display-message", "-p", "#{cursor_x}").strip() == "2"

    @property
    def cursor_is_visible(self) -> bool:
        return self.tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def assert_as_before(self) -> None:
        """See that the terminal is as it was: its modes, the cursor, and no attributes for what comes next."""
        assert self.cursor_is_visible
        self.run("stty -g > after")
        assert (self._folder / "after").read_bytes() == (self._folder / "before").read_bytes()
        assert self.run("echo plain")[-1] == "plain"
        assert "plain" in self.screen(attributes=True)


def bars(rows: list[str]) -> list[str]:
    """Return the rows that have a bar or a percentage."""
    return [row for row in rows if re.search(r"━━|[0-9] %", row)]


def needs_tmux() -> pytest.MarkDecorator:
    from shutil import which

    return pytest.mark.skipif(not (which("tmux") and which("bash")), reason="there is no tmux, or no bash, here")

"""Where progress and messages go: bars or a line that are redrawn, a line now and then, or messages only.

The cursor is never hidden, and no mode of the terminal is changed: whatever ends or stops the process, there is nothing
to be put right but the rows that were drawn, which a stop and an end erase.
"""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TextIO

from rawdl.cli.meter import Status, cells, progress_line
from rawdl.cli.output import Interrupted
from rawdl.cli.signals import held

if TYPE_CHECKING:
    from rawdl.cli.bars import Painter

Mode = Literal["bars", "line", "log", "none"]

_LIVE_SECONDS: Final = 0.1  # between two redraws: faster than this nobody reads
_LOG_SECONDS: Final = 5.0  # between two lines where they stay
_PERIODS: Final = {"bars": _LIVE_SECONDS, "line": _LIVE_SECONDS, "log": _LOG_SECONDS}
_USUAL_SIZE: Final = os.terminal_size((80, 24))
_ATTRIBUTES: Final = re.compile(r"\x1b\[[0-9;]*m")


class Display:
    """What is on the terminal, or in the log.

    ``period`` is the seconds between two calls of `show`, None where there are to be none.  ``silent`` means that
    nothing is told of what goes well.  A stream that cannot be written to is not worth failing for.
    """

    def __init__(self, stream: TextIO | None, mode: Mode, *, silent: bool = False) -> None:
        self._stream = stream
        self._bars = mode == "bars"
        self._painter: Painter | None = None
        self._writing = self._interrupted = False
        self._rows: list[str] = []  # that are drawn
        self._size = _USUAL_SIZE  # when they were
        self.live = mode in ("bars", "line")
        self.silent = silent
        self.period = _PERIODS.get(mode)

    @classmethod
    def on_stderr(cls, progress: str = "auto", *, silent: bool = False) -> Display:
        """Make the one that fits standard error; ``progress`` is a mode, or auto."""
        stream: TextIO | None = sys.stderr  # None if the descriptor is closed
        if silent or stream is None:
            return cls(stream, "none", silent=True)
        if progress in ("none", "log"):
            return cls(stream, "none" if progress == "none" else "log")
        if not _is_terminal(stream):
            return cls(stream, "log")
        return cls(stream, "line" if progress == "line" else "bars")

    def show(self, total: Status, files: Sequence[Status] = ()) -> None:
        """Draw anew, or write one more line: ``files`` are those under way, if there are several in all."""
        if self.period is None or self._stream is None:
            return
        if not self.live:
            self._write(progress_line(self._encodable(total), None) + "\n")
        elif self._in_foreground():
            with held():
                size = self._ask_size()
                start = self._to_first_row(size)
                rows = self._frame(self._encodable(total), [self._encodable(each) for each in files], size)
                # Overwritten first and erased behind: no moment at which a row is empty, hence no flicker.
                text = start + self._text(rows, below=len(self._rows) != 1)
                if not self._rows:  # whoever ends us in the middle has the row that we are in to erase
                    self._rows, self._size = rows[:1], size
                self._write(text)
                self._rows, self._size = rows, size

    def note(self, text: str) -> None:
        """Write a line that stays, above what is drawn."""
        with held():
            size = self._ask_size()
            start, rows = self._erasure(size), self._rows if size == self._size else []
            self._rows = rows
            self._write(f"{start}{text}\n{self._text(rows)}")

    def clear(self) -> None:
        """Leave the terminal as if nothing had been drawn."""
        with held():
            if start := self._erasure(self._ask_size()):
                self._rows = []
                self._write(start)

    def lose_place(self) -> None:
        """Draw the next time where the cursor is then: others have written since."""
        self._rows = []

    def interrupt(self) -> None:
        """Have a write end that waits for its reader, and none wait from now on.  In a signal handler, inside of it."""
        self._interrupted = True
        if self._writing:
            raise Interrupted

    def abandon(self) -> None:
        """Clear for the last time, in a signal handler: past a buffer that may be in use, and without waiting."""
        with suppress(OSError, ValueError):
            if self._rows and self._stream is not None:
                descriptor = self._stream.fileno()
                if select.select([], [descriptor], [], 0)[1]:
                    os.write(descriptor, self._erasure(self._ask_size()).encode("ascii"))

    def _frame(self, total: Status, files: Sequence[Status], size: os.terminal_size) -> list[str]:
        """Return the rows to draw: without rich, or on a terminal of no width, it is one."""
        if self._bars and self._painter is None:
            try:
                from rawdl.cli.bars import Painter  # which takes as long as a small download

                self._painter = Painter(self._encoding)
            except ImportError:
                self._bars = False
        if self._painter is None or not size.columns:
            return [progress_line(total, size.columns or _USUAL_SIZE.columns)]
        return self._painter.rows(total, files, size)

    def _text(self, rows: Sequence[str], *, below: bool = False) -> str:
        """Return what draws these rows from where the cursor is; ``below`` them is erased as well."""
        if not rows:
            return ""
        return "\x1b[K\r\n".join(rows) + ("\x1b[J" if below and self._rows else "\x1b[K")

    def _to_first_row(self, size: os.terminal_size) -> str:
        """Return what takes the cursor to the beginning of what is drawn.

        Terminals that have become narrower have broken the rows anew, as all do that keep what was cut off.
        """
        height = len(self._rows)
        if 0 < size.columns < self._size.columns:
            height = sum(max(1, -(-cells(_ATTRIBUTES.sub("", row)) // size.columns)) for row in self._rows)
        return f"\r\x1b[{height - 1}A" if height > 1 else "\r"

    def _erasure(self, size: os.terminal_size) -> str:
        """Return what erases what is drawn, if anything is."""
        if not self._rows:
            return ""
        start = self._to_first_row(size)
        return f"{start}\x1b[K" if start == "\r" else f"{start}\x1b[J"

    def _ask_size(self) -> os.terminal_size:
        try:
            assert self._stream is not None
            return os.get_terminal_size(self._stream.fileno())
        except (AssertionError, OSError, ValueError):
            return _USUAL_SIZE

    def _in_foreground(self) -> bool:
        """Whether the terminal is ours: a job in the background would draw into what its user types."""
        try:
            assert self._stream is not None
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except (AssertionError, AttributeError, OSError, ValueError):  # it controls no session, or there are none
            return True

    def _encodable(self, status: Status) -> Status:
        """Replace now what the stream would replace by something longer, which then would not fit."""
        return status._replace(label=status.label.encode(self._encoding, "backslashreplace").decode(self._encoding))

    @property
    def _encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "ascii"

    def _write(self, text: str) -> None:
        if self._stream is None or (self._interrupted and not self._has_room()):
            return
        try:
            self._writing = True
            self._stream.write(text)
            self._stream.flush()
            self._writing = False
        except Interrupted:
            self._writing = False
            if self._has_room():
                self._write("")  # what is left of it
            else:
                self._give_up()
        except (OSError, ValueError):
            self._writing = False
            self._give_up()

    def _give_up(self) -> None:
        if self._stream is not None:
            _forget(self._stream)
            self._stream = None

    def _has_room(self) -> bool:
        """Whether a write need not wait for a reader, as far as the system tells."""
        try:
            return self._stream is None or bool(select.select([], [self._stream.fileno()], [], 0)[1])
        except (OSError, ValueError):  # no descriptor, or Windows, which can ask that of sockets only
            return True


def _forget(stream: TextIO) -> None:
    """Let go of what could not be written: the interpreter would try again at its exit, and end with 120 for it."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _is_terminal(stream: TextIO) -> bool:
    if os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    # Of the consoles of Windows, only its new one is known to erase a line without being asked to first.
    return os.name != "nt" or "WT_SESSION" in os.environ

"""Standard output, as a place for bodies and events."""

from __future__ import annotations

import errno
import os
import select
import sys
from typing import TextIO

from rawdl.errors import StorageError
from rawdl.sinks import Sink, write_all


class Stdout(Sink):
    """Standard output as a sink, which a signal can get out of a write that blocks."""

    __slots__ = ("_fd", "_interrupted", "_writing", "is_terminal")

    restartable = False

    def __init__(self) -> None:
        stream: TextIO | None = sys.stdout
        # None: the descriptor was closed before we began.  A socket of ours may have its number by the time of a write.
        self._fd = -1 if stream is None else stream.fileno()
        self._writing = False
        self._interrupted = False
        self.is_terminal = self._fd >= 0 and os.isatty(self._fd)

    def open(self) -> None:
        if self._fd < 0:
            raise StorageError("standard output is closed", errno=errno.EBADF)

    def write(self, data: memoryview) -> None:
        self.open()
        try:
            self._writing = True
            if self._interrupted and not self._has_room(len(data)):
                raise Interrupted
            write_all(self._fd, data, "standard output")
            self._writing = False
        except Interrupted:
            raise StorageError("interrupted while writing to standard output", errno=errno.EINTR) from None
        finally:
            self._writing = False

    def _has_room(self, count: int) -> bool:
        """Whether a write of ``count`` bytes is sure not to wait: what is over soon may still be told."""
        try:
            return count <= select.PIPE_BUF and bool(select.select([], [self._fd], [], 0)[1])
        except (OSError, AttributeError):  # Windows can ask that of sockets only
            return False

    def interrupt(self) -> None:
        """Have a write end that waits for its reader.  In a signal handler: there it is this very thread that waits."""
        self._interrupted = True
        if self._writing:
            raise Interrupted


class Interrupted(Exception):
    """Raised by a signal handler inside a write, which the system would otherwise begin anew (PEP 475)."""

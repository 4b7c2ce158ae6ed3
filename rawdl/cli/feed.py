"""A list of URLs on standard input (``-i -``), whose downloads begin as its lines come.

A URL is begun when the next one has come, or the end, or nothing for a moment: what stands below it is to be written
together with it.  One that makes no sense, or whose lines do not, is told of and left out.
"""

from __future__ import annotations

import os
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from threading import Thread
from typing import Final, TextIO

from rawdl.cli.lists import STDIN, Entries, Entry, Target, Targets, reason_of
from rawdl.cli.report import UsageError

_PIECE: Final = 65536
_WAITING: Final = 4  # pieces: who writes faster than we download is to wait


class Feed:
    """What has come, as targets.  A thread reads: nothing else waits for a pipe or a terminal on every system."""

    def __init__(self, targets: Targets) -> None:
        stream: TextIO | None = sys.stdin  # None: the descriptor was closed before we began
        if stream is None:
            raise UsageError("-i: standard input is closed")
        self._targets = targets
        self._entries = Entries(STDIN)
        self._decoder = getincrementaldecoder("utf-8-sig")()
        self._rest = ""  # of a line whose end has not come
        self._pieces: Queue[bytes | OSError] = Queue(_WAITING)
        self.ended = False
        # By the descriptor: a stream that a daemon thread has locked is fatal at the interpreter's exit.
        Thread(target=_read, args=(stream.fileno(), self._pieces), name="rawdl-feed", daemon=True).start()

    def take(self, wait: float) -> Iterator[Target | UsageError]:
        """Yield what is complete, after at most ``wait`` seconds.

        It is to be called every 0.1 s or so: if nothing has come since the last call, a URL has nothing below it.
        """
        try:
            piece = self._pieces.get(block=wait > 0, timeout=wait or None)
        except Empty:
            if not self._rest:
                yield from self._targets_of(self._entries.end())
            return
        yield from self._taken(piece)

    def _taken(self, piece: bytes | OSError) -> Iterator[Target | UsageError]:
        self.ended = not piece or isinstance(piece, OSError)
        try:
            if isinstance(piece, OSError):
                raise piece
            lines = (self._rest + self._decoder.decode(piece, final=not piece)).split("\n")
        except (OSError, UnicodeDecodeError) as exc:
            self.ended = True
            yield UsageError(f"-i: {STDIN}: {reason_of(exc)}")
            return
        self._rest = "" if self.ended else lines.pop()
        for line in lines:
            try:
                yield from self._targets_of(self._entries.line(line))
            except UsageError as exc:
                yield exc
        if self.ended:
            yield from self._targets_of(self._entries.end())

    def _targets_of(self, entries: Iterable[Entry]) -> Iterator[Target | UsageError]:
        for entry in entries:
            try:
                yield self._targets.of(entry)
            except UsageError as exc:
                yield exc


def _read(fd: int, pieces: Queue[bytes | OSError]) -> None:
    try:
        while piece := os.read(fd, _PIECE):
            pieces.put(piece)
        pieces.put(b"")
    except OSError as exc:
        pieces.put(exc)

"""The roads from a connection to a sink: through the kernel alone, or through the loop's buffer.

Body bytes pass through no parser.  Where nobody has to look at them, from a plain TCP connection to a regular file,
Linux moves them by itself (splice).  Everywhere else one read fills the buffer that all connections share, and one
write empties it.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Final

from rawdl.connection import Connection
from rawdl.loop import Loop
from rawdl.proto.http11 import Exchange
from rawdl.sinks import Sink

# Below this a splice costs more than it saves: two calls and a pipe for what one read brings.
_WORTH_SPLICING: Final = 65536
_REFUSED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Lanes:
    """Move the payload of one exchange, by the cheapest road that the case allows."""

    __slots__ = ("_connection", "_exchange", "_loop", "_sink", "_spare", "_splicing")

    def __init__(self, loop: Loop, spare: SparePipe, connection: Connection, exchange: Exchange, sink: Sink) -> None:
        self._loop = loop
        self._spare = spare
        self._connection = connection
        self._exchange = exchange
        self._sink = sink
        self._splicing = connection.splice_source() is not None and Pipe.supported()

    def move(self, most: int = sys.maxsize) -> int | None:
        """Read once, and write what is certainly payload; the rest is fed to the exchange, to be drained.

        Return the bytes read, no more than ``most``; None: the connection is dry, 0: its end.
        """
        if room := self._sink.room():  # else what is still to come is the end of the framing
            most = min(most, room)
        window = min(self._exchange.body_window(), most)
        if self._splicing and window >= _WORTH_SPLICING and self._sink.splice_target() is not None:
            n = self._splice(window)
            if n:
                self._exchange.advance(n)
            return n
        buffer = self._loop.buffer[:most]
        n = self._connection.recv_into(buffer)
        if n and n <= window:
            self.write([buffer[:n]])
            self._exchange.advance(n)
        elif n:
            self._exchange.receive_data(buffer[:n])
        return n

    def write(self, pieces: list[memoryview]) -> None:
        """Hand payload to the sink, which takes its time: a disk wakes up, a caller's function does what it likes."""
        began = self._loop.time()
        self._sink.write_pieces(pieces)
        self._loop.back_from(began)

    def _splice(self, window: int) -> int | None:
        """Have the kernel move payload to the file; where it refuses, do without from now on."""
        try:
            pipe = self._spare.take()
        except OSError:  # no descriptors are left
            self._splicing = False
            return None
        try:
            n = self._move_through(pipe, window)
        except BaseException:
            pipe.close()  # what is left in it would get into another download's file
            raise
        self._spare.give(pipe)
        return n

    def _move_through(self, pipe: Pipe, window: int) -> int | None:
        source, target = self._connection.splice_source(), self._sink.splice_target()
        assert source is not None and target is not None
        try:
            n = pipe.fill(source, window)
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise self._connection.lost(exc) from exc
            self._splicing = False
            return None  # nothing was taken: the connection is still readable
        left = n or 0
        began = self._loop.time()
        while left:
            left -= self._empty(pipe, target, left)
        self._loop.back_from(began)
        return n

    def _empty(self, pipe: Pipe, target: int, count: int) -> int:
        try:
            n = pipe.drain(target, count, self._sink.splice_offset())
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise self._sink.failed(exc) from exc
            self._splicing = False
            data = pipe.rescue(count)
            self._sink.write(memoryview(data))
            return len(data)
        self._sink.spliced(n)
        return n


class SparePipe:
    """The one pipe that all connections of a loop share, since each use empties it; made when first needed."""

    __slots__ = ("_pipe",)

    def __init__(self) -> None:
        self._pipe: Pipe | None = None

    def take(self) -> Pipe:
        """Return the pipe, empty; it is the caller's until it is given back.  OSError if none can be made."""
        pipe, self._pipe = self._pipe, None
        return pipe or Pipe()

    def give(self, pipe: Pipe) -> None:
        """Give it back, empty."""
        self._pipe = pipe

    def close(self) -> None:
        """Close it, if there is one."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class Pipe:
    """Move bytes from a socket to a file inside the kernel (Linux): they never enter this process."""

    SIZE: Final = 1 << 20  # what an unprivileged process may set (/proc/sys/fs/pipe-max-size)

    def __init__(self) -> None:
        import fcntl

        self._out, self._in = os.pipe()
        with suppress(OSError):  # the default of 64 KiB works as well, at more calls
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, self.SIZE)

    @staticmethod
    def supported() -> bool:
        """Whether this platform has splice."""
        return sys.platform == "linux" and hasattr(os, "splice")

    def fill(self, source: int, count: int) -> int | None:
        """Take up to ``count`` bytes from a socket; None: it is dry, 0: its end.  OSError where splice is refused."""
        try:
            return os.splice(source, self._in, min(count, self.SIZE), flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None

    def drain(self, target: int, count: int, offset: int | None) -> int:
        """Write up to ``count`` of the bytes taken to a file, at ``offset`` or else its position."""
        return os.splice(self._out, target, count, offset_dst=offset, flags=os.SPLICE_F_MOVE)

    def rescue(self, count: int) -> bytes:
        """Read back bytes that were taken and whose target refuses to be spliced to."""
        return os.read(self._out, count)

    def close(self) -> None:
        """Close both ends; what was taken and not written is lost."""
        os.close(self._in)
        os.close(self._out)

"""The roads from a connection to a sink: through the kernel alone, or through the loop's buffer.

Body bytes pass through no parser.  Where nobody has to look at them, from a plain TCP connection to a regular file,
Linux moves them by itself (splice); large chunks too, when what is between them is read apart.  Everywhere else one
read fills the buffer that all connections share, and one write empties it.

They go in blocks, counted from the beginning of the body: while at least a block of payload is to come, no read goes
beyond the end of one, since file systems like large, aligned writes.  Linux is asked to wake us up for whole ones only,
or, on a slower line, for batches of about what comes in a twentieth of a second, instead of for every packet; a timer
sees to it that what then comes slower is not left lying.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from rawdl.connection import Connection
from rawdl.errors import ConnectionLost
from rawdl.loop import Loop, Timer
from rawdl.proto.http11 import Exchange
from rawdl.sinks import Sink

# Below this a splice costs more than it saves: two calls and a pipe for what one read brings.
_WORTH_SPLICING: Final = 65536
# A read that brings less than this has emptied the socket, nearly always: looking again would cost a call for nothing.
_DRY_BELOW: Final = 65536
# At full speed, blocks smaller than this are not waited for: there would be more turns of the loop then, not less.
_WORTH_WAITING: Final = 262144
_LEAST_BATCH: Final = 16384  # what is waited for on a slow line: some packets at least
_PATIENCE: Final = 0.1  # seconds that bytes may lie in the kernel until there are as many as are waited for
_UNLIMITED: Final = sys.maxsize
_READS: Final = 8  # at 1 MiB each, the most, that is some milliseconds
_MOVE: Final = getattr(os, "SPLICE_F_MOVE", 0)
_NONBLOCK: Final = getattr(os, "SPLICE_F_NONBLOCK", 0)
_REFUSED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Lanes:
    """Move the payload of one exchange, by the cheapest road that the case allows.

    ``idle`` is the time limit of the gap between two reads, in seconds.  ``look`` is called when that which has come
    is to be read though no readiness will be reported for it.
    """

    __slots__ = (
        "_awaited",
        "_batch",
        "_connection",
        "_exchange",
        "_latest",
        "_look",
        "_loop",
        "_measured_at",
        "_measured_to",
        "_patience",
        "_portion",
        "_read_at",
        "_sink",
        "_spare",
        "_splicing",
        "_timer",
        "_turn",
        "emptied",
        "reads",
    )

    def __init__(
        self,
        loop: Loop,
        spare: SparePipe,
        connection: Connection,
        exchange: Exchange,
        sink: Sink,
        *,
        idle: float | None,
        look: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._spare = spare
        self._connection = connection
        self._exchange = exchange
        self._sink = sink
        self._portion = sink.portion
        self.reads = _READS if sink.portion == _UNLIMITED else 1  # in one turn, before other connections get theirs
        self._splicing = connection.splice_source() is not None and Pipe.supported()
        self._look = look
        self._patience = _PATIENCE if idle is None else min(_PATIENCE, idle / 2)
        self._batch = 0  # how many bytes are worth waiting for: a power of two, or 0
        self._awaited = 0  # how many are waited for now; 0: any
        self._measured_at = loop.now  # since when, and from which byte on, it is counted how fast they come
        self._measured_to = exchange.received
        self._latest = 0  # how many came in half of our patience then
        self._read_at = loop.now
        self._turn = loop.turns  # of that last read
        self._timer: Timer | None = None
        self.emptied = False  # whether `move` would find nothing until the connection is ready again

    def move(self, most: int = _UNLIMITED) -> int | None:
        """Read once, and write what is certainly payload; the rest is fed to the exchange, to be drained.

        Return the bytes read, no more than ``most``; None: the connection is dry, 0: its end.
        """
        most = min(most, self._portion)
        limited = most < _UNLIMITED
        if self._turn != self._loop.turns and not limited:
            self._turn = self._loop.turns
            self._measure()  # now that all which came then has been read
        if room := self._sink.room():  # else what is still to come is the end of the framing
            most = min(most, room)
        window = min(self._exchange.body_window(), most)
        if window >= self._size():
            window = most = self._rest_of_block()
        if self._is_worth_splicing(window, most):
            n = limit = self._splice(most)  # never beyond the end of the body
        else:
            limit = min(most, len(self._loop.buffer))
            n = self._read(window, most)
        if n:
            if n == limit and self._exchange.body_complete and not self._exchange.has_data:
                self._look_behind()
            self._read_at = self._loop.now
            self.emptied = n >= self._awaited if self._awaited else n < min(len(self._loop.buffer), _DRY_BELOW)
            if not limited:
                self._wait_for_batch()
        return n

    def stop(self) -> None:
        """Wait for no batch any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        road = "by splice" if self._splicing else "through the buffer"
        return f"<Lanes of {self._connection.peer} {road}{', waiting for more' if self._timer else ''}>"

    def _look_behind(self) -> None:
        """Show the exchange what has come behind the body, which that read could not go beyond."""
        buffer = self._loop.buffer
        with suppress(ConnectionLost):  # that is nothing to this response any more
            if n := self._connection.recv_into(buffer):
                self._exchange.receive_data(buffer[:n])

    # Blocks

    def _size(self) -> int:
        return Pipe.SIZE if self._splicing else len(self._loop.buffer)

    def _rest_of_block(self) -> int:
        return self._size() - self._exchange.received % self._size()

    def _wait_for_batch(self) -> None:
        """After a read, have readiness reported when a batch is there, or when anything comes."""
        self.stop()
        # Not for more than is sure to come, and to be read: what is less would not wake us.
        sure = min(self._exchange.body_window(), self._sink.room() or _UNLIMITED) - self._connection.hidden
        batch = self._batch
        if batch == self._size():
            batch = self._rest_of_block() if self._rest_of_block() <= sure else 0
        elif batch > sure:
            batch = sure if sure >= _LEAST_BATCH else 0
        if batch and self._connection.expect(batch):
            self._awaited = batch
            self._timer = self._loop.call_at(self._loop.now + self._patience, self._lose_patience)
        else:
            self._awaited = 0
            self._connection.expect(1)

    def _measure(self) -> None:
        """See how many bytes come in half of our patience, and how much of that may lie in the kernel.

        What was so twice in a row counts: a connection begins in bursts.  And the kernel is to have room for four times
        as much, else the peer would have to wait for us.
        """
        size, elapsed = self._size(), self._read_at - self._measured_at
        count = self._exchange.received - self._measured_to
        if elapsed < self._patience / 8 and count < size:
            return
        self._measured_at, self._measured_to = self._read_at, self._exchange.received
        latest = min(size, int(count * self._patience / 2 / elapsed)) if elapsed else size
        usual, self._latest = min(latest, self._latest), latest
        least = _WORTH_WAITING if usual == size else _LEAST_BATCH
        batch = _power_within(usual)
        if batch >= least:
            batch = _power_within(min(batch, self._connection.make_room(4 * batch) // 4))
        self._batch = batch if batch >= least else 0

    def _lose_patience(self) -> None:
        self._timer = None
        self._batch = self._awaited = self._latest = 0
        self._connection.expect(1)
        self._turn = self._loop.turns
        self._look()  # Linux before 4.18 would not report what is here already
        self._measured_at, self._measured_to = self._loop.now, self._exchange.received  # what has piled up is no sign

    # The two roads

    def _read(self, window: int, most: int) -> int | None:
        buffer = self._loop.buffer[:most]
        n = self._connection.recv_into(buffer)
        if n and n <= window:
            deliver([buffer[:n]], self._sink, self._loop)
            self._exchange.advance(n)
        elif n:
            self._exchange.receive_data(buffer[:n])
        return n

    def _is_worth_splicing(self, window: int, most: int) -> bool:
        """Whether the kernel can move what comes by itself, and that is much: of this chunk, or of each."""
        if not self._splicing or most < _WORTH_SPLICING:
            return False
        if window < _WORTH_SPLICING and not self._exchange.body_gap(_WORTH_SPLICING):
            return False
        return self._sink.splice_target() is not None

    def _splice(self, most: int) -> int | None:
        """Have the kernel move payload to the file; where it refuses, do without from now on."""
        try:
            pipe = self._spare.take()
        except OSError:  # no descriptors are left
            self._splicing = False
            return None
        try:
            n = self._move_through(pipe, most)
        except BaseException:
            pipe.close()  # what is left in it would get into another download's file
            raise
        self._spare.give(pipe)
        return n

    def _move_through(self, pipe: Pipe, most: int) -> int | None:
        """Fill the pipe, up to the end of a block and over those of chunks, and empty it into the file.

        Nothing is left in it, even if what is between two chunks is wrong.
        """
        exchange, source = self._exchange, self._connection.splice_source()
        assert source is not None
        n: int | None = 0
        total = held = 0
        pieces: list[memoryview] = []
        block = self._rest_of_block()
        try:
            while held < block and total < most and not pieces:
                if window := exchange.body_window():
                    n = self._fill(pipe, source, min(window, most - total, block - held))
                    if n:
                        exchange.advance(n)
                        held += n
                        total += n
                    if n != window:
                        break
                gap = min(exchange.body_gap(_WORTH_SPLICING), most - total)
                if not gap:
                    break
                n = self._connection.recv_into(self._loop.buffer[:gap])
                if n:
                    total += n
                    exchange.receive_data(self._loop.buffer[:n])
                    while payload := exchange.take_payload():  # of a shorter line, some of what is behind it
                        pieces += payload
                if n != gap:
                    break
        finally:
            began = self._loop.time()
            while held:
                held -= self._empty(pipe, held)
            self._loop.back_from(began)
            if pieces:
                deliver(pieces, self._sink, self._loop)
        return total or n

    def _fill(self, pipe: Pipe, source: int, count: int) -> int | None:
        try:
            return pipe.fill(source, count)
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise self._connection.lost(exc) from exc
            self._splicing = False
            return None  # nothing was taken: the connection is still readable

    def _empty(self, pipe: Pipe, count: int) -> int:
        target = self._sink.splice_target()
        assert target is not None
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


def _power_within(count: int) -> int:
    """Return the largest power of two that is not above ``count``; 0 of 0."""
    return 1 << count.bit_length() >> 1


def deliver(pieces: list[memoryview], sink: Sink, loop: Loop) -> None:
    """Hand payload to a sink, which takes its time: a disk wakes up, a caller's function does what it likes."""
    began = loop.time()
    sink.write_pieces(pieces)
    loop.back_from(began)


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
            return os.splice(source, self._in, count, None, None, _MOVE | _NONBLOCK)
        except BlockingIOError:
            return None

    def drain(self, target: int, count: int, offset: int | None) -> int:
        """Write up to ``count`` of the bytes taken to a file, at ``offset`` or else its position."""
        return os.splice(self._out, target, count, None, offset, _MOVE)

    def rescue(self, count: int) -> bytes:
        """Read back bytes that were taken and whose target refuses to be spliced to."""
        return os.read(self._out, count)

    def close(self) -> None:
        """Close both ends; what was taken and not written is lost."""
        os.close(self._in)
        os.close(self._out)

"""The client's end of a simulated connection: the part of a socket's interface that the client uses, and no more."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from errno import EAGAIN, EINPROGRESS, ENOTCONN, EPIPE
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.sim.conn import Conn
    from tests.sim.world import World


class Socket:
    """Behave as a non-blocking stream socket of Linux does. Misuse is a bug, and is reported to the world."""

    def __init__(self, world: World, fd: int, family: int) -> None:
        self._world, self._fd, self.family = world, fd, family
        self.conn: Conn | None = None
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.closed = self.connected = False
        self.buffered = 0  # bytes received that the client has not read
        self._segments: deque[memoryview] = deque()
        self._error = self._unacknowledged = 0
        self._blocking, self._finished, self._shut = True, False, False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "connecting" if self.conn else "new"
        return f"<Socket {self._fd} {state} buffered={self.buffered} unacknowledged={self._unacknowledged}>"

    def fileno(self) -> int:
        return -1 if self.closed else self._fd

    def setblocking(self, flag: bool) -> None:
        self._check("setblocking", flag is False)
        self._blocking = flag

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self._check("setsockopt")
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int) -> int:
        """Return SO_ERROR, which clears it, or SO_RCVBUF; the simulated kernel knows no other."""
        self._check("getsockopt", level == socket.SOL_SOCKET and option in (socket.SO_ERROR, socket.SO_RCVBUF))
        if option == socket.SO_RCVBUF:
            assert self.conn is not None
            return 2 * self.conn.link.window
        error, self._error = self._error, 0
        return error

    def connect_ex(self, address: tuple[str, int] | tuple[str, int, int, int]) -> int:
        self._check("connect_ex", not self._blocking and self.conn is None)
        self._check("connect_ex", (":" in address[0]) == (self.family == socket.AF_INET6))
        error, self.conn = self._world.connect(self, address)
        return error or EINPROGRESS

    def send(self, data: bytes | bytearray | memoryview) -> int:
        self._check("send", not self._blocking)
        self._raise_error()
        if self._shut:
            raise OSError(EPIPE, os.strerror(EPIPE))
        if self.conn is None or not self.connected:
            raise OSError(ENOTCONN, os.strerror(ENOTCONN))
        room = self.conn.link.send_window - self._unacknowledged
        if room <= 0:
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        taken = bytes(data[:room])
        self._unacknowledged += len(taken)
        self._world.happenings += 1
        self._world.after(self.conn.link.latency, self.conn.arrive, taken)
        return len(taken)

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0) -> int:
        """Receive from one segment, or from all (`Link.merged`); what came before a reset comes first, as on Linux."""
        size = nbytes or len(buffer)
        self._check("recv_into", not self._blocking and 0 < size <= len(buffer))
        if not self._segments:
            self._raise_error()
            if self._finished:
                return 0
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        return self._take(memoryview(buffer)[:size])

    def shutdown(self, how: int) -> None:
        self._check("shutdown")
        if self.conn is None or not self.connected:
            raise OSError(ENOTCONN, os.strerror(ENOTCONN))
        if how != socket.SHUT_RD and not self._shut:
            self._shut = True
            self.conn.client_closes("half")

    def close(self) -> None:
        """Close: by FIN, or by RST if there is unread data or SO_LINGER asks for it."""
        if self.closed:
            return
        if any(self._fd in selector.get_map() for selector in self._world.selectors):
            raise self._world.bug(f"closed {self!r}, which is still registered")
        self.closed = True
        self._world.release(self._fd)
        if self.conn:
            self.conn.client_closes(self._manner_of_closing())

    # What selector and peer call.

    @property
    def readable(self) -> bool:
        return bool(self._error or self._finished or (self.conn and self.buffered >= self._low_water(self.conn)))

    @property
    def writable(self) -> bool:
        if self._error or self._shut:
            return True
        return self.conn is not None and self.connected and self._unacknowledged < self.conn.link.send_window

    def establish(self) -> None:
        self.connected = True
        self._touch()

    def feed(self, segment: bytes) -> None:
        self._segments.append(memoryview(segment))
        self.buffered += len(segment)
        self._touch()

    def finish(self) -> None:
        self._finished = True
        self._touch()

    def fail(self, error: int) -> None:
        """Break the connection, or the attempt to make one, with an errno."""
        self._error, self._finished, self._shut, self.connected = error, True, True, False
        if self.conn and self.conn.link.reset_discards:
            self._segments.clear()
            self.buffered = 0
        self._touch()

    def acknowledge(self, n: int) -> None:
        self._unacknowledged -= n
        self._touch()

    def _take(self, room: memoryview) -> int:
        n = self._take_segment(room)
        if self.conn and self.conn.link.merged:
            while self._segments and n < len(room):
                n += self._take_segment(room[n:])
        self.buffered -= n
        self._world.happenings += 1
        if self.conn:
            self.conn.client_reads()
        return n

    def _take_segment(self, room: memoryview) -> int:
        segment = self._segments.popleft()
        n = min(len(segment), len(room))
        room[:n] = segment[:n]
        if n < len(segment):
            self._segments.appendleft(segment[n:])
        return n

    def _low_water(self, conn: Conn) -> int:
        """Return SO_RCVLOWAT, which never keeps a full buffer from being readable."""
        asked = self.options.get((socket.SOL_SOCKET, socket.SO_RCVLOWAT), 1)
        assert isinstance(asked, int)
        return max(1, min(asked, conn.link.window))

    def _manner_of_closing(self) -> Literal["fin", "rst"]:
        linger = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER), b"")
        return "rst" if self.buffered or linger == struct.pack("ii", 1, 0) else "fin"

    def _raise_error(self) -> None:
        if self._error:
            error, self._error = self._error, 0
            raise OSError(error, os.strerror(error))

    def _check(self, call: str, allowed: bool = True) -> None:
        if self.closed or not allowed:
            raise self._world.bug(f"{call}() out of place on {self!r}")

    def _touch(self) -> None:
        self._world.touch(self._fd)

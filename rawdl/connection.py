"""Non-blocking byte streams: reading, writing and closing one that is connected."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

from rawdl.errors import ConnectionLost
from rawdl.loop import Loop
from rawdl.resolver import Address


class Socket(Protocol):
    """What a connection needs of a socket: a part of `socket.socket`."""

    def fileno(self) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def getsockopt(self, level: int, option: int, /) -> int: ...
    def bind(self, address: Any, /) -> None: ...
    def connect_ex(self, address: Any, /) -> int: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def close(self) -> None: ...


SocketFactory = Callable[[int, int, int], Socket]


class Connection:
    """A connected, non-blocking TCP stream, whose socket is registered with the loop already.

    `recv_into` and `send` return None where they would have to wait; `watch` says for what, and whom to tell.
    """

    __slots__ = ("_awaited", "_expected", "_room", "address", "clean_eof", "closed", "exchanges", "fd", "loop", "sock")

    def __init__(self, loop: Loop, sock: Socket, address: Address) -> None:
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.closed = False
        self.clean_eof = True  # whether the end of the stream, once seen, was said and not just suffered
        self.exchanges = 0  # begun on this connection
        self._awaited = 0  # while it rests: the events to wait for afterwards
        self._expected = 1  # bytes that make it readable
        self._room = 0  # bytes that the kernel was asked to have room for

    @property
    def peer(self) -> str:
        """The address of the other end, for a person."""
        return address_text(self.address)

    @property
    def security(self) -> dict[str, object]:
        """What protects the stream, for a trace: nothing."""
        return {}

    def watch(self, events: int, callback: Callable[[int], None]) -> None:
        """Call back whenever one of ``events`` is ready."""
        self._awaited = 0
        self.loop.redirect(self.fd, callback)
        self._wait_for(events)

    def _wait_for(self, events: int) -> int:
        try:
            return self.loop.modify(self.fd, events)
        except OSError as exc:  # the kernel has no room for one more watch
            raise self.lost(exc) from exc

    def rest(self) -> None:
        """Wait for nothing: the kernel's window closes in time, and the peer stalls."""
        self._awaited = self._awaited or self._wait_for(0)

    def go_on(self) -> None:
        """End a `rest`."""
        if self._awaited:
            awaited, self._awaited = self._awaited, 0
            self._wait_for(awaited)

    def recv_into(self, buffer: memoryview) -> int | None:
        """Read what is there, up to the buffer's size; 0 is the end of the stream."""
        try:
            return self.sock.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self.lost(exc) from exc

    def send(self, data: bytes | memoryview) -> int | None:
        """Write what fits, and return how much that was."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self.lost(exc) from exc

    def flush(self) -> bool:
        """Return whether all that `send` took is on its way; if not, wait for WRITE and ask again."""
        return True

    def pending(self) -> bool:
        """Whether bytes are here that no readiness will be reported for."""
        return False

    def quiet(self) -> bool:
        """Whether nothing is left over, in either direction, that belongs to the exchange that has ended."""
        return True

    def splice_source(self) -> int | None:
        """Return the descriptor whose bytes are those of the stream, if the kernel can move them by itself."""
        return self.fd if isinstance(self.sock, socket.socket) else None

    @property
    def hidden(self) -> int:
        """How many bytes of the stream may be here that READ does not count."""
        return 0

    def make_room(self, count: int) -> int:
        """Have the kernel keep ``count`` bytes until they are read, if it will; return how many it keeps, about.

        It grows with the speed by itself, but only to what somebody needs who reads at once.
        """
        try:
            if count > self._room and sys.platform == "linux":
                self._room = count
                for marked in (count, self._expected):  # room for what is waited for is made, and stays
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, marked)
            return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the other half is its own overhead
        except OSError:
            self._expected = 0  # nobody knows
            return 0

    def expect(self, count: int) -> bool:
        """Have READ reported not before ``count`` bytes, or the end, are here; return whether that can be had.

        1 is the usual, and is to be restored before the connection serves for anything else.
        """
        if count == self._expected:
            return True
        if sys.platform != "linux":  # elsewhere it means this, that or nothing
            return False
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        except OSError:
            return False
        self._expected = count
        return True

    def lost(self, exc: OSError) -> ConnectionLost:
        """Translate an error of the socket; what looks like an end after it is none."""
        self.clean_eof = False
        return ConnectionLost(f"the connection to {self.peer} broke: {exc.strerror or exc}", errno=exc.errno)

    def close(self) -> None:
        """Close after a complete exchange."""
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever is going on: unregister, then close.  Any number of times."""
        if self.closed:
            return
        self.closed = True
        self.loop.unregister(self.fd)
        self.sock.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.peer} {'closed' if self.closed else 'open'}, {self.exchanges} exchanges>"


def address_text(address: Address) -> str:
    """Spell an address for a person: ``127.0.0.1:80``, ``[::1]:80``, ``/run/a.sock``."""
    host, port = host_and_port(address)
    if not port:
        return host
    return f"[{host}]:{port}" if address[0] == socket.AF_INET6 else f"{host}:{port}"


def host_and_port(address: Address) -> tuple[str, int]:
    """Return the two of an address; a Unix socket has a path, and 0."""
    where = address[1]
    return (where, 0) if isinstance(where, str) else (where[0], where[1])

"""The exchange with a proxy on a connection that leads to it, after which the connection leads to the origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rawdl.connection import Connection
from rawdl.errors import ConnectionLost, DownloadError
from rawdl.loop import READ, WRITE
from rawdl.proto.proxy import Proxy, Tunnel


class Asking(Protocol):
    """What is said to the proxy and heard from it, without a socket.  Both ways of hearing raise ProxyError."""

    @property
    def established(self) -> bool:
        """Whether the way is open."""

    def data_to_send(self) -> bytes:
        """Return what has not been sent."""

    def data_sent(self, n: int) -> None:
        """Take note that ``n`` bytes of it are."""

    def receive_data(self, data: memoryview) -> None:
        """Feed what has come."""

    def receive_eof(self, *, clean: bool) -> None:
        """Tell that no more comes."""


def asking_for(host: str, port: int, proxy: Proxy) -> Asking:
    """Return what to say to this proxy; ProxyError for what cannot be said."""
    if proxy.speaks_http:
        return Tunnel(host, port, proxy)
    from rawdl.proto.socks import Socks

    return Socks(host, port, proxy)


class Passage:
    """Ask over a connection; ``done(connection, error)`` is called once, at the end."""

    __slots__ = ("_asking", "_connection", "_done")

    def __init__(self, connection: Connection, asking: Asking, done: Done) -> None:
        self._connection = connection
        self._asking = asking
        self._done = done

    @property
    def peer(self) -> str:
        """The address of the proxy."""
        return self._connection.peer

    def start(self) -> None:
        """Send the first message."""
        self._advance(WRITE)

    def _advance(self, mask: int) -> None:
        try:
            wanted = self._converse()
        except DownloadError as exc:
            self._connection.abort()
            self._done(None, exc)
            return
        if wanted:
            self._connection.watch(wanted, self._advance)
        else:
            self._done(self._connection, None)

    def _converse(self) -> int:
        """Send and hear as much as goes without waiting; return the events to wait for, or 0: the way is open."""
        connection, asking, buffer = self._connection, self._asking, self._connection.loop.buffer
        while not asking.established:
            if not self._sent():
                return READ | WRITE
            try:
                n = connection.recv_into(buffer)
            except ConnectionLost:
                n = 0
            if n is None:
                return READ
            if n:
                asking.receive_data(buffer[:n])
            else:
                asking.receive_eof(clean=connection.clean_eof)
        return 0

    def _sent(self) -> bool:
        while data := self._asking.data_to_send():
            n = self._connection.send(data)
            if n is None:
                return False
            self._asking.data_sent(n)
        return self._connection.flush()

    def abort(self) -> None:
        """Close the connection; ``done`` is not called."""
        self._connection.abort()

    def __repr__(self) -> str:
        return f"<Passage by {self.peer}: {self._asking!r}>"


Done = Callable[[Connection | None, DownloadError | None], None]

"""Sockets that are closed in silence if their client is never closed.

The collector finalises a client and its sockets in any order, and the standard library's sockets complain when they
come first.  Those that are forgotten while the client lives are found by other means: by counting descriptors.
"""

from __future__ import annotations

import socket
from typing import Protocol


class Socket(socket.socket):
    """A socket whose finaliser closes it."""

    __slots__ = ()

    def __del__(self) -> None:
        if self.fileno() >= 0:  # else it was closed, or never made
            self.close()


class Closable(Protocol):
    """A socket, as far as the loop knows one."""

    def close(self) -> None: ...
    def fileno(self) -> int: ...


def pair() -> tuple[Socket, Socket]:
    """Return two connected, non-blocking sockets."""
    ends = [Socket(end.family, end.type, end.proto, end.detach()) for end in socket.socketpair()]
    for end in ends:
        end.setblocking(False)
    return ends[0], ends[1]

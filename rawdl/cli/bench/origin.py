"""The origin that is measured where no URL is given: a child process that costs as little as Python can.

Each connection has a thread, which answers one request after another, and sends a body from one block of memory.  Any
path has the same body, in whole or by ranges; nothing is said of requests that are not GET.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from typing import Final

from rawdl.cli.loopback import BLOCK, Child, listen, order_given, until_alone

_END: Final = b"\r\n\r\n"
_LONGEST: Final = 65536  # bytes of requests, beyond which a client has lost its mind
_SMALL: Final = 65536  # bytes of a body that are sent in one call with the head
_RANGE: Final = re.compile(rb"\r\nrange:[ \t]*bytes=([0-9]+)-([0-9]*)[ \t]*\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


def origin(size: int, certificate: str | None, *, chunked: bool) -> Child:
    """Return the process, to be entered; its scheme is https if there is a certificate."""
    return Child(__name__, {"size": size, "certificate": certificate, "chunked": chunked})


def serve() -> None:
    """Be the origin until standard input ends."""
    order = order_given()
    body = Body(order["size"], chunked=order["chunked"])
    certificate = order["certificate"]
    listen("http" if certificate is None else "https", body.converse, certificate)
    until_alone()


class Body:
    """What is sent: one block again and again."""

    def __init__(self, size: int, *, chunked: bool) -> None:
        self._size = size
        self._block = memoryview(os.urandom(min(BLOCK, size)))
        self._chunked = chunked
        self._chunk = _chunk(self._block) if chunked else b""

    def converse(self, stream: socket.socket) -> None:
        """Answer requests until one asks for a close, or the client closes."""
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = b""
        while len(asked) < _LONGEST:
            head, end, rest = asked.partition(_END)
            if not end:
                more = stream.recv(65536)
                if not more:
                    return
                asked += more
                continue
            asked = rest
            closes = _CLOSE.search(head + end) is not None
            self._answer(stream, _RANGE.search(head + end), b"Connection: close\r\n" if closes else b"")
            if closes:
                return

    def _answer(self, stream: socket.socket, wanted: re.Match[bytes] | None, fields: bytes) -> None:
        if self._chunked:
            stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % fields)
            self._send_chunks(stream)
            return
        start, stop, size = 0, self._size, self._size
        line = b"HTTP/1.1 200 OK\r\n"
        if wanted is not None and int(wanted[1]) < size:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, size) if wanted[2] else size
            line = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, size)
        known = b'Content-Length: %d\r\nAccept-Ranges: bytes\r\nETag: "1"\r\n' % (stop - start)
        head = line + known + fields + b"\r\n"
        if stop - start <= _SMALL:
            stream.sendall(b"".join([head, *self._pieces(start, stop)]))
            return
        stream.sendall(head)
        for piece in self._pieces(start, stop):
            stream.sendall(piece)

    def _send_chunks(self, stream: socket.socket) -> None:
        whole, rest = divmod(self._size, len(self._block))
        for _ in range(whole):
            stream.sendall(self._chunk)
        last = _chunk(self._block[:rest]) if rest else b""
        stream.sendall(last + b"0\r\n\r\n")

    def _pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        block, length = self._block, len(self._block)
        while start < stop:
            at = start % length
            piece = block[at : at + stop - start]
            yield piece
            start += len(piece)


def _chunk(data: memoryview) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), bytes(data))

"""What servers do that no `Script` says, and the scripts that are used all over."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

from tests.origin import TLSEngine
from tests.sim import Conn, Script

OK = Script(body=b"hello")
CLOSING = Script(body=b"hello", keep_alive=False)
REQUEST_END = b"\r\n\r\n"


def answer(*pieces: bytes | float) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that, once it has a request, sends these bytes and pauses for these seconds, and then sends FIN."""

    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        for piece in pieces:
            if isinstance(piece, bytes):
                conn.send(piece)
            else:
                yield piece

    return peer


def tls_peer(
    context: ssl.SSLContext, talk: Callable[[Conn, TLSEngine], Iterator[float] | None], *, early: bool = False
) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that does TLS by hand, one record at a time: it shakes hands and then talks.

    `early`: before it has read the request, and in one segment with the last message of the handshake.
    """

    def peer(conn: Conn):
        engine, request = TLSEngine(context), b""
        while not (engine.established and (early or request.endswith(REQUEST_END))):
            yield lambda: bool(conn.received)
            request += engine.receive(bytes(conn.received))
            conn.received.clear()
            if not (engine.established and early):
                conn.send(engine.data_to_send())
        talking = talk(conn, engine)
        if talking is not None:
            yield from talking
        yield 1e9  # the connection stays open

    return peer

"""Whatever the bytes, a response is refused with one of three errors or read the same however it is cut, in few events.

The input is all that a server sends.  It is read whole, byte by byte, in random pieces, and past the parser where the
exchange allows that; with each way in which a connection ends; for GET and HEAD; with generous and with narrow limits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from zlib import crc32

from rawdl.errors import IncompleteBody, IncompleteHead, ProtocolError, TooLarge
from rawdl.proto import BodyComplete, CloseReason, DataReceived, Exchange, HeadReceived, Limits, Request
from rawdl.proto.url import URL

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SEEDS: tuple[bytes, ...] = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Type: text/plain\r\n\r\nhello, world",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n\r\nuntil the close",
    CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n",
    CHUNKED + b'5;a;b=c; d = "e\\"f"\r\nhello\r\n000;last\r\nDigest: x\r\nA: b\r\n c\r\n\r\n',
    CHUNKED + b"1\r\na\r\n" * 9 + b"400\r\n" + b"b" * 1024 + b"\r\n01\r\nc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"\r\nHTTP/1.0 404 Not Found\r\nContent-Length: 2\r\nContent-Length: 2\r\nX: a\r\n\tb\r\n\r\nno",
    b"\nHTTP/1.1 500 \xe9\nno/token: x\nName : y\nTransfer-Encoding: chunked\nContent-Length: 3\n\n1\r\nx\r\n0\r\n\r\n",
    b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 9223372036854775807\r\n\r\n',
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\n\r\nhi",
    CHUNKED + b"7fffffffffffffff\r\nx",
)
WIDE = Limits()
NARROW = Limits(head=300, fields=4, line=60, informational=2, trailer=20, chunk_line=17, chunk_extensions=24, body=100)
REQUESTS = tuple(Request(method, URL.parse("http://example.org/")) for method in ("GET", "HEAD"))


def check(data: bytes) -> None:
    get, head = REQUESTS
    rng = random.Random(crc32(data))
    compare(data, get, WIDE, rng)
    compare(data, get, NARROW, rng)
    assert read([data], head, WIDE, "clean") == read(cut(data, rng), head, WIDE, "clean"), "it depends on the cut: HEAD"


def compare(data: bytes, request: Request, limits: Limits, rng: random.Random) -> None:
    whole = read([data], request, limits, "clean")
    small = 1 if len(data) < 1024 else 97
    bytewise = [data[at : at + small] for at in range(0, len(data), small)]
    assert read(bytewise, request, limits, "clean") == whole, "it depends on the cut: byte by byte"
    pieces = cut(data, rng)
    assert read(pieces, request, limits, "clean") == whole, f"it depends on the cut: {[len(p) for p in pieces]}"
    assert read(pieces, request, limits, "clean", by_window=True) == whole, "it depends on what passes by"
    endings(whole, read(pieces, request, limits, "abrupt"), read(pieces, request, limits, None))


def endings(clean: tuple, abrupt: tuple, silent: tuple) -> None:
    """What ends in itself ends however the connection does; what does not is never taken for complete."""
    assert clean[:3] == abrupt[:3] == silent[:3]
    error, _, reasons = clean[3:]
    assert silent[3] not in (IncompleteHead, IncompleteBody)
    if error not in (None, IncompleteHead, IncompleteBody):
        assert error is abrupt[3] is silent[3]
    elif error is None and CloseReason.UNTIL_CLOSE not in reasons:
        assert clean == abrupt == silent
    else:
        assert abrupt[3] in (IncompleteHead, IncompleteBody)
        assert silent[3] is None and silent[4] is None


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    at = sorted(rng.choices(range(len(data) + 1), k=rng.choice((1, 2, 8))))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def read(pieces: Iterable[bytes], request: Request, limits: Limits, eof: str | None, by_window: bool = False) -> tuple:
    """Return all that must not depend on the cut: interim heads, head, body, error, trailer, close reasons."""
    exchange = Exchange(request, limits=limits)
    exchange.data_sent(len(exchange.data_to_send()))
    interim, head, body, end, error = [], None, bytearray(), None, None
    fed = events = 0
    try:
        for piece in [*pieces, None]:
            if piece is None and eof is not None and end is None:
                exchange.receive_eof(clean=eof == "clean")
            elif piece is not None and by_window and 0 < len(piece) <= exchange.body_window():
                exchange.advance(len(piece))
                body += piece
            elif piece is not None and end is None:
                exchange.receive_data(piece)
            fed += len(piece or b"") + 1
            while True:
                while by_window and (payload := exchange.take_payload()):
                    assert end is None and head is not None and all(payload)
                    body += b"".join(payload)
                event = exchange.next_event()
                if event is None:
                    break
                events += 1
                assert end is None, "an event behind the end"
                if isinstance(event, DataReceived):
                    assert head is not None and len(event.data) > 0 and not by_window
                    body += event.data
                elif isinstance(event, BodyComplete):
                    end = (event.length, event.trailer.fields)
                elif isinstance(event, HeadReceived):
                    assert head is None, "a second head"
                    head = (*event[:3], event.header.fields, type(event.framing))
                else:
                    assert head is None, "an interim head behind the final one"
                    interim.append((event.status_code, event.header.fields))
    except (ProtocolError, TooLarge) as exc:
        error = type(exc)
        assert str(exc).isprintable() and len(str(exc)) < 500
        assert exchange.next_event() is None
    # A chunk with one byte takes six; and each piece may end in payload.
    assert events <= limits.informational + 3 + fed, f"{events} events"
    assert len(interim) <= limits.informational and exchange.received == len(body) <= fed
    assert limits.body is None or len(body) <= limits.body
    assert end is None or end[0] == len(body)
    assert request.method != "HEAD" or not body
    reasons = tuple(reason for reason in exchange.close_reasons if reason is not CloseReason.SURPLUS)
    return interim, head, bytes(body), error, end, reasons

"""Feed a recorded response to an exchange: whole, byte by byte, and with bytes behind it; all must come to the same.

Whatever is fed lies in one buffer that is overwritten as soon as the exchange is drained, as a connection's is.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from rawdl.errors import DownloadError, IncompleteBody, IncompleteHead, ProtocolError, TooLarge
from rawdl.proto import (
    BodyComplete,
    CloseReason,
    DataReceived,
    Event,
    Exchange,
    HeadReceived,
    InformationalReceived,
    Limits,
    Request,
)
from rawdl.proto.http11 import State
from rawdl.proto.url import URL

URL_A = URL.parse("http://example.org/a")
BEHIND = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!"
INCOMPLETE = (IncompleteHead, IncompleteBody)
LIMITS = Limits()


class Outcome(NamedTuple):
    """What came of one response."""

    interim: list[InformationalReceived]
    head: HeadReceived | None
    body: bytes
    end: BodyComplete | None
    error: DownloadError | None
    reasons: tuple[CloseReason, ...]
    events: int

    @property
    def gist(self) -> tuple[object, ...]:
        """All that must not depend on how the bytes were cut; what lies behind the end is not in it."""
        head, end = self.head, self.end
        return (
            [(event.status_code, event.header.fields) for event in self.interim],
            head and (head.status_code, head.reason, head.http_version, head.header.fields, type(head.framing)),
            self.body,
            end and (end.length, end.trailer.fields),
            type(self.error),
            [reason for reason in self.reasons if reason is not CloseReason.SURPLUS],
        )


def exchange_for(method: str = "GET", header: Mapping[str, str | None] | None = None, **options) -> Exchange:
    """Return an exchange whose request has been sent."""
    exchange = Exchange(Request(method, URL_A, header), **options)
    exchange.data_sent(len(exchange.data_to_send()))
    return exchange


def feed(
    pieces: Iterable[bytes],
    *,
    method: str = "GET",
    header: Mapping[str, str | None] | None = None,
    limits: Limits = LIMITS,
    eof: str | None = "clean",
    by_window: bool = False,
) -> Outcome:
    """Feed the pieces, then the peer's close; ``by_window`` has payload pass by events wherever the exchange allows."""
    exchange = exchange_for(method, header, limits=limits)
    events: list[Event] = []
    body, count, error = bytearray(), 0, None
    try:
        for event in drained(exchange, pieces, eof, by_window):
            count += 1
            body += event.data if isinstance(event, DataReceived) else event if isinstance(event, bytes) else b""
            events.append(event)
    except DownloadError as exc:
        error = exc
        assert exchange.state is State.FAILED and exchange.next_event() is None
    assert exchange.received == len(body)
    interim = [event for event in events if isinstance(event, InformationalReceived)]
    head = next((event for event in events if isinstance(event, HeadReceived)), None)
    end = next((event for event in events if isinstance(event, BodyComplete)), None)
    in_order(events)
    return Outcome(interim, head, bytes(body), end, error, exchange.close_reasons, count)


def drained(exchange: Exchange, pieces: Iterable[bytes], eof: str | None, by_window: bool) -> Iterator[Event | bytes]:
    results_of = all_of if by_window else events_of
    for piece in pieces:
        if by_window and 0 < len(piece) <= exchange.body_window():
            exchange.advance(len(piece))
            yield piece
        else:
            buffer = bytearray(piece)
            exchange.receive_data(memoryview(buffer))
            yield from results_of(exchange)
            buffer[:] = b"\xaa" * len(buffer)
        yield from results_of(exchange)
        if exchange.state is State.DONE:
            return
    if eof is not None:
        exchange.receive_eof(clean=eof == "clean")
        yield from events_of(exchange)


def events_of(exchange: Exchange) -> Iterator[Event]:
    while (event := exchange.next_event()) is not None:
        yield event


def all_of(exchange: Exchange) -> Iterator[Event | bytes]:
    """Drain without an event for each piece of payload: then no event has any."""
    while True:
        while pieces := exchange.take_payload():
            yield b"".join(pieces)
        event = exchange.next_event()
        if event is None:
            return
        assert not isinstance(event, DataReceived)
        yield event


def in_order(events: list[Event | bytes]) -> None:
    """Interim heads, one head, data, one end: and nothing else."""
    ranks = {InformationalReceived: 0, HeadReceived: 1, DataReceived: 2, bytes: 2, BodyComplete: 3}
    order = [ranks[type(event)] for event in events]
    assert order == sorted(order) and order.count(1) <= 1 and order.count(3) <= 1
    assert all(len(event.data) > 0 for event in events if isinstance(event, DataReceived))


def three_ways(data: bytes, **options) -> Outcome:
    """Return what came of the data as one piece; fail if it depends on the cut, on events, or on what lies behind."""
    whole = feed([data], **options)
    bytewise = feed([data[i : i + 1] for i in range(len(data))], **options)
    assert bytewise.gist == whole.gist == feed([data], by_window=True, **options).gist
    if whole.end is not None and CloseReason.UNTIL_CLOSE not in whole.reasons:
        trailing = feed([data + BEHIND], **options)
        assert trailing.gist == whole.gist
        assert trailing.end is not None and trailing.end.surplus == whole.end.surplus + len(BEHIND)
        assert CloseReason.SURPLUS in trailing.end.close_reasons
    elif isinstance(whole.error, ProtocolError | TooLarge) and not isinstance(whole.error, INCOMPLETE):
        assert feed([data + BEHIND], **options).gist == whole.gist
    return whole


def in_any_two_pieces(data: bytes, **options) -> Outcome:
    """Return what came of the data as one piece; fail if there is a place at which a cut changes that."""
    whole = feed([data], **options)
    for at in range(1, len(data)):
        assert feed([data[:at], data[at:]], **options).gist == whole.gist, at
    return whole


def accepted(data: bytes, **options) -> Outcome:
    """Return the outcome of a response that is to be complete."""
    outcome = three_ways(data, **options)
    assert outcome.error is None, outcome.error
    assert outcome.end is not None and outcome.end.length == len(outcome.body)
    assert outcome.end.close_reasons == outcome.reasons
    return outcome


def refused(data: bytes, error: type[DownloadError] = ProtocolError, **options) -> str:
    """Return the message of the error, of exactly this type, that a response is to bring; it must be fit to print."""
    outcome = three_ways(data, **options)
    assert type(outcome.error) is error and outcome.end is None
    assert str(outcome.error).isprintable() and len(str(outcome.error)) < 400
    return str(outcome.error)


@contextlib.contextmanager
def hang_guard(seconds: int = 60) -> Iterator[None]:
    """Fail where something runs for a minute that takes a moment; where there are no alarms, merely wait."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

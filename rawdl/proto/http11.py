"""One request and its response: h11 reads the heads, `framing` says where the body ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

import h11

from rawdl.errors import IncompleteBody, IncompleteHead, ProtocolError
from rawdl.proto.events import BodyComplete, DataReceived, Event, HeadReceived, InformationalReceived
from rawdl.proto.framing import (
    FRAMING_NAMES,
    LARGEST,
    Chunked,
    CloseReason,
    ContentLength,
    Framing,
    UntilClose,
    check_size,
)
from rawdl.proto.messages import Headers, Limits, Request


class State(Enum):
    """Where an Exchange is.  FAILED is one whose response was refused, or broke off."""

    HEAD = "head"
    BODY = "body"
    DONE = "done"
    FAILED = "failed"


class Exchange:
    """Send one request and read its response, without a socket.

    Send what `data_to_send` returns, telling `data_sent` how much of it went.  Feed what arrives to `receive_data`, and
    after each piece call `next_event` until it returns None; only then feed the next.  At the peer's close call
    `receive_eof`, and drain again.  While ``body_window()`` is above 0, that many of the next bytes are payload: they
    need not be fed if `advance` is told of them.  Who calls `take_payload` until it returns nothing, before each
    `next_event`, saves the events for payload.

    `next_event` raises `ProtocolError` (`IncompleteHead` and `IncompleteBody` are two) and `TooLarge`, nothing else;
    after one, the exchange is over.
    """

    __slots__ = (
        "_at",
        "_closed",
        "_data",
        "_framing",
        "_h11",
        "_head",
        "_head_bytes",
        "_informational",
        "_limits",
        "_outgoing",
        "_pieces",
        "_reasons",
        "request",
        "state",
    )

    def __init__(
        self,
        request: Request,
        *,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        writer: HeadWriter | None = None,
    ) -> None:
        self.request = request
        self.state = State.HEAD
        self._limits = limits
        self._h11: h11.Connection | None = None  # once there is a head to parse, until the final one is
        self._outgoing = (writer or HeadWriter()).head(request)
        self._data = _NOTHING
        self._at = 0  # how much of _data has been read
        self._pieces: list[memoryview] = []  # payload of it that has yet to be handed out, the next one last
        self._head = b""  # the head in work
        self._head_bytes = 0  # of all heads that are done with
        self._informational = 0
        self._framing: Framing | None = None
        self._closed: bool | None = None  # the peer closed: cleanly?
        self._reasons: list[CloseReason] = []

    # Sending the request

    def data_to_send(self) -> bytes:
        """Return the bytes of the request that have not been sent; empty when all have."""
        return self._outgoing

    def data_sent(self, n: int) -> None:
        """Tell that the first ``n`` bytes of `data_to_send` went out."""
        self._outgoing = self._outgoing[n:]

    # Receiving the response

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Feed what has arrived.  The data must not change until `next_event` has returned None."""
        assert self._at == len(self._data) and not self._pieces, "drain next_event() first"
        assert self._closed is None, "data after the end of data"
        self._data = memoryview(data)
        self._at = 0

    def receive_eof(self, *, clean: bool) -> None:
        """Tell that the peer sends no more.

        ``clean`` is a FIN, or under TLS a close_notify; anything else (RST, a FIN without close_notify) is not, and
        does not end a body that is delimited by the close (RFC 9112 9.8).
        """
        self._closed = clean

    def next_event(self) -> Event | None:
        """Return what happened next, or None when more data is needed or the response is complete."""
        try:
            if self.state is State.BODY:
                return self._next_of_body()
            if self.state is State.HEAD:
                return self._next_of_head()
        except BaseException:
            self.state = State.FAILED
            raise
        if self.state is State.DONE:
            self._at = len(self._data)
        return None

    def take_payload(self) -> list[memoryview]:
        """Return the payload that comes next, as `next_event` does piece by piece; empty: something else is next.

        Raises as that does.
        """
        assert not self._pieces, "next_event() has begun to hand it out"
        framing = self._framing
        if self.state is not State.BODY or framing is None or framing.complete:
            return []
        try:
            pieces, self._at = framing.take(self._data, self._at)
        except BaseException:
            self.state = State.FAILED
            raise
        return pieces

    def body_window(self) -> int:
        """Return how many of the next wire bytes are payload; 0 where that is not certain."""
        if self.state is not State.BODY or self._at < len(self._data) or self._pieces:
            return 0
        assert self._framing is not None
        return self._framing.window()

    def advance(self, n: int) -> None:
        """Tell that ``n`` bytes of payload, at most `body_window`, went past without passing through here."""
        assert self._framing is not None and 0 < n <= self.body_window()
        self._framing.advance(n)

    def body_gap(self, least: int) -> int:
        """Return how many bytes to read for a window again, where chunks of ``least`` bytes or more come; else 0."""
        if self.state is not State.BODY or self.has_data:
            return 0
        assert self._framing is not None
        return self._framing.gap(least)

    @property
    def has_data(self) -> bool:
        """Whether something was fed that `next_event` is still to tell of."""
        return self._at < len(self._data) or bool(self._pieces)

    @property
    def body_complete(self) -> bool:
        """Whether the last byte of the body has gone past, even if `next_event` has not said so yet."""
        return self._framing is not None and self._framing.complete

    @property
    def close_reasons(self) -> tuple[CloseReason, ...]:
        """Why the connection may not be used again; empty if it may, once the body is complete."""
        return tuple(self._reasons)

    @property
    def received(self) -> int:
        """Payload bytes of the response so far."""
        return self._framing.received if self._framing else 0

    @property
    def head_received(self) -> int:
        """Bytes of the head that is not complete yet."""
        return len(self._head)

    def __repr__(self) -> str:
        about = f" {self._framing!r}" if self._framing else ""
        return f"<Exchange {self.request.method} {self.request.url.redacted_target} {self.state.value}{about}>"

    # The head

    def _next_of_head(self) -> Event | None:
        head = self._read_plain_head()
        if head is not None:
            return self._parse_head(head)
        head = self._read_head()
        if head is not None:
            return self._parse_head(self._checked(head))
        if self._closed is not None:
            raise IncompleteHead(f"the peer closed after {len(self._head)} bytes of the response head (RFC 9112 8)")
        return None

    def _read_plain_head(self) -> bytes | None:
        """Take a head that has come in one piece and in which there is nothing to find fault with, as nearly all have.

        One match does what `_read_head` and `_checked` do step by step.
        """
        if self._head or self._at:
            return None
        match = _PLAIN_HEAD.match(self._data, 0, min(self._limits.line, self._limits.head - self._head_bytes))
        if match is None or (head := match[0]).count(b"\n") - 2 > self._limits.fields:
            return None
        self._at = len(head)
        self._head_bytes += len(head)
        return head

    def _read_head(self) -> bytes | None:
        """Gather bytes until a whole head is there; nothing behind it is taken."""
        while self._at < len(self._data):
            searched = len(self._head)
            # In small pieces, since a body may follow in the same data.
            self._head += self._data[self._at : self._at + 2048]
            if not searched or searched < 9:
                self._check_beginning()
            end = _HEAD_END.search(self._head, max(1, searched - 3))
            size = end.end() if end else len(self._head)
            if self._head_bytes + size > self._limits.head:
                raise ProtocolError(f"response heads of more than {self._limits.head} bytes")
            self._at = min(self._at + 2048, len(self._data))
            if end is not None:
                head, surplus = self._head[:size], len(self._head) - size
                self._head = b""
                self._at -= surplus
                self._head_bytes += size
                return head
        return None

    def _check_beginning(self) -> None:
        """Refuse at once what cannot become a status line; a peer of another protocol may say no more than that."""
        start = 0
        if self._head[:1] in (b"\r", b"\n"):  # one empty line before it is tolerated (RFC 9112 2.2, said of servers)
            start = 2 if self._head[:2] == b"\r\n" else 1
        if not _VERSION.startswith(self._head[start : start + len(_VERSION)]) and self._head != b"\r":
            raise ProtocolError(f"no HTTP/1 response: it begins with {self._head[:24]!r}")

    def _parse_head(self, head: bytes) -> Event:
        if head[8:12] == b" 101":  # h11 would say that its state machine has no place for it
            raise ProtocolError("101 Switching Protocols, which was not asked for (RFC 9110 7.8)")
        if self._h11 is None:
            self._h11 = _parser(head)
        try:
            self._h11.receive_data(head)
            event = self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            raise ProtocolError(f"bad response head: {str(exc)[:200]}") from exc
        if isinstance(event, h11.InformationalResponse):
            return self._informational_received(event)
        assert isinstance(event, h11.Response), "h11 makes something of any whole head"
        return self._head_received(event)

    def _checked(self, head: bytes) -> bytes:
        """Apply what h11 does not: line ends, limits, names; return what it shall parse."""
        feeds, pairs, returns = head.count(b"\n"), head.count(b"\r\n"), head.count(b"\r")
        if returns != pairs or (pairs and pairs != feeds) or b"\0" in head:
            raise ProtocolError("a bare CR, a NUL, or a mixture of line ends in the response head (RFC 9112 2.2)")
        if head[:1] in (b"\r", b"\n"):
            head, feeds = head.lstrip(b"\r\n"), feeds - 1
        if feeds - 2 > self._limits.fields:
            raise ProtocolError(f"{feeds - 2} header fields; {self._limits.fields} are allowed")
        line_end = b"\r\n" if pairs else b"\n"
        if len(head) > self._limits.line and max(map(len, head.split(line_end))) > self._limits.line:
            raise ProtocolError(f"a header line of more than {self._limits.line} bytes")
        head = head if _WELL_NAMED.fullmatch(head) else self._without_misnamed(head)
        # h11 refuses these two as well, but takes time by the square of the white space in front of them.
        if b"\v" in head or b"\f" in head:
            raise ProtocolError("a vertical tab or form feed in the response head (RFC 9110 5.5)")
        return head

    def _without_misnamed(self, head: bytes) -> bytes:
        """Mend or drop the field lines whose name is no token; real servers send some.

        White space before the colon is removed, as a proxy must (RFC 9112 5.1).  A line with any other bad name is
        dropped, with its folded continuations.  A field that frames the message is never guessed at.
        """
        kept: list[bytes] = []
        dropping = False
        for number, line in enumerate(head.split(b"\n")):
            name, colon, value = line.partition(b":")
            if number and colon and name and not line.startswith((b" ", b"\t")) and not _NAME.fullmatch(name):
                self._note(CloseReason.MALFORMED_FIELD)
                if name.strip().lower() in FRAMING_NAMES:
                    raise ProtocolError(f"a malformed field name: {name[:60]!r} (RFC 9112 5.1)")
                dropping = not _NAME.fullmatch(name.rstrip(b" \t"))
                line = name.rstrip(b" \t") + colon + value
            elif not line.startswith((b" ", b"\t")):
                dropping = False
            if not dropping:
                kept.append(line)
        return b"\n".join(kept)

    def _informational_received(self, event: h11.InformationalResponse) -> Event:
        self._informational += 1
        if self._informational > self._limits.informational:
            raise ProtocolError(f"{self._informational} interim responses; {self._limits.informational} are allowed")
        return InformationalReceived(event.status_code, Headers.from_wire(event.headers.raw_items()))

    def _head_received(self, event: h11.Response) -> Event:
        if event.status_code == 206 and all(name.lower() != "range" for name, _ in self.request.fields):
            raise ProtocolError("206 Partial Content, which was not asked for (RFC 9110 15.3.7)")
        self._h11 = None
        lines = event.headers.raw_items()
        self._framing = framing = self._choose_framing(event, lines)
        self.state = State.BODY
        if self._outgoing:
            self._note(CloseReason.EARLY_RESPONSE)
        return HeadReceived(
            event.status_code,
            event.reason.decode("latin-1"),
            event.http_version.decode("latin-1"),
            Headers.from_wire(lines),
            framing,
        )

    def _choose_framing(self, event: h11.Response, lines: Sequence[tuple[bytes, bytes]]) -> Framing:
        """Decide where the body ends (RFC 9112 6.3) and note what forbids another exchange behind it."""
        length, chunked = self._framing_fields(lines)
        if event.http_version == b"1.0":
            self._note(CloseReason.HTTP_10)
        if self.request.method == "HEAD" or event.status_code == 304:
            return ContentLength(0)
        if event.status_code in (204, 205):  # no content (RFC 9110 15.3.5, 15.3.6), though the framing may claim some
            if chunked or length or (length is None and event.status_code == 205):
                self._note(CloseReason.UNEXPECTED_BODY)
            return ContentLength(0)
        if chunked:
            if length is not None:
                self._note(CloseReason.LENGTH_AND_CODING)
            return Chunked(self._limits)
        if length is not None:
            check_size(length, self._limits.body)
            return ContentLength(length)
        self._note(CloseReason.UNTIL_CLOSE)
        return UntilClose(self._limits)

    def _framing_fields(self, lines: Sequence[tuple[bytes, bytes]]) -> tuple[int | None, bool]:
        """Return Content-Length and whether the body is chunked; h11 has merged or refused what contradicts itself."""
        length: int | None = None
        chunked = False
        for name, value in lines:
            field = name.lower()
            if field == b"content-length":
                if len(value) > 19 or int(value) > LARGEST:
                    raise ProtocolError(f"a Content-Length of {len(value)} digits; the most is {LARGEST}")
                length = int(value)
            elif field == b"transfer-encoding":
                chunked = True
            elif field == b"connection" and b"close" in [option.strip() for option in value.lower().split(b",")]:
                self._note(CloseReason.SERVER_CLOSE)
        if self.request.closes:
            self._note(CloseReason.CLIENT_CLOSE)
        return length, chunked

    def _note(self, reason: CloseReason) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)

    # The body

    def _next_of_body(self) -> Event | None:
        framing = self._framing
        assert framing is not None
        if not self._pieces:
            self._pieces = self.take_payload()[::-1]
        if self._pieces:
            return DataReceived(self._pieces.pop())
        if framing.complete or self._ended_by_close(framing):
            return self._complete(framing)
        return None

    def _ended_by_close(self, framing: Framing) -> bool:
        if self._closed is None:
            return False
        if self._closed and framing.end_at_close():
            return True
        wanted = f"of {framing.length}" if framing.length is not None else f"({framing!r})"
        how = "was closed" if self._closed else "broke off"
        raise IncompleteBody(
            f"the connection {how} after {framing.received} bytes {wanted} of the body (RFC 9112 8)",
            received=framing.received,
            expected=framing.length,
        )

    def _complete(self, framing: Framing) -> BodyComplete:
        self.state = State.DONE
        surplus = len(self._data) - self._at
        self._at = len(self._data)
        if isinstance(framing, Chunked) and framing.misnamed:
            self._note(CloseReason.MALFORMED_FIELD)
        if surplus:
            self._note(CloseReason.SURPLUS)
        return BodyComplete(framing.received, framing.trailer, self.close_reasons, surplus)


class HeadWriter:
    """Write request heads by way of h11; one that differs from the last in its target only is not written anew.

    For a small file that is a tenth of all the work.
    """

    __slots__ = ("_fields", "_method", "_rest")

    def __init__(self) -> None:
        self._method = ""
        self._fields: tuple[tuple[str, str], ...] = ()
        self._rest = b""

    def head(self, request: Request) -> bytes:
        """Return the bytes of the head; ValueError for what h11 refuses to send."""
        if request.fields != self._fields or request.method != self._method:
            self._rest = self._written(request)
            self._method, self._fields = request.method, request.fields
        target = request.url.target
        if not _TARGET.fullmatch(target):
            raise ValueError(f"{target!r} cannot stand in a request line (RFC 9112 3.2)")
        return f"{request.method} {target} ".encode("ascii") + self._rest

    def _written(self, request: Request) -> bytes:
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.fields]
        try:
            event = h11.Request(method=request.method, target="/", headers=lines)
            data = h11.Connection(h11.CLIENT).send(event)
        except h11.LocalProtocolError as exc:
            raise ValueError(f"a request that cannot be sent: {exc}") from exc
        assert data is not None
        return data.partition(b" / ")[2]


def _parser(head: bytes) -> h11.Connection:
    """Make an h11 connection that is about to receive ``head``.

    A final response is accepted from a server that has seen no request, as it may well send one; an interim response
    is not, so then h11 is told of a request first.
    """
    connection = h11.Connection(h11.CLIENT)
    if head[9:10] == b"1":
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "")]))
        connection.send(h11.EndOfMessage())
    return connection


_NOTHING: Final = memoryview(b"")
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_VERSION: Final = b"HTTP/1."
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2
_NAME: Final = re.compile(_TOKEN)
_PLAIN_HEAD: Final = re.compile(
    rb"HTTP/1\.[01] [2-5][0-9][0-9][^\r\n\v\f\0]*\r\n(?:%b:[^\r\n\v\f\0]*\r\n)*\r\n" % _TOKEN
)
_WELL_NAMED: Final = re.compile(rb"[^\n]*\n(?:%b:[^\n]*\n|[ \t][^\n]*\n)*\r?\n" % _TOKEN)

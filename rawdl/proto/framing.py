"""Where a response body ends (RFC 9112 6), for the three ways of saying so.

Each framing has the same surface.  ``window()`` is how many of the next wire bytes are certainly payload: those may
pass by without being looked at, if ``advance(n)`` is told.  Everything else goes through ``take(data, at)``, which
returns payload in pieces and the index behind what it has read.  With none, this data has no more of it; what follows
some may be more of it, or wrong.  ``gap(least)`` is how many bytes to read so that there is a window again, if all goes
on as it did: what is between two chunks.  It is 0 where there are none, or smaller ones than ``least``.

A framing never reads past the end of the body, whatever follows.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, Protocol

from rawdl.errors import ProtocolError, TooLarge
from rawdl.proto.messages import Headers, Limits

LARGEST: Final = 2**63 - 1  # of a length or chunk size: what a file offset can hold
# A field that frames the message is never guessed at: under a name that is no token, it is an error.
FRAMING_NAMES: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class CloseReason(StrEnum):
    """Why a connection may not carry another exchange (RFC 9112 9.3, 9.6)."""

    CLIENT_CLOSE = "the request said Connection: close"
    SERVER_CLOSE = "the response said Connection: close"
    HTTP_10 = "the response is HTTP/1.0"
    UNTIL_CLOSE = "the body is delimited by the close"
    LENGTH_AND_CODING = "both Transfer-Encoding and Content-Length (RFC 9112 6.1)"
    MALFORMED_FIELD = "a field line without a valid name was dropped"
    UNEXPECTED_BODY = "a body where the status allows none"
    EARLY_RESPONSE = "the response came before the request was sent"
    SURPLUS = "bytes came behind the end of the response"


class Framing(Protocol):
    """The common surface; ``received`` counts payload bytes, ``complete`` says that the end was seen."""

    length: int | None
    received: int
    complete: bool
    trailer: Headers

    def window(self) -> int: ...

    def advance(self, n: int) -> None: ...

    def gap(self, least: int) -> int: ...

    def take(self, data: memoryview, at: int) -> tuple[list[memoryview], int]: ...

    def end_at_close(self) -> bool: ...


_NO_TRAILER: Final = Headers()


class ContentLength:
    """A body of known length (RFC 9112 6.2); also that of a response that has none."""

    __slots__ = ("complete", "length", "received", "trailer")

    def __init__(self, length: int) -> None:
        self.length: int | None = length
        self.received = 0
        self.complete = length == 0
        self.trailer = _NO_TRAILER

    def window(self) -> int:
        assert self.length is not None
        return self.length - self.received

    def advance(self, n: int) -> None:
        self.received += n
        self.complete = self.received == self.length

    def gap(self, least: int) -> int:
        return 0

    def take(self, data: memoryview, at: int) -> tuple[list[memoryview], int]:
        if at == len(data):
            return [], at
        piece = data[at : at + self.window()]
        self.advance(len(piece))
        return [piece], at + len(piece)

    def end_at_close(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"content-length {self.received}/{self.length}"


class UntilClose:
    """A body that the close of the connection ends (RFC 9112 6.3 item 8)."""

    __slots__ = ("_limit", "complete", "length", "received", "trailer")

    def __init__(self, limits: Limits) -> None:
        self.length: int | None = None
        self.received = 0
        self.complete = False
        self.trailer = _NO_TRAILER
        self._limit = limits.body

    def window(self) -> int:
        return LARGEST if self._limit is None else self._limit - self.received

    def advance(self, n: int) -> None:
        self.received += n

    def gap(self, least: int) -> int:
        return 0

    def take(self, data: memoryview, at: int) -> tuple[list[memoryview], int]:
        if at == len(data):
            return [], at
        if not self.window():
            check_size(self.received + len(data) - at, self._limit)
        piece = data[at : at + self.window()]
        self.received += len(piece)
        return [piece], at + len(piece)

    def end_at_close(self) -> bool:
        self.complete = True
        return True

    def __repr__(self) -> str:
        return f"until-close {self.received}"


def check_size(size: int, limit: int | None) -> None:
    """Raise TooLarge for a body of that many bytes, if there is a limit and it is above it."""
    if limit is not None and size > limit:
        raise TooLarge(f"the body has {size} bytes or more; {limit} are allowed", limit=limit)


# RFC 9112 7.1, to the letter: no space but the "bad" one around ; and =, which a recipient must accept.
_BWS: Final = rb"[ \t]*"
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION: Final = rb"%b;%b%b(?:%b=%b(?:%b|%b))?" % (_BWS, _BWS, _TOKEN, _BWS, _BWS, _TOKEN, _QUOTED)
_CHUNK_LINE: Final = re.compile(rb"0*([0-9A-Fa-f]{1,16})((?:%b)*)\r\n" % _EXTENSION)
# What the next chunk begins with, seen in nearly every body: the end of the last one's data and a bare size.
_NEXT_CHUNK: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})\r\n")
_MOST_DIGITS: Final = 16  # of a bare size
_NAME: Final = re.compile(_TOKEN)
_FOLD: Final = re.compile(rb"\r\n[ \t]+")  # RFC 9112 5.2
_NO_CHUNK: Final = re.compile(rb"(?!)")  # for a limit below what that may have: each line is then looked at
# Chunks smaller than this are copied together: to handle each would cost more than the copy.
_SMALL: Final = 1024


class Chunked:
    """A body in chunks (RFC 9112 7.1), read as strictly as its grammar is written.

    Where small chunks follow one another in the same data, their payload is one piece.
    """

    __slots__ = (
        "_between",
        "_chunk",
        "_extension_bytes",
        "_left",
        "_limits",
        "_line",
        "_next_chunk",
        "_state",
        "complete",
        "length",
        "misnamed",
        "received",
        "trailer",
    )

    def __init__(self, limits: Limits) -> None:
        self.length: int | None = None
        self.received = 0
        self.complete = False
        self.trailer = _NO_TRAILER
        self.misnamed = False  # whether a trailer line without a valid name was dropped
        self._limits = limits
        self._state = _State.SIZE
        self._chunk = 0  # the size of the one that was begun last
        self._between = 0  # how many bytes were between that and the one before it
        self._left = 0  # payload bytes of this chunk that are still to come
        self._line = b""  # a chunk line, or the trailer section, of which only the beginning has come
        self._extension_bytes = 0
        self._next_chunk = (_NEXT_CHUNK if limits.chunk_line >= _MOST_DIGITS else _NO_CHUNK).match

    def window(self) -> int:
        return self._left

    def advance(self, n: int) -> None:
        self.received += n
        self._left -= n
        if not self._left:
            self._state = _State.DATA_END

    def gap(self, least: int) -> int:
        if self._chunk < least:
            return 0
        before = 2 if self._state is _State.SIZE else 0  # the end of the data before it has been read
        return max(1, self._between - before - len(self._line))

    def end_at_close(self) -> bool:
        return False

    def take(self, data: memoryview, at: int) -> tuple[list[memoryview], int]:
        pieces: list[memoryview] = []
        end = len(data)
        while at < end and not self.complete:
            if self._left or (self._state is _State.DATA_END and not self._line):
                at = self._take_chunks(data, at, pieces)
                if pieces or at == end:
                    break  # what comes may be an error: first hand out what came before it
            at = self._read_line(data, at)
        return pieces, at

    def _take_chunks(self, data: memoryview, at: int, pieces: list[memoryview]) -> int:
        """Gather the rest of this chunk and those that follow, as long as nothing is odd; return the index behind them.

        This is the parser of nearly all bodies, hence its length: a server may send one byte by byte.
        """
        next_chunk, end, small, begun = self._next_chunk, len(data), bytearray(), None
        left, received = self._left, self.received
        most = LARGEST if self._limits.body is None else self._limits.body
        while at < end:
            if left:
                piece = data[at : at + left]
                size = len(piece)
                at += size
                left -= size
                received += size
                if size < _SMALL:
                    small += piece  # an object for each would take thirty times its size
                    continue
                if small:
                    pieces.append(memoryview(small))
                    small = bytearray()
                pieces.append(piece)
                continue
            match = next_chunk(data, at)
            if match is None:
                break
            size = int(match[1], 16)
            if not 0 < size <= most - received:
                break
            left, at, begun = size, match.end(), match
        if small:
            pieces.append(memoryview(small))
        if begun is not None:
            self._chunk, self._between = int(begun[1], 16), begun.end() - begun.start()
        self._left, self.received = left, received
        self._state = _State.DATA if left else _State.DATA_END
        return at

    def _read_line(self, data: memoryview, at: int) -> int:
        """Read on until a chunk line, or the trailer section, is whole; return the index behind it."""
        limit = self._limits.trailer if self._state is _State.TRAILER else self._limits.chunk_line
        start = len(self._line)
        piece = bytes(data[at : at + limit + 2 - start])
        self._line += piece
        end = self._line_end(start)
        if end is None:
            if len(self._line) >= limit + 2:  # the limit does not count the line end, which may come in two pieces
                what = "trailer section" if self._state is _State.TRAILER else "chunk line"
                raise ProtocolError(f"a {what} of more than {limit} bytes (RFC 9112 7.1)")
            return at + len(piece)
        line, self._line = self._line[:end], b""
        if self._state is _State.SIZE:
            self._read_size(line)
        elif self._state is _State.DATA_END:
            self._state = _State.SIZE
        else:
            self.trailer, self.misnamed = parse_trailer(line, self._limits)
            self.complete = True
        return at + end - start

    def _line_end(self, seen: int) -> int | None:
        """Return where the line in work ends, or None if that has not come; refuse what can be no end.

        The first ``seen`` bytes of it have been looked at before.
        """
        line = self._line
        fresh = seen - line.endswith(b"\r", 0, seen)  # whose LF may have come now
        if self._state is _State.DATA_END:
            if not b"\r\n".startswith(line[:2]):
                raise ProtocolError(f"{line[:2]!r} follows the data of a chunk, not CRLF (RFC 9112 7.1)")
            return 2 if len(line) >= 2 else None
        if self._state is _State.TRAILER:
            if line[:2] == b"\r\n":
                return 2
            end = line.find(b"\r\n\r\n", max(0, seen - 3))
            _refuse_stray(line[fresh:] if end < 0 else line[fresh : end + 4], "the trailer section")
            return None if end < 0 else end + 4
        end = line.find(b"\r\n", fresh)
        _refuse_stray(line[fresh:] if end < 0 else line[fresh : end + 2], "a chunk line")
        return None if end < 0 else end + 2

    def _read_size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(f"{line[:60]!r} is no chunk line (RFC 9112 7.1)")
        # Zeros in front of the size are padding like extensions, from where no size has that many digits.
        self._extension_bytes += len(match[2]) + max(0, match.end(1) - _MOST_DIGITS)
        if self._extension_bytes > self._limits.chunk_extensions:
            raise ProtocolError(f"chunk extensions of more than {self._limits.chunk_extensions} bytes in one body")
        size = int(match[1], 16)
        if size > LARGEST:
            raise ProtocolError(f"a chunk of {size} bytes; the most that can be handled is {LARGEST}")
        check_size(self.received + size, self._limits.body)
        self._left = self._chunk = size
        self._between = len(line) + 2
        self._state = _State.DATA if size else _State.TRAILER

    def __repr__(self) -> str:
        return f"chunked {self.received}, {self._state.value}"


class _State(StrEnum):
    SIZE = "chunk size"
    DATA = "chunk data"
    DATA_END = "end of chunk data"
    TRAILER = "trailer"


def _refuse_stray(text: bytes, where: str) -> None:
    """Refuse a bare CR, a bare LF and NUL: each is how one reader is made to see another line end than the next."""
    pairs = text.count(b"\r\n")
    returns = text.count(b"\r") - text.endswith(b"\r")  # the last one may still get its LF
    if b"\0" in text or returns != pairs or text.count(b"\n") != pairs:
        raise ProtocolError(f"a bare CR, bare LF or NUL in {where} (RFC 9112 2.2)")


def parse_trailer(section: bytes, limits: Limits) -> tuple[Headers, bool]:
    """Read a trailer section, its empty line included; return the fields, and whether a misnamed line was dropped."""
    fields = []
    lines = _FOLD.sub(b" ", section).split(b"\r\n")[:-2]
    for line in lines:
        name, colon, value = line.partition(b":")
        # A vertical tab or form feed is as wrong here as in a head.
        if not colon or b"\v" in value or b"\f" in value or name.strip().lower() in FRAMING_NAMES - {name.lower()}:
            raise ProtocolError(f"{line[:60]!r} is no trailer field (RFC 9112 7.1.2)")
        if _NAME.fullmatch(name):
            fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    if len(lines) > limits.fields:
        raise ProtocolError(f"{len(lines)} trailer fields; {limits.fields} are allowed")
    return Headers(fields), len(fields) < len(lines)

"""What other parsers make of a recorded response: the standard library's http.client, and llhttp if it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    import socket

COMPLETE: Final = "complete"
INCOMPLETE: Final = "incomplete"
REJECTED: Final = "rejected"
TOO_LARGE: Final = "too large"


class Outcome(NamedTuple):
    """What a parser made of a recording; ``status`` is None without a head, ``why`` is in its own words."""

    verdict: str
    status: int | None
    length: int
    sha256: str
    why: str = ""


def differences(ours: Outcome, theirs: Outcome) -> list[str]:
    """Name what is not the same.  How far two parsers came that both refuse the bytes is no difference."""
    if ours.verdict == theirs.verdict == REJECTED:
        return []
    return [name for name in Outcome._fields[:-1] if getattr(ours, name) != getattr(theirs, name)]


# The standard library


def by_http_client(data: bytes, method: str, eof: str | None) -> Outcome:
    """Read a recording by http.client, which is fed through a file instead of a socket."""
    from http.client import HTTPResponse, IncompleteRead

    tape = _Tape(data)
    response = HTTPResponse(cast("socket.socket", _Plug(tape)), method=method)
    body, verdict, why = b"", COMPLETE, ""
    try:
        response.begin()
        body = response.read()
    except IncompleteRead as exc:
        body, verdict, why = exc.partial, INCOMPLETE, "IncompleteRead"
    except ConnectionError as exc:
        verdict, why = INCOMPLETE, type(exc).__name__
    except Exception as exc:  # it names no kinds: ValueError and OverflowError come through as well
        verdict, why = REJECTED, f"{type(exc).__name__}: {exc}"
    finally:
        response.close()
    if tape.is_dry and eof != "clean":  # it would have waited, or seen the connection break
        verdict = INCOMPLETE
    status = response.status if isinstance(response.status, int) else None
    return Outcome(verdict, status, len(body), sha256(body).hexdigest(), why)


class _Tape(BytesIO):
    """A file that knows whether its reader has come to its end."""

    is_dry = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.is_dry |= size is None or not 0 <= size <= len(data)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.is_dry |= not line.endswith(b"\n") and len(line) != size
        return line


class _Plug:
    """All that http.client needs of a socket."""

    def __init__(self, tape: _Tape) -> None:
        self._tape = tape

    def makefile(self, mode: str) -> _Tape:
        return self._tape


# llhttp


def by_llhttp(pieces: Iterable[bytes], eof: str | None) -> Outcome:
    """Read the response to a GET by llhttp; ImportError where the package httptools is not installed."""
    import httptools

    listener = _Listener()
    parser = httptools.HttpResponseParser(listener)
    listener.status_of = parser.get_status_code
    verdict, why = INCOMPLETE, ""
    try:
        for piece in pieces:
            parser.feed_data(piece)
    except httptools.HttpParserUpgrade:
        verdict = COMPLETE
    except httptools.HttpParserError as exc:
        verdict, why = REJECTED, str(exc)
    # What comes behind the end it takes for the next response; and it is never told of the close.
    if listener.is_done or (verdict == INCOMPLETE and eof == "clean" and listener.ends_at_close):
        verdict, why = COMPLETE, ""
    return Outcome(verdict, listener.status, listener.length, listener.digest.hexdigest(), why)


class _Listener:
    """What llhttp tells of the first final response."""

    status_of: Callable[[], int]

    def __init__(self) -> None:
        self.status: int | None = None
        self.length = 0
        self.digest = sha256()
        self.is_done = False
        self.ends_at_close = False
        self._is_framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        field = name.lower()
        if field == b"content-length" or (field == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        if not self.is_done:
            self.status = self.status_of()
            self.ends_at_close = self.status >= 200 and not self._is_framed
            self._is_framed = False

    def on_body(self, body: bytes) -> None:
        if not self.is_done:
            self.length += len(body)
            self.digest.update(body)

    def on_message_complete(self) -> None:
        self.is_done = self.is_done or (self.status is not None and self.status >= 200)

"""A resource that can be asked for in parts, by RFC 9110 section 14 or as badly as servers do.

    resource = Resource(BODY, faults=[Fault(in_body=500, kind="rst")])  # cut once, clean afterwards
    url = origin.serve("/a", resource)              # or in virtual time: http_peer({"/a": resource})
    ...
    assert resource.ranges_asked == [None, "bytes=500-"]

Its options are orthogonal: fault kind x wire offset x framing x how it answers Range. It makes a `tests.origin.Script`
for each request; what is not about parts (pace, keep_alive, more fields ...) it takes from `like`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.client import responses
from typing import Literal, NamedTuple

from tests.origin import Request, Script

LAST_MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
DAY_LATER = "Thu, 22 Oct 2015 07:28:00 GMT"
DATE = "Wed, 21 Oct 2015 08:28:00 GMT"  # where there is no usable Last-Modified to count from
HOUR_LATER = "an hour after Last-Modified"
SHIFT = 3  # bytes that "start-low" and "start-high" are off
FEW = 1500  # bytes that "few" gives
BOUNDARY = "THIS_STRING_SEPARATES"

Framing = Literal["content-length", "chunked", "until-close"]

# How a request with Range is answered; all others are answered by 200. Where a field of a 206 lies, the last byte of
# its body is wrong: whoever uses it shows it.
Ranges = Literal[
    "honour",  # 206; 200 if If-Range does not hold or Range is not one range of bytes; 416 if it is out of reach
    "ignore",  # 200
    "ignore-if-range",  # 206 of what there is now, whether If-Range holds or not
    "start-low",  # a true part that starts SHIFT bytes before the one asked for, if there are so many
    "start-high",  # a true part that starts SHIFT bytes behind, if there are so many
    "end-high",  # a true part that goes on to the end of the whole, whatever was asked for
    "short",  # a true part: the first half of what was asked for, rounded up
    "few",  # a true part: the first FEW bytes of what was asked for, if there are so many
    "end-before-start",  # Content-Range is invalid (RFC 9110 14.4)
    "total-changed",  # Content-Range says that the whole is a byte longer
    "total-star",  # Content-Range does not say how long the whole is; valid as such
    "no-content-range",
    "other-unit",  # Content-Range counts "items"
    "other-etag",
    "other-modified",  # the same ETag, with another Last-Modified
    "coded",  # Content-Encoding: gzip
    "multipart",  # multipart/byteranges with the part asked for as its only one
    "416",  # whatever is asked for, and whether If-Range holds or not; with Content-Range
    "416-bare",  # the same without
    "error",  # 503
]


class Span(NamedTuple):
    """The bytes from first to last, both included, as in Content-Range."""

    first: int
    last: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one response, at a wire offset of it or so many payload bytes into its body."""

    at: int | None = None
    in_body: int | None = None
    kind: Literal["fin", "rst", "stall"] = "fin"
    stall_for: float | None = None  # seconds; None: until the client closes
    close_notify: bool = True  # over TLS, for "fin"

    def strike(self, script: Script) -> Script:
        """Return the script with this fault in it."""
        assert (self.at is None) != (self.in_body is None), "a fault is at a wire offset or in the body"
        at = script.wire_at(self.in_body) if self.in_body is not None else self.at
        if self.kind == "stall":
            return replace(script, stall_at=at, stall_for=self.stall_for)
        return replace(script, cut_at=at, cut=self.kind, close_notify=self.close_notify)


@dataclass
class Served:
    """A request and what it was answered with."""

    request: Request
    script: Script
    span: Span | None  # of the whole, as the body really has it; None: an error, or nothing
    wire: int = 0  # bytes handed to the kernel until now, the piece included that it may be still taking

    def count(self, n: int) -> None:
        self.wire += n

    @property
    def status(self) -> int:
        return self.script.status

    @property
    def sent(self) -> int:
        """Return how many bytes of the body have been handed to the kernel until now."""
        return self.script.payload_at(self.wire)


@dataclass
class Resource:
    """Answer requests for one resource, from any thread. All but `log` may be set anew between requests.

    `status_first` and `faults` are used up: one a request, first all of `status_first`; None is no fault.
    """

    body: bytes
    etag: str | None = '"v1"'  # as on the wire; weak: W/"v1"
    last_modified: str | None = LAST_MODIFIED
    date: str | None = HOUR_LATER
    accept_ranges: str | None = "bytes"
    framing: Framing = "content-length"  # of a 200
    part_framing: Framing = "content-length"  # of a 206
    ranges: Ranges = "honour"
    faults: Sequence[Fault | None] = ()
    status_first: Sequence[int] = ()
    retry_after: str | None = None  # goes with `status_first` and with a 503
    like: Script = field(default_factory=Script)
    log: list[Served] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __call__(self, request: Request) -> Script:
        with self._lock:
            script, span = self._answer(request)
            served = Served(request, script, span)
            served.script = replace(script, on_send=served.count)
            self.log.append(served)
        return served.script

    def change(self, body: bytes, etag: str | None, last_modified: str | None = DAY_LATER) -> None:
        """Put another version in the place of this one; responses under way go on with the old one."""
        with self._lock:
            self.body, self.etag, self.last_modified = body, etag, last_modified

    @property
    def ranges_asked(self) -> list[str | None]:
        """Return the Range of each request."""
        return [served.request.field("Range") for served in self.log]

    @property
    def spans(self) -> list[Span | None]:
        """Return which bytes each response has, faults aside."""
        return [served.span for served in self.log]

    @property
    def sent(self) -> int:
        """Return how many bytes of the resource have been sent in all, those that were sent again included."""
        return sum(served.sent for served in self.log if served.span)

    def _answer(self, request: Request) -> tuple[Script, Span | None]:
        if self.status_first:
            status, *self.status_first = self.status_first
            return self._refusal(status), None
        script, span = self._select(request)
        if self.faults:
            fault, *self.faults = self.faults
            script = fault.strike(script) if fault else script
        return script, span

    def _select(self, request: Request) -> tuple[Script, Span | None]:
        asked = request.field("Range")
        if asked is None or self.ranges == "ignore":
            return self._whole()
        if self.ranges == "error":
            return self._refusal(503), None
        if self.ranges in ("416", "416-bare"):
            return self._unsatisfied(), None
        if self.ranges != "ignore-if-range" and not self._if_range_holds(request.field("If-Range")):
            return self._whole()
        wanted = selected(asked, len(self.body))
        if wanted is None:
            return self._whole()
        return self._partial(Span(wanted[0], wanted[-1])) if wanted else (self._unsatisfied(), None)

    def _whole(self) -> tuple[Script, Span | None]:
        span = Span(0, len(self.body) - 1) if self.body else None
        return self._script(200, self.body, self._metadata(), self.framing), span

    def _partial(self, wanted: Span) -> tuple[Script, Span]:
        span = _SPANS[self.ranges](wanted, len(self.body)) if self.ranges in _SPANS else wanted
        metadata, payload = self._metadata(), self.body[span.first : span.last + 1]
        metadata["Content-Range"] = f"bytes {span.first}-{span.last}/{len(self.body)}"
        if self.ranges == "multipart":
            payload = _multipart(metadata, payload)
        elif self.ranges in _LIES:
            metadata |= _LIES[self.ranges](span, len(self.body))
            payload = payload[:-1] + bytes([payload[-1] ^ 0xFF])
        return self._script(206, payload, metadata, self.part_framing), span

    def _unsatisfied(self) -> Script:
        content_range = None if self.ranges == "416-bare" else f"bytes */{len(self.body)}"
        return self._script(416, b"out of range\n", {"Date": self._date, "Content-Range": content_range})

    def _refusal(self, status: int) -> Script:
        return self._script(status, b"not now\n", {"Date": self._date, "Retry-After": self.retry_after})

    def _script(
        self, status: int, body: bytes, metadata: dict[str, str | None], framing: Framing = "content-length"
    ) -> Script:
        header = tuple((name, value) for name, value in metadata.items() if value is not None)
        reason, header = responses.get(status, "Unknown"), header + self.like.header
        return replace(self.like, status=status, reason=reason, body=body, header=header, framing=framing)

    def _metadata(self) -> dict[str, str | None]:
        return {
            "Date": self._date,
            "Last-Modified": self.last_modified,
            "ETag": self.etag,
            "Accept-Ranges": self.accept_ranges,
        }

    @property
    def _date(self) -> str | None:
        if self.date != HOUR_LATER:
            return self.date
        modified = _parsed(self.last_modified)
        return format_datetime(modified + timedelta(hours=1), usegmt=True) if modified else DATE

    def _if_range_holds(self, condition: str | None) -> bool:
        """Evaluate If-Range by RFC 9110 section 13.1.5: strong comparison, and dates to the letter."""
        if condition is None:
            return True
        if condition.startswith(('"', "W/")):
            return condition == self.etag and condition.startswith('"')
        return condition == self.last_modified and self._last_modified_is_strong()

    def _last_modified_is_strong(self) -> bool:
        """Say whether Date is so much later that there was no second change (RFC 9110 section 8.8.2.2)."""
        modified, now = _parsed(self.last_modified), _parsed(self._date)
        return modified is not None and now is not None and now - modified >= timedelta(seconds=1)


def selected(asked: str, total: int) -> range | None:
    """Return the bytes that a Range selects; an empty range if it is out of reach, None if it is to be ignored."""
    match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", asked, re.IGNORECASE)
    if match is None or match[0].endswith("=-"):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, total - int(last)), total)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, total) if last else total)


def redirect(
    location: str, status: int = 302, body: bytes = b"over there\n", header: Sequence[tuple[str, str]] = ()
) -> Script:
    """Make an answer that leads to another place."""
    fields = (("Location", location), *header)
    return Script(status=status, reason=responses.get(status, "Unknown"), body=body, header=fields)


# Which bytes a true part has instead of those asked for; the number is the length of the whole.
_SPANS: dict[str, Callable[[Span, int], Span]] = {
    "start-low": lambda span, total: Span(max(0, span.first - SHIFT), span.last),
    "start-high": lambda span, total: Span(min(span.first + SHIFT, span.last), span.last),
    "end-high": lambda span, total: Span(span.first, total - 1),
    "short": lambda span, total: Span(span.first, (span.first + span.last) // 2),
    "few": lambda span, total: Span(span.first, min(span.first + FEW - 1, span.last)),
}

# Which fields of a 206 are other than they should be; None: there is no such field.
_LIES: dict[str, Callable[[Span, int], dict[str, str | None]]] = {
    "end-before-start": lambda span, total: {
        "Content-Range": f"bytes {span.first or 1}-{(span.first or 1) - 1}/{total}"
    },
    "total-changed": lambda span, total: {"Content-Range": f"bytes {span.first}-{span.last}/{total + 1}"},
    "total-star": lambda span, total: {"Content-Range": f"bytes {span.first}-{span.last}/*"},
    "no-content-range": lambda span, total: {"Content-Range": None},
    "other-unit": lambda span, total: {"Content-Range": f"items {span.first}-{span.last}/{total}"},
    "other-etag": lambda span, total: {"ETag": '"another"'},
    "other-modified": lambda span, total: {"Last-Modified": DAY_LATER},
    "coded": lambda span, total: {"Content-Encoding": "gzip"},
}


def _parsed(date: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(date or "")
    except ValueError:
        return None


def _multipart(metadata: dict[str, str | None], part: bytes) -> bytes:
    """Move Content-Range into a body of one part (RFC 9110 section 14.6)."""
    content_range = metadata.pop("Content-Range")
    metadata["Content-Type"] = f"multipart/byteranges; boundary={BOUNDARY}"
    head = f"--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\nContent-Range: {content_range}\r\n\r\n"
    return head.encode() + part + f"\r\n--{BOUNDARY}--\r\n".encode()

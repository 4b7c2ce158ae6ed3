"""Whether a part may be completed by a range request, how to ask for the rest, and what the answer means.

The bytes of two responses are put together only under one strong validator (RFC 9110 15.3.7.3), and whatever leaves a
doubt of that means to begin anew: a restart costs time, a mixed file is wrong.

    header of the 200 ─► strong_validator ─► Asked ─► fields() ─► request
                                               └────► judge(asked, head) ─► Append · Whole · Complete · Restart

A 206 that nobody asked for never comes this far: `Exchange` refuses it.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from rawdl.proto.events import HeadReceived
from rawdl.proto.fields import ContentRange, UnsatisfiedRange, parse_content_range, parse_http_date
from rawdl.proto.messages import Headers

# So many bytes before the offset are asked for again and compared.  That finds out a server that keeps its ETag while
# the bytes change, and a part that somebody else wrote to, for the price of three packets.
OVERLAP: Final = 4096


class ETag(NamedTuple):
    """An entity tag: ``opaque`` with its quotes, as it goes into If-Range (RFC 9110 8.8.3)."""

    opaque: str
    weak: bool


class Validator(NamedTuple):
    """What tells one version of a representation from all others: If-Range's value, and the field that it came in.

    ``json.dumps`` writes it as a list of the two, which `from_list` reads.
    """

    kind: Literal["etag", "last-modified"]
    value: str

    @classmethod
    def from_list(cls, value: object) -> Validator:
        """Read what a journal holds; ValueError if it is no validator that may be sent."""
        match value:
            case ["etag", str(text)] if (etag := parse_etag(text)) is not None and not etag.weak:
                return cls("etag", etag.opaque)
            case ["last-modified", str(text)] if parse_http_date(text) is not None:
                return cls("last-modified", text)
        raise ValueError("no strong validator")

    def holds(self, header: Headers) -> bool:
        """Return whether a response may be of this version; one that does not repeat the validator may."""
        return header.get(self.kind, self.value) == self.value


class Asked(NamedTuple):
    """A range request of ours.  All are byte positions from 0; ``last`` is included, and None means to the end.

    ``offset`` is the first byte that is missing, and ``overlap`` is how many of those before it are asked for again.
    ``total`` is the length that was told before, or None.
    """

    offset: int
    last: int | None
    total: int | None
    validator: Validator | None
    overlap: int = 0

    @property
    def first(self) -> int:
        """The first byte that is asked for."""
        return self.offset - self.overlap

    def fields(self) -> dict[str, str]:
        """Return the header fields that ask.

        Range never goes without If-Range (T45, RFC 9110 13.1.5), but to a mirror, whose validator nobody knows: what it
        sends is held against the total, and in the end against the checksum.
        """
        assert self.first >= 0 and (self.last is None or self.first <= self.last)
        last = "" if self.last is None else self.last
        fields = {"Range": f"bytes={self.first}-{last}"}
        return fields if self.validator is None else fields | {"If-Range": self.validator.value}

    def is_of(self, header: Headers) -> bool:
        """Return whether a response may be of the version that was asked for."""
        return self.validator is None or self.validator.holds(header)


class Append(NamedTuple):
    """The 206 fits: its body is the bytes ``first`` to ``last``, both included, of ``total``.

    ``first`` is what was asked for; ``last`` may be less.  A chunked body may end elsewhere all the same: the caller
    takes no more than `length` bytes of it, and asks again for what then is missing.
    """

    first: int
    last: int
    total: int

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.last - self.first + 1


class Whole(NamedTuple):
    """The 200 holds everything from byte 0 on, maybe of another version: begin anew, with this body."""


class Complete(NamedTuple):
    """The 416 says that nothing is missing: the ``total`` bytes that are here are all there are."""

    total: int


class Restart(NamedTuple):
    """What is here cannot be completed: discard this response and the part, and ask for the whole.

    ``reason`` is for people, and holds none of the server's text.
    """

    reason: str


Verdict = Append | Whole | Complete | Restart


def parse_etag(value: str) -> ETag | None:
    """Read ETag (RFC 9110 8.8.3); None if it is invalid, as two lines of it are."""
    match = re.fullmatch(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")', value.strip(" \t"))
    return None if match is None else ETag(match[2], match[1] is not None)


def strong_validator(header: Headers) -> Validator | None:
    """Return the validator under which the body of a 200 may be completed later, or None if it never may.

    That is a strong ETag.  Last-Modified stands in only where there is no ETag at all, since If-Range must not hold a
    date if there is one, weak or not (RFC 9110 13.1.5); an invalid ETag counts as weak.  The date is strong if Date is
    at least a second later (8.8.2.2), and goes back exactly as it came.  A body with a content coding has none: its
    206 would be refused.
    """
    if _is_coded(header):
        return None
    if "etag" in header:
        etag = parse_etag(header["etag"])
        return None if etag is None or etag.weak else Validator("etag", etag.opaque)
    modified, date = (parse_http_date(header.get(name, "")) for name in ("last-modified", "date"))
    if modified is None or date is None or date - modified < 1:
        return None
    return Validator("last-modified", header["last-modified"])


def accepts_ranges(header: Headers) -> bool | None:
    """Return whether Accept-Ranges offers bytes (True) or says none (False); None: nothing is known.

    It is no promise, and a server without it may serve ranges all the same (RFC 9110 14.3).
    """
    units = {unit.strip(" \t").lower() for unit in header.get("accept-ranges", "").split(",")}
    if "bytes" in units:
        return True
    return False if "none" in units else None


def judge(asked: Asked, head: HeadReceived) -> Verdict | None:
    """Say what the response to a range request means for the part that is here.

    None is for any status but 200, 206 and 416: it says nothing about ranges.
    """
    if head.status_code == 200:
        return Whole()
    if head.status_code == 206:
        return _judge_partial(asked, head)
    if head.status_code == 416:
        return _judge_unsatisfied(asked, head.header)
    return None


def _judge_partial(asked: Asked, head: HeadReceived) -> Append | Restart:
    header = head.header
    if header.get("content-type", "").partition(";")[0].strip(" \t").lower() == "multipart/byteranges":
        return Restart("the 206 is multipart/byteranges, though one range was asked for")
    if _is_coded(header):
        return Restart("the 206 has a content coding, though identity was asked for")
    if not asked.is_of(header):
        return Restart("the 206 is of another version: its validator differs")
    found = parse_content_range(header.get("content-range", ""))
    if not isinstance(found, ContentRange) or found.total is None:
        return Restart("the 206 has no Content-Range that says which bytes it is, and of how many")
    if asked.total not in (None, found.total):
        return Restart(f"the 206 is of {found.total} bytes, which were {asked.total} before")
    if found.total < asked.offset:
        return Restart(f"the 206 is of {found.total} bytes, and {asked.offset} are here")
    # One that begins earlier has what is missing as well (R7), but nobody who gets this wrong is to be trusted.
    if found.first != asked.first or (asked.last is not None and found.last > asked.last):
        last = "" if asked.last is None else asked.last
        return Restart(f"the 206 is bytes {found.first}-{found.last}; {asked.first}-{last} were asked for")
    part = Append(found.first, found.last, found.total)
    if head.framing.length not in (None, part.length):
        return Restart(f"the 206 has {head.framing.length} bytes, and a Content-Range of {part.length}")
    if asked.validator is not None and asked.validator.kind == "etag" and "etag" not in header:
        return Restart("the 206 has no ETag, and the 200 had one (RFC 9110 15.3.7)")
    return part


def _judge_unsatisfied(asked: Asked, header: Headers) -> Complete | Restart:
    found = parse_content_range(header.get("content-range", ""))
    if not isinstance(found, UnsatisfiedRange):
        return Restart("the 416 does not say how long the whole is")
    if not asked.is_of(header):
        return Restart("the 416 is of another version: its validator differs")
    if found.total != asked.offset or asked.total not in (None, found.total):
        return Restart(f"the 416 is of {found.total} bytes, and {asked.offset} are here")
    return Complete(found.total)


def _is_coded(header: Headers) -> bool:
    return header.get("content-encoding", "identity").strip(" \t").lower() not in ("", "identity")


class Overlap:
    """The bytes that were asked for again, compared with those that are here, in whatever pieces they come."""

    __slots__ = ("_at", "_expected")

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._at = 0

    @property
    def left(self) -> int:
        """How many are still to come."""
        return len(self._expected) - self._at

    def feed(self, data: memoryview) -> memoryview | None:
        """Return what follows the overlap, empty while inside it; None if the bytes differ: restart (S36)."""
        n = min(self.left, len(data))
        if data[:n] != self._expected[self._at : self._at + n]:
            return None
        self._at += n
        return data[n:]

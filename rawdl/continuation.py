"""The body of a range as a sink: what is there already is compared, what follows is written where it belongs."""

from __future__ import annotations

from rawdl.errors import RangeError, StorageError
from rawdl.partfile import PartFile
from rawdl.proto.ranges import Overlap
from rawdl.proto.segments import Plan, Segment
from rawdl.sinks import Sink


class Continuation(Sink):
    """Take ``length`` bytes: first those that are ``there`` already, which must be the same, and then new ones.

    Raises RangeError for bytes that differ, and for more of them than the Content-Range said.  ``framed``: the framing
    sees to that already.
    """

    __slots__ = ("_framed", "_left", "_overlap", "_sink", "_there")

    def __init__(self, sink: Sink, there: bytes, length: int, *, framed: bool) -> None:
        self._sink = sink
        self._framed = framed
        self._overlap = Overlap(there)
        self._there = len(there)
        self._left = length

    def write(self, data: memoryview) -> None:
        self._left -= len(data)
        if self._left < 0 and not self._framed:
            raise RangeError(f"the 206 has at least {-self._left} bytes more than its Content-Range says")
        rest = self._overlap.feed(data)
        if rest is None:
            raise RangeError(f"the last {self._there} bytes that are there differ from those that the server has")
        if len(rest):
            self._sink.write(rest)

    def splice_target(self) -> int | None:
        return self._sink.splice_target() if self._framed and not self._overlap.left else None

    def splice_offset(self) -> int | None:
        return self._sink.splice_offset()

    def room(self) -> int:
        return self._overlap.left + self._sink.room()

    def spliced(self, n: int) -> None:
        self._sink.spliced(n)

    def failed(self, exc: OSError) -> StorageError:
        return self._sink.failed(exc)

    def __repr__(self) -> str:
        return f"<Continuation {self._overlap.left} of {self._there} bytes left to compare, to {self._sink!r}>"


class SegmentSink(Sink):
    """Write to where a segment is in the part, and no further than it reaches by now.

    ``torn``: some bytes have been dropped, so that those that follow belong elsewhere.
    """

    __slots__ = ("_part", "_plan", "_segment", "torn")

    def __init__(self, part: PartFile, plan: Plan, segment: Segment) -> None:
        self._part = part
        self._plan = plan
        self._segment = segment
        self.torn = False

    def write(self, data: memoryview) -> None:
        self.torn = self.torn or len(data) > self._segment.left
        if self.torn:
            data = data[: self._segment.left]
        self._part.write_at(self._segment.position, data)
        self.spliced(len(data))

    def room(self) -> int:
        return self._segment.left

    def splice_target(self) -> int | None:
        return self._part.splice_target()

    def splice_offset(self) -> int | None:
        return self._segment.position

    def spliced(self, n: int) -> None:
        self._plan.received(self._segment, n)
        self._part.position = self._plan.received_bytes

    def failed(self, exc: OSError) -> StorageError:
        return self._part.failed(exc)

    def __repr__(self) -> str:
        return f"<SegmentSink {self._segment!r}{' torn' if self.torn else ''}>"

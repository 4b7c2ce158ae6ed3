"""Which bytes of a file are there, which are missing, and which connection fetches what.

Ranges are half-open here: ``start`` is in, ``stop`` is not.  (In Range and Content-Range the last byte is in.)

    Plan.take ──► Segment ──► received, received … ──► give_back
        ▲   a free stretch, or half of what         │   what is left of it
        └── another segment has still to fetch ◄────┘   is free again
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

# In a journal.  There are never more holes than there were connections at a time, so this is out of reach, and it
# bounds what a file that is no journal of ours can cost.
MOST_RANGES: Final = 4096


class Coverage:
    """The bytes that are there, as ranges that are sorted and apart from one another; ``count`` is their number."""

    __slots__ = ("_starts", "_stops", "count")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.count = 0
        for start, stop in ranges:
            self.add(start, stop)

    @classmethod
    def from_list(cls, value: object, total: int | None = None) -> Coverage:
        """Read what `to_list` made; ValueError for anything else, and for a range behind ``total``."""
        if not isinstance(value, list) or len(value) > MOST_RANGES:
            raise ValueError("not a list of ranges, or too long a one")
        coverage = cls()
        position = 0
        for item in value:
            match item:
                case [int(start), int(stop)] if bool not in (type(start), type(stop)) and position <= start < stop:
                    coverage.add(start, stop)
                    position = stop
                case _:
                    raise ValueError("not two numbers in order, or not behind the range before")
        if total is not None and position > total:
            raise ValueError(f"a range up to {position}, and a total of {total}")
        return coverage

    def to_list(self) -> list[list[int]]:
        """Return the ranges, ready for ``json.dumps``."""
        return [[start, stop] for start, stop in self]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._stops, strict=True)

    def __repr__(self) -> str:
        return f"<Coverage {self.count} in {list(self)}>"

    @property
    def prefix(self) -> int:
        """How many bytes are there from byte 0 on without a gap."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    def add(self, start: int, stop: int) -> None:
        """Take note that these are there, whether or not some of them were."""
        assert 0 <= start <= stop
        if start == stop:
            return
        touched = slice(bisect_left(self._stops, start), bisect_right(self._starts, stop))
        starts, stops = self._starts[touched], self._stops[touched]
        start, stop = min([start, *starts]), max([stop, *stops])
        self._starts[touched], self._stops[touched] = [start], [stop]
        self.count += stop - start - (sum(stops) - sum(starts))

    def missing(self, total: int) -> list[tuple[int, int]]:
        """Return the gaps in the first ``total`` bytes, which no range goes beyond."""
        assert not self._stops or self._stops[-1] <= total
        gaps = zip([0, *self._stops], [*self._starts, total], strict=True)
        return [(start, stop) for start, stop in gaps if start < stop]


class Segment:
    """A stretch that one connection fetches: ``position`` is the next byte to come.

    The request names ``start`` to ``reach``.  ``stop`` falls when another connection takes over the end, and may rise
    again, never above ``reach``: so look at ``left`` before each read, and read no more than that.
    """

    __slots__ = ("position", "reach", "start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = self.position = start
        self.stop = self.reach = stop

    @property
    def left(self) -> int:
        """How many bytes are still to come."""
        return self.stop - self.position

    def __repr__(self) -> str:
        return f"<Segment {self.start}-{self.stop} at {self.position}>"


class Plan:
    """Hand out the missing bytes of a file to connections, each of them to one at a time.

    ``done`` is what is there already of the ``total`` bytes; ``min_segment`` (bytes, at least 1) is the least for which
    a connection is given another's work.  ``received_bytes`` counts what is there, no byte of it twice.
    """

    def __init__(self, total: int, done: Coverage, min_segment: int) -> None:
        assert min_segment >= 1
        self.total = total
        self.received_bytes = done.count
        self._done = Coverage(done)  # without what the live segments have brought, so that a read costs one addition
        self._live: list[Segment] = []
        self._min_segment = min_segment

    def __repr__(self) -> str:
        return f"<Plan {self.received_bytes}/{self.total} live={self._live}>"

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.received_bytes == self.total

    def coverage(self) -> Coverage:
        """Return what is there, for the journal."""
        return Coverage([*self._done, *((segment.start, segment.position) for segment in self._live)])

    @property
    def has_work(self) -> bool:
        """Whether `take` would return a segment."""
        return bool(self._free()) or any(segment.left // 2 >= self._min_segment for segment in self._live)

    def take(self) -> Segment | None:
        """Return work for a connection, or None if there is none.

        It is the first stretch that nobody fetches: so the part without a gap grows, which is what a single stream can
        go on from if the server stops serving ranges.  If there is none, it is the second half of the most that
        another segment has left, provided that both halves are worth a connection.
        """
        if free := self._free():
            segment = Segment(*free[0])
        else:
            victim = max(self._live, key=lambda segment: segment.left, default=None)
            if victim is None or victim.left // 2 < self._min_segment:
                return None
            segment = Segment(victim.stop - victim.left // 2, victim.stop)
            victim.stop = segment.start
        self._live.append(segment)
        return segment

    def received(self, segment: Segment, n: int) -> int:
        """Take note that ``n`` bytes have come for it; return how many of them, from the first on, are to be kept.

        The rest is behind its stop: another connection brings those, or nobody waits for them any more.
        """
        n = min(n, segment.left)
        segment.position += n
        self.received_bytes += n
        return n

    def give_back(self, segment: Segment) -> None:
        """Take a segment back from its connection, which has come to its end or has failed.

        What is left of it is free again, and nothing counts for it any more.  A stretch that the segment before has
        asked for as well falls to that one, whose response brings it anyway: so if the server refuses each further
        connection, the first, which asked for everything, goes on to the end.
        """
        if segment not in self._live:
            return
        self._live.remove(segment)
        self._done.add(segment.start, segment.position)
        segment.stop = segment.position
        for start, stop in self._free():
            for other in self._live:
                if other.stop == start and other.left:
                    other.stop = min(stop, other.reach)

    def extend(self, segment: Segment) -> bool:
        """Let a segment that has come to its stop go on, if nobody fetches what follows and its request covers that."""
        for start, stop in self._free():
            if start == segment.stop:
                segment.stop = max(start, min(stop, segment.reach))
        return segment.left > 0

    def _free(self) -> list[tuple[int, int]]:
        """Return the stretches that are neither there nor on their way."""
        claimed = Coverage([*self._done, *((segment.start, segment.stop) for segment in self._live)])
        return claimed.missing(self.total)

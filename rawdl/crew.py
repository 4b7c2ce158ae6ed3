"""Several connections for one file: each fetches a segment, and whoever is done takes half of what is most behind.

The first response tells the length, the validator and whether there are ranges; its fetch becomes the first member and
streams on, while the others take far parts from it.  Each answer is held against the same validator and length.  A
server that refuses ranges loses us the other members, and the first goes on to the end alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rawdl.continuation import Continuation
from rawdl.errors import DownloadError, IncompleteBody, RangeError, StorageError, status_error
from rawdl.fetch import Fetch
from rawdl.job import Job, Shared
from rawdl.partfile import PartFile
from rawdl.pool import Key, Slot
from rawdl.proto.course import Course
from rawdl.proto.events import BodyComplete, HeadReceived
from rawdl.proto.pacing import TokenBucket
from rawdl.proto.ranges import OVERLAP, Append, Asked, Restart, judge
from rawdl.proto.segments import Coverage, Plan, Segment
from rawdl.results import Marks
from rawdl.sinks import Sink
from rawdl.throttle import Throttle


class CrewOwner(Protocol):
    """Whose crew it is.  None of these raises."""

    @property
    def stopping(self) -> bool:
        """Whether the rest is not wanted any more."""

    def crew_sends(self) -> None:
        """A member has a connection, and its request goes out."""

    def crew_answered(self, head: HeadReceived) -> None:
        """A member begins to receive."""

    def crew_received(self) -> None:
        """More bytes of the file are there."""

    def crew_done(self) -> None:
        """All of them are."""

    def crew_failed(self, error: DownloadError) -> None:
        """No member is left, and bytes are missing."""


class Crew:
    """Fetch what is missing of a file of known length and version into its part, over several connections.

    ``there`` are the ranges that are in the part already.
    """

    def __init__(
        self,
        shared: Shared,
        owner: CrewOwner,
        job: Job,
        course: Course,
        bucket: TokenBucket | None,
        there: Iterable[tuple[int, int]],
    ) -> None:
        assert job.part is not None and course.total is not None
        self.shared = shared
        self.owner = owner
        self.job = job
        self.course = course
        self.bucket = bucket
        self.part = job.part
        done = Coverage(there)
        self.plan = Plan(course.total, done, job.min_segment)
        # Where new bytes follow those of an earlier download the two are compared: so many of them can be.
        self.seams = {stop: min(OVERLAP, stop - start) for start, stop in done}
        self._size = job.connections
        self._members: list[Member] = []
        self._spare: Slot | None = None  # the task's own, while no member uses it
        self._marks: Marks | None = None  # the task's own, for the first member
        self._active = False
        self._alone = False  # the server refuses ranges
        self.paused = False
        self.part.share(self.plan.coverage)

    def __repr__(self) -> str:
        return f"<Crew {len(self._members)} of {self._size}, {self.plan!r}>"

    def enlist(self, fetch: Fetch, slot: Slot) -> Sink:
        """Make the first member of a fetch whose response goes on to the end of the file, from the first gap on."""
        segment = self.plan.take()
        assert segment is not None
        self._members.append(Member(self, slot, None, fetch, segment))
        self._active = True
        self.shared.loop.call_soon(self._recruit)
        return SegmentSink(self.part, self.plan, segment)

    def begin(self, slot: Slot, marks: Marks) -> None:
        """Begin again, after the last member has failed."""
        self._spare, self._marks, self._size = slot, marks, self.job.connections
        self._active, self._alone = True, False
        self._recruit()

    def _recruit(self) -> None:
        """Find new members, as long as there is work and they are not too many."""
        while self._active and not (self._alone or self.paused or self.owner.stopping):
            if len(self._members) >= self._size or not self.plan.has_work:
                return
            slot, self._spare = self._spare, None
            marks, self._marks = self._marks, None
            member = Member(self, slot, marks)
            self._members.append(member)
            member.begin()

    def left(self, member: Member, error: DownloadError | None) -> None:
        """Take back what a member has not done, and see who does it now."""
        self._members.remove(member)
        if member.segment is not None:
            self.plan.give_back(member.segment)
        if member.slot is not None and not member.slot.extra:
            self._spare = member.slot
        if self.plan.complete:
            self.cancel()
            self.owner.crew_done()
        elif error is not None and (not self._members or member.spoils_all(error)):
            self._give_up(error)
        else:
            self._carry_on(member, error)

    def _carry_on(self, member: Member, error: DownloadError | None) -> None:
        """Replace somebody who has failed, unless that would fail as well: the others do the work."""
        self._alone = self._alone or isinstance(error, RangeError)
        if error is not None and not member.fruitful:
            self._size = max(1, self._size - 1)
        if self._alone and not self._members:
            self._give_up(RangeError("the server does not serve the ranges that are missing"))
        else:
            self.shared.loop.call_soon(self._recruit)

    def _give_up(self, error: DownloadError) -> None:
        self.cancel()
        self.owner.crew_failed(error)

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True
        for member in self._members:
            member.pause()

    def resume(self) -> None:
        """End a pause."""
        self.paused = False
        for member in self._members:
            member.resume()
        self.shared.loop.call_soon(self._recruit)

    def cancel(self) -> None:
        """Close every connection."""
        self._active = False
        members, self._members = self._members, []
        for member in members:
            member.cancel()
            if member.segment is not None:
                self.plan.give_back(member.segment)


class Member:
    """One connection of a crew, and the segment that it fetches, once it may connect.

    ``slot`` and ``marks`` are the task's own, if it is to use those.
    """

    def __init__(
        self,
        crew: Crew,
        slot: Slot | None,
        marks: Marks | None,
        fetch: Fetch | None = None,
        segment: Segment | None = None,
    ) -> None:
        self.segment = segment
        self.slot = slot
        self.answered = fetch is not None  # whether its response fits
        self._crew = crew
        self._marks = marks
        self._fetch = fetch
        self._asked: Asked | None = None
        self._over = False
        self._held = False  # it has a slot, and waits for the end of a pause
        if fetch is not None:
            fetch.owner = self

    @property
    def fruitful(self) -> bool:
        """Whether it has brought anything."""
        return self.segment is not None and self.segment.position > self.segment.start

    def spoils_all(self, error: DownloadError) -> bool:
        """Whether the others had better stop too: the disk fails, or the bytes that are there are not the server's."""
        return isinstance(error, StorageError) or (self.answered and isinstance(error, RangeError))

    def begin(self) -> None:
        """Connect, as soon as the host has room for one more."""
        pool, url = self._crew.shared.pool, self._crew.course.url
        self._key = Key(url.origin, self._crew.shared.context_for(url))
        if self.slot is None:
            self.slot = pool.submit_extra(self._key, self._connect)
        elif self.slot.held and self.slot.key == self._key:
            self._connect()
        else:
            pool.rejoin(self.slot, self._key, self._connect)

    def _connect(self) -> None:
        """Take a segment, not before: while one waits for a connection, another can do that work."""
        if self._over:
            return
        crew = self._crew
        if crew.paused:
            self._held = True
            return
        self.segment = crew.plan.take()
        if self.segment is None:
            self._end(None)
            return
        request = crew.course.request_for(self._range(self.segment))
        throttle = Throttle.of(crew.shared.loop, crew.shared.bucket, crew.bucket)
        marks = self._marks or Marks(crew.shared.loop.now, 0.0)
        self._fetch = Fetch(crew.shared, self, self._key, request, crew.job.terms, marks, throttle)
        self._fetch.begin()

    def _range(self, segment: Segment) -> Asked:
        crew = self._crew
        assert crew.course.validator is not None
        overlap = crew.seams.get(segment.start, 0)
        self._asked = Asked(segment.start, segment.reach - 1, crew.plan.total, crew.course.validator, overlap)
        return self._asked

    # What the fetch tells

    @property
    def stopping(self) -> bool:
        return self._crew.owner.stopping

    def fetch_sends(self) -> None:
        self._crew.owner.crew_sends()

    def fetch_returns(self) -> None:
        """The connection was dead: another is made, and nobody need know."""

    def fetch_answered(self, head: HeadReceived) -> Sink:
        """Take the body if it is what was asked for."""
        assert self._asked is not None and self.segment is not None
        crew, asked = self._crew, self._asked
        verdict = judge(asked, head)
        if not isinstance(verdict, Append):
            if verdict is None:
                raise status_error(head.status_code, crew.course.url.redacted)
            raise RangeError(verdict.reason if isinstance(verdict, Restart) else f"{head.status_code} for a range")
        self.answered = True
        crew.owner.crew_answered(head)
        sink = SegmentSink(crew.part, crew.plan, self.segment)
        there = crew.part.read(asked.first, asked.overlap) if asked.overlap else b""
        return Continuation(sink, there, verdict.length, framed=head.framing.length is not None)

    def fetch_received(self, received: int) -> None:
        """Stop where another member has begun."""
        self._crew.owner.crew_received()
        if self.segment is not None and not self.segment.left:
            self._end(None)

    def fetch_done(self, end: BodyComplete) -> None:
        """Go on to the next segment; if the response was shorter than asked, somebody will see to the rest."""
        assert self._fetch is not None
        self._fetch.release()
        error: DownloadError | None = None
        if not self.fruitful:
            error = IncompleteBody("the response to a range was empty", received=0, expected=None)
        try:
            self._crew.owner.crew_received()
        except DownloadError as exc:
            error = exc
        self._end(error)

    def fetch_failed(self, error: DownloadError) -> None:
        """Leave the rest to others."""
        self._end(error)

    def _end(self, error: DownloadError | None) -> None:
        if not self._over:
            self.cancel()
            self._crew.left(self, error)

    def pause(self) -> None:
        """Stop reading."""
        if self._fetch is not None:
            self._fetch.pause()

    def resume(self) -> None:
        """End a pause."""
        if self._fetch is not None:
            self._fetch.resume()
        elif self._held:
            self._held = False
            self._crew.shared.loop.call_soon(self._connect)

    def cancel(self) -> None:
        """Close the connection, and free the slot unless it is the task's own."""
        self._over = True
        if self._fetch is not None:
            self._fetch.cancel()
        if self.slot is not None and self.slot.extra:
            self._crew.shared.pool.release(self.slot)


class SegmentSink(Sink):
    """Write to where a segment is in the part, and no further than it reaches by now."""

    __slots__ = ("_part", "_plan", "_segment")

    def __init__(self, part: PartFile, plan: Plan, segment: Segment) -> None:
        self._part = part
        self._plan = plan
        self._segment = segment

    def write(self, data: memoryview) -> None:
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

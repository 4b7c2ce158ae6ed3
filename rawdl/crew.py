"""Several connections for one file: each fetches a segment, and whoever is done takes half of what is most behind.

The first response tells the length, the validator and whether there are ranges; its fetch becomes the first member and
streams on, while the others take far parts from it.  Each answer is held against the same validator and length.  A
server that refuses ranges loses us the other members, and the first goes on to the end alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from rawdl.alarm import Alarm
from rawdl.continuation import Continuation, SegmentSink
from rawdl.errors import DownloadError, IncompleteBody, RangeError, StorageError, Timeout
from rawdl.fetch import Fetch
from rawdl.job import Job, Shared
from rawdl.loop import Timer
from rawdl.pool import Slot
from rawdl.proto.course import Course
from rawdl.proto.events import BodyComplete, HeadReceived
from rawdl.proto.ranges import OVERLAP, Asked
from rawdl.proto.retry import WORTH_ANOTHER
from rawdl.proto.segments import Coverage, Plan, Segment
from rawdl.proto.timeouts import Phase, Timeouts
from rawdl.proto.url import URL
from rawdl.results import Marks
from rawdl.sinks import Sink
from rawdl.throttle import Throttle

if TYPE_CHECKING:
    from rawdl.proto.pacing import TokenBucket
    from rawdl.trace import Tracer

# What a member waits for, it has its own limits for.
_NEVER: Final = Timeouts(resolve=None, connect=None, tls=None, send=None, head=None, idle=None)


class CrewOwner(Protocol):
    """Whose crew it is.  None of these raises."""

    @property
    def trace(self) -> Tracer | None:
        """Whom to tell the steps, if anybody."""

    @property
    def stopping(self) -> bool:
        """Whether the rest is not wanted any more."""

    def crew_sends(self) -> None:
        """A member has a connection, and its request goes out."""

    def crew_answered(self, head: HeadReceived) -> None:
        """A member begins to receive."""

    def crew_found_surplus(self, count: int) -> None:
        """So many bytes came behind the body of a response."""

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
        # Where the file is: beside the first, those that were found to be of the same length, or have yet to be.
        self._sources = [course.url, *course.places.mirrors]
        self._size = job.connections
        self._members: list[Member] = []
        self._broken = 0  # members that have failed since one last came to a good end
        self._timer: Timer | None = None  # until another is found for somebody who failed
        self._spare: Slot | None = None  # the task's own, while no member uses it
        self._marks: Marks | None = None  # the task's own, for the first member
        self._active = False
        self.terms = job.terms._replace(low_speed=None)
        self._watch()
        self.paused = False
        self.part.share(self.plan.coverage)
        self.part.position = self.plan.received_bytes

    def __repr__(self) -> str:
        return f"<Crew {len(self._members)} of {self._size}, {self.plan!r}>"

    def enlist(self, fetch: Fetch, slot: Slot) -> Sink:
        """Make the first member of a fetch whose response goes on to the end of the file, from the first gap on."""
        segment = self.plan.take()
        assert segment is not None
        member = Member(self, self._sources[0], slot, None)
        self._members.append(member)
        self._active = True
        self.shared.loop.call_soon(self._recruit)
        sink = member.adopt(fetch, segment)
        if fetch.paused:  # by a listener that was told of the head
            self.pause()
        return sink

    def begin(self, slot: Slot, marks: Marks) -> None:
        """Begin again, after the last member has failed."""
        self._spare, self._marks = slot, marks
        self._sources = [self.course.url, *self.course.places.mirrors]
        self._size, self._broken, self._active = self.job.connections, 0, True
        self._watch()
        self._recruit()

    def _watch(self) -> None:
        """Have the speed watched of what comes from now on, once somebody has an answer."""
        self._alarm = Alarm(self.shared.loop, _NEVER, self.job.terms.low_speed, self._too_slow)
        self._flows = False
        self._before = self.plan.received_bytes

    def body_begins(self) -> None:
        """Take note that a member begins to receive."""
        if not self._flows:
            self._flows = True
            self._alarm.body_begins()

    def _recruit(self) -> None:
        """Find new members, as long as there is work and they are not too many."""
        self._forget_timer()
        while self._active and self._sources and not (self.paused or self.owner.stopping):
            # The task's own slot is not to lie idle while others wait for one.
            count = self.working if self._spare is not None else len(self._members)
            if count >= self._size or not self.plan.has_work:
                return
            slot, self._spare = self._spare, None
            marks, self._marks = self._marks, None
            member = Member(self, self._least_used(), slot, marks)
            self._members.append(member)
            member.begin()

    def heed_limits(self) -> None:
        """Have no clock run while our own rate limit keeps somebody from reading: that is no fault of the server."""
        if self.paused or any(member.held_back for member in self._members):
            self._alarm.pause()
        else:
            self._alarm.resume()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def working(self) -> int:
        """How many members have something to fetch."""
        return sum(member.segment is not None for member in self._members)

    def _least_used(self) -> URL:
        return min(self._sources, key=lambda url: sum(member.url is url for member in self._members))

    def takes_back(self, member: Member) -> bool:
        """Let a member go on behind its stop, if whoever took that over has not had an answer yet.

        Its own response brings those bytes now; the other may be waiting for a connection that never comes.
        """
        segment = member.segment
        assert segment is not None
        for other in self._members:
            if other.segment is not None and other.segment.start == segment.stop and not other.answered:
                self._dismiss(other)
                break
        return self.plan.extend(segment)

    def _dismiss(self, member: Member) -> None:
        """Take away what a member has, and its connection."""
        self._members.remove(member)
        member.cancel()
        self.heed_limits()
        if member.segment is not None:
            self.plan.give_back(member.segment)
        if member.slot is not None and not member.slot.extra:
            self._spare = member.slot

    def received(self) -> None:
        """Take note that there are more bytes."""
        self._alarm.advance(self.plan.received_bytes - self._before)
        if not self.plan.complete:  # else it is told as the last of all
            self.owner.crew_received()

    def _too_slow(self, phase: Phase) -> None:
        low = self.job.terms.low_speed
        assert low is not None
        least = f"{low.bytes_per_second:g} bytes per second for {low.seconds:g} s"
        message = f"slower than {least}, over {self.working} connections, after {self.plan.received_bytes} bytes"
        self._give_up(Timeout(message, phase=phase))

    def left(self, member: Member, error: DownloadError | None) -> None:
        """Take back what a member has not done, and see who does it now."""
        self._dismiss(member)
        if self.plan.complete:
            self.cancel()
            self.owner.crew_done()
        elif error is None and (self._sources or self.working):
            self._broken = 0
            self.shared.loop.call_soon(self._recruit)
        elif error is None:
            self._give_up(RangeError("the server does not serve the ranges that are missing"))
        else:
            self._broke(member, error)

    def _broke(self, member: Member, error: DownloadError) -> None:
        """Replace somebody who has failed, unless that would fail as well."""
        self._broken += 1
        if isinstance(error, RangeError) and member.url in self._sources:
            self._sources.remove(member.url)  # it does not serve what is missing
        elif not member.brought:
            self._size = max(1, self._size - 1)
            if member.url in self._sources:  # the others go first from now on
                self._sources.remove(member.url)
                self._sources.append(member.url)
        elif self._size < self.job.connections:
            self._size += 1
        hopeless = self._broken >= self.job.connections or not self._sources
        if member.spoils_all(error) or (hopeless and not self.working):
            self._give_up(error)
        elif self._timer is None:
            # As after any try: one that has brought much is followed at once, and another after a while.
            loop, retry = self.shared.loop, self.job.terms.retry
            wait = 0.0 if member.brought >= WORTH_ANOTHER else min(retry.backoff, retry.max_delay)
            self._timer = loop.call_at(loop.now + wait, self._recruit)

    def _give_up(self, error: DownloadError) -> None:
        self.cancel()
        self.owner.crew_failed(error)

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True
        for member in self._members:
            member.pause()
        self.heed_limits()

    def resume(self) -> None:
        """End a pause."""
        self.paused = False
        self.heed_limits()
        for member in self._members:
            member.resume()
        self.shared.loop.call_soon(self._recruit)

    def cancel(self) -> None:
        """Close every connection."""
        self._active = False
        self._alarm.stop()
        self._forget_timer()
        for member in list(self._members):
            self._dismiss(member)


class Member:
    """One connection of a crew, and the segment that it fetches, once it may connect.

    ``slot`` and ``marks`` are the task's own, if it is to use those.
    """

    def __init__(self, crew: Crew, url: URL, slot: Slot | None, marks: Marks | None) -> None:
        self.url = url
        self.segment: Segment | None = None
        self.slot = slot
        self.answered = False  # whether its response fits
        self.held_back = False  # by our own rate limit
        self._crew = crew
        self._marks = marks
        self._fetch: Fetch | None = None
        self._sink: SegmentSink | None = None
        self._asked: Asked | None = None
        self._over = False
        self._held = False  # it has a slot, and waits for the end of a pause

    def adopt(self, fetch: Fetch, segment: Segment) -> SegmentSink:
        """Go on with a fetch whose response has begun; return where its body goes."""
        self._fetch, self.segment, self.answered = fetch, segment, True
        self._crew.body_begins()
        fetch.join(self)
        return self._new_sink(segment)

    def _new_sink(self, segment: Segment) -> SegmentSink:
        self._sink = SegmentSink(self._crew.part, self._crew.plan, segment)
        return self._sink

    @property
    def brought(self) -> int:
        """How many bytes it has brought."""
        return 0 if self.segment is None else self.segment.position - self.segment.start

    def spoils_all(self, error: DownloadError) -> bool:
        """Whether the others had better stop too: the disk fails, or the bytes that are there are not the server's."""
        return isinstance(error, StorageError) or (self.answered and isinstance(error, RangeError))

    def begin(self) -> None:
        """Connect, as soon as the host has room for one more."""
        crew, pool = self._crew, self._crew.shared.pool
        try:
            self._key = crew.shared.key(crew.job, self.url, has_left=crew.course.places.has_left)
        except DownloadError as exc:  # there is no way to it
            self._end(exc)
            return
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
        request = crew.course.request_for(self._range(self.segment), self.url)
        throttle = Throttle.of(crew.shared.loop, crew.shared.bucket, crew.bucket)
        marks = self._marks or Marks(crew.shared.loop.now, 0.0)
        self._fetch = Fetch(crew.shared, self, self._key, request, crew.terms, marks, throttle)
        self._fetch.begin()

    def _range(self, segment: Segment) -> Asked:
        crew = self._crew
        validator = crew.course.validator if self.url is crew.course.url else None
        overlap = crew.seams.get(segment.start, 0)
        self._asked = Asked(segment.start, segment.reach - 1, crew.plan.total, validator, overlap)
        return self._asked

    # What the fetch tells

    @property
    def trace(self) -> Tracer | None:
        return self._crew.owner.trace

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
        part = crew.course.part_of(asked, head, self.url, crew.shared.loop.wall_time)
        if part is None:
            self._end(None)
            return Sink()
        self.answered = True
        crew.body_begins()
        crew.owner.crew_answered(head)
        sink = self._new_sink(self.segment)
        there = crew.part.read(asked.first, asked.overlap) if asked.overlap else b""
        return Continuation(sink, there, part.length, framed=head.framing.length is not None)

    def fetch_held_back(self, held: bool) -> None:
        """Have the crew know."""
        self.held_back = held
        self._crew.heed_limits()

    def fetch_received(self, received: int) -> None:
        """Stop where another member has begun."""
        self._crew.received()
        if self.segment is None or self.segment.left:
            return
        torn = self._sink is None or self._sink.torn
        if torn or not self._crew.takes_back(self):
            self._end(None)

    def fetch_done(self, end: BodyComplete) -> None:
        """Go on to the next segment; if the response was shorter than asked, somebody will see to the rest."""
        assert self._fetch is not None and self.segment is not None
        self._fetch.release()
        self._crew.owner.crew_found_surplus(end.surplus)
        error: DownloadError | None = None
        if not self.brought and not self._compared(end.length):
            error = IncompleteBody("the response to a range was empty", received=0, expected=None)
        try:
            self._crew.received()
        except DownloadError as exc:
            error = exc
        self._end(error)

    def _compared(self, count: int) -> int:
        """Of ``count`` bytes that were there already, take note; return how many had yet to be compared."""
        assert self.segment is not None
        seams, start = self._crew.seams, self.segment.start
        compared = min(count, seams.get(start, 0))
        seams[start] = seams.get(start, 0) - compared
        return compared

    def fetch_failed(self, error: DownloadError) -> None:
        """Leave the rest to others."""
        self._end(error)

    def _end(self, error: DownloadError | None) -> None:
        if not self._over:
            self._crew.left(self, error)

    def pause(self) -> None:
        """Stop reading."""
        self.held_back = False  # it asks again when it goes on
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

    def __repr__(self) -> str:
        state = "over" if self._over else "answered" if self.answered else "not answered"
        return f"<Member {self.url.redacted} {self.segment or 'without a segment'}, {state}>"

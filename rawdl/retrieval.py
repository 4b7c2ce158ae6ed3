"""The requests of one download, one after another, until the bytes are there: where it leads from each answer.

    ask ─► (fetch: dial, send, head) ─► answered ─► (fetch: body) ─► the owner's finish
     ▲                                    │               │
     ├── a redirect ◄─────────────────────┤               │
     └── another try, from where the bytes end, or anew ◄─┘

`Course` says what to ask for and what an answer means, `Store` sees to the bytes, and `Telling` to the listeners.
`fetch_failed` decides what comes after a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from rawdl.errors import DownloadError, IncompleteBody, RangeError, Timeout, status_error
from rawdl.fetch import Fetch
from rawdl.job import Job, Shared
from rawdl.loop import Timer
from rawdl.pool import Key, Slot
from rawdl.proto.course import Course, Follow, Take
from rawdl.proto.events import BodyComplete, HeadReceived
from rawdl.proto.framing import Framing, UntilClose
from rawdl.proto.ranges import OVERLAP, accepts_ranges
from rawdl.proto.retry import is_transient
from rawdl.proto.timeouts import Phase
from rawdl.results import Marks
from rawdl.sinks import Sink
from rawdl.store import Store
from rawdl.task import DownloadTask, TaskState
from rawdl.telling import Telling
from rawdl.throttle import Throttle, bucket_of

if TYPE_CHECKING:
    from rawdl.crew import Crew
    from rawdl.trace import Tracer

# For the rest of a redirect's body: as long as a new connection may take.
_DRAIN_SECONDS: Final = 1.0
# So soon after a pause it shows that the server has closed the connection meanwhile.
_AT_ONCE: Final = 1.0


class RetrievalOwner(Protocol):
    """Whose bytes they are."""

    over: bool  # it has ended, and nothing is to be done any more

    def granted(self) -> None:
        """There is a slot for the first request, which `Retrieval.ask` makes."""

    def enter(self, state: TaskState) -> None:
        """Have the task be in a state."""

    def go(self, step: Callable[[], None]) -> None:
        """Take a step; while paused, as soon as it is not any more."""

    def soon(self, step: Callable[[], None]) -> None:
        """Take a step in the next turn."""

    def skip(self, size: int) -> None:
        """Leave the file that is there, with its ``size`` bytes, as it is."""

    def finish(self, written: int) -> None:
        """All ``written`` bytes are there."""

    def end(self, error: DownloadError) -> None:
        """There will be no more of them."""


class Retrieval:
    """Get the bytes of one job into its store.  ``marks`` are the moments of the last request."""

    __slots__ = (
        "_bucket",
        "_course",
        "_crew",
        "_fetch",
        "_framing",
        "_inquiry",
        "_job",
        "_origin",
        "_owner",
        "_resumed_at",
        "_shared",
        "_slot",
        "_store",
        "_task",
        "_telling",
        "_timer",
        "_uncompared",
        "marks",
        "surplus",
    )

    def __init__(
        self,
        owner: RetrievalOwner,
        shared: Shared,
        job: Job,
        task: DownloadTask,
        course: Course,
        store: Store,
        telling: Telling,
    ) -> None:
        self._owner = owner
        self._shared = shared
        self._job = job
        self._task = task
        self._course = course
        self._store = store
        self._telling = telling
        now = shared.loop.time()
        self._bucket = bucket_of(job.rate_limit, now)
        self.marks = Marks(now, shared.loop.wall_offset())
        self._fetch: Fetch | None = None
        self._crew: Crew | None = None  # if several connections are at it
        self._origin = 0  # where in the file the body of the response begins
        self._framing: Framing | None = None
        self._uncompared = OVERLAP  # how many of the last bytes that are there are to be compared with what comes
        self._timer: Timer | None = None  # until another try
        self._inquiry: Callable[[], None] | None = None  # what calls it off
        self._resumed_at = -inf  # the end of the last pause
        self.surplus = 0  # bytes that came behind the bodies
        # Last: an interrupt before this leaves nobody in the line, and one after it somebody whole.
        self._slot: Slot | None = shared.pool.submit(job.key, owner.granted)

    # Asking

    def ask(self) -> None:
        """Send a request for what is missing, once there is a slot for the origin that has it."""
        slot, key = self._slot, self._key()
        assert slot is not None
        if slot.held and slot.key == key:
            self._begin(key)
        else:
            self._owner.enter(TaskState.CONNECTING)
            self._shared.pool.rejoin(slot, key, lambda: self._owner.go(lambda: self._begin(key)))

    def _key(self) -> Key:
        job, course = self._job, self._course
        if course.url is job.request.url:
            return job.key
        return self._shared.key(job, course.url, has_left=course.places.has_left)

    def _begin(self, key: Key) -> None:
        self._owner.enter(TaskState.CONNECTING)
        if self.marks.request_start:
            self.marks.renew()
        if self._crew is not None:
            assert self._slot is not None
            self._crew.begin(self._slot, self.marks)
            return
        job, base = self._job, self._course.base
        overlap, self._uncompared = self._uncompared, OVERLAP
        request = self._course.next_request(overlap=min(overlap, base) if job.part is not None else 0)
        self._origin = base
        throttle = Throttle.of(self._shared.loop, self._shared.bucket, self._bucket)
        self._fetch = Fetch(self._shared, self, key, request, job.terms, self.marks, throttle)
        self._fetch.begin()

    @property
    def _url(self) -> str:
        """Where the download is by now, for people."""
        url = self._course.url
        return self._task.url if url is self._job.request.url else url.redacted

    # What the fetch tells

    @property
    def trace(self) -> Tracer | None:
        """Whom to tell the steps, if anybody."""
        return self._task.trace

    @property
    def stopping(self) -> bool:
        """Whether abort() was called, though its turn may still be to come."""
        return self._owner.over or self._task.aborting

    def fetch_sends(self) -> None:
        """The request goes out."""
        self._owner.enter(TaskState.WAITING)

    def fetch_returns(self) -> None:
        """The connection was dead."""
        self._owner.enter(TaskState.CONNECTING)

    def fetch_answered(self, head: HeadReceived) -> Sink:
        """Say where the body of a response goes, or raise what it means instead."""
        loop = self._shared.loop
        answer = self._course.answered(head, loop.now, loop.wall_time)
        if isinstance(answer, Take):
            return self._take(answer, head)
        assert self._fetch is not None
        if isinstance(answer, Follow):
            if not answer.here:
                if self.trace is not None:
                    self.trace("task", "redirect", status_code=head.status_code, location=self._course.shown_url)
                self.marks.redirect_start = self.marks.redirect_start or self.marks.queue_end
                self.marks.redirect_end = loop.now
            # Read to its end, for the connection's sake, if that takes no longer than a new connection would.
            self._timer = loop.call_at(loop.now + (_DRAIN_SECONDS if answer.drain else 0), self._tear_off)
            if not answer.drain:
                self._fetch.cancel()
            return Sink()
        # A 416 that proves the file to be whole.
        self._fetch.cancel()
        self._telling.measure(answer.total, answer.total)
        self._telling.head(head, self._url)
        self._owner.soon(lambda: self._owner.finish(answer.total))
        return Sink()

    def _tear_off(self) -> None:
        """Follow a redirect without having read its body."""
        if self._course.following and self._fetch is not None:
            self._fetch.cancel()
            self._owner.go(self._follow)

    def _take(self, answer: Take, head: HeadReceived) -> Sink:
        """Take the body: tell that the head is there, and see to what its bytes are measured against."""
        course, store = self._course, self._store
        if answer.restart:
            self._restart()
        self._origin = answer.origin
        self._framing = head.framing
        shares = self._is_worth_sharing(head)
        self._telling.measure(store.count() if shares else course.base, course.total)
        self._owner.enter(TaskState.RECEIVING)
        self._telling.head(head, self._url)
        if self._job.fail_on_status and head.status_code >= 400 and not self._owner.over:
            raise status_error(head.status_code, self._url)
        self._telling.restart()
        if self._owner.over:
            return Sink()
        there = store.take_name(head)
        if there is not None:
            assert self._fetch is not None
            self._fetch.cancel()
            self._owner.soon(lambda: self._owner.skip(there))
            return Sink()
        store.expect(head)
        self._telling.decoder = store.decoder
        return store.continued(self._share() if shares else store.sink(), answer, head)

    def _is_worth_sharing(self, head: HeadReceived) -> bool:
        """Whether several connections are to fetch what is missing."""
        job, course = self._job, self._course
        if job.connections == 1 or job.part is None or course.validator is None or course.total is None:
            return False
        if head.framing.length is None or accepts_ranges(head.header) is False or course.lone:
            return False
        return len(job.part.ranges) > 1 or course.total - course.base >= 2 * job.min_segment

    def _share(self) -> Sink:
        """Make a crew, with this fetch as its first member."""
        from rawdl.crew import Crew

        part, slot = self._job.part, self._slot
        assert part is not None and slot is not None and self._fetch is not None
        self._crew = Crew(self._shared, self, self._job, self._course, self._bucket, part.there())
        fetch, self._fetch = self._fetch, None
        return self._crew.enlist(fetch, slot)

    def fetch_held_back(self, held: bool) -> None:
        """The fetch has stopped its clocks, or has them run again."""

    def fetch_received(self, received: int) -> None:
        """Count what has arrived, and tell it if that is due."""
        if not self._course.following:
            self._note_progress(max(self._course.base, self._origin + received))

    def _note_progress(self, there: int) -> None:
        if self._job.part is not None:
            self._job.part.note(self._shared.loop.now)
        self._telling.advance(there)

    def fetch_done(self, end: BodyComplete) -> None:
        """Go on after the last byte of a body."""
        self._owner.go(self._follow if self._course.following else lambda: self._body_done(end))

    def _follow(self) -> None:
        assert self._fetch is not None and self._timer is not None
        if not self._course.following:
            return  # it was torn off while paused, and then came to its end
        self._course.following = False
        self._timer.cancel()
        self._fetch.release()
        self.ask()

    def _body_done(self, end: BodyComplete) -> None:
        course = self._course
        self.surplus += end.surplus
        total, stop = course.total, self._origin + end.length
        there = max(course.base, stop)
        if course.asked is not None and total is not None and self._origin < stop < total:
            # A 206 may bring less than was asked for (RFC 9110 15.3.7), and what follows has no seam then.
            course.base = there
            self._uncompared = there - stop
            assert self._fetch is not None
            self._fetch.release()
            self.ask()
            return
        if total is not None and there < total:
            message = f"{there} of {total} bytes are there: the response had {end.length}"
            raise IncompleteBody(message, received=end.length, expected=total - self._origin)
        self._store.promise(end.trailer, partial=course.asked is not None)
        self._owner.finish(there)

    # What a crew tells

    def crew_sends(self) -> None:
        """The first request of it goes out."""
        if self._task.state is TaskState.CONNECTING:
            self._owner.enter(TaskState.WAITING)

    def crew_answered(self, head: HeadReceived) -> None:
        """It begins to receive, maybe after all of its members had failed."""
        if self._task.state is not TaskState.WAITING:
            return
        self._telling.measure(self.written(), self._course.total)
        self._owner.enter(TaskState.RECEIVING)
        self._telling.head(head, self._url)
        if not self._owner.over:
            self._store.describe()

    def crew_found_surplus(self, count: int) -> None:
        """So many bytes came behind the body of a member."""
        self.surplus += count

    def crew_received(self) -> None:
        """Tell how far it is, if that is due."""
        self._note_progress(self.written())

    def crew_done(self) -> None:
        """Go on after the last byte."""
        self.marks.response_end = self._shared.loop.now
        self._owner.go(lambda: self._owner.finish(self.written()))

    def crew_failed(self, error: DownloadError) -> None:
        """All of its members have failed."""
        self.fetch_failed(error)

    # Another try

    def fetch_failed(self, error: DownloadError) -> None:
        """Decide what a failure means: another try, or the end."""
        if self._owner.over:
            return
        try:
            if not self._recover(error):
                self._owner.end(error)
        except DownloadError as exc:
            self._owner.end(exc)

    def _recover(self, error: DownloadError) -> bool:
        """Get ready for another try, if the failure allows one and the sink does; say whether there will be one."""
        course = self._course
        if self._fetch is not None:
            self._fetch.cancel()
        if course.following:
            self._owner.soon(self._follow)  # all that broke is the body of a redirect, which nobody wants
            return True
        written = self.written()
        continues = self._store.can_go_on(error, written)
        if not continues and not self._store.can_restart:
            return False
        delay = self._delay(error, written)
        if delay is None:
            return self._inquire(error)
        self._try_again(error, delay, written if continues else None)
        return True

    def _try_again(self, error: DownloadError, delay: float, written: int | None) -> None:
        """Go on after a failure, after a while, behind what is ``written``; None: begin anew."""
        if self.trace is not None:
            self.trace("task", "retry", error=error, delay=delay, resumes=written or 0, url=self._course.shown_url)
        if written is not None:
            self._course.base = written
        else:
            self._restart()
            self._course.restart()
        self._wait(delay)

    def _delay(self, error: DownloadError, written: int) -> float | None:
        """Return how long to wait before another try, here or at a mirror; None: there is to be none."""
        course, now = self._course, self._shared.loop.now
        if isinstance(error, RangeError):
            return 0.0 if course.begins_anew_after(error, crew=self._crew is not None) else None
        if now - self._resumed_at < _AT_ONCE and is_transient(error):
            self._resumed_at = -inf
            return 0.0  # the server did not wait for the end of our pause
        if self._store.resumed_from and course.distrusts(error):
            return 0.0
        if self._crew is not None and (course.goes_alone(error) or course.moves(error)):
            return 0.0
        random = int.from_bytes(os.urandom(4), "big") / 2**32
        delay = course.failed(error, written, now, random, least=self._least(error))
        if delay is None and course.goes_back(error):
            return 0.0
        if delay is None and course.goes_elsewhere(error):
            self._store.vouch()
            return 0.0
        return delay

    def _least(self, error: DownloadError) -> float:
        """Return how many new bytes make a try one that got on: any does, but a trickle would go on for ever."""
        low = self._job.terms.low_speed
        crawled = isinstance(error, Timeout) and error.phase is Phase.LOW_SPEED
        return low.bytes_per_second * low.seconds if crawled and low is not None else 1

    def _inquire(self, error: DownloadError) -> bool:
        """Ask for a document that tells of mirrors, if one was told of; say whether it is under way."""
        asked = self._course.inquiry(error)
        if asked is None:
            return False
        from rawdl.inquiry import inquire

        assert self._slot is not None
        self._owner.enter(TaskState.CONNECTING)
        self._shared.pool.release(self._slot)

        def told(document: bytes | None) -> None:
            self._owner.soon(lambda: self._informed(error, document))

        self._inquiry = inquire(self._shared, self._job, *asked, told, has_left=self._course.places.has_left)
        return True

    def _informed(self, error: DownloadError, document: bytes | None) -> None:
        """Go to the first mirror that the document has, or else end."""
        self._inquiry = None
        checksum = None if document is None else self._course.learn_description(document)
        if checksum is None or not self._course.goes_elsewhere(error):
            return self._owner.end(error)
        self._store.vouch(checksum)
        # Only a file can be read back: elsewhere its hash has to be taken from the first byte on.
        continues = self._job.part is not None and self._store.can_go_on(error, self.written())
        self._try_again(error, 0.0, self.written() if continues else None)

    def _restart(self) -> None:
        """Forget what was written."""
        if self._crew is not None:
            self._crew = None
            self._course.lone = True  # what came over several connections did not fit together
        self._store.restart()

    def _wait(self, delay: float) -> None:
        """Try again after a while; the slot is somebody else's meanwhile."""
        assert self._slot is not None
        loop = self._shared.loop
        self._owner.enter(TaskState.CONNECTING)
        if delay:
            self._shared.pool.release(self._slot)
        self._timer = loop.call_at(loop.now + delay, lambda: self._owner.go(self.ask))

    # How far it is

    def written(self) -> int:
        """Return how many bytes are in the sink, counted from the start of the file."""
        if self._job.part is not None:
            return self._job.part.position
        taken = self._fetch is not None and self._framing is not None and self._fetch.framing is self._framing
        received = self._fetch.received if self._fetch is not None and taken else 0
        return max(self._course.base, self._origin + received)

    def connections(self) -> int:
        """Return how many connections are at work."""
        crew, fetch = self._crew, self._fetch
        return crew.working if crew is not None else int(fetch is not None)

    def __repr__(self) -> str:
        work = self._crew or self._fetch
        return f"<Retrieval {self._url}, {self.written()} bytes there, {work or 'nothing under way'}>"

    @property
    def length_known(self) -> bool:
        """Whether the response itself said where it ends, by its framing or its Content-Range."""
        return self._course.total is not None or not isinstance(self._framing, UntilClose)

    # Stopping

    def pause(self) -> None:
        """Stop reading."""
        for part in (self._fetch, self._crew):
            if part is not None:
                part.pause()

    def resume(self) -> None:
        """End a pause."""
        self._resumed_at = self._shared.loop.time()
        for part in (self._fetch, self._crew):
            if part is not None:
                part.resume()

    def stop(self, *, complete: bool) -> None:
        """Free all connections and the slot; after a ``complete`` download its connection can be used again."""
        if self._fetch is not None:
            self._fetch.release() if complete else self._fetch.cancel()
        if self._crew is not None:
            self._crew.cancel()
        if self._inquiry is not None:
            self._inquiry()
        if self._timer is not None:
            self._timer.cancel()
        if self._slot is not None:
            self._shared.pool.release(self._slot)
        self._slot = self._fetch = self._timer = self._inquiry = None

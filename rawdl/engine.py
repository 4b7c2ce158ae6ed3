"""The engine of one task: its life from the queue to the settlement, over as many fetches as that takes.

    queue ─► open ─► ask ─► (fetch: dial, send, head) ─► answered ─► (fetch: body) ─► verify ─► commit ─► settled
                      ▲                                    │               │
                      ├── a redirect ◄─────────────────────┤               │
                      └── another try, from where the bytes end, or anew ◄─┘

`Course` says what to ask for and what an answer means, `Store` sees to the bytes, and `Telling` to the listeners.
`fetch_failed` decides what comes after a failure, and `_end` is where every road ends: it closes what is open, keeps or
discards what was written, frees the slot and settles the task.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from rawdl.errors import (
    Aborted,
    DownloadError,
    IncompleteBody,
    RangeError,
    Timeout,
    status_error,
)
from rawdl.fetch import Fetch, unexpected
from rawdl.job import Job, Shared
from rawdl.loop import Timer
from rawdl.pool import Key, Slot
from rawdl.proto.course import Course, Follow, Take
from rawdl.proto.events import BodyComplete, HeadReceived
from rawdl.proto.framing import Framing, UntilClose
from rawdl.proto.pacing import TokenBucket
from rawdl.proto.progress import ProgressUpdate
from rawdl.proto.ranges import OVERLAP, accepts_ranges
from rawdl.proto.retry import is_transient
from rawdl.proto.timeouts import Phase
from rawdl.results import DownloadResult, Marks
from rawdl.sinks import Sink
from rawdl.store import Store
from rawdl.task import PAUSABLE, DownloadTask, TaskState
from rawdl.telling import Telling
from rawdl.throttle import Throttle

if TYPE_CHECKING:
    from rawdl.crew import Crew

# For the rest of a redirect's body: as long as a new connection may take.
_DRAIN_SECONDS: Final = 1.0
# So soon after a pause it shows that the server has closed the connection meanwhile.
_AT_ONCE: Final = 1.0


class Download:
    """Carry one job out, and tell its task."""

    __slots__ = (
        "_before",
        "_bucket",
        "_course",
        "_crew",
        "_fetch",
        "_framing",
        "_held",
        "_inquiry",
        "_job",
        "_left",
        "_marks",
        "_origin",
        "_over",
        "_paused",
        "_resumed_at",
        "_seamless",
        "_shared",
        "_slot",
        "_store",
        "_task",
        "_telling",
        "_timer",
        "_total_timer",
    )

    def __init__(self, shared: Shared, job: Job, task: DownloadTask) -> None:
        self._shared = shared
        self._job = job
        self._task = task
        terms = job.terms
        self._course = Course(
            job.request,
            job.header,
            terms.redirects,
            terms.retry,
            job.resume,
            job.mirrors,
            job.authority,
            shared.cookies,
        )
        self._store = Store(job, self._course)
        self._telling = Telling(shared.loop, task, job.progress_interval)
        limit = job.rate_limit
        self._bucket = None if limit is None else TokenBucket(limit, shared.loop.time())
        self._marks = Marks(shared.loop.time(), shared.loop.wall_offset())
        self._slot: Slot | None = shared.pool.submit(job.key, self._granted)
        self._fetch: Fetch | None = None
        self._crew: Crew | None = None  # if several connections are at it
        self._origin = 0  # where in the file the body of the response begins
        self._framing: Framing | None = None
        self._seamless = False  # what comes next follows what has just come
        self._timer: Timer | None = None  # until another try
        self._total_timer: Timer | None = None
        self._inquiry: Callable[[], None] | None = None  # what calls it off
        self._paused = False
        self._resumed_at = -inf  # the end of the last pause
        self._before = TaskState.QUEUED  # where a pause goes back to
        self._held: Callable[[], None] | None = None  # the step that it holds up
        self._left = 0.0  # of the total limit, meanwhile
        self._over = False
        shared.live.add(task)

    # Beginning

    def _granted(self) -> None:
        self._go(self._start)

    def _go(self, step: Callable[[], None]) -> None:
        """Take a step of the task's life; while paused, as soon as it is not any more."""
        if self._over:
            return
        if self._paused:
            self._held = step
            return
        try:
            step()
        except DownloadError as exc:
            self.fetch_failed(exc)
        except BaseException as exc:
            self._end(unexpected(exc))
            if not isinstance(exc, Exception):
                raise

    def _soon(self, step: Callable[[], None]) -> None:
        self._shared.loop.call_soon(lambda: self._go(step))

    def _start(self) -> None:
        """Leave the queue: the clocks start now.  Then find out what is there already."""
        job, now = self._job, self._shared.loop.now
        self._marks.queue_end = now
        there = self._store.size_to_skip()
        if there is not None:
            return self._skip(there)
        if job.terms.total is not None:
            self._total_timer = self._shared.loop.call_at(now + job.terms.total, self._total_expired)
        self._store.open()
        if self._store.resumed_from:
            self._telling.measure(self._store.resumed_from, self._course.total)
        self._ask()

    def _skip(self, size: int) -> None:
        """Leave the file that is there as it is."""
        self._task.enter(TaskState.FINISHING)
        self._job.sink.discard()
        self._telling.skipped(self._task.url, size)
        self._end(None)

    def _ask(self) -> None:
        """Send a request for what is missing, once there is a slot for the origin that has it."""
        slot, key = self._slot, self._key()
        assert slot is not None
        if slot.held and slot.key == key:
            self._begin(key)
        else:
            self._enter(TaskState.CONNECTING)
            self._shared.pool.rejoin(slot, key, lambda: self._go(lambda: self._begin(key)))

    def _key(self) -> Key:
        job, url = self._job, self._course.url
        if url is job.request.url:
            return job.key
        return Key(url.origin, self._shared.context_for(url), job.proxies(url))

    def _begin(self, key: Key) -> None:
        self._enter(TaskState.CONNECTING)
        if self._marks.request_start:
            self._marks.renew()
        if self._crew is not None:
            assert self._slot is not None
            self._crew.begin(self._slot, self._marks)
            return
        job, base = self._job, self._course.base
        compares, self._seamless = job.part is not None and not self._seamless, False
        request = self._course.next_request(overlap=min(OVERLAP, base) if compares else 0)
        self._origin = base
        throttle = Throttle.of(self._shared.loop, self._shared.bucket, self._bucket)
        self._fetch = Fetch(self._shared, self, key, request, job.terms, self._marks, throttle)
        self._fetch.begin()

    @property
    def _url(self) -> str:
        """Where the download is by now, for people."""
        url = self._course.url
        return self._task.url if url is self._job.request.url else url.redacted

    # What the fetch tells

    @property
    def stopping(self) -> bool:
        """Whether abort() was called, though its turn may still be to come."""
        return self._over or self._task.aborting

    def fetch_sends(self) -> None:
        """The request goes out."""
        self._enter(TaskState.WAITING)

    def fetch_returns(self) -> None:
        """The connection was dead."""
        self._enter(TaskState.CONNECTING)

    def fetch_answered(self, head: HeadReceived) -> Sink:
        """Say where the body of a response goes, or raise what it means instead."""
        loop = self._shared.loop
        answer = self._course.answered(head, loop.wall_time)
        if isinstance(answer, Take):
            return self._take(answer, head)
        assert self._fetch is not None
        if isinstance(answer, Follow):
            if not answer.here:
                self._marks.redirect_start = self._marks.redirect_start or self._marks.queue_end
                self._marks.redirect_end = loop.now
            # Read to its end, for the connection's sake, if that takes no longer than a new connection would.
            self._timer = loop.call_at(loop.now + (_DRAIN_SECONDS if answer.drain else 0), self._tear_off)
            if not answer.drain:
                self._fetch.cancel()
            return Sink()
        # A 416 that proves the file to be whole.
        self._fetch.cancel()
        self._telling.measure(answer.total, answer.total)
        self._telling.head(head, self._url)
        self._soon(lambda: self._finish(answer.total))
        return Sink()

    def _tear_off(self) -> None:
        """Follow a redirect without having read its body."""
        if self._course.following and self._fetch is not None:
            self._fetch.cancel()
            self._go(self._follow)

    def _take(self, answer: Take, head: HeadReceived) -> Sink:
        """Take the body: tell that the head is there, and see to what its bytes are measured against."""
        course, store = self._course, self._store
        if answer.restart:
            self._restart()
        self._origin = answer.origin
        self._framing = head.framing
        shares = self._is_worth_sharing(head)
        self._telling.measure(store.count() if shares else course.base, course.total)
        self._enter(TaskState.RECEIVING)
        self._telling.head(head, self._url)
        if self._job.fail_on_status and head.status_code >= 400 and not self._over:
            raise status_error(head.status_code, self._url)
        self._telling.restart()
        if self._over:
            return Sink()
        there = store.expect(head)
        self._telling.decoder = store.decoder
        if there is not None:
            assert self._fetch is not None
            self._fetch.cancel()
            self._soon(lambda: self._skip(there))
            return Sink()
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
        self._go(self._follow if self._course.following else lambda: self._body_done(end))

    def _follow(self) -> None:
        assert self._fetch is not None and self._timer is not None
        if not self._course.following:
            return  # it was torn off while paused, and then came to its end
        self._course.following = False
        self._timer.cancel()
        self._fetch.release()
        self._ask()

    def _body_done(self, end: BodyComplete) -> None:
        course = self._course
        total, there = course.total, max(course.base, self._origin + end.length)
        assert self._telling.headers is not None and self._fetch is not None
        if total is not None and course.base < there < total:
            # A 206 may bring less than was asked for (RFC 9110 15.3.7).
            course.base = course.best = there
            self._seamless = True
            self._fetch.release()
            self._ask()
            return
        if total is not None and there < total:
            message = f"{there} of {total} bytes are there: the response had {end.length}"
            raise IncompleteBody(message, received=end.length, expected=total - self._origin)
        self._store.promise(end.trailer, partial=self._telling.headers.status_code == 206)
        self._finish(there)

    # What a crew tells

    def crew_sends(self) -> None:
        """The first request of it goes out."""
        if self._task.state is TaskState.CONNECTING:
            self._enter(TaskState.WAITING)

    def crew_answered(self, head: HeadReceived) -> None:
        """It begins to receive, maybe after all of its members had failed."""
        if self._task.state is not TaskState.WAITING:
            return
        self._telling.measure(self._written(), self._course.total)
        self._enter(TaskState.RECEIVING)
        self._telling.head(head, self._url)
        if not self._over:
            self._store.describe()

    def crew_received(self) -> None:
        """Tell how far it is, if that is due."""
        self._note_progress(self._written())

    def crew_done(self) -> None:
        """Go on after the last byte."""
        self._marks.response_end = self._shared.loop.now
        self._go(lambda: self._finish(self._written()))

    def crew_failed(self, error: DownloadError) -> None:
        """All of its members have failed."""
        self.fetch_failed(error)

    # Another try

    def fetch_failed(self, error: DownloadError) -> None:
        """Decide what a failure means: another try, or the end."""
        if self._over:
            return
        try:
            if not self._recover(error):
                self._end(error)
        except DownloadError as exc:
            self._end(exc)

    def _recover(self, error: DownloadError) -> bool:
        """Get ready for another try, if the failure allows one and the sink does; say whether there will be one."""
        course = self._course
        if self._fetch is not None:
            self._fetch.cancel()
        if course.following:
            self._soon(self._follow)  # all that broke is the body of a redirect, which nobody wants
            return True
        written = self._written()
        continues = self._store.can_go_on(error, written)
        if not continues and not self._store.can_restart:
            return False
        delay = self._delay(error, written)
        if delay is None:
            return self._inquire(error)
        self._try_again(delay, written if continues else None)
        return True

    def _try_again(self, delay: float, written: int | None) -> None:
        """Go on after a while behind what is ``written``; None: begin anew."""
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
        delay = course.failed(error, written, int.from_bytes(os.urandom(4), "big") / 2**32)
        if delay is None and course.goes_elsewhere(error):
            self._store.vouch()
            return 0.0
        return delay

    def _inquire(self, error: DownloadError) -> bool:
        """Ask for a document that tells of mirrors, if one was told of; say whether it is under way."""
        asked = self._course.inquiry(error)
        if asked is None:
            return False
        from rawdl.proto.mirrors import MAX_METALINK

        assert self._slot is not None
        self._enter(TaskState.CONNECTING)
        self._shared.pool.release(self._slot)
        self._inquiry = self._shared.look_up(
            *asked, MAX_METALINK, lambda document: self._soon(lambda: self._informed(error, document))
        )
        return True

    def _informed(self, error: DownloadError, document: bytes | None) -> None:
        """Go to the first mirror that the document has, or else end."""
        self._inquiry = None
        checksum = None if document is None else self._course.learn_description(document)
        if checksum is None or not self._course.goes_elsewhere(error):
            return self._end(error)
        self._store.vouch(checksum)
        # Only a file can be read back: elsewhere its hash has to be taken from the first byte on.
        continues = self._job.part is not None and self._store.can_go_on(error, self._written())
        self._try_again(0.0, self._written() if continues else None)

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
        self._enter(TaskState.CONNECTING)
        if delay:
            self._shared.pool.release(self._slot)
        self._timer = loop.call_at(loop.now + delay, lambda: self._go(self._ask))

    # The end

    def _finish(self, written: int) -> None:
        """Everything has arrived: tell so, verify it, and make it visible."""
        self._task.enter(TaskState.FINISHING)
        self._telling.last(written)
        if self._over:
            return
        self._verify()

    def _verify(self) -> None:
        """Compare the digests; where the file has to be read for that, a piece in each turn."""
        if self._store.verify():
            self._commit()
        else:
            self._soon(self._verify)

    def _commit(self) -> None:
        timer, loop = self._total_timer, self._shared.loop
        if timer is not None and loop.time() >= timer.when:
            raise self._timeout()
        assert self._telling.headers is not None
        self._store.commit(self._telling.headers.header, loop.wall_time)
        self._end(None)

    def _end(self, error: DownloadError | None) -> None:
        """End the download: every road leads here, once."""
        if self._over:
            return
        if not self._task.claim():  # an abort came first, from another thread or a signal handler
            if error is None:
                self._store.revoke()
            error = self._aborted()
        try:
            self._let_go(error)
        finally:  # whatever interrupts us
            self._settle(None if error is not None else self._result(), error)

    def abort(self) -> None:
        """Close everything at once; the settlement, which calls user code, waits for the next turn."""
        if self._over:
            return
        error = self._aborted()
        try:
            self._let_go(error)
        finally:  # whatever interrupts us
            self._task.enter(TaskState.ABORTED)
            self._shared.loop.call_soon(lambda: self._settle(None, error))

    def _settle(self, result: DownloadResult | None, error: DownloadError | None) -> None:
        self._shared.live.discard(self._task)
        self._shared.paused.discard(self._task)
        self._task.settle(result, error, self._telling.snapshot())

    def _let_go(self, error: DownloadError | None) -> None:
        """Free all that the download holds."""
        self._over = True
        if self._fetch is not None:
            self._fetch.cancel() if error is not None else self._fetch.release()
        if self._crew is not None:
            self._crew.cancel()
        if self._inquiry is not None:
            self._inquiry()
        for timer in (self._timer, self._total_timer):
            if timer is not None:
                timer.cancel()
        if self._slot is not None:
            self._shared.pool.release(self._slot)
        if error is not None:
            error.part = self._store.leave(error, keeping=self._task.keeping)
            error.url = self._task.url
            error.attempts = self._course.history
        self._slot = self._fetch = self._timer = self._total_timer = self._held = self._inquiry = None

    def _result(self) -> DownloadResult:
        assert self._telling.headers is not None
        job, written, decoder = self._job, self._telling.written, self._store.decoder
        self._marks.received = written - self._store.resumed_from
        return DownloadResult(
            temp_file_path=job.sink.path if job.part is None else None,
            file_path=None if job.part is None else job.part.path,
            head=self._telling.headers,
            data_length=written if decoder is None else decoder.decoded,
            decoded=decoder is not None,
            length_known=not isinstance(self._framing, UntilClose),
            marks=self._marks,
            redirects=self._course.hops,
            attempts=self._course.history,
            resumed_from=self._store.resumed_from,
            checksum=self._store.verified,
            skipped=self._telling.headers.status_code == 0,
        )

    def _aborted(self) -> Aborted:
        return Aborted(f"the download was aborted while {self._task.state}, after {self._written()} bytes")

    def _written(self) -> int:
        """Return how many bytes are in the sink, counted from the start of the file."""
        if self._job.part is not None:
            return self._job.part.position
        taken = self._fetch is not None and self._framing is not None and self._fetch.framing is self._framing
        received = self._fetch.received if self._fetch is not None and taken else 0
        return max(self._course.base, self._origin + received)

    # Pausing

    def _enter(self, state: TaskState) -> None:
        if self._paused:
            self._before = state
        else:
            self._task.enter(state)

    def pause(self) -> None:
        """Stop reading, and every clock."""
        if self._over or self._paused or self._task.state not in PAUSABLE:
            return
        self._before, self._paused = self._task.state, True
        self._task.enter(TaskState.PAUSED)
        self._shared.paused.add(self._task)
        if self._total_timer is not None:
            self._left = self._total_timer.when - self._shared.loop.time()
            self._total_timer.cancel()
        for part in (self._fetch, self._crew):
            if part is not None:
                part.pause()

    def resume(self) -> None:
        """Go on where the pause began."""
        if self._over or not self._paused:
            return
        loop = self._shared.loop
        self._paused, self._resumed_at = False, loop.time()
        self._task.enter(self._before)
        self._shared.paused.discard(self._task)
        if self._total_timer is not None:
            self._total_timer = loop.call_at(loop.time() + self._left, self._total_expired)
        for part in (self._fetch, self._crew):
            if part is not None:
                part.resume()
        held, self._held = self._held, None
        if held is not None:
            self._soon(held)

    # Time

    def _total_expired(self) -> None:
        self._end(self._timeout())

    def _timeout(self) -> Timeout:
        """Say that the total limit ran out, and how far the download was."""
        detail = f"not complete, {self._task.state}, {self._written()} bytes received"
        return Timeout(f"total time limit of {self._job.terms.total:g} s: {detail}", phase=Phase.TOTAL)

    def progress(self) -> ProgressUpdate:
        """Return how far the download is now."""
        return self._telling.snapshot()

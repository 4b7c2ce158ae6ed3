"""The engine of one task: its life from the queue to the settlement.

    queue ─► start ─► (retrieval: requests, until the bytes are there) ─► finish ─► verify ─► commit ─► settled

`Retrieval` gets the bytes, `Store` sees to them, and `Telling` to the listeners.  Here are the task's states, its
pauses and its total time limit; and `end`, where every road leads: it closes what is open, keeps or discards what was
written, frees the slot and settles the task.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from rawdl.errors import Aborted, DownloadError, Timeout, unexpected
from rawdl.job import Job, Shared
from rawdl.loop import Timer
from rawdl.proto.course import Course
from rawdl.proto.fields import escape
from rawdl.proto.progress import ProgressUpdate
from rawdl.proto.timeouts import Phase
from rawdl.results import DownloadResult
from rawdl.retrieval import Retrieval
from rawdl.store import Store
from rawdl.task import PAUSABLE, DownloadTask, TaskState
from rawdl.telling import Telling


class Download:
    """Carry one job out, and tell its task."""

    __slots__ = (
        "_before",
        "_course",
        "_held",
        "_job",
        "_left",
        "_paused",
        "_retrieval",
        "_shared",
        "_store",
        "_task",
        "_telling",
        "_timer",
        "over",
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
        self._timer: Timer | None = None  # of the total limit
        self._left = 0.0  # of that, while paused
        self._paused = False
        self._before = TaskState.QUEUED  # where a pause goes back to
        self._held: Callable[[], None] | None = None  # the step that it holds up
        self.over = False
        self._retrieval = Retrieval(self, shared, job, task, self._course, self._store, self._telling)
        shared.live.add(task)

    # Beginning

    def granted(self) -> None:
        """Leave the queue: there is a slot."""
        self.go(self._start)

    def _start(self) -> None:
        """Have the clocks run, and find out what is there already."""
        job, loop = self._job, self._shared.loop
        self._retrieval.marks.queue_end = loop.now
        there = self._store.size_to_skip()
        if there is not None:
            return self.skip(there)
        if job.terms.total is not None:
            self._timer = loop.call_at(loop.now + job.terms.total, self._total_expired)
        self._store.open()
        if self._store.resumed_from:
            self._telling.measure(self._store.resumed_from, self._course.total)
        self._retrieval.ask()

    def skip(self, size: int) -> None:
        """Leave the file that is there as it is, if it has the checksum that it should have."""
        self._task.enter(TaskState.FINISHING)
        self._job.sink.discard()
        self._telling.skipped(self._task.url, size)
        self._verify_there()

    def _verify_there(self) -> None:
        try:
            if not self._store.verify_there():
                return self.soon(self._verify_there)
        except DownloadError as exc:  # no other try would bring another file
            return self.end(exc)
        self.end(None)

    # Steps

    def go(self, step: Callable[[], None]) -> None:
        """Take a step of the task's life; while paused, as soon as it is not any more."""
        if self.over:
            return
        if self._paused:
            self._held = step
            return
        try:
            step()
        except DownloadError as exc:
            self._retrieval.fetch_failed(exc)
        except BaseException as exc:
            self.end(unexpected(exc))
            if not isinstance(exc, Exception):
                raise

    def soon(self, step: Callable[[], None]) -> None:
        """Take a step in the next turn."""
        self._shared.loop.call_soon(lambda: self.go(step))

    def enter(self, state: TaskState) -> None:
        """Move the task to a state, or have it move there after the pause."""
        if self._paused:
            self._before = state
        else:
            self._task.enter(state)

    # The end

    def finish(self, written: int) -> None:
        """Everything has arrived: tell so, verify it, and make it visible."""
        self._task.enter(TaskState.FINISHING)
        self._telling.last(written)
        if not self.over:
            self._verify()

    def _verify(self) -> None:
        """Compare the digests; where the file has to be read for that, a piece in each turn."""
        if self._store.verify():
            self._commit()
        else:
            self.soon(self._verify)

    def _commit(self) -> None:
        timer, loop = self._timer, self._shared.loop
        if timer is not None and loop.time() >= timer.when:
            raise self._timeout()
        assert self._telling.headers is not None
        self._store.commit(self._telling.headers.header, loop.wall_time)
        self.end(None)

    def end(self, error: DownloadError | None) -> None:
        """End the download: every road leads here, once."""
        if self.over:
            return
        if not self._task.claim():  # an abort came first, from another thread or a signal handler
            if error is None:
                self._store.revoke()
            error = self._aborted()
        try:
            self._let_go(error)
            if error is None and self._retrieval.surplus:
                self._warn(f"{self._retrieval.surplus} bytes came behind the end of the body, and were dropped")
        finally:  # whatever interrupts us
            self._settle(error)

    def abort(self) -> None:
        """Close everything at once; the settlement, which calls user code, waits for the next turn."""
        if self.over:
            return
        error = self._aborted()
        try:
            self._let_go(error)
        finally:  # whatever interrupts us
            self._task.enter(TaskState.ABORTED)
            self._shared.loop.call_soon(lambda: self._settle(error))

    def _let_go(self, error: DownloadError | None) -> None:
        """Free all that the download holds; once more, from the beginning, if that is interrupted."""
        try:
            self._free(error)
        except BaseException:
            self._free(error)
            raise

    def _free(self, error: DownloadError | None) -> None:
        self.over = True
        self._retrieval.stop(complete=error is None)
        if self._timer is not None:
            self._timer.cancel()
        if error is not None:
            error.part = self._store.leave(error, keeping=self._task.keeping)
            error.url = self._task.url
            error.attempts = self._course.history
        self._timer = self._held = None

    def _settle(self, error: DownloadError | None) -> None:
        """Tell the end; in the next turn, if an interrupt comes into it."""
        try:
            if not self.over:  # one came before anything was let go of
                self._let_go(error)
            result = None if error is not None or self._task.done() else self._result()
            self._shared.settled(self._task, error)
            self._task.settle(result, error, self._telling.snapshot())
        except (KeyboardInterrupt, SystemExit):
            self._shared.loop.call_soon(lambda: self._settle(error))
            raise
        del self._retrieval  # the two need no collector then

    def _result(self) -> DownloadResult:
        assert self._telling.headers is not None
        job, written, decoder = self._job, self._telling.written, self._store.decoder
        skipped = self._telling.headers.status_code == 0
        marks = self._retrieval.marks
        marks.received = 0 if skipped else written - self._store.resumed_from
        return DownloadResult(
            temp_file_path=job.sink.path if job.part is None else None,
            file_path=None if job.part is None else job.part.path,
            head=self._telling.headers,
            data_length=written if decoder is None else decoder.decoded,
            decoded=decoder is not None,
            length_known=self._retrieval.length_known,
            marks=marks,
            redirects=self._course.places.hops,
            attempts=self._course.history,
            resumed_from=0 if skipped else self._store.resumed_from,
            checksum=self._store.verified,
            surplus=self._retrieval.surplus,
            skipped=skipped,
        )

    def _warn(self, text: str) -> None:
        """Tell the log what is odd about the download, if there is one: see `rawdl.trace`."""
        if logging := sys.modules.get("logging"):
            with suppress(Exception):  # of a handler or a filter, which are somebody else's code
                logging.getLogger("rawdl").warning("%s", escape(f"{self._task.url}: {text}"))

    def _aborted(self) -> Aborted:
        written = self._retrieval.written()
        return Aborted(f"the download was aborted while {self._task.state}, after {written} bytes")

    # Pausing

    def pause(self) -> None:
        """Stop reading, and every clock."""
        if self.over or self._paused or self._task.state not in PAUSABLE:
            return
        self._before, self._paused = self._task.state, True
        self._task.enter(TaskState.PAUSED)
        self._shared.paused.add(self._task)
        if self._timer is not None:
            self._left = self._timer.when - self._shared.loop.time()
            self._timer.cancel()
        self._retrieval.pause()

    def resume(self) -> None:
        """Go on where the pause began."""
        if self.over or not self._paused:
            return
        loop = self._shared.loop
        self._paused = False
        self._task.enter(self._before)
        self._shared.paused.discard(self._task)
        if self._timer is not None:
            self._timer = loop.call_at(loop.time() + self._left, self._total_expired)
            loop.wake()  # a foreign loop may be waiting for a later deadline
        self._retrieval.resume()
        held, self._held = self._held, None
        if held is not None:
            self.soon(held)

    # Time

    def _total_expired(self) -> None:
        self.end(self._timeout())

    def _timeout(self) -> Timeout:
        """Say that the total limit ran out, and how far the download was."""
        detail = f"not complete, {self._task.state}, {self._retrieval.written()} bytes received"
        return Timeout(f"total time limit of {self._job.terms.total:g} s: {detail}", phase=Phase.TOTAL)

    def progress(self) -> ProgressUpdate:
        """Return how far the download is now."""
        return self._telling.snapshot()

    def connections(self) -> int:
        """Return how many connections are at work."""
        retrieval = getattr(self, "_retrieval", None)  # another thread may ask, in the moment in which it ends
        return 0 if retrieval is None else retrieval.connections()

    def __repr__(self) -> str:
        return f"<Download {self._task.url} {self._task.state}{' over' if self.over else ''}>"

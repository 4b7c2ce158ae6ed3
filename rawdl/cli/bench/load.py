"""The load: transfers that begin by a schedule, over one client, in this thread, and what came of each.

In a closed loop so many transfers are under way at every moment: one begins when another has ended.  In an open loop
they begin at a rate, however many are under way, and what a transfer took is counted from the moment at which it was to
begin: a server that stalls is charged with everybody who would have come meanwhile.

     warm-up         the measured part                         the rest
    |---------------|- interval -|- interval -|- interval -|-----------|
    began          zero                                    end

A transfer counts if it was to begin in the measured part.  Bytes count by when they came, whoever brought them.  After
the end nothing begins, but what is under way is waited for: the slowest are not to be left out.
"""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from rawdl.errors import DownloadError
from rawdl.proto.fields import escape
from rawdl.results import DownloadResult, Marks

if TYPE_CHECKING:
    from rawdl.cli.bench.machine import Usage
    from rawdl.client import Client
    from rawdl.task import DownloadTask

# Seconds for which the last transfers are waited for: a server may have stalled, and a user still waits.
DRAIN: Final = 10.0
# So many failures, and not one success, are not worth going on for.
HOPELESS: Final = 100
_EARLY: Final = 0.001  # of an interval, by which it may be over too early: a moment is no exact number
_LONGEST_WAIT: Final = 1.0  # seconds; an end of patience where nothing else is one


class Plan(NamedTuple):
    """How the load is to be.

    It ends after ``transfers`` or after ``duration`` seconds; ``rate`` is transfers a second of an open loop, None for
    a closed one of ``concurrency``.  The first ``warm_up`` transfers and ``omit`` seconds are not measured.  ``most``
    transfers are under way at once in an open loop; whoever is to begin beyond waits, which counts.
    """

    transfers: int | None = None
    duration: float | None = None
    concurrency: int = 1
    rate: float | None = None
    warm_up: int = 0
    omit: float = 0.0
    interval: float = 1.0
    most: int = 1000


class Sample(NamedTuple):
    """One transfer.  Moments and times are in seconds, moments since the measured part began; None: there was none."""

    intended: float
    started: float
    ended: float
    bytes: int
    reused: bool = False
    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    transfer: float | None = None
    error: str | None = None  # the kind of failure


class Interval(NamedTuple):
    """What came between two moments, in seconds since the measured part began."""

    start: float
    end: float
    bytes: int
    transfers: int


class Failure(NamedTuple):
    """What failures of one kind there were."""

    kind: str
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    example: str


class Record(NamedTuple):
    """All that was measured.

    ``omitted`` transfers were the warm-up, ``unfinished`` ones had not ended when nobody waited any more, and
    ``held_back`` ones had to wait because there were too many at once.  ``usage`` is None if nothing was measured.
    """

    samples: list[Sample]
    intervals: list[Interval]
    failures: list[Failure]
    seconds: float
    omitted: int
    unfinished: int
    held_back: int
    usage: Usage | None
    first_error: DownloadError | None
    hopeless: bool


class Transfer:
    """One that is under way.  ``slot`` is a number that no other has meanwhile."""

    __slots__ = ("intended", "measured", "slot", "started", "task")

    def __init__(self, slot: int, intended: float, started: float, *, measured: bool) -> None:
        self.slot = slot
        self.intended = intended
        self.started = started
        self.measured = measured
        self.task: DownloadTask | None = None


class Load:
    """Carry out a plan, once.

    ``options`` returns those of `Client.download_file` for a slot; ``clock`` is the client's; ``look`` says what the
    process has used so far; ``tell`` is given each interval when it is over.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        options: Callable[[int], Mapping[str, Any]],
        *,
        clock: Callable[[], float],
        look: Callable[[], Usage],
        tell: Callable[[Interval], None] = lambda interval: None,
    ) -> None:
        self._client, self._plan, self._options = client, plan, options
        self._clock, self._look, self._tell = clock, look, tell
        self._schedule: Schedule = _Closed(plan) if plan.rate is None else _Open(plan, plan.rate)
        self._most = plan.concurrency if plan.rate is None else plan.most
        self._live: set[Transfer] = set()
        self._free: list[int] = []  # slots that were in use
        self._samples: list[Sample] = []
        self._intervals: list[Interval] = []
        self._failures: dict[str, Failure] = {}
        self._began = 0.0
        self._zero: float | None = None
        self._end: float | None = None
        self._tick = inf  # when the interval under way is over
        self._usage: tuple[Usage, Usage] | None = None  # in the beginning of the measured part, and in its end
        self._measured = self._succeeded = self._failed = self._omitted = self._held_back = 0
        self._unfinished = 0
        self._bytes = 0  # of those that have succeeded
        self._seen = (0.0, 0, 0)  # moment, bytes and successes when the last interval was over
        self._held: float | None = None  # the intended start that was held back last
        self._error: DownloadError | None = None
        self._stopped = False

    def run(self) -> Record:
        """Drive the client until everything has ended, or until `stop`."""
        try:
            return self._run()
        finally:
            self.stop()  # whatever is under way is not waited for, and no callback of it begins another

    def _run(self) -> Record:
        self._began = self._clock()
        self._begin_due()
        while not self._is_over():
            # What has ended makes way for the next in its callback: only time makes us come back here.
            (self._client.run if self._live else self._client.step)(self._patience())
            self._begin_due()
            self._look_at(self._clock())
        if self._end is None:
            self._close(self._clock())
        self._unfinished += self._pending + self._not_begun(self._clock())
        return self._record()

    def stop(self) -> None:
        """Begin nothing more, and abort what is under way: that is no failure.  From a signal handler."""
        self._stopped = True
        for transfer in tuple(self._live):
            if transfer.task is not None:
                transfer.task.abort()

    # Beginning and ending

    def _begin_due(self) -> None:
        now = self._clock()
        if self._zero is None:
            self._open(self._schedule.zero(self._began, now, self._succeeded + self._failed))
        while not self._is_enough(intended := self._schedule.next(self._began, now)) and intended <= now:
            if len(self._live) >= self._most:
                self._hold_back(intended)
                return
            self._schedule.take()
            self._begin(intended)

    def _hold_back(self, intended: float) -> None:
        if self._plan.rate is not None and intended != self._held:
            self._held = intended
            self._held_back += 1

    def _begin(self, intended: float) -> None:
        slot = self._free.pop() if self._free else len(self._live)
        measured = self._zero is not None and intended >= self._zero
        transfer = Transfer(slot, intended, self._clock(), measured=measured)
        self._measured += measured
        self._live.add(transfer)
        transfer.task = self._client.download_file(
            **self._options(slot), complete=lambda outcome: self._ended(transfer, outcome)
        )

    def _ended(self, transfer: Transfer, outcome: DownloadResult | DownloadError) -> None:
        now = self._clock()
        self._live.discard(transfer)
        self._free.append(transfer.slot)
        if self._stopped:
            assert transfer.task is not None
            self._bytes += transfer.task.progress.total_bytes_written
            self._unfinished += transfer.measured
            return
        if isinstance(outcome, DownloadResult):
            self._succeeded += 1
            self._bytes += outcome.data_length
        else:
            self._failed += 1
            self._error = self._error or outcome
        if transfer.measured:
            self._take(transfer, outcome, now)
        else:
            self._omitted += 1
        self._begin_due()

    def _take(self, transfer: Transfer, outcome: DownloadResult | DownloadError, now: float) -> None:
        assert self._zero is not None and transfer.task is not None
        moments = (transfer.intended - self._zero, transfer.started - self._zero, now - self._zero)
        if isinstance(outcome, DownloadResult):
            dns, connect, tls, first_byte, body = _phases(outcome.marks)
            sample = Sample(*moments, outcome.data_length, outcome.marks.reused, dns, connect, tls, first_byte, body)
            self._samples.append(sample)
            return
        kind, written = type(outcome).__name__, transfer.task.progress.total_bytes_written
        self._samples.append(Sample(*moments, written, error=kind))
        known = self._failures.get(kind) or Failure(kind, 0, escape(str(outcome)))
        self._failures[kind] = known._replace(count=known.count + 1)

    # The measured part

    @property
    def _is_hopeless(self) -> bool:
        return self._failed >= HOPELESS and not self._succeeded

    @property
    def _until(self) -> float:
        """When the measured part is to end, if its duration is given."""
        return inf if self._zero is None or self._plan.duration is None else self._zero + self._plan.duration

    def _is_enough(self, intended: float) -> bool:
        """Whether a transfer that is to begin then is none of the plan."""
        if self._stopped or self._is_hopeless:
            return True
        if self._zero is None:
            return False
        return intended >= self._until or self._measured == self._plan.transfers

    def _open(self, zero: float | None) -> None:
        """Begin to measure, if it is time."""
        if zero is not None:
            self._zero = zero
            self._seen = (zero, self._arrived(), self._succeeded)
            self._tick = zero + self._plan.interval
            usage = self._look()
            self._usage = (usage, usage)

    def _look_at(self, now: float) -> None:
        """Do what is to be done at this moment."""
        if self._zero is None or self._end is not None:
            return
        if now >= self._tick:
            self._end_interval(now)
        every = self._measured == self._plan.transfers or self._is_hopeless
        if now >= self._until or (every and not self._pending):
            self._close(now)

    def _close(self, now: float) -> None:
        self._end = now
        if self._usage is not None:
            self._usage = (self._usage[0], self._look())
            self._end_interval(now)
        self._tick = inf

    def _end_interval(self, now: float) -> None:
        assert self._zero is not None
        (start, arrived, succeeded), self._seen = self._seen, (now, self._arrived(), self._succeeded)
        passed = int((now - self._zero) / self._plan.interval + _EARLY)
        self._tick = self._zero + (passed + 1) * self._plan.interval
        if now > start:
            # A failure takes back what it had brought.
            count = max(0, self._seen[1] - arrived)
            interval = Interval(start - self._zero, now - self._zero, count, self._succeeded - succeeded)
            self._intervals.append(interval)
            self._tell(interval)

    def _arrived(self) -> int:
        live = (transfer.task for transfer in self._live if transfer.task is not None)
        return self._bytes + sum(task.progress.total_bytes_written for task in live)

    @property
    def _pending(self) -> int:
        """How many of those under way count."""
        return sum(transfer.measured for transfer in self._live)

    # Driving

    def _is_over(self) -> bool:
        if self._stopped or (self._is_hopeless and not self._live):
            return True
        return self._end is not None and (not self._pending or self._clock() >= self._end + DRAIN)

    def _patience(self) -> float:
        now = self._clock()
        moments = [now + _LONGEST_WAIT, self._tick]
        moments.append(self._until if self._end is None else self._end + DRAIN)
        if self._zero is None:
            moments.append(self._schedule.earliest_zero(self._began, now))
        following = self._schedule.next(self._began, now)
        if len(self._live) < self._most and not self._is_enough(following):
            moments.append(following)
        return max(0.0, min(moments) - now)

    def _not_begun(self, now: float) -> int:
        """Count those that were due, and were held back to the very end."""
        count = 0
        while (intended := self._schedule.next(self._began, now)) <= now and not self._is_enough(intended):
            self._schedule.take()
            self._measured += 1
            count += 1
        return count

    def _record(self) -> Record:
        usage = None if self._usage is None else self._usage[1].since(self._usage[0])
        seconds = 0.0 if self._zero is None or self._end is None else self._end - self._zero
        return Record(
            samples=self._samples,
            intervals=self._intervals,
            failures=list(self._failures.values()),
            seconds=seconds,
            omitted=self._omitted,
            unfinished=self._unfinished,
            held_back=self._held_back,
            usage=usage,
            first_error=self._error,
            hopeless=self._is_hopeless,
        )


# The schedules


class Schedule(Protocol):
    """When transfers are to begin.  Moments are in the client's clock, ``began`` is when the load did."""

    def next(self, began: float, now: float) -> float:
        """Return when the next one is to begin."""

    def take(self) -> None:
        """It begins."""

    def zero(self, began: float, now: float, ended: int) -> float | None:
        """Return when the measured part began, None if it has not; ``ended`` is how many transfers have."""

    def earliest_zero(self, began: float, now: float) -> float:
        """Return when `zero` is worth asking, if no transfer ends before."""


class _Closed:
    """As soon as there is room; time passes only if somebody is waited for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def next(self, began: float, now: float) -> float:
        return now

    def take(self) -> None:
        pass

    def zero(self, began: float, now: float, ended: int) -> float | None:
        return now if ended >= self._plan.warm_up and now >= began + self._plan.omit else None

    def earliest_zero(self, began: float, now: float) -> float:
        moment = began + self._plan.omit
        return moment if moment > now else inf  # then it is the end of a transfer that is waited for


class _Open:
    """At even distances; none is put off because others are slow."""

    def __init__(self, plan: Plan, rate: float) -> None:
        self._rate = rate
        self._before = max(plan.warm_up / rate, plan.omit)
        self._taken = 0

    def next(self, began: float, now: float) -> float:
        return began + self._taken / self._rate  # no sum, which would drift

    def take(self) -> None:
        self._taken += 1

    def zero(self, began: float, now: float, ended: int) -> float | None:
        moment = self.earliest_zero(began, now)
        return moment if now >= moment else None

    def earliest_zero(self, began: float, now: float) -> float:
        return began + self._before


def punctual() -> selectors.BaseSelector:
    """Return a selector that waits to the microsecond: epoll waits whole milliseconds, and would begin all too late."""
    chosen = selectors.DefaultSelector()
    if not isinstance(chosen, getattr(selectors, "EpollSelector", ())):
        return chosen
    chosen.close()

    class Punctual(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return Punctual()


def _phases(marks: Marks) -> list[float | None]:
    """Return what each phase took: look-up, connect, TLS, first byte, transfer."""
    secured = marks.tls_start or marks.connect_end
    spans = (
        (marks.lookup_start, marks.lookup_end),
        (marks.connect_start, secured),
        (marks.tls_start, marks.tls_end),
        (marks.request_end, marks.response_start),
        (marks.response_start, marks.response_end),
    )
    return [max(0.0, end - start) if start and end else None for start, end in spans]

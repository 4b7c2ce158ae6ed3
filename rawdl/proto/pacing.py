"""How fast a body may come, and how slow.  ``now`` is an argument, in seconds of a clock that only goes forward.

Too fast is not read: the kernel's window closes, and the server waits (`TokenBucket`).  Too slow for too long is a
failure (`SpeedFloor`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf, nextafter
from sys import float_info
from typing import Final

# A turn is this much of a second's bytes: fifty wake-ups a second, among all tasks, look steady to a person and cost
# little ...
_TURN_SECONDS: Final = 0.02
# ... and no more than this, which a read brings easily: at high rates nobody is to wait long for its turn.
_MAX_TURN: Final = 65536
# What may pile up while nobody reads: some turns, so that a loop that is late makes up for it.
_BURST_SECONDS: Final = 0.25
# Two would do for the first in line always to find its turn.
_TURNS_PER_BURST: Final = 4


class TokenBucket:
    """A rate limit, for any number of readers: each keeps to it by its own `Pace`.

    ``rate`` is in bytes per second.  At most ``burst`` bytes pile up while nobody reads (default: 0.25 s of the rate);
    at the beginning there is one turn.  So over any span of time no more is read than ``rate * span + burst``, from the
    beginning on no more than ``rate * span + turn``, and what the last reader took beyond what it was allowed.

    Readers take turns, of ``turn`` bytes at most.  Whoever may not read waits in line, and first come is first served:
    n readers that have always something to read get the n-th part each, and what one leaves goes to the others.
    """

    __slots__ = ("_at", "_level", "_waiting", "burst", "rate", "turn")

    def __init__(self, rate: float, now: float, burst: float | None = None) -> None:
        _check_amount("rate_limit", rate)
        if burst is not None:
            _check_amount("burst", burst)
        self.rate = rate
        self.burst = max(rate * _BURST_SECONDS if burst is None else burst, _TURNS_PER_BURST)
        self.turn = int(min(max(rate * _TURN_SECONDS, 1), self.burst / _TURNS_PER_BURST, _MAX_TURN))
        self._level = float(self.turn)  # below zero: more was read than was there
        self._at = now
        self._waiting: dict[Pace, float] = {}  # in the order in which they came, with when each is to ask again

    def offer(self, pace: Pace, now: float) -> int:
        """Return how many bytes a reader may take: a turn, or 0."""
        return self.turn if self._fill(now) >= self._needed_for(pace) else 0

    def offer_all(self, now: float) -> int:
        """Return how many bytes the only reader may take: what is there, or 0 if that is less than a turn."""
        level = self._fill(now)
        return int(level) if level >= self.turn else 0

    def take(self, n: int, pace: Pace, now: float) -> None:
        """Take out ``n`` bytes, whether they are there or not; the reader has had its turn."""
        self._level = self._fill(now) - n
        self.dequeue(pace)

    def enqueue(self, pace: Pace, now: float) -> float:
        """Put a reader at the end of the line, unless it stands in it, and return when to ask again: after ``now``.

        It is when the turn comes if everybody before takes a full one, or when the bucket would be full if nobody did.
        """
        earliest = nextafter(now, inf)  # rounding may give `now` itself, where a clock that stands would never leave
        if pace not in self._waiting:
            # Not before the last in line, who may have expected more to be taken: what is left is not for one alone.
            earliest = max(earliest, next(reversed(self._waiting.values()), now))
            self._waiting[pace] = earliest
        missing = self._needed_for(pace) - self._fill(now)
        self._waiting[pace] = max(now + missing / self.rate, earliest)
        return self._waiting[pace]

    def dequeue(self, pace: Pace) -> None:
        """Take a reader out of the line, if it stands in it."""
        self._waiting.pop(pace, None)

    def _fill(self, now: float) -> float:
        """Return how many bytes are there by now."""
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        return self._level

    def _needed_for(self, pace: Pace) -> float:
        """Return how many bytes must be there for a reader to take its turn: one, and one for each before it.

        So whoever is first finds its turn, however many come before it is awake.  But a full bucket is for anybody:
        nothing runs over while somebody waits, be it that those before take less than a turn or that they are late.
        """
        needed = self.turn
        for other in self._waiting:
            if other is pace or needed >= self.burst:
                return min(needed, self.burst)
            needed += self.turn
        return self.burst if self._waiting else needed

    def __repr__(self) -> str:
        return f"<TokenBucket {self.rate:g} B/s, {self._level:.0f} bytes there, {len(self._waiting)} waiting>"


class Pace:
    """How one reader keeps to a limit that it shares, and to one of its ``own`` that nobody else reads by.

    Ask `available` before a read, and `spend` what it brought.  If nothing is available, stop reading until `when`, and
    then ask again and read, or `leave`: others stand behind you.
    """

    __slots__ = ("_own", "_shared")

    def __init__(self, shared: TokenBucket, own: TokenBucket | None = None) -> None:
        self._shared = shared
        self._own = own

    def available(self, now: float) -> int:
        """Return how many bytes may be read now: a turn at most, or 0."""
        allowed = self._shared.offer(self, now)
        if self._own is None:
            return allowed
        # Not by turns: what piles up of its own while it stands in the other line would be lost.
        return min(allowed, self._own.offer_all(now))

    def spend(self, n: int, now: float) -> None:
        """End a turn that brought ``n`` bytes: none is fine, and more than were available are a debt."""
        self._shared.take(n, self, now)
        if self._own is not None:
            self._own.take(n, self, now)

    def when(self, now: float) -> float:
        """Stand in line, and return the moment to ask again, which is later than ``now``."""
        if self._own is not None and not self._own.offer_all(now):
            # Not in both lines: a turn that comes while the other limit still refuses would hold everybody up.
            self._shared.dequeue(self)
            return self._own.enqueue(self, now)
        return self._shared.enqueue(self, now)

    def leave(self) -> None:
        """Wait no longer: the task is paused, has failed or was aborted.  Any number of times."""
        self._shared.dequeue(self)


@dataclass(frozen=True, slots=True)
class LowSpeed:
    """When a transfer is too slow: if for ``seconds`` it brings less than ``bytes_per_second`` on average.

    Both must be above 0.
    """

    bytes_per_second: float
    seconds: float

    def __post_init__(self) -> None:
        _check_amount("low_speed.bytes_per_second", self.bytes_per_second)
        _check_amount("low_speed.seconds", self.seconds)

    @classmethod
    def of(cls, value: LowSpeed | tuple[float, float]) -> LowSpeed:
        """Accept a pair of numbers as well; TypeError or ValueError for what is neither."""
        if isinstance(value, LowSpeed):
            return value
        if not isinstance(value, tuple):
            raise TypeError(f"low_speed is (bytes_per_second, seconds) or a LowSpeed, not {value!r}")
        if len(value) != 2:
            raise ValueError(f"low_speed is two numbers, (bytes_per_second, seconds), not {len(value)}")
        return cls(*value)


# The window moves in steps of this part of it: so many marks are kept, and so much late is the verdict.
_STEPS: Final = 20


class SpeedFloor:
    """Find a transfer too slow by the average of the last ``seconds`` of its `LowSpeed`.

    Only time that runs counts: `pause` it while it is not the server for whom we wait.  In such time,

    - it expires only if the last ``seconds`` brought less than ``bytes_per_second * seconds`` bytes; so never before
      ``seconds`` have passed, and never for a transfer that keeps to the floor in each such window;
    - it has expired once the last 1.05 * ``seconds`` (or all the time since the beginning, if that is at least
      ``seconds``) brought less than that many bytes; so during a stall at most 0.05 * ``seconds`` after the average
      has dropped, and at most 1.05 * ``seconds`` after the last byte.
    """

    __slots__ = ("_enough", "_last", "_marks", "_paused_at", "_seconds", "_shift", "_step")

    def __init__(self, settings: LowSpeed, now: float) -> None:
        self._seconds = settings.seconds
        self._enough = settings.bytes_per_second * settings.seconds
        self._step = settings.seconds / _STEPS
        self._shift = now  # from the clock to time that counts
        self._paused_at: float | None = None
        self._last = (0.0, 0)  # when bytes came last, and the total since then
        self._marks = deque([self._last])  # earlier ones, about one for each step in which bytes came

    def advance(self, now: float, total: int) -> None:
        """Take note that ``total`` bytes of this transfer are there by now."""
        at = (self._paused_at if self._paused_at is not None else now) - self._shift
        marks = self._marks
        # The state before these bytes becomes a mark, so that what came before a gap is not counted to what is after.
        if at - marks[-1][0] >= self._step:
            marks.append(self._last)
        while len(marks) > 1 and marks[1][0] <= at - self._seconds:
            marks.popleft()
        self._last = (at, total)

    def deadline(self) -> float | None:
        """Return when the transfer is too slow if nothing more comes, or None while paused.

        Bytes only ever put it off: a timer that is set for it may look again then, rather than at each read.
        """
        if self._paused_at is not None:
            return None
        last, total = self._last
        since = next((at for at, before in self._marks if total - before < self._enough), last)
        return since + self._seconds + self._shift

    def expired(self, now: float) -> bool:
        """Return whether the transfer is too slow at ``now``."""
        deadline = self.deadline()
        return deadline is not None and now >= deadline

    def pause(self, now: float) -> None:
        """Stop the time: the task is paused, or our own rate limit keeps it from reading.  If it runs."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """Let the time go on, if it stands."""
        if self._paused_at is not None:
            self._shift += now - self._paused_at
            self._paused_at = None


def _check_amount(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number, not {value!r}")
    if not 0 < value <= float_info.max:
        raise ValueError(f"{name} must be above 0 and finite; {value!r} is not")

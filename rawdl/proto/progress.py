"""How far a body is, how fast it comes, and how often to say so.  ``now`` is an argument, in seconds."""

from __future__ import annotations

from math import exp
from typing import Final, NamedTuple

# The time constant of the speed: what came this long ago counts for 1/e.  Long enough to be read, short enough for a
# stall to show within seconds.
_SMOOTHING: Final = 3.0
# Below this there is no speed to speak of: the first segment of a connection says nothing yet.
_WARM_UP: Final = 0.01
# Slower than a byte in a second is a stall: how long the rest would take is then unknown, not a large number.
_STALLED: Final = 1.0


class ProgressUpdate(NamedTuple):
    """How far a download is.  Both counts are bytes of the body as it comes over the wire, transfer coding removed.

    ``progress`` is an int in 0..100, rounded down: 100 means that the last byte has arrived.  While the length is
    unknown it is 0, ``total_bytes_expected_to_write`` is 0 and ``length_computable`` is False.  ``bytes_per_second``
    is smoothed over some seconds and falls during a stall; ``eta`` is in seconds; both are None while unknown.  Of a
    resumed download both counts are from the start of the file.  ``restarted`` is set in the one event that says that
    the counts begin at 0 again, because what was there could not be continued.  ``decoded_bytes_written`` is what the
    body's content codings have made of it so far; None where none are taken off.
    """

    progress: int = 0
    total_bytes_written: int = 0
    total_bytes_expected_to_write: int = 0
    length_computable: bool = False
    bytes_per_second: float | None = None
    eta: float | None = None
    restarted: bool = False
    decoded_bytes_written: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return Taro's spelling, ready for ``json.dumps``."""
        return {
            "progress": self.progress,
            "totalBytesWritten": self.total_bytes_written,
            "totalBytesExpectedToWrite": self.total_bytes_expected_to_write,
            "lengthComputable": self.length_computable,
            "bytesPerSecond": self.bytes_per_second,
            "eta": self.eta,
            "restarted": self.restarted,
            "decodedBytesWritten": self.decoded_bytes_written,
        }


class SpeedMeter:
    """Bytes per second out of samples of the total: an average that forgets exponentially.

    Totals, not differences, go in, so that a sample may be left out.  The time since the last sample counts as well:
    asked during a stall, the speed falls.
    """

    __slots__ = ("_began", "_last", "_rate", "_total")

    def __init__(self, now: float, total: int = 0) -> None:
        self._began = self._last = now
        self._total = total
        self._rate = 0.0

    def sample(self, now: float, total: int) -> None:
        """Take note that ``total`` bytes were there at ``now``."""
        if now <= self._last:
            return  # within the clock's resolution: they count into the next sample
        self._rate = self._rate_at(now, total)
        self._last = now
        self._total = total

    def speed(self, now: float, total: int | None = None) -> float | None:
        """Return the bytes per second at ``now``, or None while there is nothing to say.

        ``total`` is what is there by now, if that is more than at the last sample.
        """
        elapsed = now - self._began
        if elapsed < _WARM_UP:
            return None
        # The average began at zero; dividing by the weight that its samples have had so far takes that out.
        return self._rate_at(now, self._total if total is None else total) / (1.0 - exp(-elapsed / _SMOOTHING))

    def _rate_at(self, now: float, total: int) -> float:
        elapsed = now - self._last
        if elapsed <= 0:
            return self._rate
        keep = exp(-elapsed / _SMOOTHING)
        return self._rate * keep + (total - self._total) / elapsed * (1.0 - keep)


class Progress:
    """The progress of one body: what to report, and when an event is due.

    ``interval`` is the shortest time between two events in seconds, 0 for one each time that bytes came.  ``written``
    is what is there already.
    """

    __slots__ = ("_due", "_expected", "_interval", "_last", "_meter", "written")

    def __init__(self, now: float, expected: int | None, interval: float, written: int = 0) -> None:
        self.written = written
        self._last: ProgressUpdate | None = None  # once everything has arrived
        self._expected = expected
        self._interval = interval
        self._due = now
        self._meter = SpeedMeter(now, written)

    def continue_with(self, now: float, expected: int | None, written: int) -> ProgressUpdate | None:
        """Go on with another response; return the event that says so if it begins before what has been told."""
        restarted = written < self.written
        if restarted:
            self._meter = SpeedMeter(now, written)  # first: another thread may ask for the speed at any moment
        self._expected, self.written, self._last = expected, written, None
        if not restarted:
            return None
        return self.snapshot(now)._replace(restarted=True)

    def advance(self, now: float, written: int) -> bool:
        """Take the number of bytes so far; return whether an event is due."""
        self.written = written
        if now < self._due:
            return False
        self._due = now + self._interval
        self._meter.sample(now, written)
        return True

    def snapshot(self, now: float) -> ProgressUpdate:
        """Return the state of things at ``now``."""
        if self._last is not None:
            return self._last
        expected, written = self._expected, self.written
        speed = self._meter.speed(now, written)
        if expected is None:
            return ProgressUpdate(0, written, 0, False, speed, None)
        percent = written * 100 // expected if expected else 0
        eta = (expected - written) / speed if speed is not None and speed >= _STALLED else None
        return ProgressUpdate(percent, written, expected, True, speed, eta)

    def finish(self, now: float, written: int) -> ProgressUpdate:
        """Return the last event: everything has arrived, which may be the first that is known of the length."""
        self.written = written
        self._last = ProgressUpdate(100, written, written, True, self._meter.speed(now, written), 0.0)
        return self._last

"""The time limits of one download on its loop: one timer for all of them."""

from __future__ import annotations

from collections.abc import Callable

from rawdl.loop import Loop, Timer
from rawdl.proto.timeouts import Deadlines, Phase, Timeouts


class Alarm:
    """Call ``expired(phase)`` when the limit of the phase, or the total, has run out; the clocks start now."""

    __slots__ = ("_absent", "_deadlines", "_expired", "_loop", "_paused", "_phase", "_timer")

    def __init__(self, loop: Loop, timeouts: Timeouts, expired: Callable[[Phase], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._deadlines = Deadlines(timeouts, loop.now)
        self._absent = 0.0  # of the loop, when the phase began
        self._timer: Timer | None = None
        self._phase: Phase | None = None
        self._paused = False
        self._arm()

    def enter(self, phase: Phase) -> None:
        """Begin a phase, or begin it anew."""
        self._phase = phase
        if self._paused:
            return
        self._absent = self._loop.absent
        self._deadlines.enter(phase, self._loop.now)
        self._arm()

    def leave(self) -> None:
        """Be in no phase: only the total runs."""
        self._phase = None
        self._deadlines.leave()

    def pause(self) -> None:
        """Stop the clock of the phase; `resume` begins it anew."""
        self._paused = True
        self._deadlines.leave()

    def resume(self) -> None:
        """End a pause."""
        self._paused = False
        if self._phase is not None:
            self.enter(self._phase)

    def is_late(self) -> bool:
        """Look at the clock now, rather than in the next turn: has a limit run out?"""
        return self._deadlines.expired(self._loop.time()) is not None

    def stop(self) -> None:
        """Never call ``expired``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """See to it that the timer fires no later than the next deadline.

        One that fires too early is armed again then: that is rarer than a deadline that moves, as it does at each read.
        """
        deadline = self._deadlines.next_deadline()
        if deadline is None or (self._timer is not None and self._timer.when <= deadline):
            return
        self.stop()
        self._timer = self._loop.call_at(deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        phase = self._deadlines.expired(self._loop.now)
        if phase is Phase.IDLE and self._loop.absent > self._absent:
            # Idle is time in which we looked and nothing came: that in a slow listener, of whatever task, is not.
            self._deadlines.postpone(self._loop.absent - self._absent)
            self._absent = self._loop.absent
            phase = self._deadlines.expired(self._loop.now)
        if phase is None:
            self._arm()
        else:
            self._expired(phase)

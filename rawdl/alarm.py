"""The time limits of one fetch on its loop: for what does not come, and for what comes too slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rawdl.loop import Loop, Timer
from rawdl.proto.timeouts import Deadlines, Phase, Timeouts

if TYPE_CHECKING:
    from rawdl.proto.pacing import LowSpeed, SpeedFloor


class Alarm:
    """Call ``expired(phase)`` when the limit of the phase has run out, or the body has come too slowly for too long."""

    __slots__ = (
        "_absent",
        "_deadlines",
        "_expired",
        "_floor",
        "_loop",
        "_low_speed",
        "_paused",
        "_speed_timer",
        "_timer",
        "phase",
    )

    def __init__(
        self, loop: Loop, timeouts: Timeouts, low_speed: LowSpeed | None, expired: Callable[[Phase], None]
    ) -> None:
        self._loop = loop
        self._expired = expired
        self._deadlines = Deadlines(timeouts)
        self._absent = 0.0  # of the loop, when the phase began
        self._timer: Timer | None = None
        self.phase: Phase | None = None  # that is under way
        self._low_speed = low_speed
        self._floor: SpeedFloor | None = None  # once there is a body
        self._speed_timer: Timer | None = None
        self._paused = False

    def enter(self, phase: Phase) -> None:
        """Begin a phase, or begin it anew."""
        self.phase = phase
        if self._paused:
            return
        self._absent = self._loop.absent
        self._arm(self._deadlines.enter(phase, self._loop.now))

    def leave(self) -> None:
        """Be in no phase."""
        self.phase = None
        self._deadlines.leave()

    def body_begins(self) -> None:
        """Watch the speed from now on."""
        if self._low_speed is not None:
            from rawdl.proto.pacing import SpeedFloor

            self._floor = SpeedFloor(self._low_speed, self._loop.now)
            if self._paused:  # by a listener that was told of the head
                self._floor.pause(self._loop.now)
            self._arm_speed()

    def forget_speed(self) -> None:
        """Watch it no longer."""
        self._low_speed = self._floor = None

    def advance(self, received: int) -> None:
        """Take note of how many bytes of the body have come: the idle gap begins anew."""
        self.enter(Phase.IDLE)
        if self._floor is not None:
            self._floor.advance(self._loop.now, received)

    def pause(self) -> None:
        """Stop every clock: it is not the server for whom we wait.  `resume` begins the phase anew."""
        self._paused = True
        self._deadlines.leave()
        if self._floor is not None:
            self._floor.pause(self._loop.now)

    def resume(self) -> None:
        """End a pause."""
        self._paused = False
        if self.phase is not None:
            self.enter(self.phase)
        if self._floor is not None:
            self._floor.resume(self._loop.now)
            self._arm_speed()

    def stop(self) -> None:
        """Never call ``expired``."""
        for timer in (self._timer, self._speed_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._speed_timer = self._floor = None
        self._expired = _nobody  # the two of them need no collector then

    def __repr__(self) -> str:
        return f"<Alarm {self.phase or 'in no phase'}{' paused' if self._paused else ''}>"

    def _arm(self, deadline: float | None) -> None:
        """See to it that the timer fires no later than the deadline.

        One that fires too early is armed again then: that is rarer than a deadline that moves, as it does at each read.
        """
        if deadline is None or (self._timer is not None and self._timer.when <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
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
            self._arm(self._deadlines.at)
        else:
            self._expired(phase)

    def _arm_speed(self) -> None:
        assert self._floor is not None
        deadline = self._floor.deadline()
        if deadline is not None and self._speed_timer is None:
            self._speed_timer = self._loop.call_at(deadline, self._check_speed)

    def _check_speed(self) -> None:
        self._speed_timer = None
        if self._floor is None:
            return
        if self._floor.expired(self._loop.now):
            self._expired(Phase.LOW_SPEED)
        else:
            self._arm_speed()


def _nobody(phase: Phase) -> None:
    """Hear of a limit that is nobody's any more."""

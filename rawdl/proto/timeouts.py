"""Time limits by phase.  Nothing here reads a clock: ``now`` is always an argument, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Phase(StrEnum):
    """What a task is waiting for when a limit runs out."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    SEND = "send"
    HEAD = "head"
    IDLE = "idle"
    LOW_SPEED = "low_speed"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The limits of one task, in seconds; None switches one off.

    ``head`` is absolute: from the request's last byte to the end of the final response head, interim responses or not.
    ``idle`` is the longest gap between two reads that bring body bytes.  ``total`` runs from the moment the task leaves
    the queue, and includes everything.  Each must be above 0.
    """

    resolve: float | None = 10.0
    connect: float | None = 10.0
    tls: float | None = 10.0
    send: float | None = 30.0
    head: float | None = 60.0
    idle: float | None = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_seconds(f"timeouts.{name}", getattr(self, name))


def check_seconds(name: str, value: float | None) -> None:
    """Raise TypeError or ValueError for what is no time limit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number of seconds or None, not {value!r}")
    if not 0 < value < inf:
        raise ValueError(f"{name} must be above 0 and finite; {value!r} is not (None switches it off)")


class Deadlines:
    """The two deadlines of a running task: that of the phase it is in, and the total.

    `enter` begins a phase, or begins it anew (the idle gap, after each read).
    """

    __slots__ = ("_phase", "_phase_at", "_timeouts", "_total_at")

    def __init__(self, timeouts: Timeouts, now: float) -> None:
        self._timeouts = timeouts
        self._phase: Phase | None = None
        self._phase_at: float | None = None
        self._total_at = None if timeouts.total is None else now + timeouts.total

    def enter(self, phase: Phase, now: float) -> None:
        """Begin a phase: its limit runs from now."""
        limit: float | None = getattr(self._timeouts, phase._value_)
        self._phase = phase
        self._phase_at = None if limit is None else now + limit

    def leave(self) -> None:
        """Be in no phase: only the total runs."""
        self._phase = self._phase_at = None

    def postpone(self, seconds: float) -> None:
        """Give the present phase some more time: so much of it was not spent waiting."""
        if self._phase_at is not None:
            self._phase_at += seconds

    def next_deadline(self) -> float | None:
        """Return the earlier of the two, or None."""
        if self._phase_at is None or self._total_at is None:
            return self._total_at if self._phase_at is None else self._phase_at
        return min(self._phase_at, self._total_at)

    def expired(self, now: float) -> Phase | None:
        """Return the phase whose limit has run out by ``now``; the total comes first where both have."""
        if self._total_at is not None and now >= self._total_at:
            return Phase.TOTAL
        if self._phase_at is not None and now >= self._phase_at:
            return self._phase
        return None

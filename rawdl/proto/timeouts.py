"""Time limits by phase.  Nothing here reads a clock: ``now`` is always an argument, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final


class Phase(StrEnum):
    """What a task is waiting for when a limit runs out."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    PROXY = "proxy"
    TLS = "tls"
    SETUP = "setup"
    SEND = "send"
    HEAD = "head"
    IDLE = "idle"
    LOW_SPEED = "low_speed"
    TOTAL = "total"


_SETUP: Final = (Phase.RESOLVE, Phase.CONNECT, Phase.PROXY, Phase.TLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The limits of one task, in seconds; None switches one off.

    ``setup`` is for resolve, connect, proxy and tls together, each of which has its own limit as well.
    ``head`` is absolute: from the request's last byte to the end of the final response head, interim responses or not.
    ``idle`` is the longest gap between two reads that bring body bytes.  ``total`` runs from the moment the task leaves
    the queue, and includes everything.  Each must be above 0.
    """

    resolve: float | None = 10.0
    connect: float | None = 10.0
    proxy: float | None = 10.0
    tls: float | None = 10.0
    setup: float | None = None
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
    """When the phase runs out that an exchange is in; the total limit is a matter of the whole task.

    `enter` begins a phase, or begins it anew (the idle gap, after each read).  ``at`` is its end; None: it has none.
    """

    __slots__ = ("_phase", "_set_up_by", "_timeouts", "at")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._phase: Phase | None = None
        self._set_up_by: float | None = None  # while there is no connection, if that is limited
        self.at: float | None = None

    def enter(self, phase: Phase, now: float) -> float | None:
        """Begin a phase: its limit runs from now.  Return its end."""
        limit: float | None = getattr(self._timeouts, phase._value_)
        self._phase = phase
        self.at = at = None if limit is None else now + limit
        if self._timeouts.setup is not None:
            self._bound_setup(phase, now, self._timeouts.setup)
            return self.at
        return at

    def _bound_setup(self, phase: Phase, now: float, limit: float) -> None:
        """Let the phase run no longer than is left for all that it takes to have a connection."""
        if phase not in _SETUP:
            self._set_up_by = None
            return
        self._set_up_by = by = now + limit if self._set_up_by is None else self._set_up_by
        if self.at is None or by < self.at:
            self._phase, self.at = Phase.SETUP, by

    def leave(self) -> None:
        """Be in no phase."""
        self._phase = self.at = self._set_up_by = None

    def postpone(self, seconds: float) -> None:
        """Give the present phase some more time: so much of it was not spent waiting."""
        if self.at is not None:
            self.at += seconds

    def expired(self, now: float) -> Phase | None:
        """Return the phase, if its limit has run out by ``now``."""
        return self._phase if self.at is not None and now >= self.at else None

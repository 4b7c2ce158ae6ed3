"""Ctrl-C while our own code is at work.

Python raises KeyboardInterrupt between any two steps of whatever its main thread runs, and so in the middle of what
must be done whole.  Who is at such work takes note instead, and raises it afterwards: asyncio and trio do the same.
Only Python's own handler is replaced, and only for as long as the work lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident, main_thread
from types import FrameType
from typing import Any, Final

try:
    # What `signal` is made of.  That makes enums of every answer, which takes ten times as long as the rest, and its
    # import takes half a millisecond; the interpreter has this one loaded.
    from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]
except ImportError:  # an implementation that is made otherwise
    from signal import SIGINT, default_int_handler, getsignal, signal

# Seconds.  One Ctrl-C may come twice, from the terminal and from a program that passes it on; later it means that the
# first has had no effect.
_ONCE: Final = 0.5


class Interrupts:
    """Say when KeyboardInterrupt may be raised; ``wake`` ends the wait of who raises it, ``clock`` is in seconds."""

    __slots__ = ("_before", "_clock", "_main", "_noted_at", "_wake", "at_work", "noted")

    def __init__(self, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self._wake = wake
        self._clock = clock
        self._main = main_thread().ident  # no other thread is interrupted; None if that cannot be seen to
        self._before: Callable[[int, FrameType | None], Any] | None = None  # whom we stand in for
        # Whether our own code is running now, rather than a callback: what interrupts it must wait.
        self.at_work = False
        self.noted = False  # Ctrl-C came, and has not been raised
        self._noted_at = 0.0

    def defer(self) -> None:
        """Take over from who would raise KeyboardInterrupt: Python, or another client, in a callback of which we are.

        What else a program does at SIGINT is its own affair.
        """
        if get_ident() != self._main:
            return
        before = getsignal(SIGINT)
        if before is not default_int_handler:
            other = getattr(before, "__self__", None)
            if not isinstance(other, Interrupts):
                return
            if other is self:  # left behind, by an interrupt in `allow`
                before = default_int_handler
        self._before = before
        try:
            signal(SIGINT, self._handle)
        except ValueError:  # the interpreter is not the main one
            self._main = None

    def allow(self) -> None:
        """Give back what `defer` took, unless somebody has taken it over since."""
        if self._before is not None:
            if getsignal(SIGINT) == self._handle:
                signal(SIGINT, self._before)
            self._before = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Take note; in a callback, and when it comes again, have it raised at once."""
        ours = self._before is not None and self.at_work  # else the program has put this back, and another thread works
        if not ours or (self.noted and self._clock() - self._noted_at >= _ONCE):
            (self._before or default_int_handler)(number, frame)
        elif not self.noted:
            self._noted_at = self._clock()
            self.noted = True
            self._wake()

    def raise_noted(self) -> None:
        """Raise KeyboardInterrupt if it is noted, in the thread that it is for."""
        if self.noted and get_ident() == self._main:  # not taken and put back, in the middle of which it could come
            self.noted = False
            raise KeyboardInterrupt

    def __repr__(self) -> str:
        return f"<Interrupts {'noted' if self.noted else 'deferred' if self._before is not None else 'allowed'}>"

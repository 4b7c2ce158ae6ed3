"""A rate limit on the loop: how much may be read now, and a timer for when nothing may."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rawdl.loop import Loop, Timer

if TYPE_CHECKING:
    from rawdl.proto.pacing import Pace, TokenBucket


def bucket_of(rate: float | None, now: float) -> TokenBucket | None:
    """Return what a limit of ``rate`` bytes per second is drawn from, None without one.  Raises as `TokenBucket`."""
    if rate is None:
        return None
    from rawdl.proto.pacing import TokenBucket

    return TokenBucket(rate, now)


class Throttle:
    """Keep one fetch to the limits that it shares: the client's, its task's, or both; each is a bucket or None."""

    __slots__ = ("_loop", "_pace", "_timer")

    def __init__(self, loop: Loop, pace: Pace) -> None:
        self._loop = loop
        self._pace = pace
        self._timer: Timer | None = None

    @classmethod
    def of(cls, loop: Loop, shared: TokenBucket | None, own: TokenBucket | None) -> Throttle | None:
        """Return one for these limits, or None if there are none."""
        first, second = (own, None) if shared is None else (shared, own)
        if first is None:
            return None
        from rawdl.proto.pacing import Pace

        return cls(loop, Pace(first, second))

    def allowed(self) -> int:
        """Return how many bytes may be read now."""
        return self._pace.available(self._loop.now)

    def spent(self, n: int) -> None:
        """Take note of what a read has brought."""
        self._pace.spend(n, self._loop.now)

    def wait(self, callback: Callable[[], None]) -> None:
        """Call back when it is worth while to ask again."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._pace.when(self._loop.now), lambda: self._fire(callback))

    def _fire(self, callback: Callable[[], None]) -> None:
        self._timer = None
        callback()

    def stop(self) -> None:
        """Wait no longer."""
        self._pace.leave()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<Throttle {'waiting' if self._timer is not None else 'open'}>"

"""Whether a failed try is followed by another, and after how long.  Time and randomness are arguments.

A download is a GET, which may be repeated at will (RFC 9110 9.2.2): what counts is only whether a repetition may end
better.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from sys import float_info
from typing import Final

from rawdl.errors import (
    ConnectError,
    ConnectionLost,
    DownloadError,
    IncompleteBody,
    IncompleteHead,
    ProxyError,
    ResolveError,
    StatusError,
    Timeout,
    TLSError,
)
from rawdl.proto.timeouts import Phase

# A try that brought so many bytes is followed at once: to ask once for so much burdens nobody, and a server that is
# down brings nothing.
WORTH_ANOTHER: Final = 65536
# A task that makes progress may fail for months: this many of its failures tell what is wrong with the line.
_REMEMBERED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a download is tried, and how long it waits in between.  Times are in seconds.

    ``attempts`` is the number of tries in all, 1 for no repetition.  A try that brings new bytes gives them all back:
    that many in a row without a new byte end the download, and so do that many which were below ``low_speed`` from the
    first byte on.  The n-th wait is ``backoff * factor**n``, n counting from 0, and at most ``max_delay``; with
    ``jitter="full"`` it is drawn evenly from 0 up to that, with ``"none"`` it is that.

    ``statuses`` are the status codes that are tried again, out of 400..599: any collection, kept as a frozenset.  With
    ``respect_retry_after`` the wait is no shorter than the response's Retry-After (RFC 9110 10.2.3), of which
    ``max_retry_after`` is the most that is waited.

    ``max_time`` bounds how long it goes on without a new byte, from the first failure on: the last try begins no later
    than that, and none where Retry-After is later.  None for no bound.
    """

    attempts: int = 5
    backoff: float = 0.5
    factor: float = 2.0
    max_delay: float = 30.0
    jitter: str = "full"
    statuses: Collection[int] = frozenset({408, 429, 500, 502, 503, 504})
    respect_retry_after: bool = True
    max_retry_after: float = 300.0
    max_time: float | None = None

    def __post_init__(self) -> None:
        _check_int("attempts", self.attempts, 1, None)
        _check_float("backoff", self.backoff, 0)
        _check_float("factor", self.factor, 1)
        _check_float("max_delay", self.max_delay, 0)
        _check_float("max_retry_after", self.max_retry_after, 0)
        if self.max_time is not None:
            _check_float("max_time", self.max_time, 0)
        if not isinstance(self.jitter, str):
            raise TypeError(f"retry.jitter is a str, not {self.jitter!r}")
        if self.jitter not in ("full", "none"):
            raise ValueError(f'retry.jitter is "full" or "none", not {self.jitter!r}')
        if not isinstance(self.respect_retry_after, bool):
            raise TypeError(f"retry.respect_retry_after is True or False, not {self.respect_retry_after!r}")
        object.__setattr__(self, "statuses", _check_statuses(self.statuses))


def _check_statuses(statuses: Collection[int]) -> frozenset[int]:
    try:
        codes = tuple(statuses)
    except TypeError:
        raise TypeError(f"retry.statuses is a collection of status codes, not {statuses!r}") from None
    for code in codes:
        _check_int("statuses: each", code, 400, 599)
    return frozenset(codes)


def _check_int(name: str, value: int, least: int, most: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"retry.{name} is a whole number, not {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"retry.{name} must be {f'in {least}..{most}' if most else f'at least {least}'}, not {value}")


def _check_float(name: str, value: float, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"retry.{name} is a number, not {value!r}")
    if not least <= value <= float_info.max:  # an int can be larger than that, and no float may meet it then
        raise ValueError(f"retry.{name} must be at least {least} and finite; {value!r} is not")


class Attempts:
    """The tries of one task: tell it of each that failed, and it says how to go on.

    ``history`` are the errors of the tries before the present one, oldest first; of more than 100, the last 100.  They
    come without tracebacks: those hold frames, and with them all that a failed try had in its hands.
    """

    __slots__ = ("_barren", "_ceiling", "_history", "_retry", "_since")

    def __init__(self, retry: Retry, history: Iterable[DownloadError] = ()) -> None:
        self._retry = retry
        self._barren = 0  # tries in a row that brought nothing
        self._since: float | None = None  # the first failure since a new byte
        self._ceiling = min(retry.backoff, retry.max_delay)  # of the next wait
        self._history: deque[DownloadError] = deque(history, maxlen=_REMEMBERED)

    @property
    def history(self) -> tuple[DownloadError, ...]:
        """What an error or a result that comes now has as its ``attempts``."""
        return tuple(self._history)

    def retries_status(self, status_code: int, now: float, retry_after: float | None = None) -> bool:
        """Return whether a response with this status is to be tried again: `failed` would then return a wait."""
        if status_code not in self._retry.statuses or not self._has_more(self._barren + 1):
            return False
        return self._has_time(self._left(now), retry_after)

    def failed(
        self,
        error: DownloadError,
        now: float,
        *,
        progressed: bool,
        random: float,
        retry_after: float | None = None,
        brought: int = 0,
    ) -> float | None:
        """Take note that a try ended with ``error``; return the seconds to wait before the next, or None: that was all.

        ``now`` is the time, in seconds of one clock.  ``progressed`` says whether the try brought bytes that were not
        there before it, and ``brought`` how many.  ``random`` is drawn by the caller from [0, 1).  ``retry_after`` is
        what the response said, in seconds.  An error that is followed by another try joins the history; the last one
        does not: it is what the task ends with.
        """
        if progressed:
            self._barren, self._since = 0, None
            self._ceiling = min(self._retry.backoff, self._retry.max_delay)
        else:
            self._barren += 1
        left = self._left(now)
        if self._since is None:
            self._since = now
        if not self._has_more(self._barren) or not self._has_time(left, retry_after) or not self._may_repeat(error):
            return None
        _drop_tracebacks(error)
        self._history.append(error)
        delay = self._next_delay(random)
        return min(left, max(0.0 if brought >= WORTH_ANOTHER else delay, self._asked_for(retry_after)))

    def _has_more(self, barren: int) -> bool:
        return self._retry.attempts > 1 and barren < self._retry.attempts  # one is one, whatever it brought

    def _left(self, now: float) -> float:
        """Return how many seconds from now on the last try may begin."""
        if self._retry.max_time is None:
            return inf
        return self._retry.max_time - (0.0 if self._since is None else now - self._since)

    def _has_time(self, left: float, retry_after: float | None) -> bool:
        return left > 0 and self._asked_for(retry_after) <= left

    def _may_repeat(self, error: DownloadError) -> bool:
        if isinstance(error, StatusError):
            return error.status_code in self._retry.statuses
        return is_transient(error)

    def _next_delay(self, random: float) -> float:
        """Exponential backoff with "full jitter": clients that failed together do not come back together."""
        assert 0 <= random < 1
        ceiling = self._ceiling
        # Step by step, as factor**n has no bound: n counts the tries of a task that may go on for ever.
        self._ceiling = min(self._retry.max_delay, ceiling * self._retry.factor)
        return ceiling * random if self._retry.jitter == "full" else ceiling

    def _asked_for(self, retry_after: float | None) -> float:
        if retry_after is None or not self._retry.respect_retry_after:
            return 0.0
        return min(retry_after, self._retry.max_retry_after)

    def __repr__(self) -> str:
        return f"<Attempts {self._barren} of {self._retry.attempts} without progress>"


def is_transient(error: DownloadError) -> bool:
    """Return whether the same request may succeed a little later.

    What is not in this table would fail again, or must not be hidden: a certificate that was refused, a server that
    breaks HTTP, a full disk, a wrong checksum, the caller's own limits.  A `StatusError` is not decided here but by
    `Retry.statuses`.
    """
    match error:
        case Timeout():
            return error.phase != Phase.TOTAL  # which includes all tries
        case ResolveError():
            return error.temporary
        case TLSError():
            return not error.certificate
        case ProxyError():
            return not error.permanent
        case ConnectError() | ConnectionLost() | IncompleteHead() | IncompleteBody():
            return True
    return False


def _drop_tracebacks(error: DownloadError) -> None:
    chain: list[BaseException] = [error]
    for exc in chain:
        exc.__traceback__ = None
        chain += [origin for origin in (exc.__cause__, exc.__context__) if origin is not None and origin not in chain]

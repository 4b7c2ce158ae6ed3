"""The event loop: readiness callbacks, timers, and a wake-up that works from any thread.  It knows no HTTP.

A turn reads the clock once, after the wait, and hands that ``now`` down; only other people's code makes it look again.
What is ready is served first, then what was handed over, then the timers that are due: nothing that came in time is
taken for late, however late the loop looks.  What any of them schedules runs in the next turn.
"""

from __future__ import annotations

import heapq
import selectors
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from mmap import mmap
from typing import Final, Protocol

from rawdl import sockets

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE
_SCRATCH: Final = 131072  # bytes of the second buffer
LONGEST_WAIT: Final = 86400.0  # seconds, a day: selectors refuse to wait for 25, and to look too early does no harm


class Selector(Protocol):
    """What the loop needs of a selector: a part of `selectors.BaseSelector`."""

    def register(self, fileobj: int, events: int, data: Watch) -> selectors.SelectorKey: ...
    def modify(self, fileobj: int, events: int, data: Watch) -> selectors.SelectorKey: ...
    def unregister(self, fileobj: int) -> selectors.SelectorKey: ...
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]: ...
    def close(self) -> None: ...


class Watch:
    """One registered socket: ``callback(mask)`` is called when one of ``events`` is ready."""

    __slots__ = ("callback", "events", "fd", "sock")

    def __init__(self, sock: sockets.Closable, events: int, callback: Callable[[int], None]) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.events = events
        self.callback = callback

    def __repr__(self) -> str:
        waits = [name for bit, name in ((READ, "read"), (WRITE, "write")) if self.events & bit]
        return f"<Watch of {self.fd} for {' and '.join(waits) or 'nothing'}>"


class Timer:
    """A callback at a point in time; `cancel` may be called at any moment, any number of times."""

    __slots__ = ("_loop", "callback", "when")

    def __init__(self, loop: Loop, when: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call it."""
        if self.callback is not None:
            self.callback = None
            self._loop.timer_cancelled()

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def __repr__(self) -> str:
        return f"<Timer at {self.when:.3f}{' over' if self.callback is None else ''}>"


class Loop:
    """Own a selector, a heap of timers and a queue of callbacks; `step` is one turn.

    Everything but `call_soon_threadsafe` and `wake` belongs to the thread that steps.
    """

    def __init__(
        self,
        *,
        selector: Selector | None = None,
        clock: Callable[[], float] | None = None,
        buffer_size: int = 1048576,
    ) -> None:
        self._selector: Selector = selector or selectors.DefaultSelector()
        self._clock = clock or time.monotonic
        self._watches: dict[int, Watch] = {}
        self._timers: list[Timer] = []
        self._due: deque[Timer] = deque()  # those of them whose turn it is
        self._cancelled = self.turns = 0
        self._ready: deque[Callable[[], None]] = deque()
        self._handed: deque[Callable[[], None]] = deque()
        self._woken = self.closed = False
        self._wake_in, self._wake_out = sockets.pair()
        self.register(self._wake_in, READ, self._on_wake)
        self.now = self._clock()
        self.wall_time = time.time  # POSIX seconds
        self.absent = 0.0  # seconds in all that went by in other people's code, when nobody looked
        self._buffer_size = buffer_size

    @cached_property
    def buffer(self) -> memoryview:
        """The one buffer that all connections read into: a turn serves one at a time, so one is enough.

        Of a mapping, only the pages that are used take memory.
        """
        return memoryview(mmap(-1, self._buffer_size))

    @cached_property
    def scratch(self) -> memoryview:
        """A second one, for a connection that has to transform what it reads."""
        return memoryview(bytearray(min(self._buffer_size, _SCRATCH)))

    # Descriptors

    def register(self, sock: sockets.Closable, events: int, callback: Callable[[int], None]) -> int:
        """Call ``callback(mask)`` whenever one of ``events`` (READ | WRITE) is ready, until `unregister`.

        Return the descriptor, by which the socket is known here from now on.
        """
        watch = Watch(sock, events, callback)
        self._watches[watch.fd] = watch  # first: who is interrupted in the middle of this can unregister it
        self._selector.register(watch.fd, events, watch)
        return watch.fd

    def modify(self, fd: int, events: int) -> int:
        """Wait for other events on a registered descriptor (0: for none, not even for its end); return those before."""
        watch = self._watches[fd]
        before, watch.events = watch.events, 0  # where the selector refuses, it has forgotten it
        if not events and before:
            self._selector.unregister(fd)  # a selector tells of errors whether asked or not, turn after turn
        elif events and not before:
            self._selector.register(fd, events, watch)
        elif events != before:
            self._selector.modify(fd, events, watch)
        watch.events = events
        return before

    def redirect(self, fd: int, callback: Callable[[int], None]) -> None:
        """Give a registered descriptor another callback."""
        self._watches[fd].callback = callback

    def unregister(self, fd: int) -> None:
        """Forget a descriptor; always before it is closed.  Its callback is not called any more, even in this turn."""
        if self._watches.pop(fd, None) is not None:
            with suppress(KeyError):  # it waited for nothing; or an interrupt came as that was changed: who knows?
                self._selector.unregister(fd)

    # Callbacks and timers

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in the next turn."""
        self._ready.append(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call it in the first turn at or after ``when``."""
        timer = Timer(self, when, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def timer_cancelled(self) -> None:
        """Take note of one more dead timer in the heap, and rebuild it once most of it is: at O(1) for each."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call it in the next turn, and wake the loop for it.  From any thread, and from a signal handler."""
        self._handed.append(callback)
        self.wake()

    def wakeup_fileno(self) -> int:
        """Return the descriptor that wakes the loop when something is written to it; it does not block."""
        return self._wake_out.fileno()

    def wake(self) -> None:
        """Make `fileno` readable, so that a wait ends.  From any thread, and from a signal handler."""
        if not self._woken:
            self._woken = True
            with suppress(OSError):  # it is full of wake-ups already, or the loop was closed: either way nobody sleeps
                self._wake_out.send(b"\0")

    # Driving

    def fileno(self) -> int:
        """Return the descriptor that is readable whenever a descriptor is ready or the loop was woken."""
        fileno: Callable[[], int] | None = getattr(self._selector, "fileno", None)
        if fileno is None:
            raise RuntimeError(f"{type(self._selector).__name__} has no descriptor to wait for")
        return fileno()

    def next_deadline(self, *, shared: bool = False) -> float | None:
        """Return when a step has something to do of itself, in the loop's clock; None: not before something happens."""
        if self._ready or self._handed or self._due:
            return self.now
        if shared:  # with another thread, which may be setting timers: the heap is to be left alone
            return min((timer.when for timer in tuple(self._timers) if timer.callback is not None), default=None)
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0].when if self._timers else None

    def time(self) -> float:
        """Read the clock."""
        return self._clock()

    def back_from(self, began: float) -> None:
        """Take note that other people's code ran from ``began`` until now."""
        self.now = self._clock()
        self.absent += self.now - began

    def wall_offset(self) -> float:
        """Return what to add to a time of this clock for POSIX seconds, as of now."""
        return self.wall_time() - self._clock()

    def step(self, timeout: float | None = 0) -> None:
        """Run one turn: wait at most ``timeout`` seconds (None: until something happens), then run what is ready."""
        fired = self._selector.select(self._patience(timeout))
        self.now = now = self._clock()
        self.turns += 1
        soon = len(self._ready)
        for key, mask in fired:
            watch: Watch = key.data
            # A callback that ran before may have closed this one, or closed it and opened another with its number.
            if self._watches.get(watch.fd) is watch:
                watch.callback(mask)
        if self._handed:
            self.run_handed()
        while self._timers and self._timers[0].when <= now:
            self._due.append(heapq.heappop(self._timers))
        while self._due:  # what an interrupt leaves of them is left to the next turn
            timer = self._due.popleft()
            if timer.callback is None:
                self._cancelled -= 1
            else:
                callback, timer.callback = timer.callback, None
                callback()
        while soon and not self.closed:
            soon -= 1
            self._ready.popleft()()

    @property
    def has_handed(self) -> bool:
        """Whether something was handed over and has not run."""
        return bool(self._handed)

    def run_handed(self) -> None:
        """Run what other threads and signal handlers have handed over."""
        for _ in range(len(self._handed)):
            self._handed.popleft()()

    def _patience(self, timeout: float | None) -> float | None:
        if self._ready or self._handed or self._due:
            return 0
        deadline = self.next_deadline()
        if deadline is not None:
            timeout = min(max(0.0, deadline - self._clock()), LONGEST_WAIT if timeout is None else timeout)
        return timeout if timeout is None else min(timeout, LONGEST_WAIT)

    def _on_wake(self, mask: int) -> None:
        # In this order: what is handed over once the flag is down sends a byte of its own.
        with suppress(BlockingIOError):
            self._wake_in.recv(64)
        self._woken = False

    @property
    def has_callbacks(self) -> bool:
        """Whether callbacks are pending that a step would run at once."""
        return bool(self._ready or self._handed or self._due)

    def close(self) -> None:
        """Close the selector and the wake-up; and what is still registered, whose owners were interrupted."""
        if self.closed:
            return
        self.closed = True
        for watch in list(self._watches.values()):
            self.unregister(watch.fd)
            watch.sock.close()
        self._wake_out.close()
        self._selector.close()
        for left in (self._timers, self._due, self._ready):
            left.clear()

    def abandon(self) -> None:
        """Close this process's copies after a fork; they stay registered: the selector is the parent's as well."""
        self.closed = True
        while self._watches:
            self._watches.popitem()[1].sock.close()
        self._wake_out.close()
        self._selector.close()

    def __repr__(self) -> str:
        return f"<Loop {len(self._watches)} watched, {len(self._timers)} timers, {len(self._ready)} pending>"

"""A selector over simulated sockets, whose select() is what makes virtual time pass."""

from __future__ import annotations

import math
import selectors
from collections.abc import Mapping
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.world import World

FIRST_FD = 1_000_000  # simulated descriptors begin here, far above what a kernel gives
BUSY = 10_000  # calls of select() in one moment with nothing happening in between: a busy loop


class Deadlock(AssertionError):
    """Nothing will ever happen again and no timer runs; or select() is called for ever in one moment."""


class Selector(selectors.BaseSelector):
    """Watch descriptors by number. Real ones (the loop's wake-up) are looked at, but never waited for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._keys: dict[int, SelectorKey] = {}
        self._hot: set[int] = set()  # the only simulated descriptors that may be ready
        self._real: selectors.BaseSelector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._moment, self._idle_turns = (-1.0, -1), 0
        self.turns = 0  # calls of select() so far

    def register(self, fileobj: int, events: int, data: object = None) -> SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"{fd} is already registered")
        if fd < FIRST_FD:
            self._real.register(fd, events)
        elif fd not in self._world.sockets:
            raise self._world.bug(f"registered descriptor {fd}, which is closed")
        key = self._keys[fd] = SelectorKey(fileobj, fd, events, data)
        self._hot.add(fd)
        return key

    def unregister(self, fileobj: int) -> SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys.pop(fd)  # KeyError, as a real one
        self._hot.discard(fd)
        if fd < FIRST_FD:
            self._real.unregister(fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Return what is ready, after as much virtual time as that takes, `timeout` seconds at most."""
        world = self._world
        self.turns += 1
        self._refuse_busy_loop()
        # Never short of the caller's timer by a rounding error, which would make it call again and again.
        deadline = None if timeout is None else max(world.now + timeout, math.nextafter(world.now, math.inf))
        world.run_due()
        while not (ready := self._ready()) and not world.interrupted:
            if timeout is not None and timeout <= 0:
                break
            if not world.advance(deadline):
                break
        world.interrupted = False
        return ready

    def close(self) -> None:
        self._real.close()
        self._keys.clear()

    def get_map(self) -> Mapping[int, SelectorKey]:  # type: ignore[override]
        return self._keys

    def touch(self, fd: int) -> None:
        """Note that a socket's state has changed."""
        if fd in self._keys:
            self._hot.add(fd)

    def _ready(self) -> list[tuple[SelectorKey, int]]:
        ready = [(self._keys[key.fd], mask) for key, mask in self._real.select(0)]
        for fd in sorted(self._hot):
            if mask := self._readiness(self._keys[fd]):
                ready.append((self._keys[fd], mask))
            else:
                self._hot.discard(fd)
        if self._world.spurious:
            ready += self._spurious({key.fd for key, _ in ready})
        if len(ready) > 1:
            self._world.random.shuffle(ready)
        return ready

    def _readiness(self, key: SelectorKey) -> int:
        if key.fd < FIRST_FD:
            return 0
        socket = self._world.sockets[key.fd]
        mask = (EVENT_READ if socket.readable else 0) | (EVENT_WRITE if socket.writable else 0)
        return mask & key.events

    def _spurious(self, already: set[int]) -> list[tuple[SelectorKey, int]]:
        """Claim at random that connected sockets are ready which are not."""
        connected = sorted(fd for fd in self._keys if fd >= FIRST_FD and self._world.sockets[fd].connected)
        idle = [self._keys[fd] for fd in connected if fd not in already]
        return [(key, key.events) for key in idle if self._world.random.random() < self._world.spurious]

    def _refuse_busy_loop(self) -> None:
        moment = (self._world.now, self._world.happenings)
        self._idle_turns = self._idle_turns + 1 if moment == self._moment else 0
        self._moment = moment
        if self._idle_turns > BUSY:
            raise Deadlock(f"select() was called {BUSY} times and nothing happened\n{self._world.describe()}")

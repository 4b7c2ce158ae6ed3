"""Who may have a connection, and which are idle: limits, the queue, and reuse.

A task gets a *slot* before it may connect: at most ``max_concurrent`` slots are out at once, and at most
``max_per_host`` to one origin.  The others wait, first come, first served; one that waits for its origin does not hold
up those for another.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from rawdl.connection import Connection
from rawdl.errors import ConnectionLost
from rawdl.loop import READ, Loop, Timer
from rawdl.proto.url import Origin

if TYPE_CHECKING:
    from ssl import SSLContext

    from rawdl.proto.proxy import Proxy

# Servers close an idle connection after 5 s (Apache) to 75 s (nginx): later than this, a reuse mostly meets a close.
_IDLE_SECONDS: Final = 60.0
# Over all origins: beyond what a client has in use, idle connections are a convenience and not worth descriptors.
_MAX_IDLE: Final = 100


class Key(NamedTuple):
    """What a connection must have in common with a task to be its.

    That is the origin, how it is authenticated, and by which proxy it is reached, as whom.
    """

    origin: Origin
    context: SSLContext | None
    proxy: Proxy | None = None

    @property
    def forwarder(self) -> Proxy | None:
        """The proxy that is asked itself for an http URL: with https and SOCKS, it is only on the way."""
        return self.proxy if self.context is None and self.proxy is not None and self.proxy.speaks_http else None


class Slot:
    """A place in the queue, and then the right to one connection; ``granted`` is called when it becomes that.

    An ``extra`` one is for one more connection of a task that has one.
    """

    __slots__ = ("extra", "granted", "held", "key", "number")

    def __init__(self, key: Key, number: int, granted: Callable[[], None], *, extra: bool = False) -> None:
        self.extra = extra
        self.key = key
        self.number = number
        self.granted: Callable[[], None] | None = granted
        self.held = False

    def __repr__(self) -> str:
        state = "held" if self.held else "waiting" if self.granted is not None else "given back"
        return f"<Slot {self.number} for {self.key.origin} {state}>"


class _Host:
    """One key's queue, slots and idle connections; it goes when all three are empty."""

    __slots__ = ("extras", "held", "idle", "offered", "waiting")

    def __init__(self) -> None:
        self.offered = 0  # the number under which it is among the eligible
        self.waiting: deque[Slot] = deque()
        self.extras: deque[Slot] = deque()
        self.held = 0
        self.idle: list[tuple[float, Connection]] = []  # until when, and which

    def __repr__(self) -> str:
        waiting = len(self.waiting) + len(self.extras)
        return f"<_Host {self.held} in use, {len(self.idle)} idle, {waiting} waiting>"


class Pool:
    """Hand out slots and keep idle connections."""

    def __init__(self, loop: Loop, *, max_concurrent: int, max_per_host: int) -> None:
        self._loop = loop
        self._max_concurrent = max_concurrent
        self._max_per_host = max_per_host
        self._hosts: dict[Key, _Host] = {}
        self._held = 0
        self._numbers = 0
        # The first in line of each host that has room: (its number, its key).  Entries may be out of date.
        self._eligible: list[tuple[int, Key]] = []
        self._expectant: set[Key] = set()  # of the hosts at which extras wait
        self._scheduled = False
        self._idle = 0
        self._expiry: Timer | None = None

    # Slots

    def submit(self, key: Key, granted: Callable[[], None]) -> Slot:
        """Stand in line; ``granted`` is called in a later turn."""
        self._numbers += 1
        slot = Slot(key, self._numbers, granted)
        host = self._host(key)
        host.waiting.append(slot)
        if len(host.waiting) == 1:
            self._offer(key, host)
        return slot

    def submit_extra(self, key: Key, granted: Callable[[], None]) -> Slot:
        """Ask for one more connection, behind every task that could begin; ``granted`` is called in a later turn."""
        self._numbers += 1
        slot = Slot(key, self._numbers, granted, extra=True)
        self._host(key).extras.append(slot)
        self._expectant.add(key)
        self._schedule()
        return slot

    def _grant_extras(self) -> None:
        """Give what room the tasks leave at a host to those that have a connection there."""
        for key in list(self._expectant):
            host = self._host(key)
            while host.extras and (host.extras[0].granted is None or host.held < self._max_per_host):
                slot = host.extras.popleft()
                granted, slot.granted = slot.granted, None
                if granted is not None:
                    slot.held = True
                    host.held += 1
                    granted()
            if not self._host(key).extras:
                self._expectant.discard(key)
            self._offer(key, self._host(key))

    def rejoin(self, slot: Slot, key: Key, granted: Callable[[], None]) -> None:
        """Give a slot back and stand in line again, for another origin perhaps, in the place that its number has.

        For a task that has begun: it goes before those that have not.
        """
        self.release(slot)
        slot.key, slot.granted = key, granted
        host = self._host(key)
        place = next((at for at, other in enumerate(host.waiting) if other.number > slot.number), len(host.waiting))
        host.waiting.insert(place, slot)
        self._offer(key, host)

    def release(self, slot: Slot) -> None:
        """Give a slot back, or leave the line."""
        slot.granted = None
        host = self._hosts.get(slot.key)
        if host is None:
            return  # it was in no line
        if slot.held:
            slot.held = False
            self._held -= not slot.extra
            host.held -= 1
        self._offer(slot.key, host)
        self._schedule()

    def _host(self, key: Key) -> _Host:
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = _Host()
        return host

    def _offer(self, key: Key, host: _Host) -> None:
        """Enter a host's first in line among the eligible, if it has room."""
        while host.waiting and host.waiting[0].granted is None:
            host.waiting.popleft()
        if host.waiting and host.held < self._max_per_host:
            number = host.waiting[0].number
            if number != host.offered:
                host.offered = number
                heapq.heappush(self._eligible, (number, key))
            self._schedule()
        elif not (host.waiting or host.extras or host.held or host.idle) and self._hosts.get(key) is host:
            del self._hosts[key]

    def _schedule(self) -> None:
        tasks = self._eligible and self._held < self._max_concurrent
        if not self._scheduled and (tasks or self._expectant):
            self._scheduled = True
            self._loop.call_soon(self._grant)

    def _grant(self) -> None:
        self._scheduled = False
        while self._eligible and self._held < self._max_concurrent:
            number, key = heapq.heappop(self._eligible)
            host = self._hosts.get(key)
            if host is None or host.offered != number:
                continue
            host.offered = 0
            if not host.waiting or host.waiting[0].number != number or host.held >= self._max_per_host:
                self._offer(key, host)
                continue
            slot = host.waiting.popleft()
            granted, slot.granted = slot.granted, None
            if granted is not None:
                slot.held = True
                self._held += 1
                host.held += 1
                granted()
            self._offer(key, host)
        if self._expectant:
            self._grant_extras()

    # Idle connections

    def take(self, key: Key) -> Connection | None:
        """Return the idle connection that was used last, if there is one."""
        host = self._hosts.get(key)
        while host is not None and host.idle:
            _, connection = host.idle.pop()
            self._idle -= 1
            if _is_silent(connection, self._loop.buffer):
                return connection
            connection.close()
        return None

    def give(self, key: Key, connection: Connection) -> None:
        """Keep a connection whose exchange is complete and left no reason to close it."""
        now = self._loop.now
        # Nothing may arrive on it: whatever does is a close, or belongs to no request (RFC 9112 9.2).
        connection.watch(READ, lambda mask: self._discard(key, connection))
        self._hosts[key].idle.append((now + _IDLE_SECONDS, connection))
        self._idle += 1
        if self._idle > _MAX_IDLE:
            self._close_oldest()
        if self._expiry is None:
            self._expiry = self._loop.call_at(now + _IDLE_SECONDS, self._expire)

    def _discard(self, key: Key, connection: Connection) -> None:
        host = self._hosts[key]
        host.idle = [idle for idle in host.idle if idle[1] is not connection]
        self._idle -= 1
        connection.close()
        if not self._idle and self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._offer(key, host)

    def _close_oldest(self) -> None:
        key = min((key for key, host in self._hosts.items() if host.idle), key=lambda key: self._hosts[key].idle[0][0])
        self._discard(key, self._hosts[key].idle[0][1])

    def _expire(self) -> None:
        self._expiry = None
        now = self._loop.now
        for key, host in list(self._hosts.items()):
            for until, connection in list(host.idle):
                if until <= now:
                    self._discard(key, connection)
        due = [host.idle[0][0] for host in self._hosts.values() if host.idle]
        if due:
            self._expiry = self._loop.call_at(min(due), self._expire)

    # Looking

    def by_origin(self) -> dict[Origin, tuple[int, int]]:
        """Return how many slots are out for each origin, and how many connections to it are idle.  In any thread."""
        found: dict[Origin, tuple[int, int]] = {}
        for key, host in list(self._hosts.items()):
            held, idle = found.get(key.origin, (0, 0))
            if host.held or host.idle:
                found[key.origin] = held + host.held, idle + len(host.idle)
        return found

    def close(self) -> None:
        """Close every idle connection."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        for key, host in list(self._hosts.items()):
            for _, connection in list(host.idle):
                self._discard(key, connection)

    def __repr__(self) -> str:
        waiting = sum(len(host.waiting) for host in self._hosts.values())
        return f"<Pool {self._held} in use, {self._idle} idle, {waiting} waiting>"


def _is_silent(connection: Connection, buffer: memoryview) -> bool:
    """Look whether nothing has come on a connection since its last response, which belongs to no request.

    The loop watches it too, but may have had no time to look.
    """
    try:
        return connection.recv_into(buffer[:1]) is None
    except ConnectionLost:
        return False

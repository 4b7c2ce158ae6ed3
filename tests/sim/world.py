"""The world: its clock, what will happen in it, who is in it, and what did happen."""

from __future__ import annotations

import heapq
import itertools
import random
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from tests.origin import Request
from tests.sim.conn import Conn, Link, Listener, Peer
from tests.sim.dns import Name, Resolver, is_address
from tests.sim.selector import FIRST_FD, Deadlock, Selector
from tests.sim.sock import Socket

if TYPE_CHECKING:
    import rawdl

START = 1000.0  # seconds: what the clock shows in the beginning; not 0, which would hide rounding
LAST_LINES = 60  # of the log, printed when a test fails


class Timer:
    """An event to come."""

    def __init__(self, action: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self._action: Callable[..., object] | None = action
        self._arguments = arguments

    def cancel(self) -> None:
        self._action = None

    @property
    def live(self) -> bool:
        return self._action is not None

    def fire(self) -> None:
        if self._action:
            self._action(*self._arguments)


class World:
    """A network of simulated hosts. At the end of its context all clients are closed and nothing may be left open."""

    def __init__(self, seed: int = 0, *, spurious: float = 0.0) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.spurious = spurious  # the chance that select() names a descriptor that is not ready
        self.now = START
        self.log: list[tuple[float, str]] = []  # (seconds since the start, what)
        self.requests: list[Request] = []  # what http_peers were asked
        self.conns: list[Conn] = []
        self.sockets: dict[int, Socket] = {}  # the open ones, by descriptor
        self.selectors: list[Selector] = []
        self.resolver = Resolver(self)
        self.bugs: list[BaseException] = []  # misuse of the bench by the client, and what peers raised
        self.happenings = 0  # grows whenever anything happens
        self.interrupted = False  # select() is to return, ready or not
        self._free_fds: list[int] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence, self._host_numbers = itertools.count(), itertools.count()
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._clients: list[rawdl.Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *rest: object) -> None:
        if error:
            print(f"seed {self.seed}, after {self.elapsed:.6f} s", self.describe(), *self.tail(), sep="\n")
        for client in self._clients:
            with suppress(Exception if error else ()):  # the first error is the one to see
                client.close()
        for selector in self.selectors:
            selector.close()
        if not error:
            self.check()

    # Setting it up.

    def listen(
        self,
        host: str,
        port: int,
        peer: Peer | None = None,
        *,
        address: str | None = None,
        link: Link = Link(),  # noqa: B008 (it is frozen)
        tls: ssl.SSLContext | None = None,
        connect: Literal["accept", "refuse", "blackhole"] | int = "accept",
        connect_delay: float = 0.0,
    ) -> Listener:
        """Set up what becomes of connections to host:port, and add an address to the host's name.

        `address` is made up if it is left out; give one to have several for a host, in this order. Without a peer, a
        connection is accepted and nothing more. Return the listener, which may be changed during the run.
        """
        address = address or (host if is_address(host) else self._address_of(host))
        if not is_address(host) and address not in self.name(host).addresses:
            self.name(host).addresses.append(address)
        listener = Listener(peer, link, tls, connect, connect_delay)
        self._listeners[address, port] = listener
        return listener

    def name(self, host: str) -> Name:
        """Return what DNS says of a host, to be changed: addresses, delay, error, silent."""
        return self.resolver.names.setdefault(host, Name())

    def client(self, **options: object) -> rawdl.Client:
        """Make a client that lives in this world; its tasks are tried once, unless told otherwise."""
        from tests import once

        world = {"selector": self.new_selector(), "clock": self.clock, "resolver": self.resolver}
        client = once.client(**{**world, "socket_factory": self.socket, **options})
        self._clients.append(client)
        return client

    def new_selector(self) -> Selector:
        self.selectors.append(Selector(self))
        return self.selectors[-1]

    @property
    def selector(self) -> Selector:
        """Return the first selector: that of the first client."""
        return self.selectors[0] if self.selectors else self.new_selector()

    def random_link(self) -> Link:
        """Draw a sound link: slow or fast, whole or in crumbs."""
        draw = self.random
        return Link(
            latency=draw.choice([0.0, 0.001, 0.05, 0.3]),
            jitter=draw.choice([0.0, 0.02]),
            bandwidth=draw.choice([None, 20_000.0, 1e6, 1e8]),
            segment=draw.choice([1460, 65536, (1, 3), (1, 1460), (1, 65536)]),
            window=draw.choice([4096, 65536, 1 << 20]),
            send_window=draw.choice([1, 50, 65536]),
        )

    # Letting time pass.

    def clock(self) -> float:
        return self.now

    @property
    def elapsed(self) -> float:
        return self.now - START

    def after(self, seconds: float, action: Callable[..., object], *arguments: object) -> Timer:
        """Let something happen that many seconds from now."""
        return self.at(self.now + seconds, action, *arguments)

    def at(self, when: float, action: Callable[..., object], *arguments: object) -> Timer:
        """Let something happen when the clock shows `when`."""
        timer = Timer(action, arguments)
        heapq.heappush(self._timers, (when, next(self._sequence), timer))
        return timer

    def interrupt(self, seconds: float, action: Callable[..., object], *arguments: object) -> Timer:
        """Run something of the client's inside select(), where a signal handler would run; select() then returns."""
        return self.after(seconds, self._interrupt, action, arguments)

    def drive(self, client: rawdl.Client, until: float | Callable[[], bool]) -> None:
        """Step a client until so many seconds have elapsed since the start, or until a condition is true."""
        if callable(until):
            while not until():
                assert client.step(None), "the client has nothing left to do, and the condition is false"
            return
        end = START + until
        while self.now < end and client.step(end - self.now):
            pass
        self.wait(end - self.now)

    def wait(self, seconds: float = 60.0) -> None:
        """Let time pass without any client: what is under way arrives."""
        end = self.now + seconds
        while self.advance(end):
            pass

    def advance(self, deadline: float | None) -> bool:
        """Go to the next moment in which something happens; to the deadline, returning False, if that is sooner."""
        while self._timers and not self._timers[0][2].live:
            heapq.heappop(self._timers)
        if self._timers and (deadline is None or self._timers[0][0] <= deadline):
            self.now = max(self.now, self._timers[0][0])
            self.run_due()
            return True
        if deadline is None:
            raise Deadlock(f"nothing will ever happen again, and no timer runs\n{self.describe()}")
        self.now = max(self.now, deadline)
        return False

    def run_due(self) -> None:
        """Let happen what is due at this moment."""
        while self._timers and self._timers[0][0] <= self.now:
            _, _, timer = heapq.heappop(self._timers)
            self.happenings += 1
            try:
                timer.fire()
            except Exception as error:
                self.bugs.append(error)
                raise

    # Looking at it.

    def note(self, what: str) -> None:
        self.log.append((round(self.elapsed, 6), what))

    def seen(self, what: str) -> list[float]:
        """Return when, in seconds since the start, lines with this text were logged."""
        return [when for when, line in self.log if what in line]

    def describe(self) -> str:
        """Tell the state of everything that is open."""
        watched = {fd: key.events for selector in self.selectors for fd, key in selector.get_map().items()}
        lines = [
            f"  {each.conn or each}, watched for {watched.get(fd, 0)}" for fd, each in sorted(self.sockets.items())
        ]
        return "\n".join(lines or ["  no socket is open"])

    def tail(self) -> list[str]:
        return [f"  {when:12.6f} {what}" for when, what in self.log[-LAST_LINES:]]

    def check(self) -> None:
        """Fail if the client misused the bench, even if it swallowed the error, or if it left a socket open."""
        if self.bugs:
            raise self.bugs[0]
        assert not self.sockets, f"left open:\n{self.describe()}"

    # What sockets and selectors call.

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> Socket:
        """Make a socket, with the lowest free descriptor, as a kernel does."""
        fd = heapq.heappop(self._free_fds) if self._free_fds else FIRST_FD + len(self.sockets)
        self.sockets[fd] = Socket(self, fd, family)
        return self.sockets[fd]

    def connect(self, client: Socket, address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[int, Conn]:
        """Begin a connection; where nobody listens it is refused. Return the errno known at once, 0 without one."""
        listener = self._listeners.get((address[0], address[1])) or Listener(connect="refuse")
        conn = Conn(self, len(self.conns) + 1, client, replace(listener))
        self.conns.append(conn)
        conn.note(f"connect {address[0]}:{address[1]}")
        return conn.start_connecting(), conn

    def release(self, fd: int) -> None:
        del self.sockets[fd]
        heapq.heappush(self._free_fds, fd)

    def touch(self, fd: int) -> None:
        for selector in self.selectors:
            selector.touch(fd)

    def bug(self, what: str) -> AssertionError:
        """Record misuse of the bench, and return it to be raised."""
        error = AssertionError(what)
        self.bugs.append(error)
        return error

    def _interrupt(self, action: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.interrupted = True
        action(*arguments)

    def _address_of(self, host: str) -> str:
        """Return the host's first address; a new one if it has none."""
        if addresses := self.name(host).addresses:
            return addresses[0]
        number = next(self._host_numbers)
        return f"10.0.{number // 250}.{number % 250 + 1}"

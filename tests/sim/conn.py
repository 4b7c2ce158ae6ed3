"""The peer's end of a simulated connection, and the link between the two ends."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass
from errno import ECONNREFUSED, ECONNRESET
from inspect import isgenerator
from typing import TYPE_CHECKING, Literal

from tests.origin import TLSEngine

if TYPE_CHECKING:
    from tests.sim.sock import Socket
    from tests.sim.world import Timer, World

SEND_BUFFER = 65536  # bytes that a peer's kernel takes off its hands
PIECE = 16384

# What a generator peer yields: seconds to sleep, a condition to wait for, or None: until the client closes.
Pause = float | Callable[[], bool] | None
Peer = Callable[["Conn"], Generator[Pause, None, None] | None]
Ending = Literal["fin", "rst", "half"]


@dataclass(frozen=True)
class Link:
    """The way between the client and one host. Offsets count TCP bytes towards the client, those of TLS included."""

    latency: float = 0.01  # seconds, one way
    jitter: float = 0.0  # seconds: up to so much more for a segment towards the client; the order is kept
    bandwidth: float | None = None  # bytes per second towards the client; None: no limit
    segment: int | tuple[int, int] = PIECE  # most bytes that one recv returns; (low, high): drawn for each
    merged: bool = False  # one recv returns what several segments have brought, as a kernel does
    window: int = 262144  # the client's kernel buffer: what it does not read, the peer cannot send
    send_window: int = 65536  # bytes of the client's that may be under way before its send() would block
    deaf: bool = False  # the peer takes and acknowledges nothing, so that the client's send() blocks for good
    stall_at: int | None = None  # offset at which the link goes silent ...
    stall_for: float | None = None  # ... for that many seconds; None: for ever
    cut_at: int | None = None  # offset after which the connection ends; 0: before any byte
    cut: Literal["fin", "rst"] = "fin"
    cut_error: int = ECONNRESET  # what the client's kernel reports for a "rst"
    reset_discards: bool = False  # a reset throws away what the client has not read, as on Windows


@dataclass
class Listener:
    """What becomes of connections to one address. It may be changed during a run; that holds for later connections.

    connect: "accept", "refuse", "blackhole" (no answer ever), or an errno: from connect_ex() itself or, with a
    connect_delay, that many seconds later.
    """

    peer: Peer | None = None
    link: Link = Link()
    tls: ssl.SSLContext | None = None
    connect: Literal["accept", "refuse", "blackhole"] | int = "accept"
    connect_delay: float = 0.0  # seconds beside the round trip


class Conn:
    """What a peer is given for each connection. See the first part for what it may use.

    A peer that is a generator function sleeps and waits by yielding a `Pause`; it is closed when the client closes, and
    when it returns, the connection ends by FIN. A plain function is called once, and may set `on_data`.
    """

    def __init__(self, world: World, number: int, socket: Socket, listener: Listener) -> None:
        self.world, self.number, self.link = world, number, listener.link
        self.client_address = ("10.255.0.1", 40000 + number)
        self.received = bytearray()  # plain bytes from the client, for the peer to take out
        self.on_data: Callable[[Conn], None] | None = None
        self.sent = 0  # TCP bytes put on the wire
        self.ended: Ending | None = None  # how the peer ended it
        self.client_closed: Ending | None = None  # how the peer saw the client end it

        self._socket, self._listener = socket, listener
        self._engine = TLSEngine(listener.tls) if listener.tls else None
        self._outgoing = bytearray()
        self._in_flight, self._free_at, self._arrived_at = 0, 0.0, 0.0
        self._stops = self._plan_stops()
        self._silent = False  # the link stalls
        self._answered = self._over = False  # the attempt to connect is decided; our end is on the wire
        self._generator: Generator[Pause, None, None] | None = None
        self._condition: Callable[[], bool] | None = None
        self._timer: Timer | None = None
        self._next_pump: float | None = None

    def __repr__(self) -> str:
        facts = [f"c{self.number}", self._listener.connect, repr(self._socket), f"sent={self.sent}"]
        facts += [f"outgoing={len(self._outgoing)}"] if self._outgoing else []
        facts += ["stalled"] if self._silent else []
        facts += [f"ended by {self.ended}"] if self.ended else []
        return " ".join(map(str, facts))

    def note(self, what: str) -> None:
        self.world.note(f"c{self.number} {what}")

    def writable(self) -> bool:
        """Say whether the peer's kernel would take more."""
        return len(self._outgoing) < SEND_BUFFER

    def send(self, data: bytes | memoryview) -> None:
        """Send without regard to back-pressure."""
        assert self.ended is None, f"{self!r}: its peer sends after the end"
        if self._engine:
            self._engine.send(data)
            data = self._engine.data_to_send()
        self._put(data)

    def write(self, data: bytes | memoryview) -> Generator[Pause, None, None]:
        """Send as the client takes it (`yield from`)."""
        for at in range(0, len(data), PIECE):
            if not self.writable():
                yield self.writable
            self.send(data[at : at + PIECE])

    def read_until(self, mark: bytes) -> Generator[Pause, None, bytes]:
        """Take what the client sent, up to and with the mark, waiting for it (`yield from`)."""
        if mark not in self.received:
            yield lambda: mark in self.received
        end = self.received.index(mark) + len(mark)
        data = bytes(self.received[:end])
        del self.received[:end]
        return data

    def end(self, how: Ending = "fin", *, close_notify: bool = True) -> None:
        """End the connection after what was sent. "half": a FIN, but what the client sends is still taken."""
        if self.ended:
            return
        if self._engine and close_notify and how != "rst":
            self._engine.close()
            self._put(self._engine.data_to_send())
        self.ended = how
        self._pump_in(0)

    # What the client's socket calls.

    def start_connecting(self) -> int:
        """Begin to answer a connect; return what connect_ex() knows at once."""
        outcome, delay = self._listener.connect, self._listener.connect_delay
        if isinstance(outcome, int) and not delay:
            self._answered = True
            self.note("connection failed at once")
            return outcome
        if outcome != "blackhole":
            self.world.after(2 * self.link.latency + delay, self._answer_connect, outcome)
        return 0

    def arrive(self, data: bytes) -> None:
        """Take bytes off the wire."""
        if self.link.deaf or self.client_closed == "rst":
            return
        if self._over and self.ended != "half":
            self.world.after(self.link.latency, self._socket.fail, ECONNRESET)
            return
        self.world.after(self.link.latency, self._socket.acknowledge, len(data))
        self.received += self._decrypt(data) if self._engine else data
        if self.on_data:
            self.on_data(self)
        self._poke()

    def client_reads(self) -> None:
        """Note that the client's window opens; we hear of it one way later."""
        if self._outgoing or self.ended:
            self._pump_in(self.link.latency)

    def client_closes(self, how: Ending) -> None:
        if not self._socket.connected:
            if not self._answered:
                self.note("client gave up connecting")
            return
        self.note(f"client sent {how.upper()}")
        self.world.after(self.link.latency, self._see_close, how)

    # The way to the client.

    def _put(self, data: bytes | memoryview) -> None:
        self._outgoing += data
        self._pump_in(0)

    def _pump_in(self, seconds: float) -> None:
        when = self.world.now + seconds
        if self._next_pump is None or when < self._next_pump:
            self._next_pump = when
            self.world.after(seconds, self._pump)

    def _pump(self) -> None:
        """Put on the wire what link and window allow; then the end, if there is to be one."""
        self._next_pump = None
        while self._outgoing and not self._silent and not self._over:
            n = min(self._draw_segment(), len(self._outgoing), self.link.window)
            n = min(n, self._stops[0][0] - self.sent) if self._stops else n
            if n > self.link.window - self._socket.buffered - self._in_flight:
                break
            self._transmit(bytes(self._outgoing[:n]))
            del self._outgoing[:n]
            self._stop_here()
        if self.ended and not self._outgoing and not self._silent and not self._over:
            self._end_wire(self.ended)
        self._poke()

    def _transmit(self, segment: bytes) -> None:
        self.sent += len(segment)
        self._in_flight += len(segment)
        occupied = len(segment) / self.link.bandwidth if self.link.bandwidth else 0.0
        self._free_at = max(self._free_at, self.world.now) + occupied
        jitter = self.world.random.uniform(0, self.link.jitter) if self.link.jitter else 0.0
        self._arrived_at = max(self._arrived_at, self._free_at + self.link.latency + jitter)
        self.world.at(self._arrived_at, self._deliver, segment)

    def _deliver(self, segment: bytes) -> None:
        self._in_flight -= len(segment)
        if self._socket.closed:
            self.world.after(self.link.latency, self._see_close, "rst")
        else:
            self._socket.feed(segment)

    def _end_wire(self, how: Ending) -> None:
        self._over, self.ended = True, how
        self.note(f"peer sent {how.upper()}")
        self._arrived_at = max(self._arrived_at, self.world.now + self.link.latency)
        if how == "rst":
            self.world.at(self._arrived_at, self._socket.fail, self.link.cut_error)
        else:
            self.world.at(self._arrived_at, self._socket.finish)

    def _draw_segment(self) -> int:
        segment = self.link.segment
        return segment if isinstance(segment, int) else self.world.random.randint(*segment)

    def _plan_stops(self) -> list[tuple[int, str]]:
        stops = [(self.link.stall_at, "stall"), (self.link.cut_at, "cut")]
        return sorted((at, what) for at, what in stops if at is not None)

    def _stop_here(self) -> None:
        """Do what the link is to do at this offset."""
        while self._stops and self._stops[0][0] == self.sent and not self._silent:
            _, what = self._stops.pop(0)
            if what == "cut":
                self._outgoing.clear()
                self._stop_peer()
                self._end_wire(self.link.cut)
            else:
                self._stall()

    def _stall(self) -> None:
        self._silent = True
        self.note(f"link stalls after {self.sent} bytes")
        if self.link.stall_for is not None:
            self.world.after(self.link.stall_for, self._go_on)

    def _go_on(self) -> None:
        self._silent = False
        self._stop_here()
        self._pump()

    # The peer's program.

    def _answer_connect(self, outcome: str | int) -> None:
        if self._socket.closed:
            return
        self._answered = True
        if outcome != "accept":
            self.note("connection failed" if isinstance(outcome, int) else "connection refused")
            self._socket.fail(outcome if isinstance(outcome, int) else ECONNREFUSED)
            return
        self.note("accepted")
        self._socket.establish()
        self._stop_here()
        if self.ended is None and self._listener.peer:
            self._start_peer(self._listener.peer)

    def _start_peer(self, peer: Peer) -> None:
        program = peer(self)
        if isgenerator(program):
            self._generator = program
            self._advance()

    def _advance(self) -> None:
        assert self._generator
        try:
            pause = next(self._generator)
        except StopIteration:
            self.end("fin")
            return
        if callable(pause):
            self._condition = pause
            self._poke()
        elif pause is not None:
            self._timer = self.world.after(pause, self._advance)

    def _poke(self) -> None:
        """Let the peer go on if what it waits for has come true."""
        if self._condition and self._condition():
            self._condition = None
            self._timer = self.world.after(0, self._advance)

    def _stop_peer(self) -> None:
        self._condition = self.on_data = None
        if self._timer:
            self._timer.cancel()
        if self._generator:
            self._generator.close()

    def _see_close(self, how: Ending) -> None:
        if self.ended == "rst" or self.client_closed == "rst":
            return
        self.note(f"peer saw {how.upper()}")
        self.client_closed = how
        if how == "rst":
            self._outgoing.clear()
            self._over = True
        if how != "half":
            self._stop_peer()

    def _decrypt(self, raw: bytes) -> bytes:
        assert self._engine
        try:
            plain = self._engine.receive(raw)
        except ssl.SSLError as error:
            self.note(f"TLS error {error.reason}")
            self._put(self._engine.data_to_send())
            self._stop_peer()
            self.end("fin", close_notify=False)
            return b""
        if reply := self._engine.data_to_send():
            self._put(reply)
        return plain

"""One request and its response, on one connection: a chain of steps from the dial to the body's last byte.

    begin ─► (dial) ─► send ─► head ─► body ─► done
               ▲         │       │
               └─────────┴───────┘  once, if a reused connection turns out to be dead

A step is a method that returns the next step, or None to be called again when its connection is ready.  Whatever goes
wrong in one is raised, and ends the fetch.  What a response means, and where its body goes, is the owner's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from rawdl.alarm import Alarm
from rawdl.connection import Connection, host_and_port
from rawdl.dial import Dial
from rawdl.errors import ConnectionLost, DownloadError, IncompleteBody, Timeout, unexpected
from rawdl.job import Shared, Terms
from rawdl.lanes import Lanes, deliver
from rawdl.loop import READ, WRITE
from rawdl.pool import Key
from rawdl.proto.events import BodyComplete, HeadReceived
from rawdl.proto.framing import Framing
from rawdl.proto.http11 import Exchange, HeadWriter
from rawdl.proto.messages import Request
from rawdl.proto.timeouts import Phase
from rawdl.results import Marks
from rawdl.sinks import Sink
from rawdl.throttle import Throttle

if TYPE_CHECKING:
    from rawdl.trace import Tracer

# What is read at once of a head whose body is taken little by little: most heads fit, and little more comes with them.
_PACED_HEAD: Final = 2048

Step = Callable[[], "Step | None"]


class FetchOwner(Protocol):
    """Whose fetch it is.  What these raise ends the fetch, as what it raises itself does."""

    @property
    def trace(self) -> Tracer | None:
        """Whom to tell the steps, if anybody."""

    @property
    def stopping(self) -> bool:
        """Whether the rest is not wanted any more, though `cancel` may still be on its way."""

    def fetch_sends(self) -> None:
        """There is a connection, and the request goes out."""

    def fetch_returns(self) -> None:
        """The connection was dead: another is made."""

    def fetch_answered(self, head: HeadReceived) -> Sink:
        """The head is there; return where the body goes."""

    def fetch_held_back(self, held: bool) -> None:
        """Our own rate limit keeps it from reading, or does so no longer; does not raise."""

    def fetch_received(self, received: int) -> None:
        """So many bytes of the body have come by now, and are in the sink."""

    def fetch_done(self, end: BodyComplete) -> None:
        """All of the body is in the sink; does not raise."""

    def fetch_failed(self, error: DownloadError) -> None:
        """There will be no more of it; everything is closed."""


class Fetch:
    """Carry out one request for its owner, who holds a slot for it.

    It may be cancelled in whatever is called; after `fetch_done` it must be, or released.
    """

    __slots__ = (
        "_alarm",
        "_connection",
        "_dial",
        "_exchange",
        "_key",
        "_lanes",
        "_marks",
        "_over",
        "_request",
        "_scheduled",
        "_shared",
        "_sink",
        "_step",
        "_terms",
        "_throttle",
        "framing",
        "owner",
        "paused",
        "trace",
    )

    def __init__(
        self,
        shared: Shared,
        owner: FetchOwner,
        key: Key,
        request: Request,
        terms: Terms,
        marks: Marks,
        throttle: Throttle | None,
    ) -> None:
        self._shared = shared
        self.owner = owner
        self._key = key
        self._request = request
        self._terms = terms
        self._marks = marks
        self._throttle = throttle
        self.trace = owner.trace
        self._alarm = Alarm(shared.loop, terms.timeouts, terms.low_speed, self._timed_out)
        self._dial: Dial | None = None
        self._connection: Connection | None = None
        self._exchange: Exchange | None = None
        self._sink: Sink | None = None  # once there is a head
        self._lanes: Lanes | None = None  # once more of the body is to come than came with the head
        self.paused = self._scheduled = False
        self._over = False
        self._step: Step | None = self._open
        self.framing: Framing | None = None  # of the body, once there is a head

    def begin(self) -> None:
        """Take a connection or make one, and go on from there."""
        self._shared.fetches.add(self)
        self._advance()

    def join(self, owner: FetchOwner) -> None:
        """Go on for another owner, who watches the speed of several together."""
        self.owner = owner
        self._alarm.forget_speed()

    @property
    def received(self) -> int:
        """Payload bytes of the response so far."""
        exchange = self._exchange  # another thread may ask, while it is being replaced
        return exchange.received if exchange is not None else 0

    def __repr__(self) -> str:
        state = "over" if self._over else "paused" if self.paused else self._alarm.phase or "not waiting"
        return f"<Fetch {self._request.url.redacted} {state}, {self.received} bytes>"

    # Getting a connection

    def _open(self) -> Step | None:
        connection = self._shared.pool.take(self._key)
        if connection is None:
            return self._connect
        self._connection = connection
        self._marks.reused = True
        if self.trace is not None:
            self.trace("connect", "reused", peer=connection.peer, exchanges=connection.exchanges)
        return self._begin_exchange

    def _connect(self) -> Step | None:
        self._dial = self._shared.dialer.dial(*self._key, self)
        self._step = self._begin_exchange
        return None

    def dial_entered(self, phase: Phase) -> None:
        """The dial has begun a phase."""
        now = self._shared.loop.now
        marks = self._marks
        if phase is Phase.RESOLVE:
            marks.lookup_start = now
        elif phase is Phase.CONNECT:
            marks.lookup_end = marks.connect_start = now
        elif phase is Phase.TLS:
            marks.tls_start = now
        self._alarm.enter(phase)

    def dial_done(self, connection: Connection) -> None:
        """The dial has a connection."""
        now = self._shared.loop.now
        self._marks.connect_end = now
        if self._marks.tls_start:
            self._marks.tls_end = now
        self._dial = None
        self._connection = connection
        if self.paused:
            connection.watch(READ, self._on_ready)
            connection.rest()
        self._advance()

    def dial_failed(self, error: DownloadError) -> None:
        """The dial has failed."""
        self._dial = None
        self._fail(error)

    # Sending the request

    def _begin_exchange(self) -> Step | None:
        assert self._connection is not None
        self._connection.exchanges += 1
        self._exchange = Exchange(self._request, limits=self._terms.limits, writer=self._writer())
        self.owner.fetch_sends()
        marks, now = self._marks, self._shared.loop.now
        marks.peer = host_and_port(self._connection.address)
        marks.request_start = now
        marks.sent = len(self._exchange.data_to_send())
        self._alarm.enter(Phase.SEND)
        if self.trace is not None:
            self.trace.request(self._request)
        return self._send

    def _writer(self) -> HeadWriter:
        proxy = self._key.forwarder
        if proxy is None:
            return self._shared.writer
        from rawdl.proto.proxy import ProxiedWriter

        return ProxiedWriter(proxy)

    def _send(self) -> Step | None:
        connection, exchange = self._connection, self._exchange
        assert connection is not None and exchange is not None
        try:
            while data := exchange.data_to_send():
                n = connection.send(data)
                if n is None:
                    return self._send_later(connection)
                exchange.data_sent(n)
            if not connection.flush():
                return self._send_later(connection)
        except ConnectionLost as exc:
            return self._last_words(connection, exchange, exc)
        connection.watch(READ, self._on_ready)
        self._marks.request_end = self._shared.loop.now
        self._alarm.enter(Phase.HEAD)
        if self.trace is not None:
            self.trace("send", "complete", bytes=self._marks.sent)
        self._step = self._receive_head  # when something has come: it cannot be there yet
        return None

    def _send_later(self, connection: Connection) -> Step | None:
        """Wait until more can be sent, or until the server answers what it has of the request (RFC 9112 9.5)."""
        connection.watch(READ | WRITE, self._on_ready)
        following = self._receive_head()
        if following == self._receive_head:
            return None  # an interim response, or a part of one: the request still wants to be sent
        if following is not None and not connection.closed:
            connection.watch(READ, self._on_ready)
        return following

    def _last_words(self, connection: Connection, exchange: Exchange, lost: ConnectionLost) -> Step | None:
        """Read what the server said before it broke the connection over which the request was being sent."""
        buffer = self._shared.loop.buffer
        try:
            n = connection.recv_into(buffer)
        except ConnectionLost:
            n = None
        if not n:
            return self._replace_stale(lost)
        exchange.receive_data(buffer[:n])
        self._marks.response_start = self._shared.loop.now
        return self._take_events()

    # Receiving the response

    def _on_ready(self, mask: int) -> None:
        if not self._scheduled:
            self._advance()

    def _go_soon(self) -> None:
        """Go on in the next turn, as if the connection were ready then: once in it."""
        if not self._scheduled:
            self._shared.loop.call_soon(self._go)  # first: an interrupt must not leave it waited for in vain
            self._scheduled = True

    def _go(self) -> None:
        self._scheduled = False
        self._advance()

    def _receive_head(self) -> Step | None:
        connection, exchange = self._connection, self._exchange
        assert connection is not None and exchange is not None
        buffer = self._shared.loop.buffer
        if self._throttle is not None or self._request.coded:
            buffer = buffer[:_PACED_HEAD]
        try:
            n = connection.recv_into(buffer)
        except ConnectionLost as exc:
            return self._replace_stale(exc)
        if n is None:
            return None
        if n == 0 and self._marks.reused and not self._marks.response_start:
            return self._replace_stale(ConnectionLost(f"{connection.peer} closed the reused connection"))
        if n == 0:
            exchange.receive_eof(clean=connection.clean_eof)
        else:
            exchange.receive_data(buffer[:n])
            self._marks.response_start = self._marks.response_start or self._shared.loop.now
        return self._take_events()

    def _replace_stale(self, lost: ConnectionLost) -> Step | None:
        """Go on with a fresh connection, if this one was reused and the server has said nothing on it.

        It had closed it before the request came (RFC 9112 9.3.1).  That happens once: the fresh one is not reused.
        """
        marks = self._marks
        if not marks.reused or marks.response_start:
            raise self._broken_before_body(lost) from lost.__cause__
        assert self._connection is not None
        if self.trace is not None:
            self.trace("connect", "stale", peer=self._connection.peer, error=lost)
        self._connection.abort()
        self._connection = self._exchange = None
        marks.reused = False
        self.owner.fetch_returns()
        return self._connect

    def _broken_before_body(self, lost: ConnectionLost) -> ConnectionLost:
        """Say how far the exchange had come when the connection broke."""
        exchange = self._exchange
        assert exchange is not None
        unsent, sent = len(exchange.data_to_send()), self._marks.sent
        if unsent:
            far = f"{sent - unsent} of {sent} bytes of the request"
        else:
            far = f"{exchange.head_received} bytes of the response head"
        return ConnectionLost(f"{lost}, after {far}", errno=lost.errno)

    def _take_events(self) -> Step | None:
        """Drain the exchange, and say what the fetch waits for then."""
        exchange = self._exchange
        assert exchange is not None
        pieces: list[memoryview] = []
        try:
            end = self._drain(exchange, pieces)
        finally:
            if pieces and not self._over:
                assert self._sink is not None
                deliver(pieces, self._sink, self._shared.loop)
        if self._over or self.owner.stopping:
            return None
        if end is not None:
            self._finish(end)
            return None
        if self._sink is None:
            return self._receive_head
        self._alarm.advance(exchange.received)
        if pieces:
            self.owner.fetch_received(exchange.received)
        return self._receive_body

    def _drain(self, exchange: Exchange, pieces: list[memoryview]) -> BodyComplete | None:
        """Gather the payload that has come, see to the head, and return the end of the body if that has come."""
        while not self._over:
            while self._sink is not None and (payload := exchange.take_payload()):
                pieces += payload
            event = exchange.next_event()
            if event is not None and self.trace is not None:
                self.trace.event(event)
            if event is None or isinstance(event, BodyComplete):
                return event
            if isinstance(event, HeadReceived):
                self._answered(event)
        return None

    def _answered(self, head: HeadReceived) -> None:
        """Have the owner look at the head, before any of the body."""
        self._alarm.leave()
        self.framing = head.framing
        if head.status_code == 407 and (proxy := self._key.forwarder) is not None:
            raise proxy.refused(407)
        self._sink = self.owner.fetch_answered(head)
        if not self._over:
            self._alarm.body_begins()

    def _receive_body(self) -> Step | None:
        """Move payload from the connection to the sink until the connection is dry, or the turn over."""
        connection, exchange, lanes = self._connection, self._exchange, self._lanes or self._open_lanes()
        assert connection is not None and exchange is not None
        for _ in range(lanes.reads):
            before = exchange.received
            try:
                n = lanes.move() if self._throttle is None else self._move_some(self._throttle, lanes)
            except ConnectionLost as exc:
                return self._broken_off(exchange, exc)
            if n is None:
                return None
            if n == 0:
                exchange.receive_eof(clean=connection.clean_eof)
                return self._take_events()
            if not exchange.has_data and not exchange.body_complete:
                self._alarm.advance(exchange.received)
                if exchange.received > before:  # else it was something between two chunks
                    self.owner.fetch_received(exchange.received)
            elif (following := self._take_events()) != self._receive_body:
                return following
            if self._over or self.paused or self.owner.stopping or (lanes.emptied and not connection.pending()):
                return None
        if connection.pending():
            self._go_soon()  # no readiness will be reported for what is decrypted already
        return None

    def _open_lanes(self) -> Lanes:
        connection, exchange, sink = self._connection, self._exchange, self._sink
        assert connection is not None and exchange is not None and sink is not None
        shared, idle = self._shared, self._terms.timeouts.idle
        self._lanes = Lanes(shared.loop, shared.pipe, connection, exchange, sink, idle=idle, look=self._advance)
        return self._lanes

    def _move_some(self, throttle: Throttle, lanes: Lanes) -> int | None:
        """Read what the rate limit allows; where that is nothing, do not look before the next turn."""
        allowed = throttle.allowed()
        if not allowed:
            self._rest()
            self.owner.fetch_held_back(True)
            throttle.wait(self._turn_comes)
            return None
        n = lanes.move(allowed)
        throttle.spent(n or 0)
        return n

    def _turn_comes(self) -> None:
        self.owner.fetch_held_back(False)
        self._go_on()
        self._advance()

    def _broken_off(self, exchange: Exchange, lost: ConnectionLost) -> Step | None:
        """Say how far the body had come when the connection broke."""
        exchange.receive_eof(clean=False)
        try:
            return self._take_events()
        except IncompleteBody as exc:
            raise exc from lost

    # The end

    def _finish(self, end: BodyComplete) -> None:
        """Tell the owner, who says by `release` or `cancel` what becomes of the connection."""
        self._marks.response_end = self._shared.loop.now
        self._stop()
        self.owner.fetch_done(end)
        if self._connection is not None:
            self._connection.rest()

    def release(self) -> None:
        """Give the connection back after the end of the body, or close it if it cannot be used again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        assert self._exchange is not None
        if self._exchange.close_reasons or not connection.quiet():
            connection.close()
        else:
            self._shared.pool.give(self._key, connection)

    def _advance(self) -> None:
        """Run steps until one has to wait."""
        try:
            try:
                while not self._over and not self.paused and self._dial is None and self._step is not None:
                    following = self._step()
                    if following is None:
                        return
                    self._step = following
            except DownloadError as exc:
                self._fail(exc)
        except BaseException as exc:
            # Only a bug, a lack of memory or what a signal handler raises: the fetch must end all the same.
            self._fail(unexpected(exc))
            if not isinstance(exc, Exception):
                raise

    def _fail(self, error: DownloadError) -> None:
        if not self._over:
            if self.trace is not None:
                self.trace.failed(self._alarm.phase, error)
            self.cancel()
            self.owner.fetch_failed(error)

    def cancel(self) -> None:
        """Close everything at once, and tell nobody.  Any number of times."""
        self._stop()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _stop(self) -> None:
        if not self._over:
            self._shared.fetches.discard(self)
            self._shared.received += self.received
        self._over = True
        self._step = None
        self._alarm.stop()
        if self._lanes is not None:
            self._lanes.stop()
            self._lanes = None  # which holds this
        if self._throttle is not None:
            self._throttle.stop()

    # Pausing

    def pause(self) -> None:
        """Stop reading; what is being connected goes on being that."""
        self.paused = True
        if self._throttle is not None:
            self._throttle.stop()
        self._rest()

    def resume(self) -> None:
        """End a pause."""
        if self._over:
            return
        self.paused = False
        self._go_on()
        self._go_soon()  # not here: somebody else may be using the buffer

    def _rest(self) -> None:
        """Stop reading, and every clock that runs for the server."""
        self._alarm.pause()
        if self._connection is not None:
            self._connection.rest()

    def _go_on(self) -> None:
        self._alarm.resume()
        if self._connection is not None:
            self._connection.go_on()

    # Time

    def _timed_out(self, phase: Phase) -> None:
        low = self._terms.low_speed
        if phase is Phase.LOW_SPEED and low is not None:
            least = f"{low.bytes_per_second:g} bytes per second for {low.seconds:g} s"
            message = f"slower than {least}, after {self.received} bytes of the body"
        else:
            message = f"{phase} time limit of {getattr(self._terms.timeouts, phase):g} s: {self.waiting_for}"
        self._fail(Timeout(message, phase=phase))

    @property
    def waiting_for(self) -> str:
        """What has not come yet, for a person."""
        if self._dial is not None:
            return self._dial.describe()
        peer = self._connection.peer if self._connection else "the server"
        if self.framing is not None:
            length = self.framing.length
            return f"no data after {self.received} of {'unknown' if length is None else length} bytes of the body"
        if self._exchange is not None and self._exchange.data_to_send():
            return f"{peer} does not take the request"
        return f"no response head from {peer}"

"""A scripted HTTP origin on real loopback sockets.

    with Origin() as origin:
        url = origin.serve("/a", Script(body=b"hello", cut_at=40, cut="rst"))
        ...
        origin.wait_closed()

A `Script` says what one request is answered with, and how badly; its options are orthogonal. `Script.acts` turns it
into deeds (send, wait, end), which the threads here carry out on sockets and `tests.sim.http_peer` in virtual time.
For what can be asked for in parts, see `tests.resource.Resource`, which makes the scripts.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self, TypeVar

PACE_INTERVAL = 0.02  # seconds between the pieces of a paced response: smooth enough, and few wake-ups; but for ...
PACE_PIECE = 4096  # ... a pace at which those pieces would be larger than this, there are more of them:
PACE_SHORTEST = 0.005  # seconds, so that a megabyte a second is smooth as well
PACE_TICK = 0.004  # seconds: a pause that is not as long is left to the next one, a quarter of the wake-ups at 50 MB/s
PACE_ARREARS = 0.2  # seconds that a paced response may be late and still make up for: the scheduler's fault, no more
PIECE = 65536
PATIENCE = 30.0  # seconds: hang guard of the wait_* methods, for busy machines as well


class Send(NamedTuple):
    data: bytes | memoryview


class Wait(NamedTuple):
    seconds: float | None  # None: until the client closes


class Pace(NamedTuple):
    """How long the piece before it takes at the pace. Those who cannot sleep exactly keep to the sum; see `Pacer`."""

    seconds: float


class End(NamedTuple):
    how: Literal["fin", "rst"]
    close_notify: bool


@dataclass(frozen=True)
class Script:
    """What one request is answered with. Offsets count wire bytes of this response, informational ones included."""

    status: int = 200
    reason: str = "OK"
    body: bytes | Iterable[bytes] = b""  # an iterable may be endless; it is iterated anew for each request
    header: tuple[tuple[str, str], ...] = ()
    framing: Literal["content-length", "chunked", "until-close", "none"] = "content-length"  # none: no field, no body
    content_length: int | None = None  # what Content-Length claims; None: the truth
    chunk: int = PIECE  # payload bytes per chunk, and per send
    trailer: tuple[tuple[str, str], ...] = ()
    informational: tuple[bytes, ...] = ()  # whole raw responses that go first
    http_version: str = "1.1"
    raw: bytes | None = None  # these bytes instead of a built response
    head_delay: float = 0.0  # seconds before the first byte
    pace: float | None = None  # bytes per second
    stall_at: int | None = None  # wire offset at which it stops sending ...
    stall_for: float | None = None  # ... for that many seconds; None: until the client closes
    cut_at: int | None = None  # wire offset after which the connection ends
    cut: Literal["fin", "rst"] = "fin"
    close_notify: bool = True  # over TLS: whether an end by FIN is announced, as it should be
    keep_alive: bool = True  # False: says "Connection: close" and closes after the response
    on_send: Callable[[int], None] | None = None  # told of so many wire bytes before they go to the kernel

    @property
    def head(self) -> bytes:
        """Return the final response's head, up to and including the empty line."""
        fields = [*self.header, *self._framing_fields()]
        if not self.keep_alive:
            fields.append(("Connection", "close"))
        return _encode(f"HTTP/{self.http_version} {self.status} {self.reason}\r\n") + _lines(fields) + b"\r\n"

    @property
    def body_at(self) -> int:
        """Return the wire offset of the first byte after the final head."""
        return len(b"".join(self.informational)) + len(self.head)

    @property
    def wire(self) -> bytes:
        """Return every byte of the response, undisturbed (the body must be finite)."""
        return b"".join(self._pieces("GET"))

    def wire_at(self, payload: int) -> int:
        """Return the wire offset behind so many bytes of the body; 0: where the body begins."""
        if self.framing != "chunked" or payload == 0:
            return self.body_at + payload
        assert isinstance(self.body, bytes)
        whole = (payload - 1) // self.chunk  # chunks before the one that these bytes end in
        size = min(self.chunk, len(self.body) - whole * self.chunk)
        before = whole * (len(b"%x\r\n" % self.chunk) + self.chunk + 2) + len(b"%x\r\n" % size)
        return self.body_at + before + payload - whole * self.chunk

    def payload_at(self, wire: int) -> int:
        """Return how many bytes of the body lie before a wire offset."""
        assert isinstance(self.body, bytes)
        return max(0, bisect_right(range(len(self.body) + 1), wire, key=self.wire_at) - 1)

    def acts(self, method: str = "GET") -> Iterator[Send | Wait | Pace | End]:
        """Yield the deeds that make this response, in order. After an End there is nothing."""
        yield Wait(self.head_delay)
        offset, stops = 0, self._stops()
        for piece in self._pieces(method):
            rest = memoryview(piece)
            while stops and stops[0][0] <= offset + len(rest):
                at, act = stops.pop(0)
                yield from self._paced(rest[: at - offset])
                rest, offset = rest[at - offset :], at
                yield act
                if isinstance(act, End):
                    return
            yield from self._paced(rest)
            offset += len(rest)
        assert not stops, f"a stop at byte {stops[0][0]} of a response of {offset} bytes tests nothing"
        if not self.keep_alive or self.framing == "until-close":
            yield End("fin", self.close_notify)

    def _framing_fields(self) -> list[tuple[str, str]]:
        if self.framing == "chunked":
            return [("Transfer-Encoding", "chunked")]
        if self.framing != "content-length":
            return []
        if self.content_length is not None:
            return [("Content-Length", str(self.content_length))]
        assert isinstance(self.body, bytes), "an iterable body needs content_length or another framing"
        return [("Content-Length", str(len(self.body)))]

    def _pieces(self, method: str) -> Iterator[bytes | memoryview]:
        if self.raw is not None:
            yield self.raw
            return
        head = b"".join(self.informational) + self.head
        for piece in () if method == "HEAD" or self.framing == "none" else self._framed():
            yield head + piece if head else piece
            head = b""
        if head:
            yield head

    def _framed(self) -> Iterator[bytes | memoryview]:
        for piece in self._payload():
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if self.framing == "chunked" else piece
        if self.framing == "chunked":
            yield b"0\r\n" + _lines(self.trailer) + b"\r\n"

    def _payload(self) -> Iterable[bytes | memoryview]:
        if not isinstance(self.body, bytes):
            return self.body
        view = memoryview(self.body)
        return (view[at : at + self.chunk] for at in range(0, len(view), self.chunk))

    def _stops(self) -> list[tuple[int, Wait | End]]:
        stops: list[tuple[int, Wait | End]] = []
        if self.stall_at is not None:
            stops.append((self.stall_at, Wait(self.stall_for)))
        if self.cut_at is not None:
            stops.append((self.cut_at, End(self.cut, self.close_notify)))
        return sorted(stops, key=lambda stop: stop[0])

    def _paced(self, data: memoryview) -> Iterator[Send | Pace]:
        step = self._paced_piece(self.pace) if self.pace else max(1, len(data))
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            if self.on_send:
                self.on_send(len(piece))
            yield Send(piece)
            if self.pace:
                yield Pace(len(piece) / self.pace)

    @staticmethod
    def _paced_piece(pace: float) -> int:
        return max(1, min(int(pace * PACE_INTERVAL), PACE_PIECE), int(pace * PACE_SHORTEST))


class Pacer:
    """Say when a paced response may go on: by a schedule, so that no late awakening makes the next one late too.

    It has no clock: `now` is in seconds, of any origin.
    """

    def __init__(self) -> None:
        self._due = float("-inf")

    def start(self, now: float) -> None:
        """Begin to count, at the start of a response or after an intended stall, which is not made up for."""
        self._due = max(self._due, now)

    def until(self, seconds: float, now: float) -> float:
        """Return when to go on after a piece that takes so many seconds."""
        self._due = max(self._due + seconds, now - PACE_ARREARS)
        return self._due if self._due - now >= PACE_TICK else now


class Request(NamedTuple):
    """A request as the origin received it."""

    head: bytes
    peer: tuple[str, int]
    connection: int  # 1, 2, ... in the order of arrival

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def field(self, name: str) -> str | None:
        """Return the first value of a field, None if absent."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


# One script for every request, one per request (the last one repeats), or a function of the request.
Answer = Script | Callable[[Request], Script] | Sequence["Answer"]
NOT_FOUND = Script(status=404, reason="Not Found", body=b"no script for this path\n")
NOT_HTTP = Script(status=400, reason="Bad Request", body=b"that was no HTTP request\n", keep_alive=False)


class Site:
    """Choose the script for a request: by path, "*" for all other paths, 404 without either."""

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self.answers: dict[str, Answer] = dict(answers or {})
        self._served: dict[str, int] = {}

    def script_for(self, request: Request) -> Script:
        answer = self.answers.get(request.path, self.answers.get("*", NOT_FOUND))
        if isinstance(answer, Sequence):
            turn = self._served.get(request.path, 0)
            self._served[request.path] = turn + 1
            answer = answer[min(turn, len(answer) - 1)]
        return answer(request) if callable(answer) else answer


class TLSEngine:
    """The server's half of TLS as a pure thing: bytes in, bytes out. ssl.SSLError is what the client did wrong."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._early = bytearray()  # what was to be sent before the handshake was done
        self.established = False

    def receive(self, raw: bytes) -> bytes:
        """Take bytes from the wire and return the plain bytes in them. Then send `data_to_send`."""
        self._incoming.write(raw)
        plain = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            if not self.established:
                self._tls.do_handshake()
                self.established = True
                self.send(self._early)
            while data := self._tls.read(PIECE):
                plain += data
        return bytes(plain)

    def send(self, plain: bytes | bytearray | memoryview) -> None:
        if not self.established:
            self._early += plain
        elif plain:
            self._tls.write(plain)

    def close(self) -> None:
        """Make the close_notify alert, if there is a session to close."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # it wants the client's alert too, which nobody waits for
                self._tls.unwrap()

    def data_to_send(self) -> bytes:
        return self._outgoing.read()


Item = TypeVar("Item")


class Closed(NamedTuple):
    """The origin saw the client close a connection."""

    connection: int
    at: float  # time.monotonic()
    how: Literal["fin", "rst"]


@dataclass
class Origin:
    """Listen on a free loopback port while the context lasts, and answer as `serve` was told.

    on_accept: "serve"; "mute" accepts, reads and never answers, nor to a TLS handshake; "reset" sends RST at once;
    "refuse" holds the port without listening on it. What goes wrong in a thread is raised at the end of the context.
    """

    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    on_accept: Literal["serve", "mute", "reset", "refuse"] = "serve"
    accept_delay: float = 0.0  # seconds between accepting a connection and looking at it
    site: Site = field(default_factory=Site)
    requests: list[Request] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    tls_errors: list[ssl.SSLError] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._stopped, self._stop = socket.socketpair()
        self._listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        self._listener.bind((self.host, 0))
        self.port = self._listener.getsockname()[1]
        if self.on_accept != "refuse":
            self._listener.listen(1024)
            self._listener.setblocking(False)
            self._spawn(self._accept_all)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.close()  # readable at the other end, for ever and for every thread
        while self._threads:
            self._threads.pop().join()
        self._listener.close()
        self._stopped.close()
        if self._errors:
            raise self._errors[0]

    def url(self, path: str = "/") -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def serve(self, path: str, *scripts: Script | Callable[[Request], Script]) -> str:
        """Answer `path` ("*": all others) with a script, one per request, or a function's. Return the URL."""
        self.site.answers[path] = scripts[0] if len(scripts) == 1 else scripts
        return self.url("/" if path == "*" else path)

    def wait_request(self, n: int = 1, timeout: float = PATIENCE) -> Request:
        """Wait until n requests have come and return the n-th."""
        return self._wait(self.requests, n, timeout, "requests")

    def wait_closed(self, n: int = 1, timeout: float = PATIENCE) -> Closed:
        """Wait until the origin has seen n connections closed by the client and return the n-th closure."""
        return self._wait(self.closed, n, timeout, "closures")

    def _wait(self, items: list[Item], n: int, timeout: float, what: str) -> Item:
        with self._changed:
            if not self._changed.wait_for(lambda: len(items) >= n, timeout):
                raise AssertionError(f"{len(items)} {what}, not {n}, after {timeout} s: {items}")
            return items[n - 1]

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=self._guard, args=(target, *args), name=f"origin:{self.port}")
        thread.start()
        self._threads.append(thread)  # not before: one that was never started cannot be joined

    def _guard(self, target: Callable[..., None], *args: object) -> None:
        try:
            target(*args)
        except _Stopped:
            pass
        except BaseException as error:
            self._errors.append(error)

    def _accept_all(self) -> None:
        with _selector(self._stopped) as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                _select(selector, self._stopped, None)
                try:
                    sock, peer = self._listener.accept()
                except OSError:
                    continue  # the client was gone before we looked
                self.connections += 1
                self._spawn(self._converse, sock, peer[:2], self.connections)

    def _converse(self, sock: socket.socket, peer: tuple[str, int], number: int) -> None:
        with sock, _Wire(sock, self._stopped, self.tls) as wire:
            try:
                wire.wait(self.accept_delay)
                self._behave(wire, peer, number)
            except _ClosedByClient as closed:
                with self._changed:
                    self.closed.append(Closed(number, time.monotonic(), closed.how))
                    self._changed.notify_all()

    def _behave(self, wire: _Wire, peer: tuple[str, int], number: int) -> None:
        if self.on_accept == "reset":
            wire.end("rst", close_notify=False)
        elif self.on_accept == "mute":
            wire.listen_only()
        else:
            try:
                self._answer_all(wire, peer, number)
            except ssl.SSLError as error:
                self.tls_errors.append(error)
                wire.end("fin", close_notify=False)

    def _answer_all(self, wire: _Wire, peer: tuple[str, int], number: int) -> None:
        while head := wire.read_head():
            request = Request(head, peer, number)
            with self._changed:
                self.requests.append(request)
                script = self.site.script_for(request)
                self._changed.notify_all()
            if wire.perform(script.acts(request.method)):
                return
        wire.perform(NOT_HTTP.acts())


class _Stopped(Exception):
    """The origin is being closed."""


class _ClosedByClient(Exception):
    def __init__(self, how: Literal["fin", "rst"]) -> None:
        super().__init__(how)
        self.how = how


class _Wire:
    """One connection, which watches for the client's close whatever it is doing."""

    def __init__(self, sock: socket.socket, stopped: socket.socket, tls: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock, self._stopped = sock, stopped
        self._engine = TLSEngine(tls) if tls else None
        self._inbox, self._outbox = bytearray(), bytearray()
        self._pacer = Pacer()
        self._selector = _selector(stopped)
        self._selector.register(sock, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.close()

    def read_head(self) -> bytes:
        """Return the next request's head; nothing if what comes is no HTTP."""
        while (end := self._inbox.find(b"\r\n\r\n")) < 0:
            if self._inbox and not self._inbox[:1].isalpha():
                return b""
            self._poll(None)
        head = bytes(self._inbox[: end + 4])
        del self._inbox[: end + 4]
        return head

    def perform(self, acts: Iterator[Send | Wait | Pace | End]) -> bool:
        """Carry out a script; say whether the connection has ended."""
        for act in acts:
            if isinstance(act, Send):
                self.send(act.data)
            elif isinstance(act, Pace):
                self.wait_until(self._pacer.until(act.seconds, time.monotonic()))
            elif isinstance(act, Wait):
                self.wait(act.seconds)
                self._pacer.start(time.monotonic())
            else:
                self.end(act.how, close_notify=act.close_notify)
                return True
        return False

    def send(self, data: bytes | memoryview) -> None:
        if self._engine:
            self._engine.send(data)
            data = self._engine.data_to_send()
        self._outbox += data
        self._flush()

    def wait(self, seconds: float | None) -> None:
        self.wait_until(None if seconds is None else time.monotonic() + seconds)

    def wait_until(self, deadline: float | None) -> None:
        while deadline is None or deadline > time.monotonic():
            self._poll(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def listen_only(self) -> None:
        self._engine = None
        self.wait(None)

    def end(self, how: Literal["fin", "rst"], *, close_notify: bool) -> None:
        """End the connection from our side. After a FIN we stay until the client closes, to see that too."""
        if how == "rst":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.close()
            return
        if self._engine and close_notify:
            self._engine.close()
            self._outbox += self._engine.data_to_send()
        self._engine = None
        self._flush()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _ClosedByClient("rst") from error
        self.wait(None)

    def _flush(self) -> None:
        while self._outbox:
            self._poll(None)

    def _poll(self, timeout: float | None) -> None:
        """Wait until the socket is ready, read what has come, and send what is due."""
        self._selector.modify(self._sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0))
        ready = _select(self._selector, self._stopped, timeout)
        try:
            if ready & selectors.EVENT_READ:
                self._receive(self._sock.recv(PIECE))
            if ready & selectors.EVENT_WRITE:
                del self._outbox[: self._sock.send(self._outbox)]
        except BlockingIOError:
            pass
        except ssl.SSLError:
            raise
        except OSError as error:
            raise _ClosedByClient("rst") from error

    def _receive(self, raw: bytes) -> None:
        if not raw:
            raise _ClosedByClient("fin")
        if not self._engine:
            self._inbox += raw
            return
        try:
            self._inbox += self._engine.receive(raw)
        finally:
            self._outbox += self._engine.data_to_send()  # after an error: the alert


def _selector(stopped: socket.socket) -> selectors.BaseSelector:
    """Make a selector without a descriptor of its own."""
    selector: selectors.BaseSelector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
    selector.register(stopped, selectors.EVENT_READ)
    return selector


def _select(selector: selectors.BaseSelector, stopped: socket.socket, timeout: float | None) -> int:
    """Return the readiness of what is registered beside `stopped`."""
    mask = 0
    for key, ready in selector.select(timeout):
        if key.fileobj is stopped:
            raise _Stopped
        mask |= ready
    return mask


def _lines(fields: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(_encode(f"{name}: {value}\r\n") for name, value in fields)


def _encode(text: str) -> bytes:
    return text.encode("latin-1")

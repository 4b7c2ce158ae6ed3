"""Does the simulated network do what it says? Asked by a client of some lines on its selector and sockets."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from tests.sim import Conn, Deadlock, Link, Script, World, http_peer, seeds

HOST = "example.org"
REQUEST = b"GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n"
LATENCY = 0.01
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


class Client:
    """Connect, send, receive until the end; remember when what came."""

    def __init__(self, world: World, request: bytes = REQUEST, buffer: int = 65536) -> None:
        self.world, self.selector, self.request = world, world.selector, request
        self.pieces: list[tuple[float, bytes]] = []
        self.outcome: int | str | None = None  # an errno, or "end"
        self.buffer = bytearray(buffer)
        self.sock = world.socket()
        self.sock.setblocking(False)

    def run(self, address: tuple[str, int]) -> bytes:
        self.connect(address)
        while self.outcome is None:
            self.turn()
        return b"".join(data for _, data in self.pieces)

    def connect(self, address: tuple[str, int]) -> None:
        error = self.sock.connect_ex(address)
        if error != errno.EINPROGRESS:
            self.finish(error)
            return
        self.selector.register(self.sock.fileno(), EVENT_WRITE, self.connected)

    def turn(self, timeout: float | None = None) -> None:
        for key, mask in self.selector.select(timeout):
            key.data(mask)

    def connected(self, mask: int) -> None:
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.finish(error)
        else:
            self.selector.modify(self.sock.fileno(), EVENT_READ | (EVENT_WRITE if self.request else 0), self.ready)

    def ready(self, mask: int) -> None:
        try:
            if mask & EVENT_WRITE:
                self.request = self.request[self.sock.send(self.request) :]
                self.selector.modify(self.sock.fileno(), EVENT_READ | (EVENT_WRITE if self.request else 0), self.ready)
            if mask & EVENT_READ:
                self.take(self.sock.recv_into(self.buffer))
        except BlockingIOError:
            pass
        except OSError as error:
            self.finish(error.errno)

    def take(self, n: int) -> None:
        if n == 0:
            self.finish("end")
        else:
            self.pieces.append((round(self.world.elapsed, 6), bytes(self.buffer[:n])))

    def finish(self, outcome: int | str | None) -> None:
        self.outcome = outcome
        self.close()

    def close(self) -> None:
        if self.sock.fileno() in self.selector.get_map():
            self.selector.unregister(self.sock.fileno())
        self.sock.close()


def fetch(world: World, *answers: Script, link: Link = Link(), **options) -> Client:  # noqa: B008
    world.listen(HOST, 80, http_peer(answers), link=link, **options)
    client = Client(world)
    client.run(("10.0.0.1", 80))
    return client


def received(client: Client) -> bytes:
    return b"".join(data for _, data in client.pieces)


CLOSING = Script(body=b"x" * 1000, keep_alive=False)


def test_a_download_and_its_log():
    with World() as world:
        client = fetch(world, CLOSING, link=Link(latency=LATENCY))
        world.wait()
    assert received(client) == CLOSING.wire
    assert client.outcome == "end"
    assert world.log == [
        (0.0, "c1 connect 10.0.0.1:80"),
        (0.02, "c1 accepted"),
        (0.03, "c1 request GET /a"),
        (0.03, "c1 peer sent FIN"),
        (0.04, "c1 client sent FIN"),
        (0.05, "c1 peer saw FIN"),
    ]
    assert [request.target for request in world.requests] == ["/a"]


def test_latency_and_bandwidth():
    with World() as world:
        client = fetch(world, CLOSING, link=Link(latency=1.0, bandwidth=100, segment=200))
    total = len(CLOSING.wire)
    arrivals = [when for when, _ in client.pieces]
    assert arrivals[0] == pytest.approx(2 + 1 + 1 + 200 / 100)  # connect, request, first segment
    assert arrivals[-1] == pytest.approx(2 + 1 + 1 + total / 100)


def test_hours_pass_by_pace():
    with World() as world:
        client = fetch(world, Script(body=b"slow" * 5, pace=0.001, keep_alive=False))
    assert len(client.pieces) == len(received(client)) > 20  # one byte at a time
    assert client.pieces[-1][0] > 1000 * 20


def test_segments_are_what_recv_returns():
    with World() as world:
        client = fetch(world, CLOSING, link=Link(segment=1))
    assert {len(data) for _, data in client.pieces} == {1}
    with World() as world:
        client = fetch(world, CLOSING, link=Link(segment=(100, 300)))
    assert len({len(data) for _, data in client.pieces}) > 2
    assert all(100 <= len(data) <= 300 for _, data in client.pieces[:-1])


def test_a_small_buffer_takes_a_segment_in_parts():
    with World() as world:
        world.listen(HOST, 80, http_peer(CLOSING))
        client = Client(world, buffer=7)
        assert client.run(("10.0.0.1", 80)) == CLOSING.wire


@pytest.mark.parametrize("offset", [0, 1, len(HEAD), len(HEAD) + 1, len(HEAD) + 999, len(HEAD) + 1000])
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("where", ["link", "script"])
def test_cut_at(offset: int, how: str, where: str):
    script = Script(body=b"x" * 1000)
    link = Link()
    if where == "link":
        link = Link(cut_at=offset, cut=how, segment=77)
    else:
        script = Script(body=b"x" * 1000, cut_at=offset, cut=how)
    with World() as world:
        client = fetch(world, script, link=link)
        world.wait()
    assert received(client) == script.wire[:offset]
    assert client.outcome == ("end" if how == "fin" else errno.ECONNRESET)
    assert bool(world.seen("peer saw FIN")) == (how == "fin")


def test_cut_error_is_what_the_kernel_reports():
    with World() as world:
        client = fetch(world, CLOSING, link=Link(cut_at=5, cut="rst", cut_error=errno.ETIMEDOUT))
    assert client.outcome == errno.ETIMEDOUT


@pytest.mark.parametrize(("discards", "length"), [(False, 500), (True, 0)])
def test_whether_a_reset_discards_what_was_not_read(discards: bool, length: int):
    with World() as world:
        world.listen(HOST, 80, http_peer(CLOSING), link=Link(cut_at=500, cut="rst", reset_discards=discards))
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        client.turn()
        client.turn()
        world.wait()
        while client.outcome is None:
            client.turn()
        assert len(received(client)) == length


@pytest.mark.parametrize("where", ["link", "script"])
def test_stall_at_and_for(where: str):
    options = {"stall_at": 100, "stall_for": 3600.0}
    script = Script(body=b"x" * 1000, keep_alive=False, **(options if where == "script" else {}))
    with World() as world:
        client = fetch(world, script, link=Link(**(options if where == "link" else {})))
    before = [data for when, data in client.pieces if when < 3600]
    assert len(b"".join(before)) == 100
    assert received(client) == script.wire
    assert client.pieces[-1][0] == pytest.approx(3600.04)


def test_a_stall_without_a_timer_is_a_deadlock_that_names_the_connection():
    with pytest.raises(Deadlock, match=r"c1 accept .*buffered=0 .*stalled"), World() as world:
        fetch(world, CLOSING, link=Link(stall_at=100))


def test_a_deadline_ends_a_select_at_its_time():
    with World() as world:
        assert world.selector.select(2.5) == []
        assert world.elapsed == 2.5
        assert world.selector.select(0) == []
        assert world.elapsed == 2.5


def test_a_timeout_too_small_for_the_clock_still_moves_it():
    with World() as world:
        before = world.now
        world.selector.select(1e-300)
        assert world.now > before


def test_a_busy_loop_is_found_out():
    with World() as world, pytest.raises(Deadlock, match="nothing happened"):
        while True:
            world.selector.select(0)


def test_refuse_blackhole_and_errors_of_connect():
    with World() as world:
        assert fetch(world, CLOSING, connect="refuse").outcome == errno.ECONNREFUSED
        assert world.elapsed == pytest.approx(2 * LATENCY)
        assert fetch(world, CLOSING, connect=errno.ENETUNREACH).outcome == errno.ENETUNREACH
        assert world.elapsed == pytest.approx(2 * LATENCY)
        assert fetch(world, CLOSING, connect=errno.EHOSTUNREACH, connect_delay=3.0).outcome == errno.EHOSTUNREACH
        assert world.elapsed == pytest.approx(4 * LATENCY + 3)

        client = Client(world)
        client.run(("10.9.9.9", 80))
        assert client.outcome == errno.ECONNREFUSED

        world.listen(HOST, 80, connect="blackhole")
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        client.turn(100.0)
        assert client.outcome is None
        client.close()
        assert world.seen("c5 client gave up connecting") == world.seen("gave up") == [pytest.approx(world.elapsed)]


def test_what_the_client_does_not_read_the_peer_cannot_send():
    endless = Script(body=[b"x" * 100_000] * 1000, framing="until-close")
    with World() as world:
        world.listen(HOST, 80, http_peer(endless), link=Link(window=10_000, segment=1000))
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        client.turn()
        client.turn()
        world.wait()
        assert world.conns[0].sent == client.sock.buffered == 10_000
        client.turn()
        assert world.conns[0].sent == 10_000  # the peer has not heard of it yet
        world.wait()
        assert world.conns[0].sent == 11_000
        client.close()
        assert world.seen("client sent RST")


def test_the_send_window_blocks_and_opens():
    with World() as world:
        world.listen(HOST, 80, http_peer(CLOSING), link=Link(send_window=10))
        client = Client(world)
        assert client.run(("10.0.0.1", 80)) == CLOSING.wire
        assert world.seen("request GET /a") == [pytest.approx(2 * LATENCY + 3 * 2 * LATENCY + LATENCY)]


def test_a_deaf_peer_lets_send_block_for_good():
    with World() as world:
        world.listen(HOST, 80, http_peer(CLOSING), link=Link(send_window=10, deaf=True))
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        for _ in range(5):
            client.turn(1000.0)
        assert len(client.request) == len(REQUEST) - 10
        assert world.requests == []
        client.close()


@pytest.mark.parametrize(("read", "how"), [(False, "RST"), (True, "FIN")])
def test_close_with_unread_data_is_a_reset_and_without_a_fin(read: bool, how: str):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 1000)))
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        client.turn()
        client.turn()
        world.wait()
        if read:
            client.turn()
        closed_at = world.elapsed
        client.close()
        world.wait()
        assert world.seen("peer saw") == world.seen(f"peer saw {how}") == [pytest.approx(closed_at + LATENCY)]


def test_data_for_a_closed_client_is_answered_by_a_reset():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(head_delay=1.0)))
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        client.turn()
        client.turn()
        world.after(1.01 + LATENCY / 2, client.close)  # the response is under way
        world.wait()
        assert world.seen("peer saw FIN") < world.seen("peer saw RST")


def test_a_request_on_a_connection_that_the_peer_has_closed():
    with World() as world:
        world.listen(HOST, 80, lambda conn: conn.end("fin"))
        client = Client(world, request=b"")
        client.connect(("10.0.0.1", 80))
        client.turn()
        assert client.sock.send(REQUEST) == len(REQUEST)  # the FIN is still under way
        world.wait()
        with pytest.raises(ConnectionResetError):
            client.sock.recv_into(client.buffer)
        with pytest.raises(BrokenPipeError):
            client.sock.send(b"more")
        client.close()


def test_callback_peers():
    def peer(conn: Conn) -> None:
        def answer(conn: Conn) -> None:
            conn.send(bytes(conn.received).upper())
            conn.end()

        conn.on_data = answer

    with World() as world:
        world.listen(HOST, 80, peer)
        assert Client(world, b"hello").run(("10.0.0.1", 80)) == b"HELLO"


def test_generator_peers_sleep_and_wait():
    def peer(conn: Conn):
        first = yield from conn.read_until(b"\n")
        yield 5.0
        conn.send(first * 2)
        yield lambda: conn.world.elapsed > 9  # nothing pokes it but the client's close
        raise AssertionError("not reached")

    with World() as world:
        world.listen(HOST, 80, peer)
        client = Client(world, b"hello\n")
        client.connect(("10.0.0.1", 80))
        while not client.pieces:
            client.turn()
        assert client.pieces == [(pytest.approx(5 + 4 * LATENCY), b"hello\nhello\n")]
        client.close()


def test_what_a_peer_raises_fails_the_test_even_if_the_client_swallows_it():
    def peer(conn: Conn) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), World() as world:
        world.listen(HOST, 80, peer)
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        with pytest.raises(ZeroDivisionError):
            client.turn()
        client.close()


def close_while_registered(world: World, client: Client) -> None:
    client.sock.close()


def use_after_close(world: World, client: Client) -> None:
    client.close()
    client.sock.send(b"x")


def receive_nothing(world: World, client: Client) -> None:
    client.sock.recv_into(bytearray())


def connect_twice(world: World, client: Client) -> None:
    client.sock.connect_ex(("10.0.0.1", 80))


def block(world: World, client: Client) -> None:
    client.sock.setblocking(True)


def register_a_closed_one(world: World, client: Client) -> None:
    fd = client.sock.fileno()
    client.close()
    world.selector.register(fd, EVENT_READ)


MISUSES = [close_while_registered, use_after_close, receive_nothing, connect_twice, block, register_a_closed_one]


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_reported_even_if_the_error_is_swallowed(misuse: Callable[[World, Client], None]):
    with pytest.raises(AssertionError), World() as world:
        world.listen(HOST, 80, http_peer(CLOSING))
        client = Client(world)
        client.connect(("10.0.0.1", 80))
        client.turn()
        with pytest.raises(AssertionError):
            misuse(world, client)
        client.close()


def test_an_open_socket_is_reported():
    with pytest.raises(AssertionError, match="left open"), World() as world:
        world.socket()


def test_descriptors_are_reused_lowest_first():
    world = World()
    first, second, third = (world.socket() for _ in range(3))
    assert [each.fileno() for each in (first, second, third)] == [1_000_000, 1_000_001, 1_000_002]
    second.close()
    first.close()
    assert [world.socket().fileno() for _ in range(3)] == [1_000_000, 1_000_001, 1_000_003]
    assert first.fileno() == -1


def test_a_wake_up_from_another_thread_is_seen():
    inside, outside = socket.socketpair()
    with inside, outside, World() as world:
        world.selector.register(inside.fileno(), EVENT_READ, "woken")
        thread = threading.Thread(target=outside.send, args=(b"!",))
        thread.start()
        thread.join()
        assert [(key.data, mask) for key, mask in world.selector.select(None)] == [("woken", EVENT_READ)]
        assert world.elapsed == 0


def test_interrupt_runs_in_select_and_ends_it():
    calls = []
    with World() as world:
        world.interrupt(3.0, calls.append, "signal")
        world.after(10.0, calls.append, "too late")
        assert world.selector.select(None) == []
        assert calls == ["signal"]
        assert world.elapsed == 3.0


def test_low_water_mark():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(raw=b"x" * 1000, pace=100)))
        client = Client(world)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 600)
        client.connect(("10.0.0.1", 80))
        client.turn()
        client.turn()
        client.turn()
        assert 600 <= client.sock.buffered + len(received(client)) < 700
        client.close()


def test_names():
    answers = []

    def resolve(world: World, host: str, family: int = socket.AF_UNSPEC) -> object:
        world.resolver.resolve(host, 80, family, lambda *answer: answers.append(answer))
        world.wait()
        return answers.pop() if answers else None

    with World() as world:
        world.listen(HOST, 80, address="2001:db8::1")
        world.listen(HOST, 80, address="192.0.2.1")
        world.name(HOST).delay = 7.0
        before = world.now
        both = [(socket.AF_INET6, ("2001:db8::1", 80, 0, 0)), (socket.AF_INET, ("192.0.2.1", 80))]
        assert resolve(world, HOST) == (both, None)
        assert world.now >= before + 7
        assert resolve(world, HOST, socket.AF_INET) == (both[1:], None)
        assert resolve(world, "192.0.2.9") == ([(socket.AF_INET, ("192.0.2.9", 80))], None)
        addresses, error = resolve(world, "nowhere.example.org")
        assert addresses == []
        assert error.errno == socket.EAI_NONAME
        world.name(HOST).error = socket.gaierror(socket.EAI_AGAIN, "try again")
        assert resolve(world, HOST)[1].errno == socket.EAI_AGAIN
        world.name(HOST).silent = True
        assert resolve(world, HOST) is None


def test_a_cancelled_lookup_is_not_answered():
    with World() as world:
        world.listen(HOST, 80)
        cancel = world.resolver.resolve(HOST, 80, socket.AF_UNSPEC, lambda *answer: pytest.fail("answered"))
        cancel()
        world.wait()


def run_of(seed: int, script: Script = CLOSING) -> tuple[object, object]:
    with World(seed, spurious=0.1) as world:
        client = fetch(world, script, link=world.random_link())
        assert received(client) == script.wire
        return world.log, client.pieces


@seeds(30)
def test_the_same_seed_gives_the_same_run(seed: int):
    assert run_of(seed) == run_of(seed)


def test_seeds_differ():
    assert len({str(run_of(seed)) for seed in range(10)}) > 5


def test_spurious_readiness_comes_and_is_harmless_to_name():
    with World(1, spurious=0.5) as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 100, pace=10, keep_alive=False)))
        client = Client(world)
        client.run(("10.0.0.1", 80))
        assert world.selector.turns > len(client.pieces) + 5


class TLSClient(Client):
    """The same over TLS."""

    def __init__(self, world: World, context: ssl.SSLContext) -> None:
        super().__init__(world, b"")
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)
        self.plain, self.shaken, self.ragged = b"", False, False
        self.converse()

    def take(self, n: int) -> None:
        if n == 0:
            self.incoming.write_eof()
        else:
            self.incoming.write(self.buffer[:n])
        self.converse()
        super().take(n)

    def converse(self) -> None:
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.tls.write(REQUEST)
                self.shaken = True
            while data := self.tls.read(65536):
                self.plain += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self.ragged = True
        self.request += self.outgoing.read()
        if self.request and self.sock.connected:
            self.selector.modify(self.sock.fileno(), EVENT_READ | EVENT_WRITE, self.ready)


@pytest.mark.parametrize("close_notify", [True, False])
def test_tls_and_its_end(server_context: ssl.SSLContext, ca_file: Path, close_notify: bool):
    script = Script(body=b"secret" * 100, framing="until-close", close_notify=close_notify)
    with World() as world:
        world.listen(HOST, 443, http_peer(script), tls=server_context, link=Link(segment=(1, 500)))
        client = TLSClient(world, ssl.create_default_context(cafile=str(ca_file)))
        client.run(("10.0.0.1", 443))
    assert client.plain == script.wire
    assert client.ragged == (not close_notify)


def test_a_link_can_end_in_the_middle_of_a_handshake(server_context: ssl.SSLContext):
    with World() as world:
        world.listen(HOST, 443, http_peer(CLOSING), tls=server_context, link=Link(cut_at=3))
        client_hello = ssl.MemoryBIO()
        tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), client_hello, server_hostname=HOST)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        assert len(Client(world, client_hello.read()).run(("10.0.0.1", 443))) == 3


def test_a_client_that_speaks_no_tls_is_noted(server_context: ssl.SSLContext):
    with World() as world:
        world.listen(HOST, 443, http_peer(CLOSING), tls=server_context)
        client = Client(world)
        client.run(("10.0.0.1", 443))
        assert client.outcome == "end"
        assert world.seen("TLS error")
        assert world.requests == []


def test_a_thousand_connections():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x", head_delay=60.0, keep_alive=False)))
        clients = [Client(world) for _ in range(1000)]
        for client in clients:
            client.connect(("10.0.0.1", 80))
        while any(client.outcome is None for client in clients):
            clients[0].turn()
        assert world.elapsed < 61


@seeds(10)
def test_the_real_client_runs_in_it(seed: int, tmp_path: Path):
    script = Script(body=bytes(range(256)) * 40)
    with World(seed, spurious=0.1) as world:
        world.listen(HOST, 80, http_peer(script), link=world.random_link())
        client = world.client()
        task = client.download_file(url=f"http://{HOST}/a", file_path=tmp_path / "a")
        client.run()
        assert task.result().status_code == 200
    assert (tmp_path / "a").read_bytes() == script.body

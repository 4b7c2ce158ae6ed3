"""Who gets a connection, when, and which one (T39, S26, C8, N6, N20; RFC 9112 9.2, 9.3)."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Iterator

import pytest

import rawdl
from rawdl.pool import Key
from rawdl.proto.proxy import Proxy
from rawdl.proto.url import URL as Address
from tests import once
from tests.origin import Origin, Request, Script
from tests.recorder import Recorder
from tests.sim import Conn, Link, World, http_peer

BODY = bytes(range(256)) * 400
HOST = "example.org"
URL = f"http://{HOST}/a"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def fetch(client: rawdl.Client, url: str = URL, **options: object) -> rawdl.DownloadResult:
    return client.download_file(url=url, sink=rawdl.MemorySink(), **options).result()


class Crowd:
    """Many tasks over some hosts, and what was going on at each moment."""

    def __init__(self, world: World, client: rawdl.Client) -> None:
        self.world, self.client = world, client
        self.tasks: list[tuple[str, rawdl.DownloadTask]] = []
        self.started: list[int] = []  # the numbers of the tasks, in the order of their requests
        self.most = 0
        self.most_of_host: Counter[str] = Counter()

    def host(self, host: str, **link: object) -> None:
        self.world.listen(host, 80, http_peer(Script(body=BODY)), link=Link(bandwidth=1e6, segment=10_000, **link))

    def add(self, host: str, number: int = 1) -> None:
        for _ in range(number):
            url = f"http://{host}/{len(self.tasks)}"
            self.tasks.append((host, self.client.download_file(url=url, sink=rawdl.MemorySink())))

    def run(self) -> None:
        while self.client.step(None):
            self.look()
        assert all(task.exception() is None for _, task in self.tasks)
        self.started = [int(request.target[1:]) for request in self.world.requests]

    def look(self) -> None:
        busy = Counter(host for host, task in self.tasks if task.state not in ("queued", "completed"))
        self.most = max(self.most, busy.total())
        self.most_of_host |= busy


def test_T39_the_defaults(world: World):
    crowd = Crowd(world, world.client())
    for host in ("a.example", "b.example", "c.example"):
        crowd.host(host)
        crowd.add(host, 20)
    crowd.run()
    assert crowd.most == 10
    assert set(crowd.most_of_host.values()) == {6} or max(crowd.most_of_host.values()) == 6
    assert len(world.requests) == 60


@pytest.mark.parametrize(("concurrent", "per_host", "most"), [(1, 6, 1), (4, 6, 4), (10, 2, 2), (100, 30, 30)])
def test_T39_the_limits_hold(concurrent: int, per_host: int, most: int, world: World):
    crowd = Crowd(world, world.client(max_concurrent=concurrent, max_per_host=per_host))
    crowd.host(HOST)
    crowd.add(HOST, 50)
    crowd.run()
    assert crowd.most == most
    assert len(world.conns) == most


def test_T39_first_come_first_served(world: World):
    crowd = Crowd(world, world.client(max_concurrent=1))
    crowd.host(HOST)
    crowd.add(HOST, 20)
    crowd.run()
    assert crowd.started == list(range(20))


def test_T39_first_come_first_served_over_hosts(world: World):
    crowd = Crowd(world, world.client(max_concurrent=2, max_per_host=2))
    for host in ("a.example", "b.example"):
        crowd.host(host)
    for host in ("a.example", "a.example", "b.example", "a.example", "b.example", "b.example", "a.example"):
        crowd.add(host)
    crowd.run()
    order = crowd.started
    assert all(order.index(n) < order.index(n + 2) for n in range(5)), order  # two at once, so neighbours may swap


def test_T39_S26_a_host_that_is_full_does_not_hold_up_the_others(world: World):
    client = world.client(max_concurrent=4, max_per_host=2)
    world.listen("slow.example", 80, http_peer(Script(head_delay=30)))
    world.listen("fast.example", 80, http_peer(Script(body=b"x")))
    slow = [client.download_file(url="http://slow.example/", sink=rawdl.MemorySink()) for _ in range(10)]
    fast = [client.download_file(url="http://fast.example/", sink=rawdl.MemorySink()) for _ in range(10)]
    world.drive(client, lambda: all(task.done() for task in fast))
    assert world.elapsed < 5
    assert [str(task.state) for task in slow] == ["waiting"] * 2 + ["queued"] * 8
    client.run()


def test_S26_T36_the_clocks_of_a_waiting_task_have_not_started(world: World):
    world.listen(HOST, 80, http_peer(Script(head_delay=10)))
    client = world.client(max_per_host=1)
    tasks = [client.download_file(url=URL, sink=rawdl.MemorySink(), timeout=15) for _ in range(5)]
    client.run()
    assert [task.exception() for task in tasks] == [None] * 5
    assert world.elapsed > 50


def test_T39_an_aborted_task_leaves_the_queue(world: World):
    crowd = Crowd(world, world.client(max_concurrent=1))
    crowd.host(HOST)
    crowd.add(HOST, 6)
    aborted = [crowd.tasks.pop(index)[1] for index in (4, 2, 1)]
    for task in aborted:
        task.abort()
    crowd.run()
    assert crowd.started == [0, 3, 5]


@pytest.mark.parametrize("how", ["failure", "abort", "bad sink"])
def test_T39_every_end_frees_the_place(how: str, world: World, tmp_path):
    scripts = {"failure": Script(body=BODY, cut_at=100), "abort": Script(body=BODY, stall_at=100)}
    world.listen(HOST, 80, http_peer([scripts.get(how, Script(body=BODY))] * 5 + [Script(body=BODY)]))
    client = world.client(max_concurrent=1)
    recorder = Recorder()
    if how == "abort":
        recorder.react("headers", lambda event: [task.abort() for task in tasks if task.state == "receiving"])
    options = {"file_path": tmp_path / "no" / "a"} if how == "bad sink" else {"sink": rawdl.MemorySink()}
    tasks = [recorder.download(client, url=URL, **options) for _ in range(5)]
    last = client.download_file(url=URL, sink=rawdl.MemorySink())
    assert client.run() is False
    assert last.result().data_length == len(BODY)
    assert recorder.outcome == ["fail", "complete"] * 5
    assert "0 in use" in repr(client)


def test_T33_N20_a_thousand_tasks_one_after_another_and_at_once(world: World):
    world.listen(HOST, 80, http_peer(Script(body=b"x" * 100)), link=Link(latency=0.001))
    client = world.client(max_concurrent=64, max_per_host=64)
    tasks = [client.download_file(url=URL, sink=rawdl.DiscardSink()) for _ in range(1000)]
    client.run()
    assert sum(task.result().data_length for task in tasks) == 100_000
    assert len(world.conns) <= 64


# Reuse


def test_a_connection_is_reused(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client = world.client()
    results = [fetch(client) for _ in range(5)]
    assert [result.profile.socket_reused for result in results] == [False, True, True, True, True]
    assert len(world.conns) == 1
    assert "1 idle" in repr(client)


CLOSING = {
    "Connection: close": Script(body=BODY, header=(("Connection", "close"),)),
    "Connection: Keep-Alive, Close": Script(body=BODY, header=(("Connection", "Keep-Alive, Close"),)),
    "HTTP/1.0": Script(body=BODY, http_version="1.0"),
    "until close": Script(body=BODY, framing="until-close"),
    "length and coding": Script(body=BODY, framing="chunked", header=(("Content-Length", "5"),)),
    "surplus": Script(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n"),
    "malformed field": Script(body=BODY, header=(("not/a/token", "x"),)),
}


@pytest.mark.parametrize("script", CLOSING.values(), ids=CLOSING.keys())
def test_C2_C8_a_connection_that_may_not_be_used_again(script: Script, world: World):
    world.listen(HOST, 80, http_peer([script, Script(body=b"second")]))
    client, sink = world.client(), rawdl.MemorySink()
    fetch(client)
    assert world.sockets == {}
    assert client.download_file(url=URL, sink=sink).result().profile.socket_reused is False
    assert sink.getvalue() == b"second"
    assert len(world.conns) == 2


def test_a_request_that_says_close(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client = world.client()
    fetch(client, header={"Connection": "close"})
    assert world.sockets == {}


@pytest.mark.parametrize("how", ["failure", "abort"])
def test_C8_a_body_that_was_not_read_to_its_end(how: str, world: World):
    world.listen(HOST, 80, http_peer([Script(body=BODY), Script(body=b"second")]), link=Link(segment=1000))
    client = world.client()
    recorder = Recorder()
    recorder.react("headers", lambda event: task.abort() if how == "abort" else None)
    task = recorder.download(client, url=URL, sink=rawdl.MemorySink(), limits=rawdl.Limits(body=10))
    assert task.exception() is not None
    assert fetch(client, limits=rawdl.Limits()).profile.socket_reused is False


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\r\n"])
@pytest.mark.parametrize("driven", [True, False], ids=["driven", "undriven"])
def test_C8_bytes_on_an_idle_connection_close_it(surplus: bytes, driven: bool, world: World):
    """A response that nobody asked for must never answer the next request (RFC 9112 9.2)."""

    def peer(conn: Conn) -> Iterator[object]:
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        yield 1.0
        conn.send(surplus)
        yield from http_peer(Script(body=b"more"))(conn)

    world.listen(HOST, 80, peer)
    client, sink = world.client(), rawdl.MemorySink()
    fetch(client)
    if driven:
        client.step(5)
        client.step(0)
        assert world.sockets == {}
    else:
        world.wait(5)
    client.download_file(url=URL, sink=sink).result()
    assert sink.getvalue() == b"good"
    assert len(world.conns) == 2


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("driven", [True, False], ids=["driven", "undriven"])
def test_an_idle_connection_that_the_server_closes(how: str, driven: bool, world: World):
    def peer(conn: Conn) -> Iterator[object]:
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        yield 1.0
        conn.end(how)

    world.listen(HOST, 80, peer)
    client = world.client()
    fetch(client)
    if driven:
        client.step(5)
        client.step(0)
        assert world.sockets == {}
        assert "0 idle" in repr(client)
    else:
        world.wait(5)
    assert fetch(client).status_code == 200
    assert len(world.conns) == 2


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N6_a_stale_connection_is_replaced_once_and_silently(how: str, world: World):
    """The server closes it just as the next request is on its way."""
    served: list[int] = []

    def peer(conn: Conn) -> Iterator[object]:
        served.append(conn.number)
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        if conn.number == 1:
            yield from conn.read_until(b"\r\n\r\n")
            conn.end(how)
        else:
            yield from conn.read_until(b"never")

    world.listen(HOST, 80, peer)
    client, recorder = world.client(), Recorder()
    fetch(client)
    result = recorder.download(client, url=URL, sink=rawdl.MemorySink()).result()
    assert result.status_code == 200
    assert result.profile.socket_reused is False
    assert recorder.names == ["headers", "progress", "success", "complete"]
    assert result.attempts == ()
    assert served == [1, 2]


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N5_N6_a_fresh_connection_is_not_replaced(how: str, world: World):
    def peer(conn: Conn) -> Iterator[object]:
        yield from conn.read_until(b"\r\n\r\n")
        if conn.number == 1:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
            yield from conn.read_until(b"\r\n\r\n")
        conn.end(how)

    world.listen(HOST, 80, peer)
    client = world.client()
    fetch(client)
    error = client.download_file(url=URL, sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.IncompleteHead if how == "fin" else rawdl.ConnectionLost)
    assert len(world.conns) == 2


def test_N6_a_reused_connection_that_broke_in_the_head_is_not_replaced(world: World):
    """It has answered: what it has done with the request nobody knows."""

    def peer(conn: Conn) -> Iterator[object]:
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 O")
        conn.end("fin")

    world.listen(HOST, 80, peer)
    client = world.client()
    fetch(client)
    error = client.download_file(url=URL, sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.IncompleteHead)
    assert len(world.conns) == 1


def test_N6_a_stale_connection_on_real_sockets():
    """The origin answers once on each connection and resets it at the second request."""

    def answer(request: Request) -> Script:
        seen[request.connection] += 1
        return Script(body=BODY) if seen[request.connection] == 1 else Script(body=BODY, cut_at=0, cut="rst")

    seen: Counter[int] = Counter()
    with Origin() as origin, once.client() as client:
        url = origin.serve("/a", answer)
        for _ in range(4):
            assert fetch(client, url).data_length == len(BODY)
    assert origin.connections == 4
    assert len(origin.requests) == 7


def test_an_idle_connection_expires(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client = world.client()
    fetch(client)
    world.drive(client, 50)
    assert len(world.sockets) == 1
    while client.next_deadline() is not None:
        client.step(None)
    assert world.sockets == {}
    assert 55 < world.elapsed < 70
    assert "0 idle" in repr(client)


def test_an_idle_connection_that_has_expired_undriven_is_not_used(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client = world.client()
    fetch(client)
    world.wait(3600)
    assert fetch(client).profile.socket_reused is False


def test_there_is_a_most_of_idle_connections(world: World):
    client = world.client(max_concurrent=300, max_per_host=300)
    hosts = [f"h{n}.example" for n in range(150)]
    for host in hosts:
        world.listen(host, 80, http_peer(Script(body=b"x")))
    tasks = [client.download_file(url=f"http://{host}/", sink=rawdl.MemorySink()) for host in hosts]
    client.run()
    assert [task.exception() for task in tasks] == [None] * 150
    assert 0 < len(world.sockets) <= 100


@pytest.mark.parametrize("other", ["http://EXAMPLE.org:80/b", "http://example.org/b"])
def test_A15_one_origin_in_two_spellings_shares_connections(other: str, world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client = world.client()
    fetch(client)
    assert fetch(client, other).profile.socket_reused is True


@pytest.mark.parametrize("other", ["http://example.org:81/a", "http://www.example.org/a", "http://10.0.0.1/a"])
def test_A15_another_origin_shares_none(other: str, world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    world.listen(HOST, 81, http_peer(Script(body=BODY)))
    world.listen("www.example.org", 80, http_peer(Script(body=BODY)), address="10.0.0.1")
    client = world.client()
    fetch(client)
    assert fetch(client, other).profile.socket_reused is False


HERE = Address.parse("https://example.org/a").origin
SETTINGS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PROXY = Proxy.parse("http://u:p@proxy.example:3128")
KEYS = {
    "itself": Key(HERE, SETTINGS, PROXY),
    "another scheme": Key(Address.parse("http://example.org:443/").origin, SETTINGS, PROXY),
    "another host": Key(Address.parse("https://example.com/").origin, SETTINGS, PROXY),
    "another port": Key(Address.parse("https://example.org:444/").origin, SETTINGS, PROXY),
    "a zone": Key(Address.parse("https://[fe80::1%25a]/").origin, SETTINGS, PROXY),
    "another zone": Key(Address.parse("https://[fe80::1%25b]/").origin, SETTINGS, PROXY),
    "other TLS settings": Key(HERE, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), PROXY),
    "no TLS": Key(HERE, None, PROXY),
    "no proxy": Key(HERE, SETTINGS, None),
    "another proxy": Key(HERE, SETTINGS, Proxy.parse("http://u:p@proxy.example:3129")),
    "another kind of proxy": Key(HERE, SETTINGS, Proxy.parse("https://u:p@proxy.example:3128")),
    "another user": Key(HERE, SETTINGS, Proxy.parse("http://v:p@proxy.example:3128")),
    "another password": Key(HERE, SETTINGS, Proxy.parse("http://u:q@proxy.example:3128")),
    "nobody": Key(HERE, SETTINGS, Proxy.parse("http://proxy.example:3128")),
}


def test_A5_A15_F8_whose_a_connection_can_be():
    """One key for all that a connection has: where two differ in anything, neither has the other's."""
    assert len(set(KEYS.values())) == len(KEYS)
    same = Key(
        Address.parse("HTTPS://u@EXAMPLE.org:443/b#c").origin, SETTINGS, Proxy.parse("HTTP://u:%70@PROXY.example:3128/")
    )
    assert same == KEYS["itself"] and hash(same) == hash(KEYS["itself"])


def test_T27_close_closes_the_idle_connections(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client = world.client()
    fetch(client)
    assert len(world.sockets) == 1
    client.close()
    assert world.sockets == {}
    world.wait()
    assert world.seen("peer saw FIN")

"""Getting a connection: the race of addresses, and what each may end in (N2-N4, N19; RFC 8305)."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawdl
from rawdl.dial import interleave
from tests import once
from tests.origin import Origin, Script
from tests.recorder import Recorder
from tests.script import run_script
from tests.sim import Conn, Link, World, http_peer, seeds

HOST = "dual.example"
URL = f"http://{HOST}/a"
BODY = bytes(range(256)) * 400
V6 = [f"2001:db8::{n}" for n in range(1, 5)]
V4 = [f"192.0.2.{n}" for n in range(1, 5)]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def dual(world: World, outcomes: dict[str, str | int], **link: object) -> None:
    """Give the host these addresses in this order, each with what becomes of a connection to it."""
    for address, outcome in outcomes.items():
        peer = http_peer(Script(body=BODY))
        world.listen(HOST, 80, peer, address=address, connect=outcome, link=Link(**{"latency": 0.01, **link}))


def attempts(world: World) -> list[tuple[float, str]]:
    """When which address was tried, the first at 0."""
    tried = [(when, what.split()[-1]) for when, what in world.log if " connect " in what and "resolve" not in what]
    began = tried[0][0]
    return [(round(when - began, 3), where.rsplit(":", 1)[0]) for when, where in tried]


def fetch(world: World, **options: object) -> rawdl.DownloadTask:
    task = world.client().download_file(url=URL, sink=rawdl.MemorySink(), **options)
    task.exception()
    return task


# RFC 8305


@pytest.mark.parametrize(
    ("given", "mixed"),
    [
        ("", ""),
        ("6", "6"),
        ("66", "66"),
        ("6644", "6464"),
        ("4466", "4646"),
        ("66644", "64646"),
        ("6444", "6444"),
        ("46464", "46464"),
        ("4666", "4666"),
    ],
)
def test_RFC8305_4_the_families_take_turns_each_in_its_own_order(given: str, mixed: str):
    family = {"4": socket.AF_INET, "6": socket.AF_INET6}
    addresses = [(family[kind], (str(number), 80)) for number, kind in enumerate(given)]
    result = interleave(addresses)
    assert [kind for kind, _ in result] == [family[kind] for kind in mixed]
    for each in family.values():
        assert [a for a in result if a[0] == each] == [a for a in addresses if a[0] == each]


def test_RFC8305_5_the_next_address_is_tried_after_250_ms(world: World):
    dual(world, dict.fromkeys([*V6[:2], *V4[:2]], "blackhole"))
    task = fetch(world)
    assert attempts(world) == [(0.0, V6[0]), (0.25, V4[0]), (0.5, V6[1]), (0.75, V4[1])]
    error = task.exception()
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "connect"
    assert all(address in str(error) for address in (V6[0], V4[1]))
    assert world.sockets == {}


def test_RFC8305_5_N2_one_that_fails_is_followed_at_once(world: World):
    dual(world, {V6[0]: "refuse", V4[0]: errno.ENETUNREACH, V6[1]: "accept", V4[1]: "accept"})
    task = fetch(world)
    assert task.result().data_length == len(BODY)
    assert attempts(world) == [(0.0, V6[0]), (0.02, V4[0]), (0.02, V6[1])]


def test_N2_a_blackhole_first_costs_250_ms(world: World):
    dual(world, {V6[0]: "blackhole", V4[0]: "accept"})
    task = fetch(world)
    assert attempts(world) == [(0.0, V6[0]), (0.25, V4[0])]
    assert task.result().profile.peer_ip == V4[0]
    assert task.result().profile.connect_end - task.result().profile.connect_start == pytest.approx(270, abs=2)
    assert world.seen("client gave up connecting"), "the loser is closed"
    assert len(world.sockets) == 1, "and the winner kept"


def test_N2_a_loser_that_would_have_been_accepted_is_closed(world: World):
    """The first answers after the second, which was begun later, has won."""
    world.listen(HOST, 80, http_peer(Script(body=BODY)), address=V6[0], link=Link(latency=0.5))
    world.listen(HOST, 80, http_peer(Script(body=BODY)), address=V4[0], link=Link(latency=0.01))
    task = fetch(world)
    assert task.result().profile.peer_ip == V4[0]
    assert len(world.requests) == 1
    world.wait(5)
    assert len(world.sockets) == 1


def test_N2_a_slow_first_address_may_still_win(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)), address=V6[0], link=Link(latency=0.2))
    world.listen(HOST, 80, http_peer(Script(body=BODY)), address=V4[0], link=Link(latency=0.5))
    assert fetch(world).result().profile.peer_ip == V6[0]
    assert [address for _, address in attempts(world)] == [V6[0], V4[0]]
    assert len(world.sockets) == 1


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL])
def test_N3_N19_all_fail(number: int, world: World):
    """One error lists each address with its own."""
    dual(world, {V6[0]: number, V4[0]: "refuse", V4[1]: number})
    error = fetch(world).exception()
    assert isinstance(error, rawdl.ConnectError)
    assert error.reason == "connection failed"
    assert HOST in str(error)
    for address in (V6[0], V4[0], V4[1]):
        assert address in str(error)
    assert str(error).count(os.strerror(number)) >= 2
    assert os.strerror(errno.ECONNREFUSED) in str(error)
    assert error.errno == number
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == number
    assert world.sockets == {}


def test_N3_some_fail_and_the_rest_is_a_blackhole(world: World):
    dual(world, {V6[0]: "refuse", V4[0]: "blackhole"})
    error = fetch(world, timeouts=rawdl.Timeouts(connect=3)).exception()
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "connect"
    assert world.elapsed == pytest.approx(3, abs=0.1)


def test_N2_a_last_address_that_fails_while_an_earlier_one_is_under_way(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)), address=V6[0], link=Link(latency=0.5))
    dual(world, {V4[0]: "refuse"})
    assert fetch(world).result().profile.peer_ip == V6[0]


def test_the_connect_limit_is_over_all_addresses(world: World):
    dual(world, dict.fromkeys([*V6, *V4], "blackhole"))
    error = fetch(world, timeouts=rawdl.Timeouts(connect=1)).exception()
    assert isinstance(error, rawdl.Timeout)
    assert len(attempts(world)) == 4
    assert world.elapsed == pytest.approx(1, abs=0.1)


def test_abort_in_the_race_closes_all(world: World):
    dual(world, dict.fromkeys([*V6, *V4], "blackhole"))
    client = world.client()
    task = client.download_file(url=URL, sink=rawdl.MemorySink())
    world.drive(client, 0.8)
    assert len(world.sockets) == 4
    task.abort()
    assert world.sockets == {}
    client.run()
    world.wait(60)
    assert len(attempts(world)) == 4


@seeds(30)
def test_RFC8305_any_mixture_finds_the_one_that_answers(seed: int):
    with World(seed) as world:
        addresses = world.random.sample([*V6, *V4], 5)
        good = world.random.choice(addresses)
        for address in addresses:
            bad = world.random.choice(["refuse", "blackhole", errno.ENETUNREACH])
            outcome = "accept" if address == good else bad
            link = Link(latency=world.random.choice([0.001, 0.1]))
            world.listen(HOST, 80, http_peer(Script(body=BODY)), address=address, connect=outcome, link=link)
        assert fetch(world).result().profile.peer_ip == good
        assert len(world.sockets) == 1


def test_N4_the_handshake_is_accepted_and_nothing_is_said(world: World):
    world.listen(HOST, 80)
    error = fetch(world, timeouts=rawdl.Timeouts(head=3)).exception()
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "head"


def test_N15_an_early_final_response_while_the_request_is_sent(world: World):
    """The server has seen enough of the request; what it says counts, and the connection is not used again."""

    def peer(conn: Conn) -> Iterator[object]:
        yield from conn.read_until(b"GET")
        yield from conn.write(Script(status=413, body=b"too much", keep_alive=False).wire)
        yield None

    world.listen(HOST, 80, peer, link=Link(send_window=50))
    client = world.client()
    task = client.download_file(url=URL, sink=rawdl.MemorySink(), header={"X-Long": "x" * 4000})
    assert task.result().status_code == 413
    assert world.sockets == {}


@pytest.mark.parametrize("window", [1, 7, 100])
def test_a_request_that_goes_out_in_pieces(window: int, world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=Link(send_window=window))
    task = fetch(world, header={"X-Long": "x" * 500})
    assert task.result().data_length == len(BODY)
    assert b"X-Long: " + b"x" * 500 + b"\r\n" in world.requests[0].head


# On real sockets


def test_N3_a_closed_port():
    with Origin(on_accept="refuse") as origin, once.client() as client:
        recorder = Recorder()
        error = recorder.download(client, url=origin.url("/a"), sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.ConnectError)
    assert error.errno == errno.ECONNREFUSED
    assert recorder.names == ["fail", "complete"]


def test_N5_a_reset_on_a_fresh_connection():
    with Origin(on_accept="reset") as origin, once.client() as client:
        error = client.download_file(url=origin.url("/a"), sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.ConnectionLost | rawdl.ConnectError)
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)


def test_ipv6_on_a_real_socket():
    try:
        with Origin(host="::1") as origin, once.client() as client:
            result = client.download_file(url=origin.serve("/a", Script(body=BODY)), sink=rawdl.MemorySink()).result()
            assert result.profile.peer_ip == "::1"
            assert origin.requests[0].field("host") == f"[::1]:{origin.port}"
    except OSError as error:
        if isinstance(error, rawdl.DownloadError):
            raise
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRINUSE])
def test_N19_no_socket_can_be_made(number: int):
    def factory(family: int, kind: int, protocol: int) -> socket.socket:
        if next(calls) == 0:
            raise OSError(number, os.strerror(number))
        return socket.socket(family, kind, protocol)

    calls = itertools.count()
    with Origin() as origin, once.client(socket_factory=factory) as client:
        url = origin.serve("/a", Script(body=BODY))
        first = client.download_file(url=url, sink=rawdl.MemorySink())
        second = client.download_file(url=url, sink=rawdl.MemorySink())
        error = first.exception()
        assert isinstance(error, rawdl.ConnectError)
        assert error.errno == number
        assert os.strerror(number) in str(error)
        assert second.result().data_length == len(BODY)


def test_N19_a_real_lack_of_descriptors(origin: Origin, tmp_path: Path):
    """Some tasks get none; each ends with one typed error or with its file, and afterwards all is well again."""
    pytest.importorskip("resource")
    url = origin.serve("/a", Script(body=BODY))
    script = """
        import os, resource, sys, rawdl
        url, folder = sys.argv[1:]
        with rawdl.Client(max_concurrent=60, max_per_host=60) as client:
            client.step(0)
            resource.setrlimit(resource.RLIMIT_NOFILE, (32, 4096))
            tasks = [client.download_file(url=url, file_path=f"{folder}/{n}") for n in range(60)]
            assert client.run() is False
            kinds = {type(task.exception()).__name__ for task in tasks}
            assert kinds <= {"NoneType", "ConnectError", "StorageError"}, kinds
            assert len(kinds) > 1, kinds
            done = sorted(str(n) for n, task in enumerate(tasks) if task.exception() is None)
            assert sorted(os.listdir(folder)) == done, os.listdir(folder)
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            task = client.download_file(url=url, sink=rawdl.MemorySink())
            print(task.result().data_length)
    """
    assert run_script(script, url, tmp_path) == f"{len(BODY)}\n"


def test_N19_descriptors_above_1024(origin: Origin, tmp_path: Path):
    pytest.importorskip("resource")
    url = origin.serve("/a", Script(body=BODY))
    script = """
        import os, resource, sys, rawdl
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        fillers = [os.dup(0) for _ in range(1100)]
        with rawdl.Client() as client:
            print(client.download_file(url=sys.argv[1], file_path=sys.argv[2]).result().data_length)
    """
    assert run_script(script, url, tmp_path / "a") == f"{len(BODY)}\n"

"""Redirects on the virtual clock: what becomes of connections, ranges, limits and places in the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.resource import Fault, Resource, redirect
from tests.sim import Link, Script, World, seeds
from tests.sim_tests.journeys import (
    AT_ONCE,
    PATIENT,
    A,
    B,
    C,
    Crowd,
    Journey,
    asked,
    fields,
    journey,
    serve,
    travel,
)
from tests.sim_tests.peers import OK, answer

BODY = bytes(range(256)) * 40


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# What becomes of the connection


@pytest.mark.parametrize(
    ("script", "reused"),
    [
        (redirect("/b"), True),
        (redirect("/b", body=b""), True),
        (redirect("/b", body=bytes(65536)), True),
        (redirect("/b", body=bytes(65537)), False),
        (Script(status=302, header=(("Location", "/b"),), body=b"x", framing="chunked"), False),
        (Script(status=302, header=(("Location", "/b"),), body=b"x", framing="until-close"), False),
        (Script(status=302, header=(("Location", "/b"),), body=b"x", keep_alive=False), False),
        (Script(status=302, header=(("Location", "/b"),), body=b"xy", content_length=1), False),
        (Script(status=302, header=(("Location", "/b"),), body=b"x", http_version="1.0"), False),
    ],
)
def test_a_small_body_of_known_length_is_read_for_the_connections_sake(world: World, script: Script, reused: bool):
    serve(world, A, {"/a": script, "/b": OK})
    assert journey(world).body == b"hello"
    assert [request.connection for request in world.requests] == ([1, 1] if reused else [1, 2])


def test_a_large_body_is_not_waited_for(world: World):
    serve(world, A, {"/a": redirect("/b", body=bytes(65537)), "/b": OK}, link=Link(bandwidth=100.0, segment=200))
    journey(world).result  # noqa: B018
    assert world.elapsed < 10, "the body alone takes 655 s"


def test_the_connection_that_was_left_serves_the_next_task(world: World):
    serve(world, A, {"/a": redirect(f"http://{B}/b"), "/c": OK})
    serve(world, B, OK)
    client = world.client()
    for url in (f"http://{A}/a", f"http://{A}/c"):
        taken = Journey(client, url)
        travel(client, taken)
        assert taken.body == b"hello"
    assert [request.connection for request in world.requests] == [1, 2, 1]


@pytest.mark.contract("T24", "N9")
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("location", ["/b", f"http://{B}/b"])
def test_the_body_of_a_redirect_may_break(world: World, how: Any, location: str):
    script = redirect(location, body=bytes(100))
    serve(world, A, {"/a": Fault(in_body=50, kind=how).strike(script), "/b": OK})
    serve(world, B, OK)
    taken = journey(world)
    assert (taken.body, taken.result.attempts) == (b"hello", ())
    assert len(taken.result.redirects) == 1
    assert world.elapsed < 0.5, "there is nothing to wait for"


@pytest.mark.contract("I7")
@pytest.mark.parametrize("pieces", [[b"x", 1e6], [b"x", 50.0] * 100], ids=["stalls", "trickles"])
def test_I7_the_body_of_a_redirect_has_no_more_time_than_a_stall(world: World, pieces: list[bytes | float]):
    """Nobody wants it: the connection that it would save is not worth a long wait."""
    head = redirect(f"http://{B}/b", body=bytes(100)).head
    world.listen(A, 80, answer(head, *pieces))
    serve(world, B, OK)
    taken = journey(world, timeouts=rawdl.Timeouts(idle=60))
    assert (taken.body, taken.result.attempts) == (b"hello", ())
    assert world.elapsed <= 61


@pytest.mark.parametrize("status", [302, 503])
def test_the_limit_of_the_body_is_for_the_body_that_is_wanted(world: World, status: int):
    serve(world, A, {"/a": [redirect("/b", status, body=bytes(200)), OK], "/b": OK})
    taken = journey(world, client={"retry": AT_ONCE}, limits=rawdl.Limits(body=100))
    assert taken.body == b"hello"


# Range requests at the end of the chain


@pytest.mark.contract("T45", "S19", "R12")
def test_T45_what_is_missing_is_asked_for_where_the_chain_ended(world: World, tmp_path: Path):
    resource = Resource(BODY, faults=[Fault(in_body=6000), Fault(in_body=2000, kind="rst")])
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, {"/b": redirect("/c"), "/c": resource})
    options = {"file_path": tmp_path / "a", "header": {"X-Token": "canary", "If-Match": "*"}}
    taken = journey(world, client={"retry": AT_ONCE}, **options)
    assert (tmp_path / "a").read_bytes() == BODY
    assert asked(world) == [f"{A}/a", f"{B}/b", *[f"{B}/c"] * 3]
    assert [fields(request).get("if-range") for request in world.requests[2:]] == [None, '"v1"', '"v1"']
    assert resource.ranges_asked[0] is None
    assert not any(b"canary" in request.head or b"If-Match" in request.head for request in world.requests[1:])
    assert taken.result.redirects == (f"http://{A}/a", f"http://{B}/b")
    assert [type(error) for error in taken.result.attempts] == [rawdl.IncompleteBody] * 2
    assert taken.names.count("headers") == 1


# Limits, errors and time on the way


def test_T36_the_total_is_for_all_hops(world: World):
    serve(world, A, lambda request: redirect(f"/{len(world.requests)}", body=b""), link=Link(latency=1.0))
    taken = journey(world, redirects=rawdl.Redirects(limit=100), timeout=9.5)
    assert isinstance(taken.error, rawdl.Timeout)
    assert taken.error.phase == "total"
    assert world.elapsed == pytest.approx(9.5)


@pytest.mark.contract("I8", "F2")
@pytest.mark.parametrize("size", [0, 10, 70000])
def test_I8_a_target_that_cannot_be_verified_ends_it(world: World, size: int, tmp_path: Path):
    serve(world, A, redirect(f"https://{B}/b", body=bytes(size)))
    client = world.client(tls=rawdl.TLS(ca_file=tmp_path / "none.pem"), retry=PATIENT)
    taken = Journey(client)
    for _ in range(100):
        client.step(0.1)
    assert taken.task.done(), "it goes round in circles"
    assert isinstance(taken.error, rawdl.TLSError)


@pytest.mark.contract("N1", "T6")
def test_N1_a_target_that_does_not_exist(world: World):
    serve(world, A, redirect(f"http://{B}/b"))
    taken = journey(world, client={"retry": PATIENT})
    assert isinstance(taken.error, rawdl.ResolveError)
    assert (taken.names, taken.error.url) == (["fail", "complete"], f"http://{A}/a")


# Slots (T39, S26)


@pytest.mark.contract("S26", "T39")
def test_S26_a_redirected_task_waits_for_the_other_host_and_holds_nothing(world: World):
    """B has one place, which is taken for 10 s: meanwhile the place at A is somebody else's, and so is that of all."""
    serve(world, A, {"/a": redirect(f"http://{B}/b"), "/c": OK})
    serve(world, B, {"/long": Script(head_delay=10.0), "/b": OK})
    client = world.client(max_per_host=1, max_concurrent=2)
    long, moved, other = (Journey(client, url) for url in (f"http://{B}/long", f"http://{A}/a", f"http://{A}/c"))
    world.drive(client, until=5.0)
    assert moved.task.state is rawdl.TaskState.CONNECTING
    assert other.task.done()
    assert repr(client) == "<Client 2 tasks, <Pool 1 in use, 1 idle, 1 waiting>>"
    travel(client, long, moved)
    assert moved.body == b"hello"
    assert asked(world) == [f"{B}/long", f"{A}/a", f"{A}/c", f"{B}/b"]


@pytest.mark.contract("T39", "S26")
def test_T39_who_has_begun_goes_before_those_who_have_not(world: World):
    serve(world, A, {str(f"/{n}"): redirect(f"http://{B}/moved{n}") for n in range(2)})
    serve(world, B, Script(body=b"hello", head_delay=1.0))
    client = world.client(max_per_host=1, max_concurrent=2)
    urls = [f"http://{B}/first", f"http://{A}/0", f"http://{A}/1", *(f"http://{B}/later{n}" for n in range(3))]
    travel(client, *(Journey(client, url) for url in urls))
    at_b = [what for what in asked(world) if what.startswith(B)]
    assert [what.removeprefix(B) for what in at_b] == ["/first", "/moved0", "/moved1", "/later0", "/later1", "/later2"]


@pytest.mark.contract("T30", "T33", "S26")
def test_T30_abort_while_it_waits_for_the_other_host(world: World):
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, {"/long": Script(head_delay=10.0), "/b": OK})
    client = world.client(max_per_host=1)
    long, moved, behind = (Journey(client, url) for url in (f"http://{B}/long", f"http://{A}/a", f"http://{B}/b"))
    world.drive(client, until=5.0)
    moved.task.abort()
    travel(client, long, moved, behind)
    assert isinstance(moved.error, rawdl.Aborted)
    assert behind.body == b"hello"
    assert asked(world) == [f"{B}/long", f"{A}/a", f"{B}/b"]


@pytest.mark.contract("T39", "S26", "T33")
@seeds(10)
def test_T39_crossing_redirects_never_lock_each_other_out(seed: int):
    """Thirty tasks are sent to and fro between three hosts of few places; all arrive, and no limit is broken."""
    with World(seed) as world:
        draw, hosts = world.random, (A, B, C)
        crowds = [Crowd(world, host, lambda request: _wander(request.path, world)) for host in hosts]
        concurrent, per_host = draw.choice([(1, 1), (1, 6), (2, 1), (3, 2), (10, 1)])
        client = world.client(max_concurrent=concurrent, max_per_host=per_host)
        taken = [Journey(client, f"http://{draw.choice(hosts)}/{draw.randint(0, 4)}/{n}") for n in range(30)]
        travel(client, *taken)
        assert [each.body for each in taken] == [b"hello"] * 30
        assert all(crowd.most <= per_host for crowd in crowds)


def _wander(path: str, world: World) -> Script:
    _, left, name = path.split("/")
    if left == "0":
        return Script(body=b"hello", head_delay=world.random.random())
    body = bytes(world.random.choice([0, 10, 70000]))
    return redirect(f"http://{world.random.choice((A, B, C))}/{int(left) - 1}/{name}", body=body)

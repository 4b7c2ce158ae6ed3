"""Tries and waits on the virtual clock: what is tried again, when, how often, and what is told of it."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

import rawdl
from rawdl.errors import ResolveError
from tests.origin import Answer
from tests.resource import Fault, Resource, redirect
from tests.sim import Link, Script, World
from tests.sim_tests.fetch import DNS, LATENCY
from tests.sim_tests.journeys import (
    AT_ONCE,
    PATIENT,
    A,
    Journey,
    Lookups,
    asked,
    journey,
    serve,
    travel,
    try_again,
)
from tests.sim_tests.peers import OK, answer

BODY = bytes(range(256)) * 40
TRY = DNS + 4 * LATENCY  # one that is answered at once
UNAVAILABLE = Script(status=503, reason="Service Unavailable", body=b"later")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def moments(world: World, what: str = f"resolve {A}") -> list[float]:
    """Return when each try began, in seconds after the first."""
    return [round(when, 1) for when in world.seen(what)]


# What is tried again


Trouble = Callable[[World], object]


def _link(**how: Any) -> Trouble:
    """The first connection has this link; that of those after it is sound."""

    def trouble(world: World) -> None:
        listener = serve(world, A, OK, link=Link(**how))
        world.after(0.5, lambda: setattr(listener, "link", Link()))

    return trouble


def _connect(connect: Any) -> Trouble:
    """The first attempt to connect ends like this."""

    def trouble(world: World) -> None:
        listener = serve(world, A, OK, connect=connect)
        world.after(0.5, lambda: setattr(listener, "connect", "accept"))

    return trouble


def _first(*scripts: Answer) -> Trouble:
    return lambda world: serve(world, A, [*scripts, OK])


QUICK = rawdl.Timeouts(resolve=0.4, connect=0.4, tls=0.4, send=0.4, head=0.4, idle=0.4)
TRANSIENT: dict[str, tuple[Trouble, type[rawdl.DownloadError]]] = {
    "refused": (_connect("refuse"), rawdl.ConnectError),
    "no route": (_connect(errno.EHOSTUNREACH), rawdl.ConnectError),
    "no network": (_connect(errno.ENETUNREACH), rawdl.ConnectError),
    "no address of ours": (_connect(errno.EADDRNOTAVAIL), rawdl.ConnectError),
    "connect timeout": (_connect("blackhole"), rawdl.Timeout),
    "reset at once": (_link(cut_at=0, cut="rst"), rawdl.ConnectionLost),
    "closed at once": (_link(cut_at=0), rawdl.IncompleteHead),
    "reset in the head": (_link(cut_at=10, cut="rst"), rawdl.ConnectionLost),
    "closed in the head": (_link(cut_at=10), rawdl.IncompleteHead),
    "reset in the body": (_link(cut_at=40, cut="rst"), rawdl.IncompleteBody),
    "closed in the body": (_link(cut_at=40), rawdl.IncompleteBody),
    "head timeout": (_link(stall_at=10), rawdl.Timeout),
    "idle timeout": (_link(stall_at=40), rawdl.Timeout),
    "send timeout": (_link(deaf=True, send_window=40), rawdl.Timeout),
    **{f"status {code}": (_first(Script(status=code)), rawdl.StatusError) for code in (408, 429, 500, 502, 503, 504)},
}


@pytest.mark.contract("N3", "N4", "N5", "N7", "N8", "N9", "N11", "N14", "H1", "T6", "S19")
@pytest.mark.parametrize(("trouble", "kind"), TRANSIENT.values(), ids=TRANSIENT)
def test_N5_what_may_pass_is_tried_again(world: World, trouble: Trouble, kind: type[rawdl.DownloadError]):
    trouble(world)
    taken = journey(world, client={"retry": PATIENT}, timeouts=QUICK)
    assert taken.body == b"hello"
    [attempt] = taken.result.attempts
    assert type(attempt) is kind
    assert (attempt.attempts, attempt.__traceback__) == ((), None)
    assert taken.result.status_code == 200
    assert taken.names.count("headers") == 1
    [event] = taken.of("headers")
    assert event.status_code == 200
    assert moments(world)[1] == pytest.approx(1.0 if kind is not rawdl.Timeout else 1.4, abs=0.15)


@pytest.mark.contract("N1")
@pytest.mark.parametrize("how", ["try again", "silence"])
def test_N1_a_name_server_that_fails_for_the_moment(world: World, how: str):
    serve(world, A, OK)
    if how == "silence":
        world.name(A).silent = True
        world.after(0.5, lambda: setattr(world.name(A), "silent", False))
    resolver = Lookups(world, [try_again()] if how == "try again" else [])
    taken = journey(world, client={"retry": PATIENT, "resolver": resolver}, timeouts=QUICK)
    assert taken.body == b"hello"
    [attempt] = taken.result.attempts
    assert isinstance(attempt, ResolveError if how == "try again" else rawdl.Timeout)


@pytest.mark.contract("L1")
@pytest.mark.parametrize("link", [Link(cut_at=0), Link(cut_at=300, cut="rst"), Link(stall_at=300)])
def test_L1_a_handshake_that_breaks(world: World, server_context: ssl.SSLContext, trusting: rawdl.TLS, link: Link):
    listener = serve(world, A, OK, port=443, tls=server_context, link=link)
    world.after(0.5, lambda: setattr(listener, "link", Link()))
    taken = journey(world, f"https://{A}/a", {"retry": PATIENT, "tls": trusting}, timeouts=QUICK)
    assert taken.body == b"hello"
    [attempt] = taken.result.attempts
    assert isinstance(attempt, rawdl.Timeout if link.stall_at else rawdl.TLSError)


# What is not


def _raw(*pieces: bytes | float) -> Trouble:
    return lambda world: world.listen(A, 80, answer(*pieces))


PERMANENT: dict[str, tuple[Trouble, str, dict[str, Any]]] = {
    "no such name": (lambda world: None, "name not resolved", {}),
    "no HTTP": (_raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "protocol error", {}),
    "two lengths": (_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "protocol error", {}),
    "a bad chunk": (
        _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        "protocol error",
        {},
    ),
    "too large": (_first(Script(body=BODY)), "exceed max file size", {"limits": rawdl.Limits(body=100)}),
    "too large, after all": (
        _first(Script(body=BODY, framing="chunked")),
        "exceed max file size",
        {"limits": rawdl.Limits(body=100)},
    ),
    "a loop": (_first(redirect("/a")), "redirect", {}),
    "404": (_first(Script(status=404)), "http status 404", {"fail_on_status": True}),
    "501": (_first(Script(status=501)), "http status 501", {"fail_on_status": True}),
    "a wrong checksum": (_first(OK), "checksum mismatch", {"checksum": "sha256:" + "0" * 64}),
    "a sink that raises": (_first(OK), "storage", {"sink": lambda data: 1 / 0}),
    "no folder": (_first(OK), "storage", {"file_path": "/nonexistent/a"}),
}


@pytest.mark.contract("N1", "H6", "K1", "H12", "H1")
@pytest.mark.parametrize(("trouble", "reason", "options"), PERMANENT.values(), ids=PERMANENT)
def test_H6_what_would_fail_again_is_not_tried_again(world: World, trouble: Trouble, reason: str, options: Any):
    trouble(world)
    error = journey(world, client={"retry": PATIENT}, **options).error
    assert (error.reason, error.attempts) == (reason, ())
    assert world.elapsed < 1
    assert len(world.conns) <= 1


@pytest.mark.contract("L2", "F1")
def test_L2_a_certificate_that_is_refused_is_not_asked_for_again(world: World, trusting: rawdl.TLS):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(A).configure_cert(context)
    serve(world, A, OK, port=443, tls=context)
    error = journey(world, f"https://{A}/a", {"retry": PATIENT, "tls": trusting}).error
    assert (error.reason, error.attempts) == ("certificate", ())
    assert (len(world.conns), world.requests) == (1, [])


@pytest.mark.contract("T22", "H1")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501, 505])
def test_T22_other_statuses_are_the_answer(world: World, status: int):
    serve(world, A, [Script(status=status, body=b"no"), OK])
    taken = journey(world, client={"retry": PATIENT})
    assert (taken.result.status_code, taken.body, len(world.requests)) == (status, b"no", 1)


@pytest.mark.contract("N6")
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N6_a_reused_connection_that_was_dead_costs_no_try(world: World, how: Any):
    serve(world, A, {"/first": OK, "*": OK})
    client = world.client(retry=rawdl.Retry(attempts=1))
    first = Journey(client, f"http://{A}/first")
    travel(client, first)
    second = Journey(client)
    world.after(LATENCY / 2, world.conns[0].end, how)  # the request crosses the close
    travel(client, second)
    assert (second.body, second.result.attempts) == (b"hello", ())
    assert len(world.conns) == 2


# How often (S33, R14)


@pytest.mark.contract("S33", "H1", "T6")
@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("strict", [False, True])
def test_S33_so_many_tries_and_the_last_is_the_answer(world: World, attempts: int, strict: bool):
    serve(world, A, UNAVAILABLE)
    taken = journey(world, client={"retry": rawdl.Retry(attempts=attempts, backoff=0.0)}, fail_on_status=strict)
    assert len(world.requests) == attempts
    assert isinstance(taken.end, rawdl.StatusError if strict else rawdl.DownloadResult)
    assert [error.status_code for error in taken.end.attempts] == [503] * (attempts - 1)
    assert taken.names.count("headers") == 1
    assert strict or taken.body == b"later"


@pytest.mark.contract("S33", "N3", "S19")
def test_S33_an_error_has_those_before_it(world: World):
    world.listen(A, 80, connect="refuse")
    error = journey(world, client={"retry": PATIENT}).error
    assert isinstance(error, rawdl.ConnectError)
    assert [type(each) for each in error.attempts] == [rawdl.ConnectError] * 4
    assert error not in error.attempts
    assert moments(world) == pytest.approx([0.0, 1.0, 3.0, 7.0, 15.0], abs=0.15)


def test_S33_a_task_may_have_its_own(world: World):
    serve(world, A, UNAVAILABLE)
    taken = journey(world, client={"retry": PATIENT}, retry=rawdl.Retry(attempts=2, backoff=7.0, jitter="none"))
    assert len(world.requests) == 2
    assert world.elapsed == pytest.approx(7.0 + 2 * TRY)
    assert taken.result.status_code == 503


@pytest.mark.contract("R14", "T24", "S19")
def test_R14_progress_gives_the_tries_back_and_the_history_is_bounded(world: World):
    """A body that is cut 150 times in a row, each time some bytes later, is complete in the end."""
    size, step = 150 * 60, 60
    body = (BODY * 2)[:size]
    resource = Resource(body, faults=[Fault(in_body=step)] * 149)
    serve(world, A, resource)
    taken = journey(world, client={"retry": rawdl.Retry(attempts=2, backoff=0.0)})
    assert taken.body == body
    assert resource.ranges_asked == [None, *(f"bytes={n * step}-" for n in range(1, 150))]
    assert len(taken.result.attempts) == 100
    assert taken.names.count("headers") == 1


@pytest.mark.contract("R14")
def test_R14_tries_that_bring_nothing_are_counted_from_the_last_that_did(world: World):
    resource = Resource(BODY, faults=[Fault(in_body=100), *[Fault(at=5)] * 3, Fault(in_body=100), *[Fault(at=5)] * 9])
    serve(world, A, resource)
    error = journey(world, client={"retry": AT_ONCE}).error
    assert len(resource.ranges_asked) == 1 + 3 + 1 + 5
    assert len(error.attempts) == 9
    assert resource.ranges_asked[-1] == "bytes=200-"


@pytest.mark.contract("R14", "T37")
def test_T37_a_trickle_gives_no_tries_back(world: World):
    serve(world, A, Resource(BODY), link=Link(bandwidth=100.0, segment=50))
    error = journey(world, client={"retry": AT_ONCE}, low_speed=(1000, 5)).error
    assert isinstance(error, rawdl.Timeout) and error.phase == "low_speed"
    assert len(error.attempts) == 4
    assert world.elapsed < 50  # all of it would take twice as long


@pytest.mark.contract("R14", "T37")
def test_T37_one_that_was_fast_before_it_crawled_does(world: World):
    resource = Resource(BODY, faults=[Fault(in_body=1500, kind="stall")] * 6)
    serve(world, A, resource)
    taken = journey(world, client={"retry": rawdl.Retry(attempts=2, backoff=0.0)}, low_speed=(200, 5))
    assert taken.body == BODY
    assert [error.phase for error in taken.result.attempts] == ["low_speed"] * 6


@pytest.mark.contract("R14", "T11", "S36")
@pytest.mark.parametrize("in_file", [False, True])
def test_R14_a_server_that_always_cuts_at_the_same_byte(world: World, in_file: bool, tmp_path: Path):
    """Without a validator each try begins anew, and brings nothing that was not there before."""
    resource = Resource(BODY, etag=None, last_modified=None, faults=[Fault(in_body=5000)] * 100)
    serve(world, A, resource)
    options = {"file_path": tmp_path / "a"} if in_file else {}
    taken = journey(world, client={"retry": AT_ONCE}, progress_interval=0, **options)
    assert isinstance(taken.error, rawdl.IncompleteBody)
    assert resource.ranges_asked == [None] * (1 + 5)
    assert [update.restarted for update in taken.of("progress")].count(True) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("T11", "T6", "T24")
def test_T11_a_restart_is_told_and_ends_well(world: World):
    resource = Resource(BODY, etag='W/"weak"', faults=[Fault(in_body=5000), Fault(in_body=2000), None])
    serve(world, A, resource)
    taken = journey(world, client={"retry": AT_ONCE}, progress_interval=0)
    assert taken.body == BODY
    assert resource.ranges_asked == [None] * 3
    updates = taken.of("progress")
    restarts = [n for n, update in enumerate(updates) if update.restarted]
    assert [updates[n - 1].total_bytes_written for n in restarts] == [5000, 2000]
    assert [updates[n].total_bytes_expected_to_write for n in restarts] == [len(BODY)] * 2
    assert taken.names.count("headers") == 1


@pytest.mark.contract("T11", "S14")
@pytest.mark.parametrize("strong", [False, True])
def test_T11_a_sink_that_cannot_forget_goes_on_or_fails(world: World, strong: bool):
    resource = Resource(BODY, etag='"v1"' if strong else None, last_modified=None, faults=[Fault(in_body=5000)])
    serve(world, A, resource)
    received = bytearray()
    taken = journey(world, client={"retry": AT_ONCE}, sink=received.extend)
    assert received == (BODY if strong else BODY[:5000])
    assert isinstance(taken.end, rawdl.DownloadResult if strong else rawdl.IncompleteBody)
    assert resource.ranges_asked == ([None, "bytes=5000-"] if strong else [None])


# How long


@pytest.mark.contract("H1")
@pytest.mark.parametrize(
    ("value", "options", "seconds"),
    [
        ("7", {}, 7.0),
        ("0", {}, 1.0),  # no less than the backoff
        ("100000", {}, 300.0),
        ("99999999999999999999", {}, 300.0),
        ("100000", {"max_retry_after": 20.0}, 20.0),
        ("7", {"respect_retry_after": False}, 1.0),
        ("soon", {}, 1.0),
        ("-5", {}, 1.0),
        ("7.5", {}, 1.0),
        ("", {}, 1.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", {}, 1.0),
        ("Fri, 31 Dec 2199 23:59:59 GMT", {}, 300.0),
    ],
)
def test_H1_retry_after(world: World, value: str, options: dict[str, Any], seconds: float):
    serve(world, A, [Script(status=503, header=(("Retry-After", value),)), OK])
    taken = journey(world, client={"retry": rawdl.Retry(backoff=1.0, jitter="none", **options)})
    assert taken.body == b"hello"
    assert world.elapsed == pytest.approx(seconds + 2 * TRY)


def test_the_last_try_begins_when_the_time_for_tries_is_over(world: World):
    serve(world, A, Script(status=503))
    retry = rawdl.Retry(attempts=1000, backoff=20.0, factor=1.0, jitter="none", max_time=50.0)
    taken = journey(world, client={"retry": retry})
    assert world.elapsed == pytest.approx(50.0 + 2 * TRY)
    assert isinstance(taken.end, rawdl.DownloadResult) and len(taken.end.attempts) == 3


def test_H1_retry_after_a_date(world: World):
    until = formatdate(time.time() + 50000, usegmt=True)
    serve(world, A, [Script(status=503, header=(("Retry-After", until),)), OK])
    journey(world, client={"retry": rawdl.Retry(max_retry_after=1e6)}).result  # noqa: B018
    assert world.elapsed == pytest.approx(50000, abs=600), "the wall clock moves while the test runs"


@pytest.mark.contract("S33", "H1")
def test_H1_waits_grow_up_to_a_limit_and_are_short_again_after_progress(world: World):
    resource = Resource(BODY, status_first=[503] * 5, faults=[Fault(in_body=100), Fault(at=0), Fault(at=0), None])
    serve(world, A, resource)
    retry = rawdl.Retry(attempts=9, backoff=1.0, factor=3.0, max_delay=10.0, jitter="none")
    assert journey(world, client={"retry": retry}).body == BODY
    at = [0.0, 1.0, 4.0, 13.0, 23.0, 33.0, 34.0, 37.0, 46.0]
    assert world.seen(f"resolve {A}") == pytest.approx(at, abs=0.7)


@pytest.mark.contract("T36")
def test_T36_the_total_goes_on_in_the_wait_and_over_all_tries(world: World):
    serve(world, A, UNAVAILABLE)
    error = journey(world, client={"retry": PATIENT}, timeout=5.0).error
    assert isinstance(error, rawdl.Timeout)
    assert (error.phase, len(error.attempts)) == ("total", 3)
    assert world.elapsed == pytest.approx(5.0)


@pytest.mark.contract("T33", "S26", "T39")
def test_T33_a_wait_leaves_the_place_to_others(world: World):
    serve(world, A, {"/a": [UNAVAILABLE, OK], "*": Script(body=b"hello", head_delay=0.4)})
    client = world.client(retry=PATIENT, max_concurrent=1)
    first, *others = (Journey(client, f"http://{A}/{name}") for name in "abcdef")
    travel(client, first, *others)
    assert first.body == b"hello"
    # Who has begun goes before those who have not, as soon as a place is free.
    assert asked(world) == [f"{A}/{name}" for name in "abcdaef"]

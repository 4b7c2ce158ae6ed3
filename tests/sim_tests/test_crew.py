"""Several connections for one file: who fetches what, and what becomes of servers that do not take part in it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import pytest

import rawdl
from tests.origin import Request
from tests.resource import DAY_LATER, Fault, Ranges, Resource, Span, redirect
from tests.resuming import AT_ONCE
from tests.sim import Link, Script, World, http_peer
from tests.sim_tests.crews import (
    BODY,
    MIN,
    OTHER,
    SPEED,
    CrewBench,
    TwoFaced,
    closes,
    closes_at_once,
    is_mute,
    resets,
    says,
)
from tests.sim_tests.fetch import HOST, LATENCY, assert_nothing_left

ALONE = len(BODY) / SPEED  # seconds that one connection takes
RETRY = rawdl.Retry(attempts=3, backoff=5.0, jitter="none")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def bench(world: World, tmp_path: Path) -> CrewBench:
    return CrewBench(world, tmp_path)


# The plan


def test_the_first_response_tells_what_the_others_need(bench: CrewBench):
    attempt = bench.attempt()
    bench.assert_whole()
    assert [request.method for request in bench.world.requests] == ["GET"] * 4
    assert bench.asked[0] is None
    assert len(set(bench.asked)) == 4
    assert bench.times[1:] == [bench.times[1]] * 3  # at once, when the head is there
    assert bench.times[1] < 0.1
    assert bench.world.elapsed < ALONE / 4 + 20 * LATENCY
    assert attempt.restarts == 0


def test_a_task_says_how_many_connections_it_has(world: World, bench: CrewBench):
    client = world.client()
    attempt = bench.begin(client)
    seen = [attempt.task.connections]
    attempt.react("headers", lambda event: seen.append(attempt.task.connections))
    attempt.react("progress", lambda event: seen.append(attempt.task.connections))
    client.run()
    assert seen[:2] == [0, 1] and max(seen) == 4
    assert attempt.task.connections == 0


def test_the_first_connection_goes_on_and_the_others_take_far_parts(bench: CrewBench):
    bench.attempt()
    firsts = sorted(int(asked.removeprefix("bytes=").partition("-")[0]) for asked in bench.asked if asked)
    assert [first / len(BODY) for first in firsts] == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    assert len(bench.world.conns) == 4
    assert {served.request.field("If-Range") for served in bench.resource.log[1:]} == {'"v1"'}


@pytest.mark.parametrize("connections", [2, 3, 8, 50])
def test_as_many_connections_as_are_allowed_and_worth_it(connections: int, bench: CrewBench):
    client = bench.world.client(max_per_host=100)
    attempt = bench.begin(client, connections=connections)
    client.run()
    assert attempt.result.data_length == len(BODY)
    bench.assert_whole()
    most = max(n for n in (1, 2, 4, 8, 16, 32) if n * MIN <= len(BODY))
    assert min(connections, most) <= bench.most <= connections
    assert_nothing_left(bench.world, client, idle=len(bench.world.sockets))


def test_what_comes_is_told_as_one_download(bench: CrewBench):
    attempt = bench.attempt(progress_interval=0)
    result = attempt.result
    assert attempt.names[:2] == ["headers", "progress"]
    assert attempt.of("headers")[0].status_code == result.status_code == 200
    assert (result.data_length, result.resumed_from, result.attempts, result.skipped) == (len(BODY), 0, (), False)
    assert result.header["content-length"] == str(len(BODY))
    written = [update.total_bytes_written for update in attempt.of("progress")]
    assert written[-1] == len(BODY)
    assert written.count(len(BODY)) == 1  # the end is told once, whichever connection it comes over
    assert {update.total_bytes_expected_to_write for update in attempt.of("progress")} == {len(BODY)}
    profile = result.profile
    assert profile.fetch_start <= profile.request_start <= profile.response_start <= profile.response_end
    assert profile.received_bytes_count == len(BODY)


def test_who_is_done_takes_half_of_what_is_most_behind(bench: CrewBench):
    """The first connection is a hundred times slower than those that come after it."""
    bench.relay(SPEED / 100)
    bench.world.after(0.04, bench.relay, SPEED)
    bench.attempt()
    bench.assert_whole()
    # What is left to it, of less than two shares that are worth a connection, it brings itself.
    assert bench.world.elapsed < 2 * MIN / (SPEED / 100) + 1
    assert len(bench.asked) > 6
    assert bench.most == 4


def test_a_connection_is_used_again_for_the_next_segment(bench: CrewBench):
    """One that has brought all that it asked for need not be closed."""
    bench.relay(SPEED / 20)
    bench.world.after(0.04, bench.relay, SPEED)
    bench.attempt()
    assert len(bench.world.conns) < len(bench.asked)


def test_over_tls(server_context: ssl.SSLContext, trusting: rawdl.TLS, world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, tls=server_context)
    bench.client_options["tls"] = trusting
    bench.attempt()
    bench.assert_whole()
    assert bench.most == 4
    assert world.elapsed < ALONE / 2


@pytest.mark.parametrize("status", [301, 302, 307])
def test_the_others_go_where_the_first_was_sent(status: int, bench: CrewBench):
    bench.world.listen("start.example", 80, http_peer(redirect(bench.url, status)))
    attempt = bench.attempt(url="http://start.example/b")
    bench.assert_whole()
    assert [request.field("Host") for request in bench.world.requests] == ["start.example"] + [HOST] * 4
    assert (attempt.result.redirects, attempt.result.url) == (("http://start.example/b",), bench.url)


# Where one connection is all there is to be had

ONE: dict[str, dict[str, Any]] = {
    "no validator": {"etag": None, "last_modified": None},
    "weak etag": {"etag": 'W/"v1"'},
    "weak date": {"etag": None, "date": DAY_LATER, "last_modified": DAY_LATER},
    "chunked": {"framing": "chunked"},
    "until close": {"framing": "until-close"},
    "no ranges": {"accept_ranges": "none"},
    "coded": {"like": Script(header=(("Content-Encoding", "gzip"),))},
    "empty": {"body": b""},
    "tiny": {"body": BODY[:10]},
    "less than two shares": {"body": BODY[: 2 * MIN - 1]},
}


@pytest.mark.parametrize("resource", ONE.values(), ids=ONE.keys())
def test_one_connection_where_there_can_be_no_more(resource: dict[str, Any], world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, Resource(**{"body": BODY, **resource}))
    bench.attempt()
    bench.assert_whole()
    bench.assert_alone()


@pytest.mark.parametrize("options", [{"connections": 1}, {"sink": rawdl.DiscardSink()}, {"min_segment": len(BODY)}])
def test_one_connection_where_no_more_are_wanted(options: dict[str, Any], bench: CrewBench):
    assert bench.attempt(**options).result.data_length == len(BODY)
    bench.assert_alone()


def test_H4_a_part_that_the_caller_asks_for_is_not_divided(bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client, header={"Range": "bytes=0-299999"})
    client.run()
    assert attempt.result.status_code == 206
    assert bench.path.read_bytes() == BODY[:300_000]
    assert bench.asked == ["bytes=0-299999"]


@pytest.mark.parametrize("resource", [{"accept_ranges": None}, {"etag": None}, {"body": BODY[: 3 * MIN]}])
def test_several_where_nothing_speaks_against_it(resource: dict[str, Any], world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, Resource(**{"body": BODY, **resource}))
    bench.attempt()
    bench.assert_whole()
    assert len(bench.asked) > 1


# Servers that answer the others badly

TRUE = ("honour", "short", "few", "ignore-if-range", "end-high")
# That one differs in a date which nobody asked about: it is the ETag that tells versions apart.
MODES = [mode for mode in get_args(Ranges) if mode != "other-modified"]
LIES = [mode for mode in MODES if mode not in TRUE]


@pytest.mark.parametrize("mode", LIES)
def test_R6_R7_who_gets_no_part_leaves_the_file_to_the_first(mode: Any, world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, TwoFaced(BODY, later={"ranges": mode}))
    attempt = bench.attempt()
    bench.assert_whole()
    assert (attempt.result.attempts, attempt.restarts) == ((), 0)
    assert len(bench.asked) == 4  # each has asked once, and was not replaced by others who ask the same
    assert world.elapsed < ALONE + 10 * LATENCY  # the first was never held up


@pytest.mark.parametrize("mode", TRUE)
def test_R8_a_part_that_is_true_is_taken(mode: Any, world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, TwoFaced(BODY, later={"ranges": mode}))
    attempt = bench.attempt()
    bench.assert_whole()
    assert (attempt.result.attempts, attempt.restarts) == ((), 0)
    assert world.elapsed < ALONE


class Verbose(Resource):
    """It says one byte more than it announces, with each answer."""

    def _answer(self, request: Request) -> tuple[Script, Span | None]:
        script, span = super()._answer(request)
        assert isinstance(script.body, bytes)
        return replace(script, body=script.body + b"!", content_length=len(script.body)), span


def test_H9_what_comes_behind_the_parts_is_told(world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, Verbose(BODY))
    attempt = bench.attempt()
    bench.assert_whole()
    assert 1 <= attempt.result.surplus < len(bench.asked)  # who stops for another's sake does not see the end
    assert len(world.conns) == len(bench.asked)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", [0, 5000, 300_000])
def test_T48_whatever_the_others_get_and_then_the_first_breaks(mode: Any, at: int, world: World, tmp_path: Path):
    """It goes on, or begins anew over one connection, or says why not: the file is right, or there is none."""
    bench = CrewBench(world, tmp_path, TwoFaced(BODY, later={"ranges": mode}))
    attempt = bench.attempt(Fault(in_body=at), retry=AT_ONCE)
    if isinstance(attempt.end, rawdl.DownloadResult):
        bench.assert_whole()
        return
    assert isinstance(attempt.end, rawdl.RangeError | rawdl.StatusError)
    assert mode in ("error", "416", "416-bare") or attempt.restarts
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize("mode", ["honour", "ignore-if-range", "error"])
@pytest.mark.parametrize("fault", [None, Fault(in_body=200_000)], ids=["on", "cut"])
def test_T48_R2_R3_the_file_changes_meanwhile(fault: Fault | None, mode: Any, world: World, tmp_path: Path):
    later = {"body": OTHER, "etag": '"v2"', "last_modified": DAY_LATER, "ranges": mode}
    bench = CrewBench(world, tmp_path, TwoFaced(BODY, later=later))
    attempt = bench.attempt(fault, retry=AT_ONCE)
    if mode == "error" and fault:
        assert isinstance(attempt.error, rawdl.StatusError)
        for path in tmp_path.iterdir():
            path.unlink()
        return
    assert bench.path.read_bytes() == (OTHER if fault else BODY)
    assert attempt.restarts == (1 if fault else 0)
    assert bench.names == ["a"]


def test_T48_the_file_changes_when_the_others_have_brought_something(bench: CrewBench):
    bench.world.after(0.5, bench.resource.change, OTHER, '"v2"')
    bench.break_all_at(0.6)
    attempt = bench.attempt(retry=AT_ONCE)
    assert attempt.restarts == 1
    bench.assert_whole()
    assert bench.asked[-1] is None


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("to", [f"http://{HOST}/b", "http://other.example/b", f"http://{HOST}/a"])
def test_R12_all_break_and_the_file_is_elsewhere_by_now(to: str, bench: CrewBench):
    """A redirect is followed as by one connection alone, and within the same limits."""
    there = http_peer({"/a": redirect(to), "/b": lambda request: bench.resource(request)})
    bench.world.listen("other.example", 80, there)
    bench.break_all_at(0.5)
    bench.world.after(0.5, setattr, bench.listener, "peer", there)
    attempt = bench.attempt(retry=AT_ONCE, header={"X-Token": "secret"})
    if to.endswith("/a"):
        assert isinstance(attempt.error, rawdl.RedirectError)
        return
    assert (attempt.result.url, attempt.result.redirects, attempt.restarts) == (to, (bench.url,), 0)
    assert [type(error) for error in attempt.result.attempts] == [rawdl.IncompleteBody]
    assert {request.field("X-Token") for request in bench.world.requests if request.target == "/b"} == {
        "secret" if HOST in to else None
    }
    bench.assert_whole()


# Servers that allow only some connections


GREETINGS = {
    "503": says(503),
    "503 keeps": says(503, (("Retry-After", "3600"),)),
    "429": says(429),
    "403": says(403),
    "302": http_peer(redirect("http://elsewhere.example/")),
    "resets": resets,
    "closes": closes,
    "closes at once": closes_at_once,
    "mute": is_mute,
}


@pytest.mark.parametrize("allowed", [1, 2, 3])
@pytest.mark.parametrize("greeting", GREETINGS)
def test_a_server_that_allows_so_many_connections(greeting: str, allowed: int, bench: CrewBench):
    bench.allowed, bench.greet = allowed, GREETINGS[greeting]
    attempt = bench.attempt()
    bench.assert_whole()
    assert (attempt.result.attempts, attempt.restarts, attempt.result.status_code) == ((), 0, 200)
    assert len(bench.world.conns) < 20
    if greeting != "mute":
        assert bench.world.elapsed < ALONE + 1


@pytest.mark.parametrize("connect", ["refuse", "blackhole"])
def test_a_server_that_takes_no_further_connection(connect: Any, bench: CrewBench):
    bench.world.after(0.03, setattr, bench.listener, "connect", connect)
    assert bench.attempt().result.attempts == ()
    bench.assert_whole()
    assert len(bench.world.requests) == 1
    assert bench.world.elapsed < ALONE + 1


# Breaks


@pytest.mark.parametrize("nth", range(4))
@pytest.mark.parametrize("kind", ["fin", "rst"])
def test_one_that_breaks_is_replaced(kind: Any, nth: int, bench: CrewBench):
    faults = [None, None, None, None]
    faults[nth] = Fault(in_body=50_000, kind=kind)
    attempt = bench.attempt(*faults)
    bench.assert_whole()
    assert (attempt.result.attempts, attempt.restarts) == ((), 0)
    assert bench.most == 4
    assert bench.world.elapsed < ALONE / 2


@pytest.mark.parametrize(("moment", "again"), [(0.15, 5.0), (0.5, 0.5)])
def test_S33_all_break_at_once_and_the_round_is_one_try(moment: float, again: float, bench: CrewBench):
    """The next follows at once if this one has brought much, and else after the wait."""
    bench.break_all_at(moment)
    attempt = bench.attempt(retry=RETRY)
    bench.assert_whole()
    assert [type(error) for error in attempt.result.attempts] == [rawdl.IncompleteBody]
    assert (attempt.result.skipped, attempt.result.resumed_from, attempt.result.status_code) == (False, 0, 200)
    assert all(again < began < again + 0.3 for began in bench.times[4:8])
    assert None not in bench.asked[1:]
    assert attempt.restarts == 0
    profile = attempt.result.profile  # of the last round
    assert profile.fetch_start + again * 1000 < profile.request_start <= profile.response_start <= profile.response_end


def test_S33_all_break_at_once_and_there_is_no_other_try(bench: CrewBench):
    bench.break_all_at(0.5)
    assert isinstance(bench.attempt().error, rawdl.IncompleteBody)
    assert len(bench.record["done"]) == 4
    bench.attempt()
    bench.assert_whole()


@pytest.mark.parametrize("connect", ["refuse", "accept"])
def test_S33_tries_in_vain_are_counted_by_the_round(connect: Any, bench: CrewBench):
    """After 0.5 s the server is gone: three tries without a new byte, though each is made of several connections."""
    bench.break_all_at(0.5)
    bench.world.after(0.5, setattr, bench.listener, "connect", connect)
    bench.world.after(0.5, setattr, bench.listener, "peer", closes_at_once)
    attempt = bench.attempt(retry=RETRY)
    assert [type(error) for error in attempt.error.attempts[:1]] == [rawdl.IncompleteBody]
    assert len(attempt.error.attempts) == 3
    assert isinstance(attempt.error, rawdl.ConnectError if connect == "refuse" else rawdl.DownloadError)
    assert len(set(bench.times[4:])) == 3  # rounds, of several connections each
    bench.listener.connect, bench.listener.peer = "accept", bench._serve
    bench.attempt()
    bench.assert_whole()


def test_H1_S33_the_next_round_is_when_the_server_says(bench: CrewBench):
    """They are all sent away; what one of them was told before is nothing to a round that breaks."""
    bench.allowed, bench.greet = 3, says(503, (("Retry-After", "250"),))
    bench.break_all_at(0.5)
    busy = http_peer(Script(status=503, header=(("Retry-After", "60"),), body=b"later\n"))
    bench.world.after(0.5, setattr, bench.listener, "peer", busy)
    bench.world.after(50.0, setattr, bench.listener, "peer", bench._serve)
    attempt = bench.attempt(retry=RETRY)
    bench.assert_whole()
    assert [type(error) for error in attempt.result.attempts] == [rawdl.IncompleteBody, rawdl.StatusError]
    assert 60 < bench.world.elapsed < 65


def test_S33_progress_gives_the_tries_back(bench: CrewBench):
    bench.relay(SPEED / 4)
    bench.break_all_at(*range(1, 10))
    attempt = bench.attempt(retry=rawdl.Retry(attempts=2, backoff=0.1, jitter="none"))
    bench.assert_whole()
    assert len(attempt.result.attempts) >= 3
    assert attempt.restarts == 0


@pytest.mark.parametrize("seconds", [1, 3])
def test_S33_a_pause_while_it_waits_for_the_next_round(seconds: int, bench: CrewBench):
    bench.break_all_at(0.15)
    client = bench.world.client(retry=RETRY)
    attempt = bench.begin(client)
    bench.world.drive(client, 2.0)
    attempt.task.pause()
    bench.world.drive(client, 2.0 + seconds)
    attempt.task.resume()
    client.run()
    assert attempt.result.data_length == len(BODY)
    assert all(moment > 5.0 for moment in bench.times[4:])
    assert bench.most == 4
    bench.assert_whole()


def test_N19_no_descriptor_for_the_others(bench: CrewBench):
    """Only one socket can be made: the others fail in the very call that was to begin with them."""

    def socket(*args: Any) -> Any:
        if len(bench.world.sockets) >= 1:
            raise OSError(24, "Too many open files")
        return bench.world.socket(*args)

    bench.client_options["socket_factory"] = socket
    assert bench.attempt().result.attempts == ()
    bench.assert_whole()
    assert len(bench.world.conns) == 1


# Digests

PROMISES: dict[str, tuple[bytes, type]] = {
    "right": (BODY, rawdl.DownloadResult),
    "wrong": (OTHER, rawdl.ChecksumError),
}


@pytest.mark.parametrize("how", ["checksum", "Repr-Digest", "both"])
@pytest.mark.parametrize("promise", PROMISES)
def test_H12_what_came_by_several_ways_is_read_back(promise: str, how: str, bench: CrewBench):
    from base64 import b64encode

    data, expected = PROMISES[promise]
    digest = sha256(data)
    if how != "checksum":
        field = ("Repr-Digest", f"sha-256=:{b64encode(digest.digest()).decode()}:")
        bench.resource.like = Script(header=(field,))
    options = {} if how == "Repr-Digest" else {"checksum": f"sha256:{digest.hexdigest()}"}
    attempt = bench.attempt(**options)
    assert isinstance(attempt.end, expected)
    assert bench.most == 4
    assert bench.names == (["a"] if promise == "right" else [])
    if promise == "right":
        assert attempt.result.checksum == f"sha256:{digest.hexdigest()}"
        bench.assert_whole()


def test_a_link_that_is_slow_to_begin_keeps_nobody_waiting(bench: CrewBench):
    """The others answer only after the first has all but finished."""
    bench.world.after(0.04, setattr, bench.listener, "link", Link(bandwidth=SPEED, latency=1.0, segment=1460))
    bench.attempt()
    bench.assert_whole()
    assert bench.world.elapsed < ALONE + 3

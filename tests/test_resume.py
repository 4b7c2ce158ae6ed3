"""What is there is continued, or the download begins anew, or it fails; never is a file mixed (T45-T48, table R)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests.origin import Request
from tests.resource import FEW, LAST_MODIFIED, Fault, Ranges, Resource, redirect
from tests.resuming import AT_ONCE, BODY, CUT, FROM_CUT, OTHER, Bench
from tests.sim import Script, World, http_peer
from tests.sim_tests.fetch import HOST, URL

CUT_HERE = Fault(in_body=CUT)
# What no part may be continued with. The last byte of its body is wrong, or it is not where it was asked for.
BAD_PARTS: list[Ranges] = [
    "start-low",
    "start-high",
    "end-before-start",
    "total-changed",
    "total-star",
    "no-content-range",
    "other-unit",
    "other-etag",
    "coded",
    "multipart",
    "416",
    "416-bare",
]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with World() as world:
        yield Bench(world, tmp_path)


# What is kept of a failure


@pytest.mark.parametrize("at", [1, OVERLAP, CUT, len(BODY) - 1])
@pytest.mark.parametrize("kind", ["fin", "rst", "stall"])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_T24_T47_what_arrived_is_kept_and_continued(framing: Any, kind: Any, at: int, bench: Bench):
    bench.resource.framing, bench.resource.like = framing, Script(chunk=7000)
    error = bench.attempt(Fault(in_body=at, kind=kind)).error
    assert isinstance(error, rawdl.Timeout if kind == "stall" else rawdl.IncompleteBody)
    bench.assert_kept(at)
    assert bench.record["validator"] == ["etag", '"v1"']
    assert bench.record["total"] == (len(BODY) if framing == "content-length" else None)
    bench.resource.log.clear()
    attempt = bench.attempt()
    assert bench.asked == [f"bytes={max(0, at - OVERLAP)}-"], "the overlap is asked for again"
    assert bench.resource.log[0].request.field("If-Range") == '"v1"'
    assert (attempt.result.resumed_from, attempt.result.data_length) == (at, len(BODY))
    assert attempt.result.attempts == ()
    bench.assert_whole()


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_T24_a_206_that_is_cut_is_continued_too(framing: Any, bench: Bench):
    bench.resource.part_framing = framing
    bench.break_off(100)
    bench.attempt(Fault(in_body=100 + 500))
    bench.assert_kept(600)
    assert bench.attempt().result.resumed_from == 600
    bench.assert_whole()


def test_R8_a_206_to_the_close_is_as_short_as_it_is(bench: Bench):
    """Content-Range tells that the close came early."""
    bench.resource.part_framing = "until-close"
    bench.break_off(100)
    result = bench.attempt(Fault(in_body=600)).result
    assert (result.resumed_from, result.length_known) == (100, True)
    assert len(bench.asked) == 2
    bench.assert_whole()


def test_T24_N10_tls_without_close_notify(server_context: ssl.SSLContext, ca_file: Path, tmp_path: Path):
    with World() as world:
        bench = Bench(world, tmp_path, Resource(BODY, framing="until-close"), tls=server_context)
        bench.client_options = {"tls": rawdl.TLS(ca_file=str(ca_file))}
        error = bench.attempt(Fault(in_body=CUT, close_notify=False)).error
        assert isinstance(error, rawdl.IncompleteBody) and error.expected is None
        bench.assert_kept()
        assert bench.attempt().result.resumed_from == CUT
        bench.assert_whole()


def no_name(bench: Bench) -> Callable[[], None]:
    bench.world.name(HOST).error = socket.gaierror(socket.EAI_AGAIN, "again")
    return lambda: setattr(bench.world.name(HOST), "error", None)


def refusing(bench: Bench) -> Callable[[], None]:
    bench.listener.connect = "refuse"
    return lambda: setattr(bench.listener, "connect", "accept")


def saying(status: int) -> Callable[[Bench], None]:
    return lambda bench: setattr(bench.resource, "status_first", [status])


@pytest.mark.parametrize(
    ("trouble", "fault", "error"),
    [
        (no_name, None, rawdl.ResolveError),
        (refusing, None, rawdl.ConnectError),
        (None, Fault(at=0), rawdl.IncompleteHead),
        (None, Fault(at=30), rawdl.IncompleteHead),
        (None, Fault(at=0, kind="rst"), rawdl.ConnectionLost),
        (None, Fault(at=30, kind="stall"), rawdl.Timeout),
        (None, Fault(in_body=0), rawdl.IncompleteBody),
        (None, Fault(in_body=OVERLAP - 1, kind="rst"), rawdl.IncompleteBody),
        (saying(503), None, rawdl.StatusError),
        (saying(404), None, rawdl.StatusError),
    ],
)
def test_T24_T47_a_failure_without_new_bytes_loses_nothing(trouble: Any, fault: Fault | None, error: Any, bench: Bench):
    bench.break_off()
    repair = trouble(bench) if trouble else None
    assert isinstance(bench.attempt(fault).error, error)
    bench.assert_kept()
    if repair:
        repair()
    assert bench.attempt().result.resumed_from == CUT
    bench.assert_whole()


@pytest.mark.parametrize("resume", ["auto", False, True])
def test_T32_an_abort_removes_the_part_unless_it_is_to_be_resumed(resume: Any, bench: Bench):
    client = bench.world.client()
    bench.slow_down(20_000)
    attempt = bench.begin(client, resume=resume, progress_interval=0)
    attempt.react("progress", lambda event: event.total_bytes_written >= CUT and attempt.task.abort())
    client.run()
    assert isinstance(attempt.error, rawdl.Aborted)
    client.close()
    assert bench.names == (["a.part", "a.part.json"] if resume is True else [])
    kept = bench.part.stat().st_size if resume is True else 0
    assert bench.attempt().result.resumed_from == kept
    assert kept >= CUT or resume is not True
    bench.assert_whole()


# T45: what may be continued

VALIDATORS = [
    ('"v1"', LAST_MODIFIED, '"v1"'),
    ('"v1"', None, '"v1"'),
    ('""', None, '""'),
    ('W/"v1"', LAST_MODIFIED, None),  # S32
    ('W/"v1"', None, None),
    ("v1", LAST_MODIFIED, None),  # no entity tag, but who knows what the server makes of it
    (None, LAST_MODIFIED, LAST_MODIFIED),
    (None, "yesterday", None),
    (None, None, None),
]


@pytest.mark.parametrize(("etag", "modified", "if_range"), VALIDATORS)
def test_T45_R4_R5_S32_S36_only_under_a_strong_validator(
    etag: str | None, modified: str | None, if_range: str | None, bench: Bench
):
    bench.resource.change(BODY, etag, modified)
    bench.break_off()
    assert bench.names == (["a.part", "a.part.json"] if if_range else []), "what cannot be continued is not kept"
    attempt = bench.attempt(resume="auto" if if_range else True)  # S36: True is as good as any where nothing is kept
    assert attempt.result.resumed_from == (CUT if if_range else 0)
    assert bench.asked == [FROM_CUT if if_range else None]
    assert bench.resource.log[0].request.field("If-Range") == if_range
    bench.assert_whole()


@pytest.mark.parametrize("date", [LAST_MODIFIED, None])
def test_T45_R5_a_date_that_is_not_strong(date: str | None, bench: Bench):
    """There may have been a second change within the second (RFC 9110 8.8.2.2)."""
    bench.resource.etag, bench.resource.date = None, date
    bench.break_off()
    assert bench.names == []


def test_R11_D5_what_comes_coded_is_not_kept(bench: Bench):
    bench.resource.like = Script(header=(("Content-Encoding", "gzip"),))
    bench.break_off()
    assert bench.names == []


@pytest.mark.parametrize("resume", [False, "auto"])
def test_S32_resume_false_begins_anew(resume: Any, bench: Bench):
    bench.break_off()
    assert bench.attempt(resume=resume).result.resumed_from == (CUT if resume else 0)
    assert bench.asked == [FROM_CUT if resume else None]
    bench.assert_whole()


def test_S32_resume_true_without_any_part_begins(bench: Bench):
    assert bench.attempt(resume=True).result.resumed_from == 0
    bench.assert_whole()


# T46: what may be answered


@pytest.mark.parametrize("ranges", BAD_PARTS)
def test_T46_R7_R9_R11_S36_a_bad_answer_restarts(ranges: Ranges, bench: Bench):
    bench.break_off()
    bench.resource.ranges = ranges
    attempt = bench.attempt()
    assert bench.asked == [FROM_CUT, None]
    assert (attempt.result.resumed_from, attempt.result.attempts) == (0, ())  # S32: at no attempt's cost
    bench.assert_whole()


@pytest.mark.parametrize("ranges", BAD_PARTS)
def test_T46_R7_T11_a_bad_answer_restarts_in_the_same_task(ranges: Ranges, bench: Bench):
    bench.resource.ranges = ranges
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE)
    assert bench.asked == [None, FROM_CUT, None]
    assert [type(error) for error in attempt.result.attempts] == [rawdl.IncompleteBody]
    assert attempt.restarts == 1
    assert len(attempt.of("headers")) == 1
    bench.assert_whole()


@pytest.mark.parametrize("ranges", ["ignore", *BAD_PARTS])
def test_S32_with_resume_true_a_bad_answer_fails_and_nothing_is_lost(ranges: Ranges, bench: Bench):
    bench.break_off()
    bench.resource.ranges = ranges
    error = bench.attempt(resume=True).error
    assert isinstance(error, rawdl.RangeError)
    assert error.reason == "cannot resume"
    assert bench.asked == [FROM_CUT]
    bench.assert_kept()
    bench.resource.ranges = "honour"
    assert bench.attempt(resume=True).result.resumed_from == CUT
    bench.assert_whole()


def test_S32_with_resume_true_nothing_is_lost_of_this_run_either(bench: Bench):
    """And the part is nobody's afterwards, though this process is alive (R13)."""
    bench.slow_down(5_000)
    bench.break_off()
    bench.resource.faults, client = [Fault(in_body=OVERLAP + 10_000)], bench.world.client(retry=AT_ONCE)
    attempt = bench.begin(client, resume=True)
    bench.world.drive(client, lambda: attempt.task.progress.total_bytes_written > CUT + 8000)
    bench.resource.ranges = "total-changed"
    client.run()
    assert isinstance(attempt.error, rawdl.RangeError)
    bench.assert_kept(CUT + 10_000)
    bench.resource.ranges = "honour"
    assert bench.attempt().result.resumed_from == CUT + 10_000
    bench.assert_whole()


def test_S36_an_overlap_that_differs_restarts(bench: Bench):
    """R10: somebody wrote to the part."""
    bench.break_off()
    bench.part.write_bytes(BODY[: CUT - 1] + b"?")
    assert isinstance(bench.attempt(resume=True).error, rawdl.RangeError)
    assert bench.attempt().result.resumed_from == 0
    assert bench.asked == [FROM_CUT, FROM_CUT, None]
    bench.assert_whole()


def test_R7_multipart_with_a_content_range_of_its_own(bench: Bench):
    bench.break_off()
    bench.resource.like = Script(header=(("Content-Type", "multipart/byteranges; boundary=x"),))
    assert bench.attempt().result.resumed_from == 0
    assert bench.asked == [FROM_CUT, None]
    bench.assert_whole()


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
def test_R2_R6_T46_a_200_restarts_in_a_fresh_part(ranges: Ranges, bench: Bench):
    bench.break_off()
    if ranges == "honour":
        bench.resource.change(OTHER, '"v2"')
    bench.resource.ranges = ranges
    with bench.part.open("rb") as old:
        assert bench.attempt().result.resumed_from == 0
        assert old.read() == BODY[:CUT], "the old part was not written to"
    assert bench.asked == [FROM_CUT], "the 200 itself is taken"
    bench.assert_whole()


def test_R6_T11_a_restart_of_what_was_there_before_is_told(bench: Bench):
    bench.break_off()
    bench.resource.ranges = "ignore"
    attempt = bench.attempt()
    assert attempt.restarts == 1
    assert attempt.of("progress")[0].restarted


# What the server may do to the file meanwhile. The 206 then comes whether If-Range holds or not.
CHANGES = {
    "etag": Resource(OTHER, '"v2"'),
    "etag, longer": Resource(BODY + b"more", '"v2"'),
    "only longer": Resource(BODY + b"more", '"v1"'),
    "only shorter": Resource(BODY[: CUT + 10], '"v1"'),
    "shorter than the part": Resource(BODY[: CUT - 10], '"v1"'),
    "empty": Resource(b"", '"v1"'),
    "no etag, longer": Resource(BODY + b"more", None),
    "no etag, other bytes": Resource(OTHER, None),
    "same etag, other bytes": Resource(OTHER, '"v1"'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_R3_R10_T48_a_change_is_found_though_the_server_ignores_if_range(change: str, bench: Bench):
    bench.break_off()
    new = CHANGES[change]
    bench.resource.change(new.body, new.etag)
    bench.resource.ranges = "ignore-if-range"
    assert bench.attempt().result.resumed_from == 0
    assert bench.asked == [FROM_CUT, None]
    bench.assert_whole()


def test_R3_T48_a_change_is_found_by_last_modified(bench: Bench):
    bench.resource.etag = None
    bench.break_off()
    bench.resource.change(BODY[:CUT] + OTHER[CUT:], None)
    bench.resource.ranges = "ignore-if-range"
    assert bench.attempt().result.resumed_from == 0
    bench.assert_whole()


def test_R3_T48_a_206_that_does_not_repeat_the_etag(bench: Bench):
    """It has to (RFC 9110 15.3.7), so this is of another version: here with the same length and the same overlap."""
    bench.break_off()
    bench.resource.change(BODY[:CUT] + OTHER[CUT:], None, None)
    bench.resource.ranges = "ignore-if-range"
    assert bench.attempt().result.resumed_from == 0
    bench.assert_whole()


@pytest.mark.parametrize("retry", [rawdl.Retry(attempts=1), AT_ONCE])
def test_R8_a_206_shorter_than_asked_is_appended(retry: rawdl.Retry, bench: Bench):
    bench.break_off()
    bench.resource.ranges = "short"
    attempt = bench.attempt(retry=retry)
    assert (attempt.result.resumed_from, attempt.result.attempts) == (CUT, ())
    assert len(bench.asked) > 2 and None not in bench.asked
    bench.assert_whole()


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_R8_a_206_that_ends_within_the_overlap(framing: Any, bench: Bench):
    """What it has is compared, and the next request goes on from there."""
    bench.break_off()
    bench.resource.ranges, bench.resource.part_framing = "few", framing
    attempt = bench.attempt(retry=rawdl.Retry(attempts=1))
    assert (attempt.result.resumed_from, attempt.result.attempts) == (CUT, ())
    start = CUT - OVERLAP
    assert bench.asked == [f"bytes={at}-" for at in range(start, len(BODY), FEW)]
    bench.assert_whole()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_R8_S36_each_part_of_the_overlap_is_compared(nth: int, bench: Bench):
    bench.break_off()
    wrong = CUT - OVERLAP + nth * FEW - 1 if nth < 3 else CUT - 1
    bench.resource.change(BODY[:wrong] + bytes([BODY[wrong] ^ 1]) + BODY[wrong + 1 :], '"v1"', LAST_MODIFIED)
    bench.resource.ranges = "few"
    attempt = bench.attempt()
    assert attempt.result.resumed_from == 0
    assert len(bench.asked) == nth + 1 and bench.asked[-1] is None
    bench.assert_whole()


@pytest.mark.parametrize("ranges", ["416", "honour", "end-high"])
def test_R9_S35_a_part_that_is_whole_already(ranges: Ranges, bench: Bench):
    bench.resource.framing = "chunked"
    bench.break_off(len(BODY))
    bench.resource.ranges = ranges
    attempt = bench.attempt()
    assert (attempt.result.resumed_from, attempt.result.data_length) == (len(BODY), len(BODY))
    assert attempt.result.raise_for_status() is attempt.result
    assert bench.asked == [f"bytes={len(BODY) - OVERLAP}-"]
    bench.assert_whole()


def test_R9_a_416_of_another_version(bench: Bench):
    bench.resource.framing = "chunked"
    bench.break_off(len(BODY))
    bench.resource.change(OTHER, None)
    bench.resource.ranges, bench.resource.like = "416", Script(header=(("ETag", '"v2"'),))
    assert bench.attempt().result.resumed_from == 0
    bench.assert_whole()


def test_R9_a_416_to_everything_is_asked_for_once_more_and_no_more(bench: Bench):
    bench.break_off()
    bench.world.listen(HOST, 80, http_peer(Script(status=416)))
    error = bench.attempt(retry=AT_ONCE, fail_on_status=True).error
    assert isinstance(error, rawdl.StatusError) and error.status_code == 416
    assert [request.field("Range") for request in bench.world.requests[1:]] == [FROM_CUT, None]
    assert not bench.path.exists()


# R10: what may happen to the part and its journal between two runs

MEDDLING: dict[str, tuple[Callable[[Bench], object], str | None]] = {
    "the part is deleted": (lambda b: b.part.unlink(), None),
    "the part is empty": (lambda b: b.part.write_bytes(b""), None),
    "the part is shorter than recorded": (lambda b: b.part.write_bytes(BODY[: CUT - 1]), None),
    "the part is longer than recorded": (lambda b: b.part.write_bytes(BODY[:CUT] + b"?" * 30_000), FROM_CUT),
    "the journal is deleted": (lambda b: b.journal.unlink(), None),
    "the journal is empty": (lambda b: b.journal.write_text(""), None),
    "the journal is torn": (lambda b: b.journal.write_text(b.journal.read_text()[:100]), None),
    "the journal is of another version": (lambda b: b.rewrite(version=99), None),
    "the journal is of another url": (lambda b: b.rewrite(url="http://example.org/b"), None),
    "the journal is of another query": (lambda b: b.rewrite(url_key="0" * 64), None),
    "the journal has no validator": (lambda b: b.rewrite(validator=None), None),
    "the journal has a weak validator": (lambda b: b.rewrite(validator=["etag", 'W/"v1"']), None),
    "the journal has an unknown validator": (lambda b: b.rewrite(validator=["colour", "red"]), None),
    "the journal has nothing done": (lambda b: b.rewrite(done=[], synced=[]), None),
    "the journal has not the beginning": (lambda b: b.rewrite(done=[[9, CUT]], synced=[]), None),
    "the journal has a hole": (lambda b: b.rewrite(done=[[0, 9000], [9001, CUT]], synced=[]), "bytes=4904-"),
    "the journal has more than the whole": (lambda b: b.rewrite(total=100), None),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_R10_T45_only_what_journal_and_part_agree_on_is_continued(what: str, bench: Bench):
    meddle, asked = MEDDLING[what]
    bench.break_off()
    meddle(bench)
    attempt = bench.attempt()
    assert bench.asked == [asked]
    assert (attempt.result.resumed_from > 0) == (asked is not None)
    bench.assert_whole()


def test_R10_another_url(bench: Bench):
    """Its query counts as well, though the journal does not show it."""
    bench.break_off(url=URL + "?version=1")
    assert bench.attempt(url=URL + "?version=2").result.resumed_from == 0
    assert bench.asked == [None]
    bench.assert_whole()


@pytest.mark.parametrize(
    ("second", "resumed_from", "asked"),
    [
        (Resource(BODY), CUT, [FROM_CUT]),
        (Resource(OTHER, '"v2"'), 0, [FROM_CUT]),
        (Resource(OTHER, '"v2"', ranges="ignore-if-range"), 0, [FROM_CUT, None]),
        (Resource(BODY + b"?", ranges="ignore-if-range"), 0, [FROM_CUT, None]),
    ],
    ids=["same", "other etag", "other etag in a 206", "other total"],
)
def test_R12_a_redirect_leads_elsewhere_the_second_time(
    second: Resource, resumed_from: int, asked: list[str | None], bench: Bench
):
    first, places = bench.resource, ["http://one.example.org/b?sign=1", "http://two.example.org/c?sign=2"]
    bench.world.listen("one.example.org", 80, http_peer(first))
    bench.world.listen("two.example.org", 80, http_peer(second))
    bench.world.listen(HOST, 80, http_peer([redirect(place) for place in [*places, places[1]]]))
    bench.break_off()
    bench.resource = second
    result = bench.attempt().result
    assert second.ranges_asked == asked
    assert (result.resumed_from, result.url, result.redirects) == (resumed_from, places[1], (URL,))
    bench.assert_whole()


@pytest.mark.parametrize("expired", [403, 410, None], ids=["403", "410", "gone"])
@pytest.mark.parametrize("connections", [1, 4])
def test_R12_where_a_redirect_leads_is_asked_anew_when_that_has_expired(
    expired: int | None, connections: int, bench: Bench
):
    first, second = bench.resource, Resource(BODY)

    def one(request: Request) -> Script:
        if not first.log:
            return first(request)
        return Script(status=expired, reason="No") if expired is not None else Script(cut_at=0)

    places = ["http://one.example.org/b?sign=1", "http://two.example.org/c?sign=2"]
    bench.world.listen("one.example.org", 80, http_peer(one))
    bench.world.listen("two.example.org", 80, http_peer(second))
    again = http_peer(lambda request: redirect(places[bool(first.log)]))
    bench.world.listen(HOST, 80, again)
    options = {"connections": connections, "min_segment": 10_000, "auth": ("me", "secret")}
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, **options)
    assert (attempt.result.url, attempt.restarts) == (places[1], 0)
    assert set(attempt.result.redirects) == {URL}
    asked = [(request.field("Host"), request.field("Authorization") is not None) for request in bench.world.requests]
    assert set(asked) == {(HOST, True), ("one.example.org", False), ("two.example.org", False)}
    bench.assert_whole()


def test_R12_one_that_leads_nowhere_is_not_asked_for_ever(bench: Bench):
    first = bench.resource
    bench.world.listen(
        "one.example.org", 80, http_peer(lambda request: Script(status=403) if first.log else first(request))
    )
    bench.world.listen(HOST, 80, http_peer(redirect("http://one.example.org/b")))
    error = bench.attempt(CUT_HERE, retry=AT_ONCE).error
    assert isinstance(error, rawdl.StatusError) and error.status_code == 403
    assert [request.field("Host") for request in bench.world.requests].count(HOST) == 2
    bench.assert_kept(CUT)
    bench.part.unlink()
    bench.journal.unlink()

"""A task goes on after a break, whatever it writes to: retries by Range, and what must be the same afterwards."""

from __future__ import annotations

import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests.once import ONE_TRY
from tests.origin import Answer, Request
from tests.resource import DAY_LATER, LAST_MODIFIED, Fault, Resource, Span, redirect
from tests.resuming import AT_ONCE, BODY, CUT, FROM_CUT, OTHER, SHA256, Attempt, Bench
from tests.sim import Script, World, http_peer
from tests.sim_tests.fetch import HOST, URL

CUT_HERE = Fault(in_body=CUT)
REST = f"bytes={CUT}-"  # how it is asked for where nothing can be read back
WRONG = "sha256:" + "0" * 64


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with World() as world:
        yield Bench(world, tmp_path)


class Target:
    """One place for the bytes, and what has arrived there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.options: dict[str, Any] = {}
        self.arrived: Callable[[], bytes]
        memory, taken, written = rawdl.MemorySink(), bytearray(), io.BytesIO()
        if kind == "memory":
            self.options, self.arrived = {"sink": memory}, memory.getvalue
        elif kind == "callable":
            self.options, self.arrived = {"sink": taken.extend}, lambda: bytes(taken)
        elif kind == "writable":
            self.options, self.arrived = {"sink": written}, written.getvalue
        elif kind == "temporary":
            self.options, self.arrived = {"directory": folder}, lambda: next(folder.iterdir()).read_bytes()
        else:
            self.arrived = (folder / "a").read_bytes


KINDS = ["memory", "temporary", "file", "callable", "writable"]
ONE_WAY = ("callable", "writable")  # what they took, they cannot give back


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(kind: str, tmp_path: Path) -> Target:
    return Target(kind, tmp_path)


# Breaks


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("fault", ["fin", "rst", "stall"])
def test_T47_a_task_goes_on_after_breaks(fault: Any, framing: Any, kind: str, target: Target, bench: Bench):
    bench.resource.framing = bench.resource.part_framing = framing
    faults = [Fault(in_body=n, kind=fault) for n in (CUT, OVERLAP + 5000, OVERLAP + 1)]
    attempt = bench.attempt(*faults, retry=AT_ONCE, **target.options)
    assert target.arrived() == BODY
    assert bench.asked[0] is None and bench.asked[1] == (FROM_CUT if kind == "file" else REST)
    assert None not in bench.asked[1:]
    assert len(bench.asked) == 4
    assert [type(error) for error in attempt.result.attempts] == [
        rawdl.Timeout if fault == "stall" else rawdl.IncompleteBody
    ] * 3
    assert (attempt.result.resumed_from, attempt.result.data_length) == (0, len(BODY))
    assert attempt.restarts == 0
    assert len(attempt.of("headers")) == 1
    assert attempt.of("headers")[0].status_code == 200


def test_T6_T11_T46_the_counts_go_on_where_they_were(target: Target, bench: Bench):
    bench.slow_down(20_000)
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, progress_interval=0, **target.options)
    written = [update.total_bytes_written for update in attempt.of("progress")]
    assert len(set(written)) > 20
    assert written == sorted(written)
    assert {update.total_bytes_expected_to_write for update in attempt.of("progress")} == {len(BODY)}


def test_T46_without_a_validator_a_task_begins_anew_or_fails(kind: str, target: Target, bench: Bench):
    bench.resource.change(BODY, None, None)
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, **target.options)
    if kind in ONE_WAY:
        assert isinstance(attempt.error, rawdl.IncompleteBody)
        assert attempt.error.attempts == (), "S19: the tries before this one"
        assert target.arrived() == BODY[:CUT]
        assert bench.asked == [None]
    else:
        assert len(attempt.result.attempts) == attempt.restarts == 1
        assert target.arrived() == BODY
        assert bench.asked == [None, None]


@pytest.mark.parametrize("change", [False, True])
def test_R2_R6_T48_a_200_begins_anew_or_fails(change: bool, kind: str, target: Target, bench: Bench):
    """It is of another version, or the server ignores ranges."""
    new = Resource(OTHER, '"v2"') if change else Resource(BODY, ranges="ignore")
    old = bench.resource
    bench.world.listen(HOST, 80, http_peer([lambda request: old(request), lambda request: new(request)]))
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, **target.options)
    assert len(new.log) == 1
    if kind in ONE_WAY:
        assert isinstance(attempt.error, rawdl.RangeError)
        assert target.arrived() == BODY[:CUT]
    else:
        assert target.arrived() == new.body
        assert attempt.restarts == 1
        assert attempt.result.data_length == len(new.body)


@pytest.mark.parametrize("ranges", ["total-changed", "start-high", "416"])
def test_T46_a_bad_answer_begins_anew_or_fails(ranges: Any, kind: str, target: Target, bench: Bench):
    bench.resource.ranges = ranges
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, **target.options)
    if kind in ONE_WAY:
        assert isinstance(attempt.error, rawdl.RangeError)
        assert target.arrived() == BODY[:CUT]
    else:
        assert attempt.result.data_length == len(BODY)
        assert target.arrived() == BODY


def test_R5_the_206_may_leave_last_modified_out(bench: Bench):
    """RFC 9110 15.3.7: who sent If-Range has the other fields already."""
    bench.resource.etag = None
    bench.leave_out("Last-Modified")
    bench.attempt(CUT_HERE, retry=AT_ONCE)
    assert bench.asked == [None, FROM_CUT]
    assert bench.resource.log[1].request.field("If-Range") == LAST_MODIFIED
    bench.assert_whole()


# How often


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("again", [0, 1, OVERLAP])
def test_R14_S33_tries_without_a_new_byte_are_counted(again: int, bench: Bench):
    """The overlap is nothing new."""
    faults = [CUT_HERE, *[Fault(in_body=again)] * 9]
    error = bench.attempt(*faults, retry=rawdl.Retry(attempts=5, backoff=0)).error
    assert isinstance(error, rawdl.IncompleteBody)
    assert len(bench.asked) == 6, "one that brought bytes, and five that did not"
    assert len(error.attempts) == 5
    bench.assert_kept()


def test_R14_S33_a_new_byte_gives_the_tries_back(bench: Bench):
    faults = [CUT_HERE, *[Fault(in_body=OVERLAP + 1), Fault(in_body=OVERLAP)] * 20]
    attempt = bench.attempt(*faults, retry=rawdl.Retry(attempts=2, backoff=0))
    assert len(attempt.result.attempts) == 41
    bench.assert_whole()


def no_longer_than(count: int, script: Script, span: Span | None) -> Script:
    """Make a 206 that brings so many bytes at most."""
    if script.status != 206 or span is None:
        return script
    first, last = span.first, min(span.last, span.first + count - 1)
    fields = dict(script.header) | {"Content-Range": f"bytes {first}-{last}/{len(BODY)}"}
    return replace(script, body=BODY[first : last + 1], header=tuple(fields.items()))


def test_R8_R14_S33_what_a_short_206_has_brought_gives_the_tries_back(bench: Bench):
    """Each is followed by a 503, of which there are more in all than there are tries."""
    bench.break_off()

    def answer(request: Request) -> Script:
        script = no_longer_than(OVERLAP + 1000, bench.resource(request), bench.resource.spans[-1])
        return script if len(bench.asked) % 2 else Script(status=503, body=b"not now")

    bench.listener.peer = http_peer({"/a": answer})
    assert len(bench.attempt(retry=AT_ONCE).result.attempts) > 3
    bench.assert_whole()


@pytest.mark.usefixtures("leaves_parts")
def test_R8_R14_S32_what_a_short_206_has_brought_once_more_is_nothing_new(bench: Bench):
    """A 200 that breaks off, a short 206, one that breaks off, one of no use, and all over again."""
    faults = (Fault(in_body=CUT), None, Fault(in_body=OVERLAP + 1000), None)

    def answer(request: Request) -> Script:
        turn = len(bench.asked) % 4
        assert len(bench.asked) < 40, "it goes on for ever"
        bench.resource.ranges, bench.resource.faults = ("honour", "honour", "honour", "other-etag")[turn], faults[turn:]
        script = bench.resource(request)
        return no_longer_than(OVERLAP + 1000, script, bench.resource.spans[-1]) if turn == 1 else script

    bench.listener.peer = http_peer({"/a": answer})
    bench.attempt(retry=AT_ONCE).error  # noqa: B018 (it fails, whatever the error)


@pytest.mark.usefixtures("leaves_parts")
def test_S32_a_server_that_breaks_off_and_never_continues_well_is_left(bench: Bench):
    """Each restart is free, but brings nothing new: it is not the way to go on for ever."""
    bench.resource.ranges = "total-changed"
    faults = [CUT_HERE, None] * 50
    bench.attempt(*faults, retry=AT_ONCE).error  # noqa: B018 (it fails, whatever the error)
    assert len(bench.asked) <= 2 * 4


@pytest.mark.parametrize("status", [500, 503, 429])
def test_T6_S33_a_status_in_between(status: int, target: Target, bench: Bench):
    answers: list[Answer] = [bench.resource, Script(status=status, body=b"not now"), bench.resource]
    bench.world.listen(HOST, 80, http_peer(answers))
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, **target.options)
    assert target.arrived() == BODY
    assert [error.reason for error in attempt.result.attempts] == ["incomplete", f"http status {status}"]
    assert [event.status_code for event in attempt.of("headers")] == [200]


# Ranges that nobody asked for, or somebody else


def test_H4_T46_a_206_that_was_not_asked_for(bench: Bench):
    part = Script(status=206, body=BODY[:10], header=(("Content-Range", "bytes 0-9/40000"), ("ETag", '"v1"')))
    bench.world.listen(HOST, 80, http_peer(part))
    assert isinstance(bench.attempt(retry=AT_ONCE).error, rawdl.ProtocolError)
    assert len(bench.world.requests) == 1
    assert bench.names == []


def test_H4_the_content_range_of_a_200_is_ignored(bench: Bench):
    bench.resource.like = Script(header=(("Content-Range", "bytes 5-9/10"),))
    bench.attempt().result  # noqa: B018 (it succeeds)
    bench.assert_whole()


@pytest.mark.parametrize("name", ["Range", "range"])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "a part there"])
def test_H4_a_range_of_the_callers(name: str, there: bool, bench: Bench):
    """The part that comes is what is saved, and nothing is continued or verified as if it were the whole."""
    if there:
        bench.break_off()
    bench.resource.like = Script(header=(("Repr-Digest", digest(b"something else")),))
    client = bench.world.client()
    attempt = bench.begin(client, header={name: "bytes=10-19"})
    client.run()
    assert (attempt.result.status_code, attempt.result.data_length) == (206, 10)
    assert (bench.asked, bench.resource.spans) == (["bytes=10-19"], [Span(10, 19)])
    assert bench.path.read_bytes() == BODY[10:20]
    assert bench.names == ["a"]


def test_T45_the_callers_conditions_are_about_the_whole(bench: Bench):
    header = {"If-None-Match": '"v0"', "if-modified-since": DAY_LATER, "X-Mine": "1"}
    bench.attempt(CUT_HERE, retry=AT_ONCE, header=header)
    first, second = (served.request for served in bench.resource.log)
    assert (first.field("If-None-Match"), first.field("X-Mine")) == ('"v0"', "1")
    assert (second.field("If-None-Match"), second.field("If-Modified-Since"), second.field("X-Mine")) == (
        None, None, "1",
    )  # fmt: skip
    bench.assert_whole()


# Digests


def digest(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize("checksum", [SHA256, f"md5:{hashlib.md5(BODY).hexdigest()}"])
def test_H12_a_checksum_across_a_break(checksum: str, target: Target, bench: Bench):
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, checksum=checksum, **target.options)
    assert target.arrived() == BODY
    assert attempt.result.checksum == checksum


@pytest.mark.parametrize("faults", [(), (CUT_HERE,)], ids=["whole", "broken"])
def test_H12_a_wrong_checksum_is_a_failure(faults: Any, kind: str, target: Target, bench: Bench):
    attempt = bench.attempt(*faults, retry=AT_ONCE, checksum=WRONG, **target.options)
    assert_mismatch(attempt, WRONG)
    assert len(bench.asked) == 1 + len(faults), "it is not tried again"
    assert bench.names == []
    assert kind != "memory" or target.arrived() == b""


def assert_mismatch(attempt: Attempt, expected: str) -> None:
    error = attempt.error
    assert isinstance(error, rawdl.ChecksumError)
    assert (error.reason, error.expected, error.actual) == ("checksum mismatch", expected, SHA256)


def test_H12_a_wrong_checksum_leaves_the_old_file(bench: Bench):
    bench.path.write_text("old")
    assert_mismatch(bench.attempt(checksum=WRONG), WRONG)
    assert bench.path.read_text() == "old"
    assert bench.names == ["a"]


@pytest.mark.parametrize("promise", ["checksum", "Repr-Digest"])
def test_H12_what_another_run_has_left_is_read_back(promise: str, bench: Bench):
    bench.break_off()
    if promise == "Repr-Digest":
        bench.resource.like = Script(header=(("Repr-Digest", digest(BODY)),))
    assert bench.attempt(checksum=SHA256 if promise == "checksum" else None).result.checksum == SHA256
    assert bench.asked == [FROM_CUT]
    bench.assert_whole()


@pytest.mark.parametrize("at", [0, CUT - OVERLAP - 1])
def test_H12_R10_a_byte_before_the_overlap_that_somebody_has_changed(at: int, bench: Bench):
    """Only a digest can tell: the whole is asked for then, unless the part must be continued."""
    bench.break_off()
    bench.part.write_bytes(BODY[:at] + b"?" + BODY[at + 1 : CUT])
    result = bench.attempt(checksum=SHA256, retry=ONE_TRY).result
    assert (result.checksum, result.resumed_from) == (SHA256, 0)
    assert [type(error) for error in result.attempts] == [rawdl.ChecksumError]
    assert bench.asked == [FROM_CUT, None]
    bench.assert_whole()


def test_H12_R10_a_changed_part_that_must_be_continued(bench: Bench):
    bench.break_off()
    bench.part.write_bytes(b"?" + BODY[1:CUT])
    assert isinstance(bench.attempt(checksum=SHA256, resume=True).error, rawdl.ChecksumError)
    assert (bench.asked, bench.names) == ([FROM_CUT], [])


def test_H12_what_is_wrong_as_a_whole_is_asked_for_once_more_only(bench: Bench):
    bench.break_off()
    assert_mismatch(bench.attempt(checksum=WRONG), WRONG)
    assert (bench.asked, bench.names) == ([FROM_CUT, None], [])


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest", "Digest"])
@pytest.mark.parametrize("right", [True, False])
def test_H12_the_digest_of_a_response(name: str, right: bool, target: Target, bench: Bench):
    value = digest(BODY if right else OTHER)
    value = value.replace("=:", "=").replace(":", "") if name == "Digest" else value  # RFC 3230 has no colons
    bench.resource.like = Script(header=((name, value),))
    attempt = bench.attempt(**target.options)
    if right:
        assert attempt.result.checksum == SHA256
        assert target.arrived() == BODY
    else:
        assert_mismatch(attempt, f"sha256:{hashlib.sha256(OTHER).hexdigest()}")
        assert bench.names == []


@pytest.mark.parametrize("value", ["md5=:AAAAAAAAAAAAAAAAAAAAAA==:", "sha-256=:AAAA:", "rot13=:AAAA:", "nonsense", ""])
def test_H12_a_digest_that_says_nothing(value: str, bench: Bench):
    bench.resource.like = Script(header=(("Repr-Digest", value),))
    assert bench.attempt().result.checksum == ""
    bench.assert_whole()


def test_H12_the_content_digest_of_a_206_is_of_the_part(bench: Bench):
    bench.break_off()
    bench.resource.like = Script(header=(("Content-Digest", digest(BODY[CUT - OVERLAP :])),))
    assert bench.attempt().result.resumed_from == CUT
    bench.assert_whole()


@pytest.mark.parametrize("right", [True, False])
def test_H12_the_content_digest_in_the_trailer_of_a_206_is_of_the_part(right: bool, bench: Bench):
    """Also in the task that a 200 has begun; what is said of the whole counts there as anywhere."""
    bench.resource.part_framing = "chunked"
    trailer = (("Content-Digest", digest(BODY[CUT - OVERLAP :])), ("Repr-Digest", digest(BODY if right else OTHER)))
    bench.resource.like = Script(trailer=trailer)
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE)
    assert bench.asked == [None, FROM_CUT]
    if right:
        assert attempt.result.checksum == SHA256
        bench.assert_whole()
    else:
        assert_mismatch(attempt, f"sha256:{hashlib.sha256(OTHER).hexdigest()}")


def test_H12_the_206_does_not_repeat_the_digest(target: Target, bench: Bench):
    bench.resource.like = Script(header=(("Repr-Digest", digest(BODY)),))
    bench.leave_out("Repr-Digest")
    attempt = bench.attempt(CUT_HERE, retry=AT_ONCE, **target.options)
    assert attempt.result.checksum == SHA256
    assert target.arrived() == BODY


def test_H12_the_digest_of_a_version_that_is_gone(bench: Bench):
    """After a restart only the promises of the new response count."""
    old, new = bench.resource, Resource(OTHER, '"v2"')
    old.like = Script(header=(("Repr-Digest", digest(BODY)),))
    bench.world.listen(HOST, 80, http_peer([old, new]))
    bench.attempt(CUT_HERE, retry=AT_ONCE).result  # noqa: B018 (it succeeds)
    assert bench.path.read_bytes() == OTHER


@pytest.mark.parametrize("right", [True, False])
def test_H12_a_digest_in_the_trailer(right: bool, kind: str, target: Target, bench: Bench):
    """Trailer announces it where what has gone by cannot be read back."""
    bench.resource.framing = "chunked"
    bench.resource.like = Script(
        header=(("Trailer", "Repr-Digest"),) if kind != "file" else (),
        trailer=(("Repr-Digest", digest(BODY if right else OTHER)),),
    )
    attempt = bench.attempt(**target.options)
    if right:
        assert attempt.result.checksum == SHA256
    else:
        assert_mismatch(attempt, f"sha256:{hashlib.sha256(OTHER).hexdigest()}")
        assert bench.names == []


# The end


@pytest.mark.usefixtures("leaves_parts")
def test_S38_T36_the_total_limit_is_looked_at_before_the_rename(bench: Bench):
    """What has arrived is kept, all of it (T24)."""
    client = bench.world.client()
    attempt = bench.begin(client, timeout=5)
    attempt.react("progress", lambda event: event.progress == 100 and bench.world.wait(10))
    client.run()
    assert isinstance(attempt.error, rawdl.Timeout) and attempt.error.phase is rawdl.Phase.TOTAL
    bench.assert_kept(len(BODY))
    assert bench.attempt().result.resumed_from == len(BODY)
    bench.assert_whole()


# The result


def test_T25_S19_the_fields_of_a_result_that_took_some_doing(bench: Bench):
    bench.break_off(100)
    bench.path.write_text("old")
    bench.resource.like = Script(header=(("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")))
    bench.world.listen(HOST, 80, http_peer({"/a": redirect("/b"), "/b": lambda request: bench.resource(request)}))
    attempt = bench.attempt(CUT_HERE, exists="rename", checksum=SHA256, retry=AT_ONCE)
    result = attempt.result
    assert (result.file_path, result.temp_file_path) == (str(bench.folder / "a.1"), None)
    assert (result.data_length, result.resumed_from, result.skipped) == (len(BODY), 100, False)
    assert (result.url, result.redirects) == (f"http://{HOST}/b", (URL,))
    assert [type(error) for error in result.attempts] == [rawdl.IncompleteBody]
    assert result.attempts[0].attempts == ()
    assert (result.checksum, result.cookies) == (SHA256, ("a=1", "b=2"))
    as_dict = json.loads(json.dumps(result.to_dict()))
    assert (as_dict["resumedFrom"], as_dict["checksum"], as_dict["redirects"]) == (100, SHA256, [URL])
    assert (bench.path.read_text(), bench.names) == ("old", ["a", "a.1"])


def test_T13_a_resumed_download_counts_from_the_start_of_the_file(bench: Bench):
    bench.break_off()
    bench.slow_down(20_000)
    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0)
    assert attempt.task.progress == rawdl.ProgressUpdate()  # S35
    client.run()
    updates = attempt.of("progress")
    assert attempt.result.resumed_from == CUT
    assert CUT <= updates[0].total_bytes_written < CUT + 2000
    assert {update.total_bytes_expected_to_write for update in updates} == {len(BODY)}
    speeds = [update.bytes_per_second for update in updates[5:]]
    assert max(speeds) < 40_000, "what was there did not come over the line"


@pytest.mark.usefixtures("leaves_parts")
def test_S18_S19_the_tries_of_a_failure(bench: Bench):
    bench.resource = Resource(BODY, etag=None)
    error = bench.attempt(CUT_HERE, Fault(at=0), Fault(at=5), Fault(in_body=OVERLAP), retry=AT_ONCE).error
    assert isinstance(error, rawdl.IncompleteBody)
    assert [type(each) for each in error.attempts] == [rawdl.IncompleteBody] + [rawdl.IncompleteHead] * 2
    assert [each.attempts for each in error.attempts] == [()] * 3
    assert (error.received, error.expected) == (OVERLAP, len(BODY) - CUT + OVERLAP), "S18: of this response"
    bench.assert_kept()

"""A file that came over several connections in part is completed over as many, or fewer, or more (T45-T48, R1-R14)."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests.resource import DAY_LATER, Fault, Ranges, Resource, redirect
from tests.resuming import AT_ONCE
from tests.sim import Script, World, http_peer
from tests.sim_tests.crews import BODY, MIN, OTHER, SPEED, CrewBench

HOLES = [(0, 100_000), (150_000, 200_000), (300_000, 400_000)]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def bench(world: World, tmp_path: Path) -> CrewBench:
    return CrewBench(world, tmp_path)


def stop_after(bench: CrewBench, seconds: float, **options: Any) -> list[tuple[int, int]]:
    """Have a download end after so long; return what of the file is there."""
    attempt = bench.attempt(timeout=seconds, **options)
    assert isinstance(attempt.error, rawdl.Timeout)
    done = [(start, stop) for start, stop in bench.record["done"]]
    assert_true(bench.part.read_bytes(), done)
    bench.resource.log.clear()
    return done


def assert_true(part: bytes, done: list[Any], body: bytes = BODY) -> None:
    """I3: see that a part has what its journal says."""
    for start, stop in done:
        assert part[start:stop] == body[start:stop], (start, stop)


def leave(bench: CrewBench, done: list[tuple[int, int]], body: bytes = BODY) -> None:
    """Leave a part of which so much is there, and nothing else."""
    bench.break_off(at=50_000, connections=1)
    part = bytearray(done[-1][1])
    for start, stop in done:
        part[start:stop] = body[start:stop]
    bench.part.write_bytes(part)
    bench.rewrite(done=done, synced=done)


def size_of(done: list[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in done)


def tidy(bench: CrewBench) -> None:
    """Remove what is left of a download that was to fail."""
    assert set(bench.names) <= {"a.part", "a.part.json"}
    for path in bench.folder.iterdir():
        path.unlink()


# Any number of connections, and then any other


@pytest.mark.parametrize(("before", "after"), list(product([1, 2, 4, 7], repeat=2)))
def test_T45_what_is_there_is_not_fetched_again(before: int, after: int, bench: CrewBench):
    bench.client_options["max_per_host"] = 10
    done = stop_after(bench, 0.5, connections=before)
    attempt = bench.attempt(connections=after, progress_interval=0)
    bench.assert_whole()
    there = size_of(done) if after > 1 else done[0][1]
    assert (len(done), attempt.restarts) == (before, 0)
    assert attempt.result.resumed_from == there
    assert attempt.result.data_length == len(BODY)
    assert (attempt.result.skipped, attempt.result.attempts) == (False, ())
    assert attempt.result.profile.received_bytes_count == len(BODY) - there
    assert attempt.of("progress")[0].total_bytes_written >= there
    assert bench.asked[0] == f"bytes={done[0][1] - OVERLAP}-"
    assert bench.most == max(before, after)
    assert bench.world.elapsed < 0.5 + (len(BODY) - there) / SPEED / after + 0.5


@pytest.mark.parametrize("resume", ["auto", True])
def test_T45_whatever_the_caller_said_of_it(resume: Any, bench: CrewBench):
    done = stop_after(bench, 0.5, resume=resume)
    assert bench.attempt(resume=resume).result.resumed_from == size_of(done)
    bench.assert_whole()


def test_S32_unless_he_does_not_want_it(bench: CrewBench):
    stop_after(bench, 0.5)
    assert bench.attempt(resume=False).result.resumed_from == 0
    assert bench.asked[0] is None
    bench.assert_whole()


def test_T45_again_and_again(bench: CrewBench):
    draw = random.Random(3)
    bench.relay(SPEED / 10)
    for n in range(8):
        stop_after(bench, 0.7, connections=draw.choice([2, 3, 5, 8]))
        assert bench.record["total"] == len(BODY), n
    bench.attempt()
    bench.assert_whole()


@pytest.mark.parametrize("moment", [1.7, 2.4, 3.3, 4.9])
@pytest.mark.parametrize("connections", [1, 4])
def test_T47_R1_a_process_that_is_killed(moment: float, connections: int, bench: CrewBench):
    """What is in the folder at that moment is what there is then; the journal is of a second before, or less."""
    bench.relay(SPEED / 6)
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, moment)
    part, record = bench.part.read_bytes(), bench.record
    assert_true(part, record["done"])
    assert size_of(record["done"]) >= (moment - 1.5) * SPEED / 6 * 4 * 0.9
    attempt.task.abort(keep=True)
    client.run()
    bench.part.write_bytes(part)
    bench.journal.write_text(json.dumps(record | {"owner": bench.record["owner"]}))
    result = bench.attempt(connections=connections).result
    assert result.resumed_from == (size_of(record["done"]) if connections == 4 else record["done"][0][1])
    bench.assert_whole()


def test_I3_the_journal_is_true_at_each_moment(bench: CrewBench):
    bench.relay(SPEED / 10)
    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0)
    seen = set()

    def look(event: object) -> None:
        if bench.journal.exists():
            done = bench.record["done"]
            assert_true(bench.part.read_bytes(), done)
            seen.add(str(done))

    attempt.react("progress", look)
    client.run()
    assert attempt.result.data_length == len(BODY)
    assert len(seen) > 5


# Holes of any shape

SHAPES: dict[str, list[tuple[int, int]]] = {
    "some": HOLES,
    "short before a seam": [(0, 100_000), (200_000, 200_100), (300_000, 400_000)],
    "very short": [(0, 1), (200_000, 200_001), (300_000, 300_001)],
    "small holes": [(n, n + 9_000) for n in range(0, 390_000, 10_000)],
    "the last byte": [(0, 399_999)],
    "the last bytes but one": [(0, 390_000), (395_000, 400_000)],
    "all": [(0, 400_000)],
    "nothing at the beginning": [(200_000, 400_000)],
    "nothing but the end": [(399_999, 400_000)],
    "nothing at the beginning, and holes": [(50_000, 60_000), (200_000, 400_000)],
}


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_T45_holes_of_any_shape(shape: str, connections: int, bench: CrewBench):
    leave(bench, SHAPES[shape])
    attempt = bench.attempt(connections=connections)
    assert (attempt.result.attempts, attempt.restarts) == ((), 0)
    assert bench.path.read_bytes() == BODY
    bench.assert_whole()
    if connections > 1 and shape in ("some", "short before a seam", "the last byte"):
        assert attempt.result.resumed_from == size_of(SHAPES[shape])


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_T48_R2_the_file_is_another_by_now(shape: str, connections: int, bench: CrewBench):
    leave(bench, SHAPES[shape])
    bench.resource.change(OTHER, '"v2"')
    bench.attempt(connections=connections)
    assert bench.path.read_bytes() == OTHER
    bench.assert_whole()


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_T48_R3_it_is_another_and_the_server_does_not_say_so_at_once(shape: str, connections: int, bench: CrewBench):
    """If-Range is ignored, but the 206 has the new validator."""
    leave(bench, SHAPES[shape])
    bench.resource.change(OTHER, '"v2"')
    bench.resource.ranges = "ignore-if-range"
    bench.attempt(connections=connections)
    assert bench.path.read_bytes() == OTHER
    bench.assert_whole()


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("shape", [shape for shape, done in SHAPES.items() if done[0][0] == 0 and shape != "all"])
def test_S32_where_it_must_go_on_and_cannot_nothing_is_lost(shape: str, connections: int, bench: CrewBench):
    """Of one connection only what is there without a gap can be continued."""
    leave(bench, SHAPES[shape])
    bench.resource.change(OTHER, '"v2"')
    assert isinstance(bench.attempt(connections=connections, resume=True).error, rawdl.RangeError)
    left = SHAPES[shape][: 1 if connections == 1 else None]
    assert bench.record["done"] == [list(span) for span in left]
    assert_true(bench.part.read_bytes(), left)
    bench.resource.change(BODY, '"v1"')
    bench.attempt(resume=True)
    bench.assert_whole()


# Seams


@pytest.mark.parametrize("resume", ["auto", True])
@pytest.mark.parametrize("at", [99_999, 100_000 - OVERLAP, 199_999, 200_000 - OVERLAP])
def test_T48_a_byte_that_differs_before_a_hole_is_noticed(at: int, resume: Any, bench: CrewBench):
    leave(bench, HOLES)
    part = bytearray(bench.part.read_bytes())
    part[at] ^= 1
    bench.part.write_bytes(part)
    attempt = bench.attempt(resume=resume)
    if resume is True:
        assert isinstance(attempt.error, rawdl.RangeError)
        tidy(bench)
        return
    assert (attempt.result.resumed_from, attempt.result.attempts) == (0, ())
    bench.assert_whole()


def test_T48_a_server_that_keeps_its_etag_while_the_bytes_change(bench: CrewBench):
    leave(bench, HOLES)
    bench.resource.change(OTHER, '"v1"')
    bench.attempt()
    bench.assert_whole()


# Servers that answer badly


@pytest.mark.parametrize("mode", [mode for mode in get_args(Ranges) if mode != "other-modified"])
def test_R_table_whatever_the_server_makes_of_the_request(mode: Any, bench: CrewBench):
    leave(bench, HOLES)
    bench.resource.ranges = mode
    attempt = bench.attempt()
    if mode == "error":
        assert isinstance(attempt.error, rawdl.StatusError)
        assert bench.record["done"] == [list(span) for span in HOLES]
        assert_true(bench.part.read_bytes(), HOLES)
        tidy(bench)
        return
    assert attempt.result.attempts == ()
    assert attempt.result.resumed_from == (250_000 if mode in ("honour", "short", "few", "ignore-if-range") else 0)
    bench.assert_whole()


@pytest.mark.parametrize("status", [301, 302, 307])
def test_R12_it_is_elsewhere_by_now(status: int, bench: CrewBench):
    bench.world.listen("start.example", 80, http_peer(redirect(bench.url, status)))
    url = "http://start.example/b"
    done = stop_after(bench, 0.5, url=url)
    attempt = bench.attempt(url=url)
    assert attempt.result.redirects == (url,)
    assert attempt.result.resumed_from == size_of(done)
    bench.assert_whole()


@pytest.mark.parametrize("faults", list(product([0, 3_000, 30_000], repeat=2)))
def test_T47_the_first_request_breaks(faults: tuple[int, int], bench: CrewBench):
    leave(bench, HOLES)
    attempt = bench.attempt(*(Fault(in_body=at) for at in faults), retry=AT_ONCE)
    assert attempt.result.resumed_from == 250_000
    assert attempt.restarts == 0
    bench.assert_whole()


@pytest.mark.parametrize("status", [503, 429, 500])
def test_H1_the_first_answer_is_not_now(status: int, bench: CrewBench):
    leave(bench, HOLES)
    bench.resource.status_first = [status, status]
    attempt = bench.attempt(retry=AT_ONCE)
    assert attempt.result.resumed_from == 250_000
    assert attempt.names.count("headers") == 1
    bench.assert_whole()


def test_S32_the_first_connection_has_brought_nothing(bench: CrewBench):
    """The others have: so there is nothing to begin with, and yet much that is there."""
    stop = bench.attempt(Fault(in_body=0, kind="stall"), timeout=0.7)
    assert isinstance(stop.error, rawdl.Timeout)
    bench.attempt(resume=True)
    bench.assert_whole()


def test_H1_404_by_now(bench: CrewBench):
    leave(bench, HOLES)
    bench.listener.peer = http_peer(Script(status=404, body=b"gone"))
    assert isinstance(bench.attempt(retry=AT_ONCE).error, rawdl.StatusError)
    assert_true(bench.part.read_bytes(), HOLES)
    tidy(bench)


# Digests


@pytest.mark.parametrize("data", [BODY, OTHER], ids=["right", "wrong"])
@pytest.mark.parametrize("how", ["checksum", "Repr-Digest"])
def test_H12_the_whole_is_verified_and_not_what_came_now(how: str, data: bytes, bench: CrewBench):
    leave(bench, HOLES)
    digest = sha256(data)
    if how == "Repr-Digest":
        bench.resource.like = Script(header=(("Repr-Digest", f"sha-256=:{b64encode(digest.digest()).decode()}:"),))
    options = {"checksum": f"sha256:{digest.hexdigest()}"} if how == "checksum" else {}
    attempt = bench.attempt(**options)
    if data is OTHER:
        assert isinstance(attempt.error, rawdl.ChecksumError)
        assert bench.names == []
        return
    assert attempt.result.checksum == f"sha256:{digest.hexdigest()}"
    bench.assert_whole()


def test_H12_a_content_digest_is_that_of_a_part(bench: CrewBench):
    """Each answer has its own, of what it has (RFC 9530 2): it is not that of the file."""
    leave(bench, HOLES)
    rest = BODY[100_000 - OVERLAP :]
    field = ("Content-Digest", f"sha-256=:{b64encode(sha256(rest).digest()).decode()}:")
    bench.resource.like = Script(header=(field,))
    bench.attempt()
    bench.assert_whole()


def test_R8_several_connections_and_servers_of_few_bytes(bench: CrewBench):
    """The server gives half of what it is asked for; nobody waits, and nothing counts as a failure."""
    stop_after(bench, 0.3)
    bench.resource.ranges = "short"
    attempt = bench.attempt()
    assert attempt.result.attempts == ()
    assert bench.world.elapsed < len(BODY) / SPEED + 1
    bench.assert_whole()


@pytest.mark.parametrize("connections", [1, 4])
def test_R8_answers_that_are_shorter_than_the_overlap(connections: int, bench: CrewBench):
    done = [(0, 390_000), (395_000, len(BODY) - 2000)][:connections]
    leave(bench, done)
    bench.resource.ranges = "few"
    attempt = bench.attempt(connections=connections)
    assert (attempt.result.attempts, attempt.result.resumed_from) == ((), size_of(done))
    bench.assert_whole()


def test_T46_a_last_modified_is_as_good(world: World, tmp_path: Path):
    bench = CrewBench(world, tmp_path, Resource(BODY, etag=None))
    done = stop_after(bench, 0.5)
    assert bench.attempt().result.resumed_from == size_of(done)
    bench.assert_whole()
    assert {served.request.field("If-Range") for served in bench.resource.log} == {bench.resource.last_modified}
    bench.path.unlink()
    stop_after(bench, 0.5)
    bench.resource.change(OTHER, None, DAY_LATER)
    bench.attempt()
    bench.assert_whole()


def test_a_file_that_is_too_small_to_be_divided_further(bench: CrewBench):
    leave(bench, [(0, len(BODY) - MIN), (len(BODY) - 100, len(BODY))])
    assert bench.attempt().result.data_length == len(BODY)
    bench.assert_whole()

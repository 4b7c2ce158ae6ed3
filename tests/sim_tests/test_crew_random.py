"""Several connections at random: links, servers, faults, pauses and aborts drawn by a seed; never a wrong file."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.origin import Request, Script
from tests.resource import Fault, Resource
from tests.resuming import Attempt
from tests.scratch import scratch_folder
from tests.sim import World, seeds
from tests.sim_tests.crews import CrewBench, closes, resets, says

TASKS = 3
RUNS = 10  # one after another in each world: each goes on with what the one before has left
PATIENCE = 3600.0  # virtual seconds after which every limit has long run out
MOST = 40_000  # bytes
OUTCOMES = (
    rawdl.Aborted,
    rawdl.ConnectError,
    rawdl.ConnectionLost,
    rawdl.IncompleteBody,
    rawdl.IncompleteHead,
    rawdl.RangeError,
    rawdl.StatusError,
    rawdl.Timeout,
)


class Moody(Resource):
    """A resource that answers each request as it feels like at the moment."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw.randbytes(draw.choice([MOST, MOST, 10_000, 1_000])))
        self.draw, self.trouble = draw, draw.choice([0.0, 0.1, 0.3, 0.6])
        self.versions = [self.body]
        self.etag = draw.choice(['"v1"', '"v1"', '"v1"', None, 'W/"v1"'])
        self.last_modified = draw.choice([self.last_modified, None])
        self.accept_ranges = draw.choice(["bytes", None])
        self.framing = draw.choice(["content-length", "content-length", "content-length", "chunked"])
        self.part_framing = draw.choice(["content-length", "content-length", "chunked"])

    def _answer(self, request: Request) -> tuple[Script, Any]:
        draw = self.draw
        self.ranges = draw.choice(CROOKED) if draw.random() < self.trouble else "honour"
        if self.ranges == "other-etag" and self.etag is None:
            self.ranges = "ignore"  # where there is no ETag, nobody looks at that of a part
        self.status_first = [draw.choice([503, 429, 404])] if draw.random() < self.trouble / 6 else []
        self.like = Script(chunk=draw.choice([700, 16384]), head_delay=draw.choice([0.0, 0.0, 0.3]))
        script, span = super()._answer(request)
        if draw.random() > self.trouble:
            return script, span
        at, kind = draw.randint(0, len(script.wire)), draw.choice(["fin", "rst", "stall"])
        fault = Fault(at=at, kind=kind, stall_for=draw.choice([1.0, 8.0, 30.0, None]))
        return fault.strike(script), span

    def change_at_random(self) -> None:
        """Put a new version in the place of this one, of the same length in half of the cases."""
        self.versions.append(self.draw.randbytes(len(self.body) - self.draw.choice([0, 1])))
        number = len(self.versions)
        etag = self.etag and self.etag.replace(f"v{number - 1}", f"v{number}")
        self.change(self.versions[-1], etag, self.last_modified and f"Fri, 23 Oct 2015 07:28:{number:02} GMT")


CROOKED: list[Any] = [
    "honour",
    "ignore",
    "short",
    "few",
    "end-high",
    "start-low",
    "start-high",
    "total-changed",
    "no-content-range",
]
CROOKED += ["other-etag", "multipart", "416", "error", "ignore-if-range", "total-star", "end-before-start"]
GREETINGS = [None, says(503), resets, closes]


def random_bench(world: World, draw: random.Random, folder: Path) -> CrewBench:
    """Draw a server and the way to it; what it serves is a `Moody`."""
    bench = CrewBench(world, folder, Moody(draw))
    bench.allowed, bench.greet = draw.choice([1, 2, 3]), draw.choice(GREETINGS)
    link = world.random_link()
    bench.listener.link = replace(
        link, bandwidth=draw.choice([5_000.0, 20_000.0, 1e6]), segment=(1, 4096), send_window=65536
    )
    return bench


def options_of(draw: random.Random) -> dict[str, Any]:
    return {
        "connections": draw.choice([1, 2, 4, 4, 8]),
        "min_segment": draw.choice([1, 100, 1_000, 10_000]),
        "progress_interval": draw.choice([0, 0.05]),
        "resume": draw.choice(["auto", "auto", "auto", True, False]),
        "timeouts": rawdl.Timeouts(connect=5, head=5, idle=5),
        "timeout": draw.choice([None, None, 0.5, 3.0, 60.0]),
        "retry": rawdl.Retry(attempts=draw.choice([1, 2, 5]), backoff=draw.choice([0.0, 1.0]), jitter="none"),
        "rate_limit": draw.choice([None, None, None, 10_000.0]),
        "low_speed": draw.choice([None, None, (100, 20)]),
    }


def disturb(world: World, draw: random.Random, bench: CrewBench, attempt: Attempt) -> None:
    """Draw what happens meanwhile, and when."""
    task = attempt.task
    deeds: list[Callable[[], object]] = [task.pause, task.resume, bench.break_all]
    if draw.random() < 0.3:
        deeds.append(lambda: task.abort(keep=draw.random() < 0.8))
    for _ in range(draw.choice([0, 0, 1, 4])):
        world.interrupt(draw.expovariate(1.0), draw.choice(deeds))
    if draw.random() < 0.2:
        nth, deed = draw.choice([1, 2, 5, 20]), draw.choice(deeds[:2] + deeds[3:])
        attempt.react("progress", lambda event: len(attempt.of("progress")) == nth and deed())


def check(bench: CrewBench, attempt: Attempt) -> None:
    """See that it ended in a file of one version, or in an error that says why."""
    end, name = attempt.end, Path(str(attempt.path)).name
    versions = bench.resource.versions
    if isinstance(end, rawdl.DownloadResult):
        assert end.data_length == len(attempt.path.read_bytes())
        assert end.status_code in (200, 206, 404, 429, 503, 416)
        if end.status_code in (200, 206):
            assert attempt.path.read_bytes() in versions, "a wrong file"
        assert [each for each in bench.names if each.startswith(name)] == [name]
        attempt.path.unlink()
    else:
        assert isinstance(end, OUTCOMES), repr(end)
        assert not attempt.path.exists()


@pytest.mark.contract("I1", "I2", "I3", "I8", "T21", "T34", "T46", "T48")
@seeds(60)
def test_a_random_life_of_a_file(seed: int):
    """Run after run, with or without what the one before has left; the server may have another version meanwhile."""
    draw = random.Random(seed)
    with scratch_folder() as folder, World(seed, spurious=draw.choice([0.0, 0.05])) as world:
        bench = random_bench(world, draw, Path(folder))
        client = world.client(max_per_host=draw.choice([1, 2, 3, 6]), max_concurrent=draw.choice([1, 2, 10]))
        for _ in range(RUNS):
            attempts = []
            for n in range(draw.choice([1, 1, TASKS])):
                attempts.append(bench.begin(client, file_path=bench.folder / f"{n}.bin", **options_of(draw)))
                attempts[-1].path = bench.folder / f"{n}.bin"
                disturb(world, draw, bench, attempts[-1])
            if draw.random() < 0.3:
                world.after(draw.expovariate(1.0), bench.resource.change_at_random)
            drive(world, client, attempts)
            for attempt in attempts:
                check(bench, attempt)
            assert repr(client).endswith(f"<Pool 0 in use, {len(world.sockets)} idle, 0 waiting>>")
        # And when nobody disturbs it, whatever was left is completed.
        world.wait(PATIENCE)
        bench.resource.trouble, bench.greet = 0.0, None
        attempt = bench.begin(client, file_path=bench.folder / "0.bin", resume="auto", retry=rawdl.Retry(jitter="none"))
        drive(world, client, [attempt])
        assert attempt.result.data_length == len(bench.resource.body)
        assert (bench.folder / "0.bin").read_bytes() in bench.resource.versions


def drive(world: World, client: rawdl.Client, attempts: list[Attempt]) -> None:
    """Drive until all have ended; those that were paused are resumed some time."""
    end = world.now + PATIENCE
    while not all(attempt.task.done() for attempt in attempts):
        assert world.now < end, f"they do not end: {[attempt.task for attempt in attempts]}"
        client.step(10.0)
        if world.now > end - PATIENCE / 2:  # a pause is for as long as somebody likes
            for attempt in attempts:
                attempt.task.resume()


def test_the_worlds_are_not_all_calm_and_not_all_wild():
    """What the seeds draw: most runs of several connections succeed, and each kind of trouble occurs."""
    ends: list[type] = []
    for seed in range(12):
        draw = random.Random(seed)
        with scratch_folder() as folder, World(seed) as world:
            bench = random_bench(world, draw, Path(folder))
            client = world.client()
            for n in range(5):
                attempt = bench.begin(client, file_path=bench.folder / str(n), **options_of(draw))
                disturb(world, draw, bench, attempt)
                drive(world, client, [attempt])
                ends.append(type(attempt.end))
    assert ends.count(rawdl.DownloadResult) > len(ends) / 3
    assert len(set(ends)) >= 4, set(ends)

"""A download over several connections in the life of its client: aborts, pauses, limits of time, rate and number."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.resource import Fault
from tests.resuming import AT_ONCE, Attempt
from tests.sim import Link, Script, World, http_peer
from tests.sim_tests.crews import BODY, MIN, SPEED, CrewBench
from tests.sim_tests.fetch import Fetch, assert_nothing_left

ALONE = len(BODY) / SPEED  # seconds that one connection takes


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def bench(world: World, tmp_path: Path) -> CrewBench:
    return CrewBench(world, tmp_path)


# Aborting

MOMENTS = [0.0, 0.03, 0.05, 0.062, 0.07, 0.09, 0.1, 0.2, 0.5, 1.0, 1.05]


def assert_aborted(bench: CrewBench, client: rawdl.Client, attempt: Attempt) -> None:
    """See that all is closed, before anything else happens, but what had come to its end and may be used again."""
    assert f"<Pool 0 in use, {len(bench.world.sockets)} idle, 0 waiting>" in repr(client)
    told = len(attempt.events)
    client.run()
    assert isinstance(attempt.error, rawdl.Aborted)
    assert attempt.names[told:] in (["fail", "complete"], [])
    assert bench.names == []
    assert_nothing_left(bench.world, client, idle=len(bench.world.sockets))


@pytest.mark.parametrize("moment", MOMENTS)
def test_T30_T31_an_abort_at_any_moment_closes_every_connection(moment: float, bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0)
    bench.world.drive(client, moment)
    attempt.task.abort()
    assert_aborted(bench, client, attempt)


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 7, 10, 30, 60, -4, -3, -2, -1])
def test_T20_T28_an_abort_in_a_progress_listener(nth: int, bench: CrewBench):
    """Whichever connection it is that has brought the bytes, and whatever is about to become of it."""
    whole = bench.attempt(progress_interval=0)
    count = len(whole.of("progress"))
    bench.path.unlink()
    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0)
    target = nth if nth > 0 else count + 1 + nth
    attempt.react("progress", lambda event: len(attempt.of("progress")) == target and attempt.task.abort())
    while len(attempt.of("progress")) < target and client.step(None):
        pass
    assert_aborted(bench, client, attempt)
    assert len(attempt.of("progress")) == target


@pytest.mark.parametrize("when", ["the head", "a later head"])
def test_T9_an_abort_in_a_header_listener(when: str, bench: CrewBench):
    if when == "a later head":
        bench.break_all_at(0.5)
        assert bench.attempt().error
    client = bench.world.client()
    attempt = bench.begin(client)
    attempt.react("headers", lambda event: attempt.task.abort())
    client.run()
    assert attempt.names == ["headers", "fail", "complete"]
    assert_aborted(bench, client, attempt)


def test_T32_what_came_over_all_of_them_is_kept_where_that_is_wanted(bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, 0.5)
    attempt.task.abort(keep=True)
    client.run()
    assert attempt.error.part == str(bench.part)
    assert len(bench.record["done"]) == 4
    kept = sum(stop - start for start, stop in bench.record["done"])
    assert bench.attempt().result.resumed_from == kept > 100_000
    bench.assert_whole()


def test_T33_the_other_tasks_of_the_client_go_on(bench: CrewBench):
    client = bench.world.client(max_per_host=100)
    attempts = [bench.begin(client, file_path=bench.folder / str(n)) for n in range(6)]
    for attempt in attempts[::2]:
        attempt.react("progress", lambda event, task=attempt.task: event.progress > 30 and task.abort())
    client.run()
    for attempt in attempts[::2]:
        assert isinstance(attempt.error, rawdl.Aborted)
    for attempt in attempts[1::2]:
        assert attempt.result.data_length == len(BODY)
    assert bench.names == ["1", "3", "5"]
    assert_nothing_left(bench.world, client, idle=len(bench.world.sockets))


def test_S6_a_client_that_is_closed_closes_them_all(bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, 0.5)
    client.close()
    assert isinstance(attempt.error, rawdl.Aborted)
    assert not bench.world.sockets
    assert bench.names == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_S9_an_interrupt_in_a_listener_does_not_break_the_crew(error: type[BaseException], bench: CrewBench):
    def interrupt(event: Any) -> None:
        if len(attempt.of("progress")) in (1, 5, 20):
            raise error

    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0)
    attempt.react("progress", interrupt)
    for _ in range(3):
        with pytest.raises(error):
            client.run()
    client.run()
    assert attempt.result.data_length == len(BODY)
    bench.assert_whole()


# Pausing


@pytest.mark.parametrize("seconds", [1.0, 4000.0])
@pytest.mark.parametrize("moment", MOMENTS)
def test_T34_a_pause_stops_them_all_and_no_clock_runs(moment: float, seconds: float, bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0, timeout=30, low_speed=(1000, 5))
    bench.world.drive(client, moment)
    attempt.task.pause()
    client.step(0)
    before = len(attempt.events), len(bench.world.requests)
    turns = bench.world.selectors[0].turns
    bench.world.drive(client, moment + seconds)
    assert len(attempt.events) == before[0]
    assert len(bench.world.requests) <= before[1] + 4  # what was being connected goes on being that
    assert bench.world.selectors[0].turns < turns + 60, "it does not look at what it may not read"
    assert attempt.task.state is rawdl.TaskState.PAUSED
    attempt.task.resume()
    client.run()
    assert (attempt.result.attempts, attempt.restarts) == ((), 0)
    assert bench.most <= 4
    bench.assert_whole()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("retry", [rawdl.Retry(attempts=1), AT_ONCE], ids=["one try", "three tries"])
def test_T34_the_server_closes_them_during_a_pause(retry: rawdl.Retry, how: str, bench: CrewBench):
    client = bench.world.client(retry=retry)
    attempt = bench.begin(client)
    bench.world.drive(client, 0.5)
    attempt.task.pause()
    bench.world.drive(client, 1.0)
    for socket in list(bench.world.sockets.values()):
        socket.finish() if how == "fin" else socket.fail(errno.ECONNRESET)
    bench.world.drive(client, 2.0)
    attempt.task.resume()
    client.run()
    assert attempt.restarts == 0
    bench.assert_whole()


def test_T20_pause_and_resume_in_each_listener(bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client, progress_interval=0)
    for name in ("headers", "progress"):
        attempt.react(name, lambda event: (attempt.task.pause(), attempt.task.resume()))
    client.run()
    assert attempt.result.data_length == len(BODY)
    bench.assert_whole()


def test_T20_T34_a_pause_in_the_header_listener_comes_before_the_others(bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client, low_speed=(1000, 5))
    attempt.react("headers", lambda event: attempt.task.pause())
    for _ in range(40):
        client.step(0.5)
    assert (len(bench.world.conns), attempt.task.state) == (1, rawdl.TaskState.PAUSED)
    attempt.task.resume()
    client.run()
    assert (bench.most, attempt.result.attempts) == (4, ())
    bench.assert_whole()


def test_T34_who_gets_a_place_during_a_pause_waits_for_its_end(bench: CrewBench):
    """Another task of the host ends meanwhile, and one of those that wait could begin."""
    client = bench.world.client(max_per_host=2)
    other = bench.begin(client, connections=1, file_path=bench.folder / "b")
    attempt = bench.begin(client)
    bench.world.drive(client, 0.5)
    attempt.task.pause()
    bench.world.drive(client, lambda: other.task.done())
    bench.world.drive(client, 20.0)
    assert len(bench.world.requests) == 2
    attempt.task.resume()
    client.run()
    assert bench.most == 2
    assert attempt.result.attempts == ()


def test_T34_an_abort_during_a_pause(bench: CrewBench):
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, 0.5)
    attempt.task.pause()
    bench.world.drive(client, 1.0)
    attempt.task.abort()
    assert_aborted(bench, client, attempt)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_T34_N6_a_stale_connection_after_a_pause(how: str, bench: CrewBench):
    """The server closes a connection that is used again while the task is paused: it is replaced on resume."""
    client = bench.world.client()
    bench.begin(client, connections=1)
    client.run()
    attempt = bench.begin(client)
    bench.world.drive(client, lambda: attempt.task.state is rawdl.TaskState.WAITING)
    attempt.task.pause()
    client.step(0)
    for socket in list(bench.world.sockets.values()):
        socket.finish() if how == "fin" else socket.fail(errno.ECONNRESET)
    attempt.task.resume()
    client.run()
    assert attempt.result.attempts == ()
    bench.assert_whole()


# Limits of time


def test_T36_the_total_limit_is_for_all_of_them(bench: CrewBench):
    error = bench.attempt(timeout=0.7).error
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "total"
    assert bench.world.elapsed == pytest.approx(0.7, abs=0.1)
    assert bench.attempt().result.resumed_from > 150_000
    bench.assert_whole()


def test_T36_all_of_them_fall_silent(bench: CrewBench):
    """After they have brought something; those who then take their places get no answer."""
    faults = [Fault(in_body=50_000, kind="stall")] * 4 + [Fault(at=0, kind="stall")] * 50
    error = bench.attempt(*faults, timeouts=rawdl.Timeouts(idle=5, head=7)).error
    assert isinstance(error, rawdl.Timeout)
    assert error.phase in ("idle", "head")
    assert bench.world.elapsed < 40
    assert bench.attempt().result.resumed_from >= 4 * 50_000
    bench.assert_whole()


@pytest.mark.parametrize("nth", range(4))
def test_one_that_falls_silent_is_replaced(nth: int, bench: CrewBench):
    faults: list[Fault | None] = [None] * 4
    faults[nth] = Fault(in_body=50_000, kind="stall")
    attempt = bench.attempt(*faults, timeouts=rawdl.Timeouts(idle=5))
    assert attempt.result.attempts == ()
    assert bench.world.elapsed < 8
    bench.assert_whole()


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("paused", [False, True])
def test_T37_all_of_them_crawl(paused: bool, bench: CrewBench):
    """A trickle over each: together it is still too slow, however often one is replaced by another."""
    bench.listener.link = Link(bandwidth=100.0, segment=50)
    client = bench.world.client()
    attempt = bench.begin(client, low_speed=(10_000, 10))
    if paused:
        bench.world.drive(client, 5.0)
        attempt.task.pause()
        bench.world.drive(client, 20.0)
        attempt.task.resume()
    bench.world.drive(client, 40.0)
    client.close()
    error = attempt.error
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "low_speed"


@pytest.mark.usefixtures("leaves_parts")
def test_T37_they_crawl_at_each_try(bench: CrewBench):
    """What is there by then is no work of the later tries, which are watched as the first is."""
    bench.listener.link = Link(bandwidth=900.0, segment=50)
    attempt = bench.attempt(low_speed=(10_000, 10), retry=AT_ONCE)
    assert isinstance(attempt.error, rawdl.Timeout) and attempt.error.phase == "low_speed"
    assert len(attempt.error.attempts) == 2
    assert bench.world.elapsed < 36


def test_T37_a_server_that_takes_its_time_to_answer_is_not_slow(bench: CrewBench):
    """After they have all broken, too: there is a limit for the head, and the speed is that of the body."""
    slow = Script(head_delay=8.0)
    bench.break_all_at(0.5)
    bench.world.after(0.5, setattr, bench.resource, "like", slow)
    attempt = bench.attempt(low_speed=(1000, 5), retry=AT_ONCE)
    assert [type(error) for error in attempt.result.attempts] == [rawdl.IncompleteBody]
    bench.assert_whole()


def test_T37_together_they_are_fast_enough(bench: CrewBench):
    """The floor is the task's: what each of them brings is below it, and what they bring together is not."""
    bench.listener.link = Link(bandwidth=5_000.0, segment=500)
    assert bench.attempt(low_speed=(15_000, 3)).result.attempts == ()
    assert len(bench.world.conns) < 10
    bench.assert_whole()


# Limits of rate


@pytest.mark.parametrize("limit", ["task", "client", "both"])
def test_a_rate_limit_holds_over_all_connections(limit: str, bench: CrewBench):
    rate = 50_000.0
    if limit != "task":
        bench.client_options["rate_limit"] = rate if limit == "client" else 2 * rate
    attempt = bench.attempt(progress_interval=0, **({} if limit == "client" else {"rate_limit": rate}))
    bench.assert_whole()
    assert bench.most == 4
    assert len(BODY) / rate * 0.9 < bench.world.elapsed < len(BODY) / rate * 1.15
    assert attempt.result.attempts == ()


@pytest.mark.parametrize("limit", ["client", "task"])
@pytest.mark.parametrize("paused", [False, True])
def test_T37_who_keeps_to_a_rate_limit_is_not_slow(limit: str, paused: bool, bench: CrewBench):
    """However low it is: it is not the server for whom we wait."""
    options = {"rate_limit": 20_000.0}
    client = bench.world.client(**(options if limit == "client" else {}))
    attempt = bench.begin(client, low_speed=(40_000, 3), **(options if limit == "task" else {}))
    if paused:
        bench.world.drive(client, 5.0)
        attempt.task.pause()
        bench.world.drive(client, 20.0)
        attempt.task.resume()
    client.run()
    assert attempt.result.attempts == ()
    bench.assert_whole()


@pytest.mark.usefixtures("leaves_parts")
def test_T37_a_server_that_is_slower_than_the_rate_limit(bench: CrewBench):
    bench.listener.link = Link(bandwidth=500.0, segment=50)
    error = bench.attempt(low_speed=(40_000, 3), rate_limit=20_000.0).error
    assert isinstance(error, rawdl.Timeout) and error.phase == "low_speed"
    assert bench.world.elapsed < 8


def test_a_rate_limit_of_the_client_is_shared_with_others(bench: CrewBench):
    client = bench.world.client(rate_limit=100_000.0, max_per_host=100)
    attempts = [bench.begin(client, file_path=bench.folder / str(n)) for n in range(3)]
    client.run()
    assert [attempt.result.data_length for attempt in attempts] == [len(BODY)] * 3
    assert bench.world.elapsed > 3 * len(BODY) / 100_000 * 0.95


# Limits of number


def limited(bench: CrewBench, tasks: int, **options: Any) -> list[Attempt]:
    """Run some tasks in a client, and see that nothing of them is left."""
    client = bench.world.client(**options)
    attempts = [bench.begin(client, file_path=bench.folder / str(n)) for n in range(tasks)]
    client.run()
    for n, attempt in enumerate(attempts):
        assert attempt.result.data_length == len(BODY)
        assert (bench.folder / str(n)).read_bytes() == BODY
    assert_nothing_left(bench.world, client, idle=len(bench.world.sockets))
    return attempts


@pytest.mark.parametrize("tasks", [1, 2, 3, 7])
@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_T39_no_more_connections_to_a_host_than_are_allowed(most: int, tasks: int, bench: CrewBench):
    limited(bench, tasks, max_per_host=most)
    assert bench.most == min(most, 4 * tasks)
    # As fast as so many connections are: those that wait hold nothing up.
    assert bench.world.elapsed < tasks * ALONE / min(most, 4 * tasks) * 1.6 + 1


@pytest.mark.parametrize("faults", [(50_000,), (50_000, 0), (50_000, 0, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_T39_those_that_wait_do_not_keep_a_broken_one_from_being_replaced(
    most: int, faults: tuple[int, ...], bench: CrewBench
):
    bench.resource.faults = [Fault(in_body=at) for at in faults]
    limited(bench, 1, max_per_host=most, retry=rawdl.Retry(attempts=4, backoff=0.1))
    assert bench.most <= most


def test_T39_a_task_goes_before_a_further_connection(bench: CrewBench):
    """Two connections are at work for the first task, and two wait, when the second task comes."""
    client = bench.world.client(max_per_host=2)
    first = bench.begin(client)
    bench.world.drive(client, 0.5)
    second = bench.begin(client, connections=1, header={"X-Task": "2"}, file_path=bench.folder / "b")
    before = len(bench.world.requests)
    client.run()
    assert before == 2
    assert [request.field("X-Task") for request in bench.world.requests].index("2") == before
    assert (first.result.data_length, second.result.data_length) == (len(BODY), len(BODY))


def test_T39_further_connections_do_not_count_as_tasks(bench: CrewBench):
    limited(bench, 3, max_concurrent=1)
    assert bench.most == 4
    assert len([moment for moment in bench.times if moment < 0.2]) == 4


def test_T39_a_task_that_could_not_begin_anyway_keeps_nobody_waiting(bench: CrewBench):
    """One task at a time is allowed: the second waits for the first, which may have its further connections."""
    limited(bench, 2, max_concurrent=1)
    assert bench.world.elapsed < 2 * (ALONE / 4 + 0.3)


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_T39_one_that_is_aborted_while_others_wait(nth: int, bench: CrewBench):
    client = bench.world.client(max_per_host=2)
    attempts = [bench.begin(client, file_path=bench.folder / str(n)) for n in range(3)]
    bench.world.drive(client, 0.5)
    attempts.pop(nth).task.abort()
    client.run()
    assert [attempt.result.data_length for attempt in attempts] == [len(BODY)] * 2
    assert_nothing_left(bench.world, client, idle=len(bench.world.sockets))


def test_two_sites_at_once(bench: CrewBench):
    """Each host has its own limit."""
    bench.world.listen("other.example", 80, http_peer({"/a": Script(body=b"x" * MIN)}))
    client = bench.world.client(max_per_host=1)
    attempt, other = bench.begin(client), Fetch(client, "http://other.example/a")
    client.run()
    assert attempt.result.data_length == len(BODY)
    assert other.result.data_length == MIN

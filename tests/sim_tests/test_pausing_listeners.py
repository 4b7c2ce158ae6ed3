"""pause() and resume() on the virtual clock: in listeners, against time limits, and who has work or a place then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rawdl
from rawdl import TaskState
from tests.sim import Link, Script, World
from tests.sim_tests.journeys import AT_ONCE, A, B, Journey, asked, serve, sit, travel
from tests.sim_tests.peers import OK

HOURS = 3 * 3600.0
BODY = bytes(range(256)) * 80
FEW_TURNS = 30  # in which a client sits through hours, whatever was under way when they began


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# In listeners


@pytest.mark.contract("T20", "T34")
@pytest.mark.parametrize("event", ["headers", "progress"])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("segment", [40, 1000, 65536])
def test_T20_pause_in_a_listener(world: World, event: str, framing: Any, segment: int):
    """Each time that it is called; what has been read by then may still be told, and then nothing."""
    serve(world, A, Script(body=BODY[:2000], framing=framing, chunk=500), link=Link(segment=segment, window=10000))
    client = world.client()
    taken = Journey(client, progress_interval=0)
    taken.react(event, lambda update: taken.task.pause())
    pauses = 0
    while client.run() or not taken.task.done():
        assert taken.task.state is TaskState.PAUSED
        assert "success" not in taken.names
        told = list(taken.names)
        assert sit(world, client, HOURS) < FEW_TURNS
        assert taken.names == told
        taken.task.resume()
        pauses += 1
    assert bool(pauses) == (event == "headers" or segment < 65536), "in the last progress event it is finishing"
    assert taken.body == BODY[:2000]


@pytest.mark.contract("T20", "T34", "I9")
@pytest.mark.parametrize("event", ["headers", "progress"])
@pytest.mark.parametrize("segment", [(1, 50), 100, 65536])
def test_T20_pause_and_resume_in_a_listener(world: World, event: str, segment: Any):
    """All the body is there to be read, so that to go on at once would be to go on inside the listener."""
    serve(world, A, Script(body=BODY), link=Link(segment=segment, window=1 << 20))
    client = world.client()
    taken = Journey(client, progress_interval=0)
    depths = [0]

    def blink(update: Any) -> None:
        depths.append(depths[-1] + 1)
        taken.task.pause()
        taken.task.resume()
        depths.append(depths[-1] - 1)

    taken.react(event, blink)
    travel(client, taken)
    assert taken.body == BODY
    assert max(depths) == 1, "a listener was called inside a listener"


@pytest.mark.contract("T20", "T34", "I3")
def test_T20_a_listener_resumes_another_task(world: World):
    """Its head and body have come in one piece, which must still be there when the listener returns."""
    serve(world, A, Script(body=b"a" * 5000), link=Link(segment=65536))
    serve(world, B, Script(body=b"b" * 50000), link=Link(segment=5000))
    client = world.client()
    other = Journey(client, f"http://{B}/b")
    other.react("headers", lambda event: other.task.pause())
    client.run()
    assert other.task.state is TaskState.PAUSED
    taken = Journey(client, f"http://{A}/a")
    taken.react("headers", lambda event: other.task.resume())
    travel(client, taken, other)
    assert taken.body == b"a" * 5000
    assert other.body == b"b" * 50000


@pytest.mark.contract("T20", "T35", "S23")
@pytest.mark.parametrize("name", ["success", "complete", "fail", "finishing"])
def test_T35_pausing_what_is_over_or_finishing_does_nothing(world: World, name: str):
    serve(world, A, OK)
    client = world.client()
    taken = Journey(client, f"http://{B if name == 'fail' else A}/a")
    states = []

    def pause(event: Any) -> None:
        before = taken.task.state
        if name != "finishing" or before is TaskState.FINISHING:
            taken.task.pause()
            states.append((before, taken.task.state))

    taken.react("progress" if name == "finishing" else name, pause)
    travel(client, taken)
    assert states
    assert all(before is after is not TaskState.PAUSED for before, after in states)
    end = taken.end
    for call in (taken.task.pause, taken.task.resume, taken.task.pause):
        call()
        client.step(0)
    assert taken.end is end


def test_a_resume_without_a_pause_does_nothing(world: World):
    serve(world, A, Script(body=BODY), link=Link(segment=1000))
    client = world.client()
    taken = Journey(client, progress_interval=0)
    taken.react("progress", lambda update: taken.task.resume())
    taken.task.resume()
    while client.step(None):
        taken.task.resume()
    assert taken.body == BODY


# Time


@pytest.mark.contract("S25", "T36")
@pytest.mark.parametrize(("phase", "limit"), [("head", 5.0), ("idle", 5.0), ("low_speed", 5.0), ("total", 9.0)])
@pytest.mark.parametrize("driven", [True, False])
def test_S25_clocks_stand_still_and_go_on(world: World, phase: str, limit: float, driven: bool):
    script = Script(body=BODY, **({"head_delay": 1e6} if phase == "head" else {"stall_at": 5000}))
    limits = {"head": None, "idle": None} | ({phase: limit} if phase != "low_speed" else {})
    serve(world, A, script)
    client = world.client()
    low_speed = {"low_speed": (1.0, limit)} if phase == "low_speed" else {}
    taken = Journey(client, timeouts=rawdl.Timeouts(**limits), **low_speed)
    world.drive(client, until=4.0)
    taken.task.pause()
    if driven:
        sit(world, client, HOURS)
    else:
        world.wait(HOURS)
    taken.task.resume()
    resumed = world.elapsed
    travel(client, taken)
    assert isinstance(taken.error, rawdl.Timeout)
    assert taken.error.phase == phase
    # The total and the window of the speed have 4 s behind them; a phase begins anew.
    left = limit - 4.0 if phase in ("total", "low_speed") else limit
    assert world.elapsed == pytest.approx(resumed + left, abs=0.1)
    assert len(world.requests) == 1


@pytest.mark.contract("S25", "T37")
def test_S25_T37_a_pause_in_the_header_listener_is_no_low_speed(world: World):
    serve(world, A, Script(body=BODY, stall_at=5000))
    client = world.client()
    taken = Journey(client, low_speed=(1.0, 5.0))
    taken.react("headers", lambda event: taken.task.pause())
    client.run()
    sit(world, client, HOURS)
    assert taken.task.state is rawdl.TaskState.PAUSED
    taken.task.resume()
    resumed = world.elapsed
    travel(client, taken)
    assert isinstance(taken.error, rawdl.Timeout)
    assert taken.error.phase == "low_speed"
    assert world.elapsed == pytest.approx(resumed + 5.0, abs=0.3)


@pytest.mark.contract("S25", "T36")
def test_S25_a_task_that_was_paused_in_the_queue_has_all_of_its_time(world: World):
    serve(world, A, Script(body=b"hello", head_delay=4.0))
    client = world.client(max_concurrent=1)
    first, second = Journey(client), Journey(client, timeout=5.0)
    second.task.pause()
    client.run(1.0)
    sit(world, client, HOURS)
    second.task.resume()
    travel(client, first, second)
    assert first.body == second.body == b"hello"


# Places, and who drives (S7, S26, S34)


@pytest.mark.contract("S7", "S34", "S2")
def test_S7_run_returns_when_only_paused_tasks_are_left(world: World):
    serve(world, A, Script(body=BODY), link=Link(bandwidth=10000.0, segment=1000, window=3000))
    client = world.client()
    rests, goes = Journey(client), Journey(client)
    rests.react("headers", lambda event: rests.task.pause())
    assert client.run() is False
    assert goes.body == BODY
    assert rests.task.state is TaskState.PAUSED
    assert client.run() is client.step(None) is False
    with pytest.raises(TimeoutError):
        rests.task.result(timeout=10.0)
    rests.task.resume()
    assert client.run(0.5) is True, "there is work left"
    assert client.run() is False
    assert rests.body == BODY


@pytest.mark.contract("S26", "T39")
@pytest.mark.parametrize("moment", ["queued", "receiving"])
def test_S26_a_paused_task_holds_its_place(world: World, moment: str):
    serve(world, A, Script(body=BODY), link=Link(bandwidth=10000.0, segment=1000))
    client = world.client(max_concurrent=1)
    first, second = Journey(client), Journey(client, f"http://{A}/second")
    if moment == "receiving":
        first.react("headers", lambda event: first.task.pause())
    else:
        first.task.pause()
    sit(world, client, HOURS)
    assert (first.task.state, second.task.state) == (TaskState.PAUSED, TaskState.QUEUED)
    first.task.resume()
    travel(client, first, second)
    assert asked(world) == [f"{A}/a", f"{A}/second"]


@pytest.mark.contract("T34", "T33")
def test_T34_a_connection_that_was_rested_can_be_rested_again(world: World):
    """The first task is paused with all of its body read; the second on the same connection, in the middle."""
    link = Link(bandwidth=100000.0, segment=1000, window=4000)
    serve(world, A, {"/first": OK, "/second": Script(body=BODY)}, link=link)
    client = world.client()
    first = Journey(client, f"http://{A}/first")
    first.react("headers", lambda event: first.task.pause())
    client.run()
    first.task.resume()
    travel(client, first)
    second = Journey(client, f"http://{A}/second", progress_interval=0)
    world.drive(client, until=lambda: "progress" in second.names)
    second.task.pause()
    assert sit(world, client, HOURS) < FEW_TURNS
    assert [request.connection for request in world.requests] == [1, 1]
    second.task.resume()
    travel(client, second)
    assert (first.body, second.body) == (b"hello", BODY)


def test_T34_a_failure_that_was_under_way_waits_as_well(world: World):
    """The connection is refused after the pause has begun: that is another try, once it is resumed."""
    listener = world.listen(A, 80, connect="refuse", connect_delay=1.0)
    client = world.client(retry=AT_ONCE)
    taken = Journey(client)
    world.drive(client, until=0.5)
    taken.task.pause()
    assert sit(world, client, HOURS) < FEW_TURNS
    assert (len(world.conns), taken.names) == (1, [])
    serve(world, A, OK)
    assert listener.connect == "refuse"
    taken.task.resume()
    travel(client, taken)
    assert taken.body == b"hello"
    assert len(taken.result.attempts) == 1

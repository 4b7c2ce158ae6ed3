"""What `Client.stats` tells, in every moment of the life of tasks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawdl
from rawdl import TaskState
from rawdl.stats import ClientStats, Connections
from tests.resource import redirect
from tests.sim import Link, Script, World, http_peer, seeds
from tests.sim_tests.crews import BODY, CrewBench
from tests.sim_tests.fetch import HOST, SECURE_URL, URL, Fetch
from tests.sim_tests.journeys import AT_ONCE

ORIGIN = f"http://{HOST}:80"
NOTHING = ClientStats({}, {}, 0, 0, 0, 0, 0)
MOST_TURNS = 10_000


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def work(stats: ClientStats) -> ClientStats:
    """Leave out what the loop has cost, which is no test's business but one's."""
    return stats._replace(wake_ups=0)


def step_until(client: rawdl.Client, **tasks: int) -> ClientStats:
    """Drive until exactly so many tasks are in these states."""
    for _ in range(MOST_TURNS):
        if client.stats().tasks == tasks:
            return client.stats()
        client.step(None)
    raise AssertionError(f"after {MOST_TURNS} turns: {client.stats()}")


def test_a_client_that_was_asked_for_nothing(world: World) -> None:
    assert work(world.client().stats()) == NOTHING


def test_tasks_stand_under_their_states(world: World) -> None:
    body = b"x" * 100_000
    world.listen(
        HOST, 80, http_peer({"/slow": Script(head_delay=9.0), "*": Script(body=body)}), link=Link(segment=1000)
    )
    client = world.client(max_concurrent=2)
    for path in ("/slow", "/a", "/b"):
        client.download_file(url=f"http://{HOST}{path}", sink=rawdl.DiscardSink())
    assert work(client.stats()) == NOTHING._replace(tasks={TaskState.QUEUED: 3})
    assert step_until(client, queued=1, connecting=2).connections == {ORIGIN: Connections(2, 0)}
    assert step_until(client, queued=1, waiting=2).connections == {ORIGIN: Connections(2, 0)}
    half = step_until(client, queued=1, waiting=1, receiving=1)
    assert 0 <= half.bytes_received < len(body) and half.completed == 0
    last = step_until(client, waiting=1, receiving=1)
    assert len(body) <= last.bytes_received < 2 * len(body) and last.completed == 1
    client.run()
    end = NOTHING._replace(connections={ORIGIN: Connections(0, 2)}, bytes_received=2 * len(body), completed=3)
    assert work(client.stats()) == end


def test_a_state_that_no_task_is_in_has_none(world: World) -> None:
    assert world.client().stats().tasks[TaskState.PAUSED] == 0


def test_a_paused_task_keeps_its_connection(world: World) -> None:
    world.listen(HOST, 80, http_peer(Script(body=b"x" * 500_000)), link=Link(segment=1000))
    client = world.client()
    fetch = Fetch(client)
    step_until(client, receiving=1)
    fetch.task.pause()
    stats = client.stats()
    assert (stats.tasks, stats.connections) == ({TaskState.PAUSED: 1}, {ORIGIN: Connections(1, 0)})
    fetch.task.resume()
    client.run()
    assert client.stats().bytes_received == 500_000


def test_each_end_is_counted_before_it_is_told(world: World) -> None:
    world.listen(HOST, 80, http_peer(Script(body=b"whole")))
    client = world.client()
    told: list[ClientStats] = []
    for url in (URL, "http://nowhere.example.org/", "no URL"):
        client.download_file(url=url, sink=rawdl.DiscardSink(), complete=lambda end: told.append(client.stats()))
        client.run()
    task = client.download_file(url=URL, sink=rawdl.DiscardSink(), complete=lambda end: told.append(client.stats()))
    task.abort()
    assert client.stats().tasks == {TaskState.ABORTED: 1}
    client.run()
    assert [(stats.completed, stats.failed, stats.aborted) for stats in told] == [
        (1, 0, 0),
        (1, 1, 0),
        (1, 2, 0),
        (1, 2, 1),
    ]
    assert [stats.tasks for stats in told] == [{}] * 4


def test_redirects_and_tries_that_failed_count_with_what_they_brought(world: World) -> None:
    broken = Script(body=b"x" * 1000, cut_at=Script(body=b"x" * 1000).body_at + 400)
    hop = redirect("/a", body=b"moved")
    world.listen(HOST, 80, http_peer({"/hop": hop, "/a": [broken, Script(body=b"x" * 1000)]}))
    client = world.client(retry=AT_ONCE)
    task = client.download_file(url=f"http://{HOST}/hop", sink=rawdl.MemorySink())
    client.run()
    assert task.result().data_length == 1000
    assert client.stats().bytes_received == len(b"moved") + 400 + 1000


def test_the_members_of_a_crew_count_together(world: World, tmp_path: Path) -> None:
    bench = CrewBench(world, tmp_path)
    client = world.client()
    attempt = bench.begin(client)
    stats = step_until(client, receiving=1)
    for _ in range(MOST_TURNS):
        if stats.connections[ORIGIN].in_use == 4:
            break
        client.step(None)
        stats = client.stats()
    assert stats.connections == {ORIGIN: Connections(4, 0)}
    client.run()
    bench.assert_whole()
    assert attempt.task.done()
    asked_twice = client.stats().bytes_received - len(BODY)  # what was under way when another took a segment's end
    assert 0 <= asked_twice < len(BODY) / 10


def test_connections_are_told_apart_by_scheme_host_and_port(world: World, server_context, trusting: rawdl.TLS) -> None:
    peer = http_peer(Script(body=b"x"))
    world.listen(HOST, 80, peer)
    world.listen(HOST, 443, peer, tls=server_context)
    world.listen("::1", 8080, peer)
    client = world.client(tls=trusting)
    for url in (URL, SECURE_URL, "http://[::1]:8080/"):
        client.download_file(url=url, sink=rawdl.DiscardSink())
    client.run()
    assert set(client.stats().connections) == {ORIGIN, f"https://{HOST}:443", "http://[::1]:8080"}


def test_connections_to_one_origin_count_together_whatever_leads_there(world: World) -> None:
    peer = http_peer(Script(body=b"x"))
    world.listen(HOST, 80, peer)
    world.listen("proxy.example.org", 3128, peer)
    client = world.client()
    for proxy in (None, "http://proxy.example.org:3128"):
        client.download_file(url=URL, sink=rawdl.DiscardSink(), proxy=proxy)
    client.run()
    assert client.stats().connections == {ORIGIN: Connections(0, 2)}


def test_every_turn_is_a_wake_up(world: World) -> None:
    world.listen(HOST, 80, http_peer(Script(body=b"x" * 100_000)), link=Link(segment=1000))
    client = world.client()
    Fetch(client)
    client.run()
    assert client.stats().wake_ups == world.selector.turns > 10


@seeds(10)
def test_no_number_of_bytes_is_told_twice_or_taken_back(seed: int) -> None:
    with World(seed) as world:
        choose = random.Random(seed)
        bodies = {f"/{n}": b"x" * choose.randrange(5_000) for n in range(12)}
        world.listen(
            HOST, 80, http_peer({path: Script(body=body) for path, body in bodies.items()}), link=world.random_link()
        )
        client = world.client(max_concurrent=4)
        for path in bodies:
            client.download_file(url=f"http://{HOST}{path}", sink=rawdl.DiscardSink())
        seen = [0]
        while client.step(None):
            stats = client.stats()
            assert sum(stats.tasks.values()) + stats.completed == len(bodies)
            seen.append(stats.bytes_received)
        assert seen == sorted(seen)
        assert client.stats().bytes_received == sum(map(len, bodies.values()))


def test_it_tells_the_same_after_the_end(world: World) -> None:
    world.listen(HOST, 80, http_peer(Script(body=b"x" * 10)))
    client = world.client()
    Fetch(client)
    client.run()
    client.close()
    assert work(client.stats()) == NOTHING._replace(bytes_received=10, completed=1)


def test_it_becomes_json(world: World) -> None:
    world.listen(HOST, 80, http_peer(Script(body=b"x" * 10)))
    client = world.client(max_concurrent=1)
    Fetch(client)
    client.run()
    Fetch(client)
    assert json.loads(json.dumps(client.stats().to_dict())) == {
        "tasks": {"queued": 1},
        "connections": {ORIGIN: {"inUse": 0, "idle": 1}},
        "bytesReceived": 10,
        "wakeUps": world.selector.turns,
        "completed": 1,
        "failed": 0,
        "aborted": 0,
    }

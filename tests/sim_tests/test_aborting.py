"""abort() on the virtual clock: between redirects, in the wait for another try, in callbacks, while hashing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl import TaskState
from tests.resource import Fault, Resource, redirect
from tests.sim import Link, Script, World
from tests.sim_tests.journeys import PATIENT, A, B, Journey, asked, serve, travel
from tests.sim_tests.peers import OK

BODY = bytes(range(256)) * 40
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
UNAVAILABLE = Script(status=503, reason="Service Unavailable", body=b"later")


@pytest.mark.contract("T30", "T29", "T32")
@pytest.mark.parametrize("retry_after", [1, 100])
def test_T30_abort_in_the_wait(retry_after: int, tmp_path: Path):
    with World() as world:
        serve(world, A, [UNAVAILABLE, Script(status=503, header=(("Retry-After", str(retry_after)),)), OK])
        client = world.client(retry=PATIENT)
        taken = Journey(client, file_path=tmp_path / "a")
        world.drive(client, until=1.5)
        assert taken.task.state is TaskState.CONNECTING
        assert repr(client) == "<Client 1 tasks, <Pool 0 in use, 0 idle, 0 waiting>>"
        taken.task.abort()
        taken.task.abort()
        assert taken.task.state is TaskState.ABORTED
        travel(client, taken)
        assert taken.names == ["fail", "complete"]
        assert isinstance(taken.error, rawdl.Aborted)
        assert [type(each) for each in taken.error.attempts] == [rawdl.StatusError] * 2
        assert world.elapsed == pytest.approx(1.5)
        assert list(tmp_path.iterdir()) == []


class Ordeal:
    """Two redirects, a 503, a body that breaks, its rest from a 206, and a checksum."""

    def __init__(self, world: World, folder: Path) -> None:
        self.path, self.world = folder / "a", world
        resource = Resource(BODY, faults=[Fault(in_body=6000)], like=Script(chunk=2000))
        link = Link(segment=2000, bandwidth=100000.0)
        serve(world, A, {"/a": redirect(f"http://{B}/b"), "/c": [UNAVAILABLE, resource]}, link=link)
        serve(world, B, {"/b": redirect(f"http://{A}/c"), "/other": Script(body=BODY)}, link=link)
        self.client = world.client(retry=PATIENT)
        self.taken = Journey(self.client, file_path=self.path, progress_interval=0, checksum=CHECKSUM)
        self.other = Journey(self.client, f"http://{B}/other")

    def check(self, *, aborted: bool) -> None:
        """Go on to the end, which is as `aborted` says; the other task never hears of it."""
        travel(self.client, self.taken, self.other)
        assert self.other.body == BODY
        assert isinstance(self.taken.end, rawdl.Aborted) == aborted
        assert list(self.path.parent.iterdir()) == ([] if aborted else [self.path])
        assert repr(self.client) == f"<Client 0 tasks, <Pool 0 in use, {len(self.world.sockets)} idle, 0 waiting>>"
        assert len(self.world.sockets) <= 3


@pytest.mark.contract("T28", "T29", "T30", "T31", "T32", "T33")
def test_T30_abort_between_any_two_turns(tmp_path: Path):
    states = set()
    for turn in range(1000):
        with World() as world:
            ordeal = Ordeal(world, tmp_path)
            for _ in range(turn):
                ordeal.client.step(None)
            task, over = ordeal.taken.task, ordeal.taken.task.done()
            if not over:
                states.add(task.state)
                told, asked_for = list(ordeal.taken.names), asked(world)
                task.abort()
                assert task.state is TaskState.ABORTED
            ordeal.check(aborted=not over)
            if over:
                break
            assert ordeal.taken.names == [*told, "fail", "complete"]
            assert [what for what in asked(world) if "other" not in what] == [w for w in asked_for if "other" not in w]
    assert states == {TaskState.QUEUED, TaskState.CONNECTING, TaskState.WAITING, TaskState.RECEIVING}


@pytest.mark.contract("T30", "T29", "T32")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.usefixtures("leaves_parts")
def test_T30_abort_while_hashing(tmp_path: Path, keep: bool):
    """What an earlier download has left is read back, so that this takes some turns."""
    with World() as world:
        serve(world, A, Resource(BODY, faults=[Fault(in_body=6000)]))
        path, client = tmp_path / "a", world.client()
        travel(client, Journey(client, file_path=path))
        taken = Journey(client, file_path=path, checksum=CHECKSUM, resume=True if keep else "auto")
        world.drive(client, until=lambda: taken.task.state is TaskState.FINISHING)
        assert taken.of("progress")[-1].progress == 100
        taken.task.abort()
        travel(client, taken)
        assert isinstance(taken.error, rawdl.Aborted)
        assert taken.names[-3:] == ["progress", "fail", "complete"]
        assert not path.exists()
        assert [each.suffix for each in sorted(tmp_path.iterdir())] == ([".part", ".json"] if keep else [])


@pytest.mark.contract("T9", "T20", "T21", "T28", "T29", "S23")
@pytest.mark.parametrize("name", ["headers", "progress", "success", "complete"])
def test_T28_abort_inside_each_callback(name: str, tmp_path: Path):
    """The n-th time that it is called; once success is told it is too late."""
    for n in range(1000):
        with World() as world:
            ordeal = Ordeal(world, tmp_path)
            calls: list[Any] = []

            def abort(event: Any, ordeal: Ordeal = ordeal, calls: list[Any] = calls, n: int = n) -> None:
                calls.append(event)
                if len(calls) == n + 1:
                    ordeal.taken.task.abort()

            ordeal.taken.react(name, abort)
            travel(ordeal.client, ordeal.taken)
            ordeal.check(aborted=len(calls) > n and name in ("headers", "progress"))
            if len(calls) <= n:
                assert n == (1 if name != "progress" else 9)
                return
            if name in ("headers", "progress"):
                assert ordeal.taken.names[-3:] == [name, "fail", "complete"]

"""pause() and resume() on the virtual clock: at every moment, for hours, and whatever the server does meanwhile."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl import TaskState
from tests.resource import Fault, Resource, redirect
from tests.sim import Link, Script, World
from tests.sim_tests.journeys import (
    AT_ONCE,
    PATIENT,
    A,
    B,
    Journey,
    Lookups,
    asked,
    serve,
    sit,
    travel,
    try_again,
)

HOURS = 3 * 3600.0
# Far below the pauses, and far above what anything takes between them.
TIGHT = rawdl.Timeouts(resolve=2, connect=2, tls=2, send=2, head=2, idle=2, total=20)
BODY = bytes(range(256)) * 80
FEW_TURNS = 30  # in which a client sits through hours, whatever was under way when they began


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# At every moment

# How it is downloaded.
KINDS: dict[str, dict[str, Any]] = {
    "http": {},
    "https": {},
    "limited": {"rate_limit": 8000.0},
    "floored": {"low_speed": (500.0, 1.0)},
    "shared": {"connections": 3, "min_segment": 2000},
}


class Site:
    """What all tours of a test have in common."""

    def __init__(self, kind: str, server: ssl.SSLContext, ca_file: Path, folder: Path) -> None:
        self.kind, self.path = kind, folder / "a"
        self.tls = server if kind == "https" else None
        self.trusting = ssl.create_default_context(cafile=str(ca_file))


class Tour:
    """Two hosts, a redirect, a 503, a body that breaks and the rest of it: all that there is to be paused in."""

    def __init__(self, world: World, site: Site) -> None:
        self.world, self.site = world, site
        scheme, port = ("https", 443) if site.tls else ("http", 80)
        link = Link(bandwidth=20000.0, segment=2000, window=8192, send_window=100)  # a request takes two sends
        framing = "content-length" if site.kind == "shared" else "chunked"
        resource = Resource(BODY, faults=[Fault(in_body=9000)], framing=framing, like=Script(chunk=3000))
        how = {"port": port, "tls": site.tls, "link": link, "connect_delay": 0.1}
        serve(world, A, redirect(f"{scheme}://{B}/b"), **how)
        serve(world, B, {"/b": [Script(status=503, body=b"x" * 100), resource]}, **how)
        resolver = Lookups(world, [try_again()])
        self.client = world.client(resolver=resolver, retry=PATIENT, tls=site.trusting)
        options = {"file_path": site.path, "progress_interval": 0, "timeouts": TIGHT, **KINDS[site.kind]}
        self.taken = Journey(self.client, f"{scheme}://{A}/a", **options)

    def check(self) -> None:
        """See that it came to the end that it has without a pause, by the same requests."""
        assert self.taken.result.data_length == len(BODY)
        assert self.site.path.read_bytes() == BODY
        self.site.path.unlink()
        if self.site.kind != "shared":
            # A connection that breaks after a pause is no failed try; but the 503 is one in any case.
            kinds = [type(error) for error in self.taken.result.attempts]
            assert rawdl.StatusError in kinds
            assert len(kinds) <= 3
            assert [what.split("/")[1] for what in asked(self.world)] == ["a", "b", "b", "b"]


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, server_context: ssl.SSLContext, ca_file: Path, tmp_path: Path) -> Site:
    return Site(request.param, server_context, ca_file, tmp_path)


def each_turn(site: Site, interfere: Callable[[Tour], None]) -> Iterator[Tour]:
    """Tour again and again; drive it for some turns more each time and interfere.  Stop when it ends before."""
    # A limited rate makes hundreds of turns in the body, all alike.
    for turn in (*range(60), *range(60, 1000, 7 if site.kind == "limited" else 1)):
        with World() as world:
            tour = Tour(world, site)
            before = world.selector.turns
            while world.selector.turns - before < turn and tour.client.step(None):
                pass
            if tour.taken.task.done():
                tour.check()
                assert turn > 30, "that was no test"
                return
            interfere(tour)
            yield tour
    raise AssertionError("it never ended")


@pytest.mark.contract("T34", "T35", "S25", "S26", "S27")
@pytest.mark.parametrize("driven", [True, False])
def test_T34_a_pause_of_hours_at_any_moment_changes_nothing(site: Site, driven: bool):
    """No limit runs out, nothing is told, the loop sleeps, or nobody drives it; nor does resume() tell anything."""
    seen = set()

    def interfere(tour: Tour) -> None:
        task, told = tour.taken.task, list(tour.taken.names)
        seen.add(task.state)
        before = task.state
        task.pause()
        if before is TaskState.FINISHING:
            return
        assert task.state is TaskState.PAUSED
        if driven:
            assert sit(tour.world, tour.client, HOURS) < FEW_TURNS
        else:
            tour.world.wait(HOURS)
        assert task.state is TaskState.PAUSED
        task.resume()
        assert task.state in (before, TaskState.CONNECTING, TaskState.WAITING)
        assert tour.taken.names == told, "a callback was called while it was paused, or by resume()"

    for tour in each_turn(site, interfere):
        travel(tour.client, tour.taken)
        tour.check()
    assert seen >= {TaskState.QUEUED, TaskState.CONNECTING, TaskState.WAITING, TaskState.RECEIVING}


@pytest.mark.contract("T34", "T35")
def test_T34_any_number_of_times(site: Site):
    def interfere(tour: Tour) -> None:
        task = tour.taken.task
        for call in (task.pause, task.pause, task.resume, task.resume, task.pause, task.resume, task.pause, task.pause):
            call()
        tour.client.step(0)
        assert task.state in (TaskState.PAUSED, TaskState.FINISHING)
        task.resume()
        task.resume()

    for tour in each_turn(site, interfere):
        travel(tour.client, tour.taken)
        tour.check()


@pytest.mark.contract("T34", "S25")
def test_T34_in_every_turn(site: Site):
    with World() as world:
        tour = Tour(world, site)
        task = tour.taken.task
        while not task.done():
            task.pause()
            sit(world, tour.client, 100.0)
            task.resume()
            tour.client.step(None)
        tour.check()


@pytest.mark.contract("T30", "T34", "T31", "T32", "S8", "S6")
@pytest.mark.parametrize("how", ["abort", "close"])
def test_T30_a_paused_task_is_aborted_as_any_other(site: Site, how: str):
    def interfere(tour: Tour) -> None:
        task = tour.taken.task
        task.pause()
        sit(tour.world, tour.client, 100.0)
        if how == "close":
            tour.client.close()
            return
        if not task.done():
            task.abort()
            assert task.state is TaskState.ABORTED
            # What is open is the connection at A that the redirect has left for others.
            assert len(tour.world.sockets) <= 1
        tour.client.run()

    for tour in each_turn(site, interfere):
        finishing = isinstance(tour.taken.end, rawdl.DownloadResult)
        assert finishing or isinstance(tour.taken.error, rawdl.Aborted)
        for call in (tour.taken.task.resume, tour.taken.task.pause):
            call()
            assert tour.taken.task.state in (TaskState.ABORTED, TaskState.COMPLETED)
        assert list(site.path.parent.iterdir()) == ([site.path] if finishing else [])


# What the peer sees


@pytest.mark.contract("T34")
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
@pytest.mark.parametrize("secure", [False, True])
def test_T34_nothing_is_read_and_the_window_closes(
    world: World, framing: Any, secure: bool, server_context: ssl.SSLContext, trusting: rawdl.TLS
):
    link = Link(window=8192, segment=1000)
    for port, tls in ((80, None), (443, server_context)):
        serve(world, A, Script(body=BODY * 20, framing=framing), port=port, tls=tls, link=link)
    client = world.client(tls=trusting)
    taken = Journey(client, f"{'https' if secure else 'http'}://{A}/a")
    world.drive(client, until=lambda: taken.task.progress.total_bytes_written > 50000)
    taken.task.pause()
    written, sent = taken.task.progress.total_bytes_written, world.conns[0].sent
    sit(world, client, HOURS)
    assert taken.task.progress.total_bytes_written == written
    assert world.conns[0].sent <= sent + link.window
    [socket] = world.sockets.values()
    assert socket.buffered > link.window - 1000
    taken.task.resume()
    travel(client, taken)
    assert taken.body == BODY * 20
    assert len(world.conns) == 1


def deserted(world: World, moment: str, how: Any, retry: rawdl.Retry) -> tuple[Journey, Resource]:
    """Pause a download of BODY at a moment; a minute later the server closes, and hours later, resume it."""
    resource = Resource(BODY)
    at = 0 if moment == "waiting" else 5000
    listener = serve(world, A, resource, link=Link(stall_at=at, stall_for=60.0, cut_at=at + 1, cut=how))
    client = world.client(retry=retry)
    taken = Journey(client)
    world.drive(client, until=2.0)
    assert taken.task.state.value == moment
    taken.task.pause()
    assert sit(world, client, HOURS) < FEW_TURNS
    assert taken.task.state is TaskState.PAUSED
    assert world.seen(f"peer sent {how.upper()}") == [pytest.approx(60.0, abs=0.1)]
    listener.link = Link()
    taken.task.resume()
    travel(client, taken)
    return taken, resource


@pytest.mark.contract("T34", "N17")
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("moment", ["waiting", "receiving"])
def test_T34_the_server_may_close_meanwhile(world: World, how: str, moment: str):
    """The loop does not spin, and resume() goes on by Range from what had arrived."""
    taken, resource = deserted(world, moment, how, AT_ONCE)
    assert taken.body == BODY
    first, again = resource.ranges_asked
    assert first is None
    assert again == (None if moment == "waiting" else f"bytes={5001 - resource.log[0].script.body_at}-")


@pytest.mark.contract("T34", "S33")
@pytest.mark.parametrize("moment", ["waiting", "receiving"])
def test_T34_resume_goes_on_even_if_nothing_is_to_be_tried_again(world: World, moment: str):
    """That the server did not wait for hours is no failed try."""
    taken, resource = deserted(world, moment, "rst", rawdl.Retry(attempts=1))
    assert taken.body == BODY
    assert len(resource.ranges_asked) == 2

"""abort(), in each state and from each place (T28-T33, S8)."""

from __future__ import annotations

import itertools
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

import rawdl
from tests import once
from tests.driving import in_thread, spin
from tests.origin import Origin, Script
from tests.recorder import PATIENCE, Recorder
from tests.sim import Link, World, http_peer, seeds

BODY = bytes(range(256)) * 400
HOST = "example.org"


@dataclass
class Scene:
    """A state of a task in the simulated network: how to get there, and how to see that it is reached."""

    state: str
    reached: Callable[[World, Recorder], bool]
    script: Script = field(default_factory=lambda: Script(body=BODY))
    link: Link = field(default_factory=lambda: Link(bandwidth=1e6, segment=10_000))
    tls: bool = False
    silent: bool = False
    connect: str = "accept"
    connected: bool = True  # whether there is a connection whose end the peer must see

    def set(self, world: World, context: ssl.SSLContext) -> str:
        tls = context if self.tls else None
        port = 443 if self.tls else 80
        world.listen(HOST, port, http_peer(self.script), link=self.link, tls=tls, connect=self.connect)
        world.name(HOST).silent = self.silent
        return f"http{'s' if self.tls else ''}://{HOST}/a"


def logged(text: str) -> Callable[[World, Recorder], bool]:
    return lambda world, recorder: bool(world.seen(text))


def told(name: str, count: int = 1) -> Callable[[World, Recorder], bool]:
    return lambda world, recorder: recorder.names.count(name) >= count


SCENES = {
    "queued": Scene("queued", lambda world, recorder: True, connected=False),
    "resolving": Scene("connecting", logged("resolve"), silent=True, connected=False),
    "connecting": Scene("connecting", logged("connect"), connect="blackhole", connected=False),
    "tls handshake": Scene("connecting", logged("accepted"), tls=True, link=Link(stall_at=0)),
    "tls handshake, half": Scene("connecting", logged("link stalls"), tls=True, link=Link(stall_at=700)),
    "sending": Scene("waiting", logged("accepted"), link=Link(deaf=True, send_window=10)),
    "waiting": Scene("waiting", logged("request"), script=Script(head_delay=3600)),
    "waiting, tls": Scene("waiting", logged("request"), script=Script(head_delay=3600), tls=True),
    "in the head": Scene("waiting", logged("link stalls"), link=Link(stall_at=10)),
    "after the head": Scene("receiving", told("headers"), script=Script(body=BODY, stall_at=Script(body=BODY).body_at)),
    "body flowing": Scene("receiving", told("progress", 3)),
    "body flowing, chunked": Scene(
        "receiving", told("progress", 3), script=Script(body=BODY, framing="chunked", chunk=3000)
    ),
    "body flowing, tls": Scene("receiving", told("progress", 3), tls=True),
    "body stalled": Scene("receiving", logged("link stalls"), link=Link(stall_at=50_000)),
    "body stalled, tls": Scene("receiving", logged("link stalls"), link=Link(stall_at=50_000), tls=True),
}
each_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def client() -> Iterator[rawdl.Client]:
    with once.client() as client:
        yield client


def begin(
    scene: Scene, world: World, ca: trustme.CA, server: ssl.SSLContext, path: Path
) -> tuple[rawdl.Client, Recorder, rawdl.DownloadTask]:
    """Make a task, and drive it as far as the scene says."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    url = scene.set(world, server)
    client, recorder = world.client(tls=context, timeouts=rawdl.Timeouts(head=None, idle=None)), Recorder()
    task = recorder.download(client, url=url, file_path=path, progress_interval=0)
    if scene.state != "queued":
        world.drive(client, lambda: scene.reached(world, recorder))
        for _ in range(3):  # let the client take what is there; then it waits in this state
            client.step(0)
    assert task.state == scene.state
    return client, recorder, task


def check(scene: Scene, world: World, client: rawdl.Client, recorder: Recorder, task: rawdl.DownloadTask) -> None:
    """See that all of it is over: the settlement told once, the socket closed, the peer aware, no file left."""
    assert client.run() is False
    error = task.exception()
    assert isinstance(error, rawdl.Aborted)
    assert error.err_msg == "downloadFile:fail abort"
    assert error.err_code == 600003
    assert task.state == "aborted"
    assert recorder.names[-2:] == recorder.outcome == ["fail", "complete"]
    assert recorder.events[-1][1] is recorder.events[-2][1] is error
    with pytest.raises(rawdl.Aborted):
        task.result()
    assert world.sockets == {}
    count = len(recorder.events)
    world.wait(3600)
    client.run()
    task.abort()
    assert len(recorder.events) == count
    if scene.connected:
        assert world.conns[0].client_closed is not None


@each_scene
def test_T28_T29_T30_T31_T32_abort_while_nobody_drives(
    scene: Scene, world: World, ca: trustme.CA, server_context: ssl.SSLContext, tmp_path: Path
):
    client, recorder, task = begin(scene, world, ca, server_context, tmp_path / "a")
    events = list(recorder.events)
    assert task.abort() is None
    assert task.abort() is None
    assert world.sockets == {}, "the socket is closed at once"
    assert list(tmp_path.iterdir()) == []
    assert task.state == "aborted"
    assert recorder.events == events, "the settlement waits for the next turn"
    assert not task.done()
    check(scene, world, client, recorder, task)
    assert recorder.names[:-2] == [name for name, _ in events]


@each_scene
def test_T28_T29_T30_T31_abort_from_a_signal_handler_during_the_wait(
    scene: Scene, world: World, ca: trustme.CA, server_context: ssl.SSLContext, tmp_path: Path
):
    """In a flowing body the moment is any; in the others the client sleeps."""
    client, recorder, task = begin(scene, world, ca, server_context, tmp_path / "a")
    seen: list[int] = []

    def abort() -> None:
        task.abort()
        seen.append(len(recorder.events))

    world.interrupt(0.001, abort)
    while not seen:
        client.step(None)
    client.step(0)
    assert world.sockets == {}, "closed within one turn"
    check(scene, world, client, recorder, task)
    if scene.state != "queued":  # with a queued task the interrupt may come a little later
        assert recorder.names[seen[0] :] == ["fail", "complete"], "no header or progress event follows"
    assert list(tmp_path.iterdir()) == []


@seeds(30)
def test_T30_abort_at_a_random_moment(seed: int, tmp_path: Path):
    with World(seed) as world:
        world.listen(HOST, 80, http_peer(Script(body=BODY)), link=world.random_link())
        client, recorder = world.client(), Recorder()
        task = recorder.download(client, url=f"http://{HOST}/a", file_path=tmp_path / "a")
        world.interrupt(world.random.expovariate(1 / world.random.choice([0.005, 0.1, 2.0])), task.abort)
        client.run()
        aborted = isinstance(task.exception(), rawdl.Aborted)
        assert recorder.outcome == (["fail", "complete"] if aborted else ["success", "complete"])
        assert recorder.names[-2:] == recorder.outcome
        assert [path.name for path in tmp_path.iterdir()] == ([] if aborted else ["a"])
        assert task.state == ("aborted" if aborted else "completed")


def test_T30_abort_while_finishing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From another thread, between the rename and the settlement: the file is taken back."""
    import os

    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client, recorder = world.client(), Recorder()
    task = recorder.download(client, url=f"http://{HOST}/a", file_path=tmp_path / "a")
    replace = os.replace

    def replace_and_abort(*args: object) -> None:
        replace(*args)
        assert task.state == "finishing"
        in_thread(task.abort)()

    monkeypatch.setattr(os, "replace", replace_and_abort)
    client.run()
    assert recorder.outcome == ["fail", "complete"]
    assert task.state == "aborted"
    assert isinstance(task.exception(), rawdl.Aborted)
    assert list(tmp_path.iterdir()) == []


def test_T30_abort_of_a_temporary_file_while_finishing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import os

    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client, recorder = world.client(), Recorder()
    task = recorder.download(client, url=f"http://{HOST}/a", directory=tmp_path)
    close = os.close

    def close_and_abort(fd: int) -> None:
        close(fd)
        if task.state == "finishing":
            task.abort()

    monkeypatch.setattr(os, "close", close_and_abort)
    client.run()
    assert recorder.outcome == ["fail", "complete"]
    assert list(tmp_path.iterdir()) == []


@each_scene
def test_T29_abort_after_the_settlement_is_nothing(
    scene: Scene, world: World, ca: trustme.CA, server_context: ssl.SSLContext, tmp_path: Path
):
    client, recorder, task = begin(scene, world, ca, server_context, tmp_path / "a")
    task.abort()
    client.run()
    events = list(recorder.events)
    for _ in range(3):
        task.abort()
        client.run()
    assert recorder.events == events


def test_T28_abort_again_after_an_interrupt(world: World, monkeypatch: pytest.MonkeyPatch):
    client, recorder = world.client(), Recorder()
    task = recorder.download(client, url="http://example.org/a", sink=rawdl.MemorySink())

    def interrupt(self: object, action: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rawdl.driver.Driver.hand", interrupt)
        with pytest.raises(KeyboardInterrupt):
            task.abort()
    task.abort()
    assert task.state == "aborted"
    assert client.run(PATIENCE) is False
    assert recorder.outcome == ["fail", "complete"]


def test_T28_abort_from_many_threads_at_once(client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    task = recorder.download(
        client, url=origin.serve("/a", Script(body=BODY, stall_at=50_000)), sink=rawdl.MemorySink()
    )
    client.start()
    recorder.wait_for("progress")
    barrier = threading.Barrier(8)
    joins = [in_thread(lambda: (barrier.wait(), task.abort())) for _ in range(8)]
    for join in joins:
        join()
    assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    assert recorder.outcome == ["fail", "complete"]


@pytest.mark.parametrize("exposed", [False, True])
def test_T31_the_loop_is_woken_and_not_polled(exposed: bool, client: rawdl.Client, origin: Origin):
    """Nothing is timed, so that a loop which nobody wakes would sleep for ever."""
    never = rawdl.Timeouts(resolve=None, connect=None, tls=None, send=None, head=None, idle=None)
    recorder = Recorder()
    url = origin.serve("/a", Script(body=BODY, stall_at=50_000))
    task = recorder.download(client, url=url, sink=rawdl.MemorySink(), timeouts=never)
    if exposed:
        client.fileno()
    join = in_thread(client.run)
    recorder.wait_for("progress")
    task.abort()
    assert join() is False
    assert recorder.outcome == ["fail", "complete"]


def test_T28_T31_S8_many_threads_abort_while_nobody_drives(client: rawdl.Client, origin: Origin):
    """Each of them may come while another carries its own out; none may be left lying."""
    url = origin.serve("/a", Script(body=BODY, stall_at=50_000))
    interval = sys.getswitchinterval()
    with once.client(max_concurrent=40, max_per_host=40) as client:
        for _ in range(5):
            tasks = [client.download_file(url=url, sink=rawdl.DiscardSink()) for _ in range(40)]
            spin(client, lambda: all(task.progress.total_bytes_written for task in tasks))  # noqa: B023
            barrier = threading.Barrier(4)
            sys.setswitchinterval(1e-6)
            try:
                shares = [tasks[n::4] for n in range(4)]
                joins = [in_thread(lambda some: (barrier.wait(), [t.abort() for t in some]), s) for s in shares]  # noqa: B023
                for join in joins:
                    join()
            finally:
                sys.setswitchinterval(interval)
            assert {str(task.state) for task in tasks} == {"aborted"}, "before anybody has driven"
            client.run(PATIENCE)
    origin.wait_closed(200)


def test_S8_an_abort_is_not_left_lying_when_it_meets_another_call(client: rawdl.Client, origin: Origin):
    """One thread finds another at work, and hands its abort over just when that one has looked for the last time."""
    recorder = Recorder()
    task = recorder.download(
        client, url=origin.serve("/a", Script(body=BODY, stall_at=50_000)), sink=rawdl.MemorySink()
    )
    spin(client, lambda: "progress" in recorder.names)
    driver, handed, go_on = client._driver, threading.Event(), threading.Event()
    hand_over = driver.loop.call_soon_threadsafe

    def late(action: Callable[[], None]) -> None:
        handed.set()
        go_on.wait(PATIENCE)
        hand_over(action)

    driver.loop.call_soon_threadsafe = late  # type: ignore[method-assign]
    joins: list[Callable[[], object]] = []

    def meanwhile() -> None:
        joins.append(in_thread(task.abort))
        assert handed.wait(PATIENCE)

    driver.hand(meanwhile)
    go_on.set()
    joins[0]()
    origin.wait_closed()
    assert task.state == "aborted"


# On real sockets: what the origin sees


@pytest.mark.parametrize("driven", [True, False], ids=["driven", "undriven"])
@pytest.mark.parametrize(
    "script",
    [
        Script(head_delay=3600),
        Script(body=BODY, stall_at=10),
        Script(body=BODY, stall_at=50_000),
        Script(body=itertools.repeat(b"x" * 65536), framing="until-close"),
        Script(body=itertools.repeat(b"x" * 50), framing="chunked"),
    ],
    ids=["waiting", "in the head", "stalled", "flowing", "flowing chunks"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_T31_the_origin_sees_the_close(
    scheme: str, script: Script, driven: bool, origin: Origin, tls_origin: Origin, ca_file: Path, tmp_path: Path
):
    server = origin if scheme == "http" else tls_origin
    with once.client(tls=rawdl.TLS(ca_file=str(ca_file))) as client:
        recorder = Recorder()
        task = recorder.download(client, url=server.serve("/a", script), file_path=tmp_path / "a")
        join = in_thread(lambda: (server.wait_request(), wait_for_body(script, recorder), task.abort()))
        if driven:
            task.exception(PATIENCE)
        else:
            spin(client, lambda: bool(server.requests) and has_begun(script, recorder))
        join()
        server.wait_closed()
        assert task.state == "aborted"
        client.run(PATIENCE)
    assert recorder.outcome == recorder.names[-2:] == ["fail", "complete"]
    assert list(tmp_path.iterdir()) == []


def has_begun(script: Script, recorder: Recorder) -> bool:
    in_head = script.head_delay > 0 or script.stall_at == 10
    return in_head or "progress" in recorder.names


def wait_for_body(script: Script, recorder: Recorder) -> None:
    if not has_begun(script, recorder):
        recorder.wait_for("progress")


def test_T30_T31_abort_in_the_tls_handshake_of_a_mute_server(client: rawdl.Client):
    with Origin(on_accept="mute") as origin:
        task = client.download_file(url=origin.url("/a").replace("http:", "https:"), sink=rawdl.MemorySink())
        spin(client, lambda: origin.connections == 1)
        task.abort()
        assert origin.wait_closed()
        assert isinstance(task.exception(), rawdl.Aborted)


@pytest.mark.parametrize("driven", [True, False], ids=["driven", "undriven"])
def test_T30_abort_while_the_resolver_blocks(driven: bool):
    """Nothing can interrupt getaddrinfo; nobody waits for it either."""
    entered, leave = threading.Event(), threading.Event()

    def lookup(host: str, port: int, family: int) -> list[str]:
        entered.set()
        leave.wait(PATIENCE)
        return ["127.0.0.1"]

    with once.client(resolver=lookup) as client:
        recorder = Recorder()
        task = recorder.download(client, url="http://example.org/", sink=rawdl.MemorySink())
        join = in_thread(lambda: (entered.wait(PATIENCE), task.abort()))
        if not driven:
            spin(client, entered.is_set)
            join()
        assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
        assert not leave.is_set()
        leave.set()
        join()
        client.run(PATIENCE)
        assert recorder.names == ["fail", "complete"]


# T33: the others


def test_T33_abort_of_one_among_fifty_disturbs_none(client: rawdl.Client, origin: Origin, tmp_path: Path):
    with once.client(max_concurrent=50, max_per_host=50) as client:
        url = origin.serve("/a", Script(body=BODY, stall_at=50_000, stall_for=0.3))
        recorders = [Recorder() for _ in range(50)]
        tasks = [r.download(client, url=url, file_path=tmp_path / str(n)) for n, r in enumerate(recorders)]
        recorders[17].react("progress", lambda event: tasks[17].abort())
        client.run(PATIENCE)
    assert isinstance(tasks[17].exception(), rawdl.Aborted)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(str(n) for n in range(50) if n != 17)
    for number, recorder in enumerate(recorders):
        assert recorder.outcome == ["fail" if number == 17 else "success", "complete"]
        assert recorder.names.count("headers") == 1
        assert number == 17 or (tmp_path / str(number)).read_bytes() == BODY


def test_T33_abort_of_a_thousand_in_the_queue_leaves_the_one(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=Link(bandwidth=1e6))
    client, recorder = world.client(), Recorder()
    options = {"url": f"http://{HOST}/a", "sink": rawdl.DiscardSink()}
    doomed = [client.download_file(**options) for _ in range(500)]
    survivor = recorder.download(client, url=options["url"], sink=rawdl.MemorySink())
    doomed += [client.download_file(**options) for _ in range(500)]
    for task in doomed:
        task.abort()
    assert survivor.result().data_length == len(BODY)
    assert recorder.outcome == ["success", "complete"]
    client.run()
    assert {str(task.state) for task in doomed} == {"aborted"}
    assert len(world.requests) == 1


def test_T33_abort_of_all_from_inside_one_of_them(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=Link(bandwidth=1e6, segment=10_000))
    client = world.client(max_concurrent=20, max_per_host=20)
    recorders = [Recorder() for _ in range(20)]
    tasks: list[rawdl.DownloadTask] = []
    for recorder in recorders:
        recorder.react("progress", lambda event: [task.abort() for task in tasks])
        tasks.append(recorder.download(client, url=f"http://{HOST}/a", sink=rawdl.MemorySink()))
    assert client.run() is False
    assert [recorder.outcome for recorder in recorders] == [["fail", "complete"]] * 20
    assert sum(recorder.names.count("progress") for recorder in recorders) == 1
    assert world.sockets == {}


def test_T32_an_aborted_download_leaves_the_old_file_alone(world: World, tmp_path: Path):
    (tmp_path / "a").write_text("old")
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=Link(stall_at=50_000))
    client = world.client()
    task = client.download_file(url=f"http://{HOST}/a", file_path=tmp_path / "a")
    world.drive(client, lambda: task.progress.total_bytes_written > 10_000)
    task.abort()
    client.run()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_T28_a_task_that_is_made_and_aborted_inside_a_sink(world: World):
    """While our own code is at work a new task is not yet attached; its abort holds all the same."""
    world.listen(HOST, 80, http_peer(Script(body=BODY)))
    client, recorder = world.client(), Recorder()
    made: list[rawdl.DownloadTask] = []

    def sink(data: memoryview) -> None:
        if not made:
            made.append(recorder.download(client, url=f"http://{HOST}/b", sink=rawdl.MemorySink()))
            made[0].abort()
            made[0].abort()

    client.download_file(url=f"http://{HOST}/a", sink=sink).result()
    assert client.run() is False
    assert isinstance(made[0].exception(), rawdl.Aborted)
    assert recorder.names == ["fail", "complete"]
    assert [request.target for request in world.requests] == ["/a"]


def test_T28_T29_abort_inside_a_sink(world: World):
    """A callable sink is user code too; what it may still get is the rest of that turn's bytes."""
    world.listen(HOST, 80, http_peer(Script(body=BODY, framing="chunked", chunk=500)), link=Link(segment=1 << 20))
    client, recorder = world.client(), Recorder()
    turns: list[int] = []

    def sink(data: memoryview) -> None:
        turns.append(world.selector.turns)
        assert task.abort() is None

    task = recorder.download(client, url=f"http://{HOST}/a", sink=sink)
    assert isinstance(task.exception(), rawdl.Aborted)
    assert recorder.names == ["headers", "fail", "complete"]
    assert len(set(turns)) == 1
    assert world.sockets == {}

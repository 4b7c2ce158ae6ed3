"""Downloads that take several requests, at several hosts: what they told on the way, and what was asked on the wire."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterable
from itertools import pairwise
from typing import Any

import rawdl
from rawdl import TaskState
from rawdl.errors import ResolveError
from tests.origin import Answer, Request
from tests.sim import Conn, World, http_peer
from tests.sim.conn import Listener, Pause
from tests.sim.dns import Callback
from tests.sim_tests.fetch import Fetch, check_update
from tests.sim_tests.peers import REQUEST_END

A, B, C = "a.example.org", "b.example.org", "c.example.org"

# Waits of 1, 2, 4, 8 s between five tries.
PATIENT = rawdl.Retry(attempts=5, backoff=1.0, jitter="none")
AT_ONCE = rawdl.Retry(attempts=5, backoff=0.0)

# S27, without the pauses; what is not here is final.  Waiting to finishing is a 416 that proves the file whole (S35).
_STOPPED = {TaskState.FAILED, TaskState.ABORTED}
_MOVES = {
    TaskState.QUEUED: {TaskState.CONNECTING, TaskState.FINISHING} | _STOPPED,
    TaskState.CONNECTING: {TaskState.WAITING} | _STOPPED,
    TaskState.WAITING: {TaskState.RECEIVING, TaskState.CONNECTING, TaskState.FINISHING} | _STOPPED,
    TaskState.RECEIVING: {TaskState.FINISHING, TaskState.CONNECTING} | _STOPPED,
    TaskState.FINISHING: {TaskState.COMPLETED} | _STOPPED,
}


class Journey(Fetch):
    """A fetch into memory, unless told otherwise, whose counts may begin anew, and which notes its states."""

    def __init__(self, client: rawdl.Client, url: str = f"http://{A}/a", **options: Any) -> None:
        if not options.keys() & {"file_path", "sink", "directory"}:
            options["sink"] = self.memory = rawdl.MemorySink()
        self.states: list[TaskState] = []
        super().__init__(client, url, **options)
        for name in ("headers", "progress"):
            self.react(name, lambda event: self.look())
        self.look()

    def look(self) -> None:
        """Note the state, if it is another than before."""
        if not self.states or self.states[-1] is not self.task.state:
            self.states.append(self.task.state)

    @property
    def body(self) -> bytes:
        """What is in memory of a download that has ended well."""
        assert self.result.data_length == len(self.memory.getvalue())
        return self.memory.getvalue()

    def _check_progress(self) -> None:
        """See that counts begin anew only where that is said, and totals do not shrink where it is not (T11)."""
        updates = self.of("progress")
        for update in updates:
            check_update(update)
        for before, after in pairwise(updates):
            if after.restarted:
                assert after.total_bytes_written == 0
                continue
            assert after.total_bytes_written >= before.total_bytes_written
            assert after.total_bytes_expected_to_write >= before.total_bytes_expected_to_write
        if "success" in self.names:
            written = updates[-1].decoded_bytes_written  # None: as many as came
            written = updates[-1].total_bytes_written if written is None else written
            assert written == self.of("success")[0].data_length


def travel(client: rawdl.Client, *journeys: Journey) -> None:
    """Drive a client until it is idle, and see that each state that is seen may follow on the one before."""
    while client.step(None):
        for journey in journeys:
            journey.look()
    for journey in journeys:
        journey.look()
        for before, after in pairwise(journey.states):
            assert TaskState.PAUSED in (before, after) or after in _reachable(before), journey.states


def _reachable(state: TaskState) -> set[TaskState]:
    """Return what may come after a state; not next to it, as one turn may go through several."""
    found: set[TaskState] = set()
    new = {state}
    while new:
        new = {after for before in new for after in _MOVES.get(before, ())} - found
        found |= new
    return found


def journey(world: World, url: str = f"http://{A}/a", client: dict[str, Any] | None = None, **options: Any) -> Journey:
    """Go on one, to its end; only idle connections are left."""
    made = world.client(**(client or {}))
    taken = Journey(made, url, **options)
    travel(made, taken)
    idle = len(world.sockets)
    assert repr(made) == f"<Client 0 tasks, <Pool 0 in use, {idle} idle, 0 waiting>>"
    return taken


def serve(world: World, host: str, answers: Answer | dict[str, Answer], **how: Any) -> Listener:
    """Have a host answer on port 80, by path or all alike."""
    return world.listen(host, how.pop("port", 80), http_peer(answers), **how)


def asked(world: World) -> list[str]:
    """Return what was asked for, where and in which order: `a.example.org/a`."""
    return [f"{request.field('Host')}{request.target}" for request in world.requests]


def fields(request: Request) -> dict[str, str]:
    """Return the fields of a request by lower-case name; each stands there once."""
    lines = request.head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")[1:]
    pairs = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    assert len(dict(pairs)) == len(pairs), lines
    return dict(pairs)


def assert_only_requests(world: World) -> None:
    """See that nothing but whole heads of GET requests was sent: no body, and nothing between or behind them."""
    for request in world.requests:
        assert request.method == "GET"
        assert request.head.endswith(REQUEST_END)
        assert not fields(request).keys() & {"content-length", "transfer-encoding", "content-type", "expect"}
    assert not any(conn.received for conn in world.conns)


class Crowd:
    """A host that notes by how many connections it is used at once, at most."""

    def __init__(self, world: World, host: str, answers: Answer | dict[str, Answer]) -> None:
        self.open = self.most = 0
        self._peer = http_peer(answers)
        world.listen(host, 80, self._serve)

    def _serve(self, conn: Conn) -> Generator[Pause, None, None]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield from self._peer(conn)
        finally:
            self.open -= 1


class Lookups:
    """A resolver that fails as it is told to, one error a lookup, and then asks the world."""

    def __init__(self, world: World, errors: Iterable[ResolveError | None]) -> None:
        self._world = world
        self._errors = list(errors)

    def resolve(self, host: str, port: int, family: int, callback: Callback) -> Callable[[], None]:
        if not self._errors:
            return self._world.resolver.resolve(host, port, family, callback)
        error = self._errors.pop(0)
        return self._world.interrupt(0.005, callback, [], error).cancel


def try_again() -> ResolveError:
    """Return what a resolver says of a name server that does not answer for the moment."""
    return ResolveError("cannot resolve the name: try again", temporary=True, errno=socket.EAI_AGAIN)


def sit(world: World, client: rawdl.Client, seconds: float) -> int:
    """Drive a client for so long, whether it has work or not; return in how many turns."""
    end, turns = world.now + seconds, world.selector.turns
    while world.now < end:
        client.step(end - world.now)
    return world.selector.turns - turns

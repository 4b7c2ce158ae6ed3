"""Downloads over several connections in the simulated network: servers with two faces, and a bench to look at them."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from errno import ECONNRESET
from pathlib import Path
from typing import Any

import rawdl
from tests.origin import Request, Script
from tests.resource import Resource, Span
from tests.resuming import Attempt, Bench
from tests.sim import Conn, Link, World, http_peer
from tests.sim.conn import Pause

BODY = random.Random(5).randbytes(400_000)  # no two places of it are alike, so that a shift is seen
OTHER = random.Random(6).randbytes(400_000)
MIN = 10_000  # bytes: the least for which a connection is given another's work
SPEED = 100_000.0  # bytes per second and connection: one alone takes 4 s

Greeting = Callable[[Conn], Generator[Pause, None, None]]


@dataclass
class TwoFaced(Resource):
    """A resource that answers its first request well, and is otherwise from the second on."""

    later: Mapping[str, Any] = field(default_factory=dict)

    def _answer(self, request: Request) -> tuple[Script, Span | None]:
        for name, value in self.later.items() if self.log else ():
            setattr(self, name, value)
        return super()._answer(request)


class CrewBench(Bench):
    """Download BODY over four connections, unless told otherwise; note how many the server sees open at once."""

    def __init__(self, world: World, folder: Path, resource: Resource | None = None, **options: Any) -> None:
        super().__init__(world, folder, resource or Resource(BODY), **options)
        self.listener.link = Link(bandwidth=SPEED, segment=4096)
        self.listener.peer = self._serve
        self.greet: Greeting | None = None
        self.allowed = 1000  # connections; to more of them it does what `greet` says
        self.open = self.most = 0

    def begin(self, client: rawdl.Client, **options: Any) -> Attempt:
        return super().begin(client, **{"connections": 4, "min_segment": MIN, **options})

    def relay(self, bytes_per_second: float) -> None:
        """Have connections that begin from now on bring so much; those that are there stay as they are."""
        self.listener.link = Link(bandwidth=bytes_per_second, segment=4096)

    def break_all(self) -> None:
        """Reset every connection that there is."""
        for socket in list(self.world.sockets.values()):
            socket.fail(ECONNRESET)

    def break_all_at(self, *seconds: float) -> None:
        """Reset every connection at these moments after the start."""
        for moment in seconds:
            self.world.after(moment, self.break_all)

    @property
    def times(self) -> list[float]:
        """When the client began to connect."""
        return self.world.seen("connect 10.")

    def assert_alone(self) -> None:
        """See that there was one connection with one request, which was for everything."""
        assert (len(self.world.conns), self.asked) == (1, [None])

    def _serve(self, conn: Conn) -> Generator[Pause, None, None]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if self.greet is not None and self.open > self.allowed:
                yield from self.greet(conn)
            else:
                yield from http_peer({"/a": lambda request: self.resource(request)})(conn)
        finally:
            self.open -= 1


# How a server greets a connection that is one too many


def says(status: int, header: tuple[tuple[str, str], ...] = ()) -> Greeting:
    return http_peer(Script(status=status, body=b"too many\n", header=header))


def resets(conn: Conn) -> Generator[Pause, None, None]:
    yield from conn.read_until(b"\r\n\r\n")
    conn.end("rst")


def closes(conn: Conn) -> Generator[Pause, None, None]:
    yield from conn.read_until(b"\r\n\r\n")
    conn.end("fin")


def closes_at_once(conn: Conn) -> Generator[Pause, None, None]:
    conn.end("fin")
    yield None


def is_mute(conn: Conn) -> Generator[Pause, None, None]:
    yield None

"""What a client is doing, and what it has done: numbers for a monitor, taken when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from rawdl.job import Shared
from rawdl.task import TaskState

if TYPE_CHECKING:
    from rawdl.proto.url import Origin


class Connections(NamedTuple):
    """Those to one origin: that tasks have, or are making, and that wait for another task."""

    in_use: int
    idle: int

    def to_dict(self) -> dict[str, int]:
        """Return Taro's spelling, ready for ``json.dumps``."""
        return {"inUse": self.in_use, "idle": self.idle}


class ClientStats(NamedTuple):
    """What a client is doing at this moment, and what it has done since it was made.

    ``tasks`` counts those that have not ended, by their state; a state that none is in has 0.  ``connections`` has the
    origins by their text (``https://example.org:443``), whatever proxies lead there.  ``bytes_received`` are those of
    bodies as they came, with what redirects and tries that failed have brought; it never falls.  ``wake_ups`` are turns
    of the loop.  ``completed``, ``failed`` and ``aborted`` count the tasks that have ended.
    """

    tasks: Mapping[TaskState, int]
    connections: Mapping[str, Connections]
    bytes_received: int
    wake_ups: int
    completed: int
    failed: int
    aborted: int

    def to_dict(self) -> dict[str, object]:
        """Return Taro's spelling, ready for ``json.dumps``."""
        return {
            "tasks": dict(self.tasks),
            "connections": {origin: count.to_dict() for origin, count in self.connections.items()},
            "bytesReceived": self.bytes_received,
            "wakeUps": self.wake_ups,
            "completed": self.completed,
            "failed": self.failed,
            "aborted": self.aborted,
        }


def stats_of(shared: Shared) -> ClientStats:
    """Look at what the downloads of a client share, from any thread: each number by itself is right."""
    return ClientStats(
        tasks=Counter(task.state for task in list(shared.live)),
        connections={_text(origin): Connections(*counts) for origin, counts in shared.pool.by_origin().items()},
        bytes_received=_received(shared),
        wake_ups=shared.loop.turns,
        completed=shared.completed,
        failed=shared.failed,
        aborted=shared.aborted,
    )


def _received(shared: Shared) -> int:
    # In this order: a fetch that ends meanwhile is left out this time, where it would else be counted twice.
    received = shared.received
    received += sum(fetch.received for fetch in list(shared.fetches))
    shared.told = max(shared.told, received)
    return shared.told


def _text(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{origin.scheme}://{host}:{origin.port}"

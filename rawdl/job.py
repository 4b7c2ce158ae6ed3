"""What a download is given: what it is to do, and what it shares with the others of its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rawdl.connection import Dialer
from rawdl.lanes import SparePipe
from rawdl.loop import Loop
from rawdl.pool import Key, Pool
from rawdl.proto.http11 import HeadWriter
from rawdl.task import DownloadTask

if TYPE_CHECKING:
    from rawdl.proto.messages import Limits, Request
    from rawdl.proto.timeouts import Timeouts
    from rawdl.sinks import Sink


class Shared:
    """What all downloads of a client share."""

    __slots__ = ("dialer", "live", "loop", "pipe", "pool", "writer")

    def __init__(self, loop: Loop, pool: Pool, dialer: Dialer) -> None:
        self.loop = loop
        self.pool = pool
        self.dialer = dialer
        self.writer = HeadWriter()
        self.pipe = SparePipe()
        self.live: set[DownloadTask] = set()  # the tasks that are not settled


class Job(NamedTuple):
    """What one download is to do."""

    request: Request
    key: Key
    sink: Sink
    file_path: str | None
    timeouts: Timeouts
    limits: Limits
    progress_interval: float
    fail_on_status: bool

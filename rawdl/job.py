"""What a download is given: what it is to do, and what it shares with the others of its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from rawdl.connection import Dialer
from rawdl.lanes import SparePipe
from rawdl.loop import Loop
from rawdl.pool import Key, Pool
from rawdl.proto.http11 import HeadWriter
from rawdl.proto.url import URL
from rawdl.task import DownloadTask

if TYPE_CHECKING:
    from ssl import SSLContext

    from rawdl.partfile import PartFile
    from rawdl.proto.checksums import Checksum
    from rawdl.proto.messages import Limits, Request
    from rawdl.proto.pacing import LowSpeed, TokenBucket
    from rawdl.proto.redirects import Redirects
    from rawdl.proto.retry import Retry
    from rawdl.proto.timeouts import Timeouts
    from rawdl.sinks import Sink


class Terms(NamedTuple):
    """What each exchange of a download must keep to; ``timeouts`` are those of the phases."""

    timeouts: Timeouts
    limits: Limits
    low_speed: LowSpeed | None


class Shared:
    """What all downloads of a client share.

    ``context_for`` returns what authenticates the origin of a URL, and ``bucket`` limits the rate of all of them.
    """

    __slots__ = ("bucket", "context_for", "dialer", "live", "loop", "paused", "pipe", "pool", "writer")

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        dialer: Dialer,
        context_for: Callable[[URL], SSLContext | None],
        bucket: TokenBucket | None,
    ) -> None:
        self.bucket = bucket
        self.loop = loop
        self.pool = pool
        self.dialer = dialer
        self.context_for = context_for
        self.writer = HeadWriter()
        self.pipe = SparePipe()
        self.live: set[DownloadTask] = set()  # the tasks that are not settled
        self.paused: set[DownloadTask] = set()  # those of them that wait for somebody to call resume()


class Job(NamedTuple):
    """What one download is to do.

    ``part`` is its sink, or None.  ``total`` is its time limit in seconds, and ``most`` the bytes that its body may
    have: not a matter of each exchange, whose body may be that of a redirect.
    """

    request: Request
    header: Mapping[str, str | None] | None
    key: Key
    sink: Sink
    part: PartFile | None
    file_path: str | None
    total: float | None
    most: int | None
    terms: Terms
    rate_limit: float | None
    retry: Retry
    redirects: Redirects
    mirrors: tuple[URL, ...]
    resume: bool | str
    checksums: tuple[Checksum, ...]
    connections: int
    min_segment: int
    remote_time: bool
    progress_interval: float
    fail_on_status: bool

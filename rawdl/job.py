"""What a download is given: what it is to do, and what it shares with the others of its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rawdl.dial import Dialer
from rawdl.errors import Aborted, DownloadError
from rawdl.lanes import SparePipe
from rawdl.loop import Loop
from rawdl.pool import Key, Pool
from rawdl.proto.http11 import HeadWriter
from rawdl.proto.url import URL
from rawdl.task import DownloadTask

if TYPE_CHECKING:
    from ssl import SSLContext

    from rawdl.fetch import Fetch
    from rawdl.partfile import PartFile
    from rawdl.proto.auth import Authority
    from rawdl.proto.checksums import Checksum
    from rawdl.proto.course import CookieSource
    from rawdl.proto.messages import Limits, Request
    from rawdl.proto.pacing import LowSpeed, TokenBucket
    from rawdl.proto.proxy import Proxy
    from rawdl.proto.redirects import Redirects
    from rawdl.proto.retry import Retry
    from rawdl.proto.timeouts import Timeouts
    from rawdl.sinks import Sink


class Terms(NamedTuple):
    """What a download must keep to: most are those of its client.

    ``timeouts`` and ``limits`` are each exchange's.  What is the whole task's is beside them: ``total``, its time limit
    in seconds, and ``most``, the bytes that its body may have, where that of a redirect does not count.
    """

    timeouts: Timeouts
    limits: Limits
    low_speed: LowSpeed | None
    retry: Retry
    redirects: Redirects
    total: float | None
    most: int | None

    @classmethod
    def of(
        cls, timeouts: Timeouts, limits: Limits, low_speed: LowSpeed | None, retry: Retry, redirects: Redirects
    ) -> Terms:
        """Take the task's limits out of the exchanges'."""
        total, most = timeouts.total, limits.body
        if total is not None:
            timeouts = replace(timeouts, total=None)
        if most is not None:
            limits = replace(limits, body=None)
        return cls(timeouts, limits, low_speed, retry, redirects, total, most)


# Which proxy a URL is reached by; None: by none.  May raise ProxyError.
Proxies = Callable[[URL], "Proxy | None"]


class Shared:
    """What all downloads of a client share.

    ``context_for`` returns what authenticates the origin of a URL that somebody else has chosen, and ``bucket`` limits
    the rate of all of them.
    ``begin`` makes one more task, or returns None: the client is being closed.
    """

    __slots__ = (
        "aborted",
        "begin",
        "bucket",
        "completed",
        "context_for",
        "cookies",
        "dialer",
        "failed",
        "fetches",
        "live",
        "loop",
        "paused",
        "pipe",
        "pool",
        "received",
        "told",
        "writer",
    )

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        dialer: Dialer,
        context_for: Callable[[URL], SSLContext | None],
        begin: Callable[[Job], DownloadTask | None],
        bucket: TokenBucket | None,
        cookies: CookieSource,
    ) -> None:
        self.cookies = cookies
        self.begin = begin
        self.bucket = bucket
        self.loop = loop
        self.pool = pool
        self.dialer = dialer
        self.context_for = context_for
        self.writer = HeadWriter()
        self.pipe = SparePipe()
        self.live: set[DownloadTask] = set()  # the tasks that are not settled
        self.paused: set[DownloadTask] = set()  # those of them that wait for somebody to call resume()
        self.completed = self.failed = self.aborted = 0  # how many tasks have
        self.fetches: set[Fetch] = set()  # that are under way
        self.received = 0  # bytes of bodies, by those that have ended
        self.told = 0  # the most that was told of these bytes

    def settled(self, task: DownloadTask, error: DownloadError | None) -> None:
        """Take note that a task is about to tell its end."""
        if task not in self.live:  # an interrupt came before it had told it
            return
        self.live.discard(task)
        self.paused.discard(task)
        if error is None:
            self.completed += 1
        elif isinstance(error, Aborted):
            self.aborted += 1
        else:
            self.failed += 1

    def key(self, job: Job, url: URL, *, has_left: bool) -> Key:
        """Return what a connection for a URL of a job is known by.  ProxyError or TLSError if there is no way to it.

        Its own origin has what the job has for that, unless it ``has_left`` it: who has led us back chooses what is
        asked there.
        """
        if url.origin == job.key.origin and not has_left:
            return job.key
        return Key(url.origin, self.context_for(url), job.proxies(url))


class Job(NamedTuple):
    """What one download is to do.  ``part`` is its sink, or None."""

    request: Request
    header: Mapping[str, str | None] | None
    key: Key
    proxies: Proxies
    authority: Authority | None
    sink: Sink
    part: PartFile | None
    terms: Terms
    rate_limit: float | None = None
    mirrors: tuple[URL, ...] = ()
    resume: bool | str = False
    checksums: tuple[Checksum, ...] = ()
    connections: int = 1
    min_segment: int = 1
    remote_time: bool = False
    decode: bool = False
    progress_interval: float = 0.0
    fail_on_status: bool = False

    def __repr__(self) -> str:
        return f"<Job {self.request!r} to {self.sink!r}>"

"""A document that tells of mirrors, fetched by a task of its own (RFC 6249 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rawdl.errors import DownloadError
from rawdl.job import Job, Shared
from rawdl.proto.messages import Request
from rawdl.proto.mirrors import MAX_METALINK
from rawdl.proto.retry import Retry
from rawdl.proto.url import URL
from rawdl.sinks import MemorySink

_ONCE: Final = Retry(attempts=1)


def inquire(
    shared: Shared,
    job: Job,
    url: URL,
    header: Mapping[str, str | None],
    tell: Callable[[bytes | None], None],
    *,
    has_left: bool,
) -> Callable[[], None]:
    """Ask for the document on behalf of a job, and tell it; None if there is none.  Return what calls that off.

    Who asks is proved by ``header`` or not at all: it is a server that has chosen the URL.  ``has_left`` is as of
    `Shared.key`.
    """
    sink = MemorySink()
    try:
        key = shared.key(job, url, has_left=has_left)
    except DownloadError:
        task = None
    else:
        terms = job.terms._replace(most=MAX_METALINK, retry=_ONCE)
        task = shared.begin(Job(Request("GET", url, header), header, key, job.proxies, None, sink, None, terms))
    if task is None:
        tell(None)
        return lambda: None

    def ended() -> None:
        is_there = task.exception() is None and task.result().status_code == 200
        tell(sink.getvalue() if is_there else None)

    task.add_waiter(ended)
    return task.abort

"""A document that tells of mirrors, fetched by a task of its own (RFC 6249 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rawdl.errors import DownloadError
from rawdl.job import Job, Shared
from rawdl.pool import Key
from rawdl.proto.messages import Request
from rawdl.proto.mirrors import MAX_METALINK
from rawdl.proto.retry import Retry
from rawdl.proto.url import URL
from rawdl.sinks import MemorySink, Sink
from rawdl.task import DownloadTask

_ONCE: Final = Retry(attempts=1)


def inquire(
    shared: Shared, job: Job, url: URL, header: Mapping[str, str | None], tell: Callable[[bytes | None], None]
) -> Callable[[], None]:
    """Ask for the document on behalf of a job, and tell it; None if there is none.  Return what calls that off.

    Who asks is proved by ``header`` or not at all: it is a server that has chosen the URL.
    """
    sink = MemorySink()
    task = _task(shared, job, url, header, sink)
    if task is None:
        tell(None)
        return lambda: None

    def ended() -> None:
        is_there = task.exception() is None and task.result().status_code == 200
        tell(sink.getvalue() if is_there else None)

    task.add_waiter(ended)
    return task.abort


def _task(shared: Shared, job: Job, url: URL, header: Mapping[str, str | None], sink: Sink) -> DownloadTask | None:
    terms = job.terms._replace(most=MAX_METALINK, retry=_ONCE)
    try:
        key = Key(url.origin, shared.context_for(url), job.proxies(url))
    except DownloadError:
        return None
    return shared.begin(Job(Request("GET", url, header), header, key, job.proxies, None, sink, None, terms))

"""The client: it owns the loop, the pool, the resolver and the defaults, and makes tasks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Unpack

from rawdl.arguments import (
    address_rules,
    check_options,
    check_scalars,
    checked_count,
    checked_path,
    checksums_of,
    credentials_of,
    mirrors_of,
    open_name,
    proxies_of,
    resolver_of,
    target_of,
    temporary_file,
    undivided,
)
from rawdl.connection import SocketFactory
from rawdl.defaults import Defaults, Jar
from rawdl.destination import Destinations
from rawdl.dial import Dialer
from rawdl.driver import Driver
from rawdl.engine import Download
from rawdl.errors import DownloadError
from rawdl.job import Job, Shared
from rawdl.loop import Loop, Selector
from rawdl.partfile import PartFile
from rawdl.pool import Pool
from rawdl.proto.messages import Limits, Request, checked_fields
from rawdl.proto.redirects import Redirects
from rawdl.proto.retry import Retry
from rawdl.proto.timeouts import Timeouts
from rawdl.proto.url import URL, shown
from rawdl.refusal import Refusal
from rawdl.resolver import Lookup, Resolver, ThreadResolver
from rawdl.results import DownloadResult
from rawdl.sinks import native_name
from rawdl.task import DownloadTask, check_callback
from rawdl.throttle import bucket_of

if TYPE_CHECKING:
    from http.cookiejar import CookieJar
    from ssl import SSLContext

    from rawdl.options import CommonOptions, MoreOptions, TaskOptions
    from rawdl.proto.auth import Credentials
    from rawdl.proto.pacing import LowSpeed
    from rawdl.stats import ClientStats
    from rawdl.tls import TLS
    from rawdl.trace import Trace

# The least that still lets a TLS record's worth of work be done per call, for those who count their kilobytes.
_SMALLEST_BUFFER: Final = 4096
# An abort is told in the turn after it, and what its callbacks set off in the next; this is for ever, to a program.
_WIND_UP_TURNS: Final = 1000


class Client:
    """Download over HTTP/1.1, many tasks at once, in one thread: yours.

    Nothing happens by itself: `run`, `step`, a task's ``result()`` or ``await`` drive the tasks, and so does the thread
    that `start` makes, or your own event loop by way of `fileno`, `next_deadline` and `step`.

    ``resolver`` is a callable (host, port, family) → addresses, run on a thread, or an object with ``resolve(host,
    port, family, callback) → cancel``.  ``selector``, ``clock`` (seconds, monotonic) and ``socket_factory`` replace the
    system's.  ``rate_limit``, in bytes per second, is for all tasks together.  At most ``max_concurrent`` tasks are at
    work at once, ``max_per_host`` of them at one origin; the others wait in line.  ``buffer_size`` is in bytes, at
    least 4096; there is one buffer, however many tasks.  ``netrc`` is a file with passwords by host: a path, or True
    for the user's own.  ``cookies`` is a jar (`http.cookiejar`) to be used and filled; without one, what a redirect
    sets is sent on its way only.  ``proxy`` is the URL of one, or None; "env" asks the environment, as it is now, for
    each URL (``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``).

    ``family`` is "ipv4", "ipv6" or None for both.  ``address_policy`` is asked with the host and each of its addresses,
    whether to connect there, at every hop; `rawdl.policies.public_only` is one, and none may block or call the client.
    ``local_address`` is connected from.  ``connect_to`` maps the ``host:port`` of URLs to those to connect to in their
    place; Host and the name that a certificate must have stay.  ``unix_socket`` is the path of a socket that all
    connections go to, whatever proxy the environment has.

    ``trace`` is called with (phase, event, data) at every step of every task, as the module `rawdl.trace` has them; the
    loggers ``rawdl.PHASE`` get the same, at DEBUG.  What it calls of the client takes effect in a later turn.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        redirects: Redirects | None = None,
        limits: Limits | None = None,
        low_speed: LowSpeed | tuple[float, float] | None = None,
        rate_limit: float | None = None,
        auth: Credentials | tuple[str, str] | None = None,
        netrc: bool | str | os.PathLike[str] = False,
        cookies: CookieJar | None = None,
        proxy: str | None = "env",
        tls: TLS | SSLContext | None = None,
        max_concurrent: int = 10,
        max_per_host: int = 6,
        buffer_size: int = 1048576,
        resolver: Lookup | Resolver | None = None,
        selector: Selector | None = None,
        clock: Callable[[], float] | None = None,
        socket_factory: SocketFactory | None = None,
        family: str | None = None,
        address_policy: Callable[[str, str], object] | None = None,
        local_address: str | None = None,
        connect_to: Mapping[str, str] | None = None,
        unix_socket: str | os.PathLike[str] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._defaults = Defaults(
            timeouts=timeouts,
            limits=limits,
            low_speed=low_speed,
            retry=retry,
            redirects=redirects,
            auth=auth,
            netrc=netrc,
            proxy=None if proxy == "env" and unix_socket is not None else proxy,
            tls=tls,
        )
        trust = self._defaults.trust
        jar = Jar(cookies)
        functions = {"clock": clock, "socket_factory": socket_factory, "address_policy": address_policy, "trace": trace}
        for name, function in functions.items():
            if function is not None:
                check_callback(name, function)
        rules = address_rules(family, address_policy, local_address, connect_to, unix_socket)
        concurrent = checked_count("max_concurrent", max_concurrent, 1)
        per_host = checked_count("max_per_host", max_per_host, 1)
        size = checked_count("buffer_size", buffer_size, _SMALLEST_BUFFER)
        self._resolver = resolver_of(resolver)
        self._loop = loop = Loop(selector=selector, clock=clock, buffer_size=size)
        self._driver = Driver(loop, self)
        self._shared = Shared(
            loop=loop,
            pool=Pool(loop, max_concurrent=concurrent, max_per_host=per_host),
            dialer=Dialer(loop, self._resolver, trust.context, socket_factory, trust.pins, rules),
            context_for=trust.context_for,
            begin=lambda job: None if self._closed else self._begin(job),
            bucket=bucket_of(rate_limit, loop.now),
            cookies=jar,
        )
        self._trace = trace
        self._destinations = Destinations()
        self._closed = self._winding_up = False

    # Tasks

    def download_file(
        self,
        *,
        url: str | None,
        file_path: str | os.PathLike[str] | None = None,
        header: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        success: Callable[[DownloadResult], object] | None = None,
        fail: Callable[[DownloadError], object] | None = None,
        complete: Callable[[DownloadResult | DownloadError], object] | None = None,
        sink: object = None,
        directory: str | os.PathLike[str] | None = None,
        exists: str = "overwrite",
        resume: bool | str = "auto",
        mirrors: Iterable[str] = (),
        connections: int = 1,
        min_segment: int = 1048576,
        checksum: str | None = None,
        durable: bool = False,
        remote_time: bool = False,
        decode: bool = False,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        redirects: Redirects | None = None,
        limits: Limits | None = None,
        low_speed: LowSpeed | tuple[float, float] | None = None,
        rate_limit: float | None = None,
        auth: Credentials | tuple[str, str] | str | None = "client",
        proxy: str | None = "client",
        fail_on_status: bool = False,
        use_suggested_name: bool = False,
        progress_interval: float = 0.05,
    ) -> DownloadTask:
        """Make a task and return it at once; nothing is sent before somebody drives the client.

        The body goes to ``file_path``, or to ``sink`` (a callable that takes a memoryview, an object with ``write``, or
        one of rawdl's), or to a new temporary file in ``directory``.  ``timeout`` is the total in seconds;
        ``timeouts``, ``retry``, ``redirects`` and ``limits`` replace the client's.  ``header`` adds to the request; a
        value of None drops a default field.  ``success`` or ``fail``, then ``complete``, are called once.  Any status
        is a success, unless ``fail_on_status``.  ``progress_interval`` is the least time between two progress events,
        in seconds.  ``auth`` is for the origin of the URL alone: a user name and a password, sent as Basic, or one of
        `BasicAuth`, `DigestAuth` and `BearerAuth`.  ``proxy`` is as of `Client`, and "client" is what the client has.
        ``rate_limit`` is in bytes per second; with ``low_speed`` (bytes per second, seconds) a transfer that is slower
        for that long fails (`Timeout`).

        With ``decode`` content codings are asked for and taken off: gzip and deflate, and with the extras br and zstd.
        Progress then counts the bytes of the wire, the checksum is of the decoded ones, and such a download cannot be
        continued.  Otherwise a body that comes coded is saved as it came.

        With ``use_suggested_name`` the file goes to ``directory`` (None: the current one) under the name that the
        server gives in Content-Disposition (RFC 6266), made safe, or else under the last segment of the URL.  It never
        replaces another.

        What follows is about a file with a name of its own.  ``exists`` says what to do with one that has it already:
        "overwrite", "error", "rename" (``a.1.iso``) or "skip", unless it has another ``checksum``.  ``resume`` "auto"
        continues what an earlier download has left, if that is possible, True does so or fails (`RangeError`), False
        begins anew.  ``mirrors`` are URLs of the same file: one is tried when that before it has failed for good, and
        several connections use all of them.  ``connections`` above 1 fetches segments of at least ``min_segment`` bytes
        side by side.  With ``durable`` the file is on the disk when success is told; ``remote_time`` gives it the
        server's Last-Modified.  ``checksum`` is ``"sha256:…"`` or another hash of hashlib's: `ChecksumError` if the
        bytes have another, and no file.

        A url that is none ends the task with `InvalidURL`.  A wrong argument raises TypeError or ValueError here.
        """
        self._check_open()
        for name, callback in (("success", success), ("fail", fail), ("complete", complete)):
            if callback is not None:
                check_callback(name, callback)
        check_scalars(url, progress_interval)
        check_options(
            (
                ("fail_on_status", fail_on_status),
                ("durable", durable),
                ("remote_time", remote_time),
                ("decode", decode),
                ("use_suggested_name", use_suggested_name),
            ),
            (("connections", connections), ("min_segment", min_segment)),
            exists=exists,
            resume=resume,
        )
        checksums = checksums_of(checksum)
        if decode:
            header, resume = undivided(header, connections, resume=resume)
        others = mirrors_of(mirrors) if mirrors != () else ()
        defaults = self._defaults
        terms = defaults.terms
        own = (timeout, timeouts, limits, low_speed, retry, redirects)
        if own != (None, None, None, None, None, None):
            terms = defaults.chosen_terms(*own)
        bucket_of(rate_limit, 0.0)  # which checks it
        credentials = defaults.credentials if auth == "client" else credentials_of(auth)
        proxies = defaults.proxies if proxy == "client" else proxies_of(proxy)
        path, target = target_of(file_path, sink, directory, suggested=use_suggested_name)
        try:
            parsed = URL.parse(url or "")
            authority = defaults.authority(parsed, credentials)
            request = Request("GET", parsed, header)
            key = defaults.key(parsed, proxies)
            part = None
            if header and any(name.lower() == "range" for name, _ in request.fields):
                resume = False  # the caller asks for a part by himself
                if checksums:
                    raise ValueError("checksum is of the whole file, and the Range in header asks for a part")
            if path is not None:
                how = {"exists": exists, "resume": resume, "durable": durable, "segmented": connections > 1}
                if use_suggested_name:
                    path, how["tag"] = open_name(parsed, path)
                target = part = self._claimed_part(path, parsed, **how)
            elif target is None:
                target = temporary_file(parsed, directory)
        except DownloadError as exc:
            checked_fields(header)
            return self._refused(exc, url, success, fail, complete)
        job = Job(  # by position: to call a class by keywords costs some microseconds
            request,
            header,
            key,
            proxies,
            authority,
            target,
            part,
            terms,
            rate_limit,
            others,
            resume,
            checksums,
            connections,
            min_segment,
            remote_time,
            decode,
            progress_interval,
            fail_on_status,
        )
        recipe = None if part is None else {"exists": exists, "durable": durable, **_recipe(job, part)}
        return self._begin(job, success, fail, complete, recipe)

    def _begin(self, job: Job, *listeners: Any) -> DownloadTask:
        task = self._new_task(job.request.url.redacted, *listeners)
        self._driver.hand(lambda: task.attach(Download(self._shared, job, task)))
        return task

    def _claimed_part(self, path: str, url: URL, **how: Any) -> PartFile:
        part = PartFile(path, self._destinations, url=url.redacted.partition("#")[0], **how)
        part.destination.claim()
        return part

    def resume(self, data: Mapping[str, Any], **options: Unpack[MoreOptions]) -> DownloadTask:
        """Go on with a download whose `DownloadTask.resume_data` was kept.

        ``options`` are those of `download_file`, and go before what is in ``data``: callbacks and ``header`` must be
        given again.  What was written is used if the file is still the same, as with ``resume="auto"``.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"data is what resume_data() returned, not {type(data).__name__}")
        return self.download_file(**{**data, **options})

    def download_metalink(
        self, document: bytes, directory: str | os.PathLike[str] = ".", **options: Unpack[CommonOptions]
    ) -> list[DownloadTask]:
        """Make a task for each file of a Metalink 4 document (RFC 5854), with its mirrors and its best checksum.

        The files go to ``directory`` under the names that the document gives them, made safe.  ``options`` are those of
        `download_file`; the client's ``auth`` is left out, since it is the document that says whose the URLs are.
        Raises ProtocolError for what is no such document.
        """
        from rawdl.proto.mirrors import parse_metalink

        folder = checked_path("directory", directory)
        given: dict[str, Any] = {"auth": None, **options}
        return [
            self.download_file(
                url=file.urls[0].url if file.urls else "",
                file_path=os.path.join(folder, native_name(file.name)),
                mirrors=[mirror.url for mirror in file.urls[1:]],
                checksum=file.checksum,
                **given,
            )
            for file in parse_metalink(document).files
        ]

    def _refused(self, error: DownloadError, url: str | None, *callbacks: Any) -> DownloadTask:
        task = self._new_task(shown(url or ""), *callbacks)
        self._driver.hand(lambda: task.attach(Refusal(self._shared, task, error)))
        return task

    def _new_task(self, url: str, *listeners: Any) -> DownloadTask:
        task = DownloadTask(self._driver, url, *listeners)
        if self._trace is not None or "logging" in sys.modules:
            from rawdl.trace import tracer_of

            task.trace = tracer_of(self._trace, self._driver, task)
        return task

    # Driving

    def run(self, timeout: float | None = None) -> bool:
        """Drive in this thread until no task is left, or for ``timeout`` seconds; return whether work is left."""
        self._check_open()
        return not self._driver.wait(self._is_idle, timeout, "run()")

    def step(self, timeout: float | None = 0) -> bool:
        """Run one turn: wait at most ``timeout`` seconds (None: until something happens), run what is ready.

        Return whether work is left.  RuntimeError inside a callback, or while another thread drives.
        """
        self._check_open()
        self._driver.step(timeout)
        return not self._is_idle()

    def start(self) -> None:
        """Drive in a daemon thread from now on, until `close`."""
        self._check_open()
        self._driver.start()

    def fileno(self) -> int:
        """Return a descriptor to wait on: readable whenever a step has something to do."""
        self._check_open()
        return self._driver.expose()

    def wakeup_fileno(self) -> int:
        """Return a descriptor for `signal.set_wakeup_fd`, so that a signal ends a wait, however late it comes.

        Python runs signal handlers between two instructions of its own: one that comes just before the loop waits would
        otherwise be handled when that wait is over.
        """
        self._check_open()
        return self._loop.wakeup_fileno()

    def next_deadline(self) -> float | None:
        """Return when a step has something to do even if nothing is readable, in the client's clock; None: never."""
        self._check_open()
        return self._driver.next_deadline()

    def stats(self) -> ClientStats:
        """Return what the client is doing, and what it has done: tasks, connections, bytes.  From any thread."""
        from rawdl.stats import stats_of

        return stats_of(self._shared)

    def _is_idle(self) -> bool:
        return len(self._shared.live) == len(self._shared.paused) and not self._loop.has_callbacks

    # The end

    def close(self) -> None:
        """Abort what is live, run its callbacks, and close every socket.  Once is enough; from any thread.

        Inside a callback it takes effect after the dispatch.  After an interrupt, once more goes on with it.
        """
        self._closed = self._driver.closing = True
        try:
            if not self._winding_up and not self._loop.closed:
                self._driver.hand(self._begin_to_wind_up)
            self._driver.see_closed()
        except BaseException:
            self._winding_up = False  # perhaps not any more, and twice does no harm
            raise

    def _begin_to_wind_up(self) -> None:
        if not self._winding_up:
            self._winding_up = True
            self._loop.call_soon(lambda: self._wind_up(_WIND_UP_TURNS))

    def _wind_up(self, turns: int) -> None:
        """Abort until nothing is live, a turn at a time, then let go of everything."""
        if self._loop.closed:  # by another call of close()
            return
        for task in list(self._shared.live):
            task.abort()
        if turns and (self._shared.live or self._loop.has_callbacks):
            self._loop.call_soon(lambda: self._wind_up(turns - 1))
            return
        self._let_go()

    def _let_go(self) -> None:
        self._shared.pool.close()
        if isinstance(self._resolver, ThreadResolver):
            self._resolver.close()
        self._shared.pipe.close()
        self._loop.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")
        self._driver.check_process()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Never closed: nobody is left who would want to hear of it, but the sockets are not to wait for the collector.
        loop = getattr(self, "_loop", None)  # none if a wrong argument kept it from being made
        if loop is None or loop.closed:
            return
        self._closed = True
        with suppress(Exception):
            if self._driver.forked:
                self._loop.abandon()
                return
            for task in list(self._shared.live):
                task.abort()
            self._let_go()

    @property
    def unusable(self) -> bool:
        """Whether it is closed, or belongs to the process that this one was forked from."""
        return self._closed or self._driver.forked

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._shared.live)} tasks"
        return f"<Client {state}, {self._shared.pool!r}>"


def _recipe(job: Job, part: PartFile) -> dict[str, object]:
    """Return what a download is made of, as plain data: options of `Client.download_file`."""
    path = part.destination.whole_path
    where: dict[str, object] = {"file_path": path}
    if part.destination.is_open:
        where = {"directory": os.path.dirname(path), "use_suggested_name": True}
    return {
        "url": str(job.request.url),
        **where,
        "checksum": str(job.checksums[0]) if job.checksums else None,
        "connections": job.connections,
        "min_segment": job.min_segment,
        "decode": job.decode,
        "remote_time": job.remote_time,
        "fail_on_status": job.fail_on_status,
        "mirrors": [str(mirror) for mirror in job.mirrors],
    }


# The process's client: the one piece of module state.
_process_client: Client | None = None


def process_client() -> Client:
    """Return the client of this process, made at its first use."""
    global _process_client
    if _process_client is None or _process_client.unusable:
        _process_client = Client()
    return _process_client


def download_file(**options: Unpack[TaskOptions]) -> DownloadTask:
    """Make a task on the process's client; see `Client.download_file` for the options."""
    return process_client().download_file(**options)


def download(
    url: str, file_path: str | os.PathLike[str] | None = None, **options: Unpack[MoreOptions]
) -> DownloadResult:
    """Download ``url`` and return the result, or raise a DownloadError; see `Client.download_file` for the options."""
    return process_client().download_file(url=url, file_path=file_path, **options).result()

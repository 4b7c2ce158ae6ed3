"""``rawdl demo``: what the library promises, tried before the user's eyes against an origin in a child process.

The parent downloads and prints.  The child (`serve`) answers, and reports as lines of JSON what only it can know: the
digest of what it sends, and when it saw a connection close.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from rawdl.cli.display import Display
from rawdl.cli.loopback import (
    BLOCK,
    Broken,
    Child,
    Stopped,
    ca_of,
    listen,
    make_certificate,
    order_given,
    pieces,
    report,
    until_alone,
)
from rawdl.cli.meter import Tally, duration_text, rate_text, size_text
from rawdl.cli.report import SIGNALLED, complain
from rawdl.cli.signals import Signals
from rawdl.client import Client
from rawdl.errors import Aborted, DownloadError
from rawdl.proto.fields import escape
from rawdl.proto.progress import ProgressUpdate
from rawdl.results import HeadersReceived
from rawdl.sinks import DiscardSink
from rawdl.version import __version__

if TYPE_CHECKING:
    from rawdl.task import DownloadTask
    from rawdl.tls import TLS

_INDENT: Final = 10  # columns of the step's name
# The slow response: long enough to watch, short enough not to bore.
_SLOW_SIZE: Final = 8 << 20
_SLOW_PIECE: Final = 128 << 10
_SLOW_SECONDS: Final = 1.0
_HELD_SECONDS: Final = 0.5  # between its head and its body
_ABORTED_SIZE: Final = 64 << 20  # at least: more than all the buffers between here and there hold
_ABORTED_AT: Final = 25  # per cent


def run(size: int) -> int:
    """Take every step with a file of ``size`` bytes, print what it showed, and return 0 if all of it held."""
    began = time.monotonic()
    print(f"rawdl {__version__} and an origin of its own: a child process on 127.0.0.1, no network\n", flush=True)
    with TemporaryDirectory(prefix="rawdl-demo-") as folder:
        certificate = make_certificate(folder)
        with Child(__name__, {"size": size, "certificate": certificate}) as origin:
            show = Show(origin, folder, size)
            steps = [show.headers, show.http, show.https if certificate else show.no_https, show.abort]
            with Signals(show.stop) as signals:
                failed = _failures(steps)
    if signals.number:
        complain(f"rawdl: {signals.word}")
        return SIGNALLED + signals.number
    if os.path.exists(folder) or origin.alive:
        failed.append("what was left behind")
    spent = duration_text(time.monotonic() - began)
    verdict = f"FAILED: {', '.join(failed)}" if failed else f"All as promised, in {spent}; no file, no process is left."
    print(f"\n{verdict}", flush=True)
    return 1 if failed else 0


class Show:
    """The steps.  Each raises `Broken` or a DownloadError if what it shows is not so."""

    def __init__(self, origin: Child, folder: str, size: int) -> None:
        self._origin = origin
        self._folder = folder
        self._size = size
        self._display = Display.on_stderr("line")
        self._task: DownloadTask | None = None  # under way
        self._stopped = False

    def stop(self) -> None:
        """End the step under way with `Stopped`, as soon as may be.  From a signal handler."""
        self._stopped = True
        self._origin.interrupt()
        if self._task is not None:
            self._task.abort()

    def headers(self) -> None:
        """The header event comes before the body, and progress while the body arrives."""
        seen: list[tuple[float, HeadersReceived | ProgressUpdate]] = []
        url = f"{self._origin.url('http')}/slow?{_SLOW_SIZE}"
        with Client(proxy=None) as client:
            began = time.monotonic()
            task = client.download_file(url=url, sink=DiscardSink())
            task.on_headers_received(lambda event: seen.append((time.monotonic() - began, event)))
            task.on_progress_update(lambda update: seen.append((time.monotonic() - began, update)))
            self._watch(client, task, "headers")
        (head_at, head), *progress = seen
        if not isinstance(head, HeadersReceived) or not all(isinstance(event, ProgressUpdate) for _, event in progress):
            raise Broken("the header event did not come first, and once")
        length = size_text(int(head.header["content-length"]))
        _say("headers", f"after {duration_text(head_at)}: {head.status_code} {escape(head.reason)}, {length} to come")
        _say("", f"after {duration_text(progress[0][0])}: the first of the body, which the origin had held back")
        _say("", f"after {duration_text(progress[-1][0])}: the last of it; {len(progress)} progress events")

    def http(self) -> None:
        """A file arrives whole over http."""
        self._fetch("http", None)

    def https(self) -> None:
        """A file arrives whole over https, the certificate verified."""
        from rawdl.tls import TLS

        self._fetch("https", TLS(ca_file=ca_of(self._folder)))

    def no_https(self) -> None:
        """There is nothing to show without a certificate."""
        _say("https", "left out: it needs a certificate; pip install rawdl[demo] gets it")

    def abort(self) -> None:
        """An abort closes the connection at once, and leaves no file."""
        size = max(self._size, _ABORTED_SIZE)
        calls: list[tuple[float, float, int]] = []
        url, path = f"{self._origin.url('http')}/file?{size}", os.path.join(self._folder, "aborted")
        with Client(proxy=None) as client:
            task = client.download_file(url=url, file_path=path, progress_interval=0)
            task.on_progress_update(lambda update: _abort_at(_ABORTED_AT, task, update, calls))
            with suppress(Aborted):
                self._watch(client, task, "abort")
                raise Broken("the download went on to its end")
        called, returned, written = calls[0]
        closed = float(str(self._origin.hear("closed")))
        if left := [name for name in os.listdir(self._folder) if name.startswith("aborted")]:
            raise Broken(f"left behind: {', '.join(left)}")
        later = duration_text(closed - called)
        _say("abort", f"at {size_text(written)} of {size_text(size)}; the origin saw the close {later} later")
        _say("", f"abort() returned after {duration_text(returned - called)}, its part file removed")

    def _fetch(self, scheme: str, tls: TLS | None) -> None:
        url, path = f"{self._origin.url(scheme)}/file?{self._size}", os.path.join(self._folder, scheme)
        with Client(proxy=None, tls=tls) as client:
            task = client.download_file(url=url, file_path=path)
            began, used = time.monotonic(), time.process_time()
            self._watch(client, task, scheme)
            seconds, used = time.monotonic() - began, time.process_time() - used
        digest = self._digest(path)
        if digest != self._origin.hear("sha256"):
            raise Broken("the file's SHA-256 is not that of what the origin sent")
        os.unlink(path)
        speed = rate_text(self._size, seconds)
        _say(scheme, f"{size_text(self._size)} in {duration_text(seconds)}, {speed}, {duration_text(used)} of CPU")
        _say("", f"SHA-256 {digest[:16]}..., as the origin said")

    def _watch(self, client: Client, task: DownloadTask, label: str) -> None:
        """Drive a download to its end, with its progress on the terminal."""
        self._task = task
        self._check()
        tally = Tally([task], label.ljust(_INDENT - 2), time.monotonic())
        try:
            while client.run(self._display.period):
                self._display.show(tally.status(time.monotonic()))
        finally:
            self._display.clear()
        self._check()
        task.result()

    def _digest(self, path: str) -> str:
        digest = sha256()
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                self._check()
        return digest.hexdigest()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped


# The child


def serve() -> None:
    """Be the origin until standard input ends: /file?N and /slow?N are responses of N bytes."""
    order = order_given()
    block = os.urandom(BLOCK)
    listen("http", lambda stream: _converse(stream, block))
    if order["certificate"] is not None:
        listen("https", lambda stream: _converse(stream, block), order["certificate"])
    digest = sha256()
    for piece in pieces(block, order["size"]):
        digest.update(piece)
    report("sha256", digest.hexdigest())
    until_alone()


def _converse(stream: socket.socket, block: bytes) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += stream.recv(65536)
    path, _, size = head.split(b" ")[1].partition(b"?")
    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nConnection: close\r\n\r\n" % size)
    try:
        _send(stream, block, int(size), slowly=path == b"/slow")
        stream.recv(1)  # the client closes first, having seen the end
    except OSError:
        report("closed", time.monotonic())  # a clock that all processes share


def _send(stream: socket.socket, block: bytes, size: int, *, slowly: bool) -> None:
    if not slowly:
        for piece in pieces(block, size):
            stream.sendall(piece)
        return
    time.sleep(_HELD_SECONDS)
    for piece in pieces(block[:_SLOW_PIECE], size):
        stream.sendall(piece)
        time.sleep(_SLOW_SECONDS * len(piece) / size)


# The parent's odds and ends


def _failures(steps: Sequence[Callable[[], None]]) -> list[str]:
    """Take the steps, and name those that failed."""
    failed = []
    for step in steps:
        try:
            step()
        except Stopped:
            break
        except BrokenPipeError:  # nobody reads what we print
            raise
        except (Broken, DownloadError, OSError) as exc:
            failed.append(step.__name__)
            _say(step.__name__, f"FAILED: {escape(str(exc))}")
    return failed


def _abort_at(percent: int, task: DownloadTask, update: ProgressUpdate, calls: list[tuple[float, float, int]]) -> None:
    if update.progress >= percent:
        called = time.monotonic()
        task.abort()
        calls.append((called, time.monotonic(), update.total_bytes_written))


def _say(name: str, text: str) -> None:
    print(f"{name:<{_INDENT}}{text}", flush=True)

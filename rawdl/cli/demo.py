"""``rawdl demo``: what the library promises, tried before the user's eyes against an origin in a child process.

The parent downloads and prints.  The child (`serve`) answers, and reports as lines of JSON what only it can know: the
digest of what it sends, and when it saw a connection close.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Final, Self

from rawdl.cli.meter import Display, Tally, duration_text, rate_text, size_text
from rawdl.cli.report import SIGNALLED
from rawdl.cli.signals import Signals
from rawdl.client import Client
from rawdl.errors import Aborted, DownloadError
from rawdl.proto.fields import escape
from rawdl.proto.progress import ProgressUpdate
from rawdl.results import HeadersReceived
from rawdl.sinks import DiscardSink
from rawdl.version import __version__

if TYPE_CHECKING:
    import ssl

    from rawdl.task import DownloadTask
    from rawdl.tls import TLS

_BLOCK: Final = 1 << 20
_INDENT: Final = 10  # columns of the step's name
# The slow response: long enough to watch, short enough not to bore.
_SLOW_SIZE: Final = 8 << 20
_SLOW_PIECE: Final = 128 << 10
_SLOW_SECONDS: Final = 1.0
_HELD_SECONDS: Final = 0.5  # between its head and its body
_ABORTED_SIZE: Final = 64 << 20  # at least: more than all the buffers between here and there hold
_ABORTED_AT: Final = 25  # per cent
_PATIENCE: Final = 60.0  # seconds for a report of the child: a guard against hanging, not an expectation


def run(size: int) -> int:
    """Take every step with a file of ``size`` bytes, print what it showed, and return 0 if all of it held."""
    began = time.monotonic()
    print(f"rawdl {__version__} and an origin of its own: a child process on 127.0.0.1, no network\n", flush=True)
    with TemporaryDirectory(prefix="rawdl-demo-") as folder:
        certificate = _make_certificate(folder)
        with Origin(size, certificate) as origin:
            show = Show(origin, folder, size)
            steps = [show.headers, show.http, show.https if certificate else show.no_https, show.abort]
            with Signals(show.stop) as signals:
                failed = _failures(steps)
    if signals.number:
        print(f"rawdl: {signals.word}", file=sys.stderr)
        return SIGNALLED + signals.number
    if os.path.exists(folder) or origin.alive:
        failed.append("what was left behind")
    spent = duration_text(time.monotonic() - began)
    verdict = f"FAILED: {', '.join(failed)}" if failed else f"All as promised, in {spent}; no file, no process is left."
    print(f"\n{verdict}", flush=True)
    return 1 if failed else 0


class Broken(Exception):
    """A promise was not kept; the message says which."""


class Stopped(Exception):
    """The user has seen enough."""


class Show:
    """The steps.  Each raises `Broken` or a DownloadError if what it shows is not so."""

    def __init__(self, origin: Origin, folder: str, size: int) -> None:
        self._origin = origin
        self._folder = folder
        self._size = size
        self._display = Display.on_stderr(silent=False)
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

        self._fetch("https", TLS(ca_file=os.path.join(self._folder, "ca.pem")))

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
            while block := file.read(_BLOCK):
                digest.update(block)
                self._check()
        return digest.hexdigest()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped


class Origin:
    """The child process, as the parent sees it."""

    def __init__(self, size: int, certificate: str | None) -> None:
        self._order = json.dumps([size, certificate])
        self._said: SimpleQueue[dict[str, object] | None] = SimpleQueue()
        self._heard: dict[str, object] = {}
        self._interrupted = False

    def interrupt(self) -> None:
        """Wake who waits in `hear`.  From a signal handler, where SimpleQueue.put is allowed."""
        self._interrupted = True
        self._said.put(None)

    def __enter__(self) -> Self:
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        # -P: the folder that we are in is none to import from.  A session of its own: Ctrl-C is the parent's affair.
        # Should the parent be killed, the end of its standard input ends the child.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from rawdl.cli.demo import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._order.encode() + b"\n")
        self._process.stdin.flush()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()  # it has nothing to lose
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    @property
    def alive(self) -> bool:
        """Whether the child is still there."""
        return self._process.poll() is None

    def url(self, scheme: str) -> str:
        """Return the URL without a path."""
        return f"{scheme}://127.0.0.1:{self.hear(scheme)}"

    def hear(self, what: str) -> object:
        """Return what the child has said of that name, as soon as it has."""
        while what not in self._heard:
            try:
                said = self._said.get(timeout=_PATIENCE)
            except Empty:
                raise Broken(f"the origin did not tell its {what} within {_PATIENCE:g} s") from None
            if said is None:
                raise Stopped if self._interrupted else Broken("the origin ended before its time")
            self._heard.update(said)
        return self._heard[what]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)


# The child


def serve() -> None:
    """Be the origin until standard input ends: /file?N and /slow?N are responses of N bytes."""
    size, certificate = json.loads(sys.stdin.readline())
    block = os.urandom(_BLOCK)
    _listen("http", block, None)
    if certificate is not None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        _listen("https", block, context)
    digest = sha256()
    for piece in _pieces(block, size):
        digest.update(piece)
    _report("sha256", digest.hexdigest())
    sys.stdin.read()


def _listen(scheme: str, block: bytes, context: ssl.SSLContext | None) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    Thread(target=_accept, args=(listener, block, context), daemon=True).start()
    _report(scheme, listener.getsockname()[1])


def _accept(listener: socket.socket, block: bytes, context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listener.accept()
        Thread(target=_converse, args=(sock, block, context), daemon=True).start()


def _converse(sock: socket.socket, block: bytes, context: ssl.SSLContext | None) -> None:
    with sock if context is None else context.wrap_socket(sock, server_side=True) as stream:
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(65536)
        path, _, size = head.split(b" ")[1].partition(b"?")
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nConnection: close\r\n\r\n" % size)
        try:
            _send(stream, block, int(size), slowly=path == b"/slow")
            stream.recv(1)  # the client closes first, having seen the end
        except OSError:
            _report("closed", time.monotonic())  # a clock that all processes share


def _send(stream: socket.socket, block: bytes, size: int, *, slowly: bool) -> None:
    if not slowly:
        for piece in _pieces(block, size):
            stream.sendall(piece)
        return
    time.sleep(_HELD_SECONDS)
    for piece in _pieces(block[:_SLOW_PIECE], size):
        stream.sendall(piece)
        time.sleep(_SLOW_SECONDS * len(piece) / size)


def _pieces(block: bytes, size: int) -> Iterator[memoryview]:
    """Yield ``size`` bytes, made of one block again and again."""
    view = memoryview(block)
    for at in range(0, size, len(block)):
        yield view[: size - at]


def _report(name: str, what: object) -> None:
    line = json.dumps({name: what}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())  # one call: the threads do not mix their lines


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


def _make_certificate(folder: str) -> str | None:
    """Make a certificate for 127.0.0.1 and the CA that vouches for it, if there is something to make them with."""
    try:
        from trustme import CA
    except ImportError:
        return None
    authority, path = CA(), os.path.join(folder, "server.pem")
    authority.cert_pem.write_to_path(os.path.join(folder, "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path

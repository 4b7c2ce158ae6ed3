"""An origin that paces each connection and cuts some of them: for `lossy.py`, `segments.py` and `line.py`.

`FlakyOrigin` is the parent's side, a context manager.  The child serves one file (ETag, Range, If-Range, kept-alive
connections) with a thread for each connection, and counts what it sends.  Orders and reports are lines of JSON.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from servers import HOST, stop

ETAG = '"1"'
PIECE = 0.005  # seconds: a connection gets so much of its rate at a time
LEAST_PIECE = 4096  # octets
ARREARS = 0.1  # seconds: what a connection missed before that is lost, or it would come in a burst
SETTLED = 5.0  # seconds for the connections of a client that has gone to notice
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class Tally(NamedTuple):
    """What the origin did for one measurement: `sent` are octets of bodies, `busy` the seconds in which it sent any.

    `began` is when the first connection came, by `time.monotonic`, which all processes share.
    """

    sent: int
    responses: int
    cuts: int
    busy: float
    began: float


class FlakyOrigin:
    """A child process that serves a file; what happens between `begin` and `end` is told by `end`.

    With `certificates`, a folder that has `cert.pem` and `key.pem`, it does so over TLS.
    """

    def __init__(self, path: Path, certificates: Path | None = None) -> None:
        self._path = path
        self._certificates = certificates

    def __enter__(self) -> FlakyOrigin:
        command = [sys.executable, __file__, str(self._path), *filter(None, [self._certificates])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        scheme = "http" if self._certificates is None else "https"
        self.url = f"{scheme}://{HOST}:{self._ask()}/{self._path.name}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        stop(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def begin(self, pace: int, *, size: int = 0, mean: int = 0, seed: int = 0, piece: int = 0) -> None:
        """Serve from now on the first `size` octets (0: all) with `pace` octets per second on each connection.

        With `mean`, responses are cut after so many octets on average; who asks alike is cut alike by the same seed.
        `piece` octets are sent at a time; 0: those of 5 ms.
        """
        self._ask({"pace": pace, "size": size, "mean": mean, "seed": seed, "piece": piece})

    def end(self) -> Tally:
        """Return what was done since `begin`, once every connection has ended."""
        return Tally(**self._ask({}))  # type: ignore[arg-type]

    def _ask(self, order: dict[str, int] | None = None) -> dict[str, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        if order is not None:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())  # type: ignore[no-any-return]


class Served:
    """One response: how many octets of its body were sent, and from when to when."""

    def __init__(self) -> None:
        self.sent = 0
        self.started = self.ended = time.perf_counter()


class Run:
    """The time between `begin` and `end`.  Where the k-th response is cut does not depend on what was asked."""

    def __init__(self, file: bytes, pace: int, size: int = 0, mean: int = 0, seed: int = 0, piece: int = 0) -> None:
        self.body = memoryview(file)[: size or len(file)]
        self.pace = pace
        self.piece = piece or max(LEAST_PIECE, int(pace * PIECE))
        self.live = 0  # connections
        self._mean = mean
        self._random = random.Random(seed)
        self._cuts = 0
        self._served: list[Served] = []
        self._began = 0.0
        self.changed = threading.Condition()

    def begin_response(self) -> tuple[Served, int | None, bool]:
        """Return where to count, after how many octets to cut (None: not at all), and whether that is by RST.

        The intervals are exponential: a connection that has lived for long is as likely to break as a new one.
        """
        with self.changed:
            self._served.append(served := Served())
            if not self._mean:
                return served, None, False
            return served, int(self._random.expovariate(1 / self._mean)), self._random.random() < 0.5

    def note_cut(self) -> None:
        with self.changed:
            self._cuts += 1

    def join(self, change: int) -> None:
        """Count a connection that begins (1) or ends (-1)."""
        with self.changed:
            self._began = self._began or time.monotonic()
            self.live += change
            self.changed.notify_all()

    def tally(self) -> Tally:
        """Wait until the connections have ended, and sum up."""
        with self.changed:
            self.changed.wait_for(lambda: not self.live, SETTLED)
            sent = sum(served.sent for served in self._served)
            busy = union([(served.started, served.ended) for served in self._served])
            return Tally(sent, len(self._served), self._cuts, busy, self._began)


def union(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of some spans of time lasts."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def serve(path: str, certificates: str | None = None) -> None:
    """Serve as the origin: print the port, then follow orders until terminated."""
    file = Path(path).read_bytes()
    current = [Run(file, 1)]
    tls = None
    if certificates is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(Path(certificates, "cert.pem"), Path(certificates, "key.pem"))
    listener = socket.create_server((HOST, 0), backlog=128)
    threading.Thread(target=accept, args=(listener, current, tls), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order:
            current[0] = Run(file, **order)
            print("{}", flush=True)
        else:
            print(json.dumps(current[0].tally()._asdict()), flush=True)


def accept(listener: socket.socket, current: list[Run], tls: ssl.SSLContext | None) -> None:
    while True:
        sock, run = listener.accept()[0], current[0]
        run.join(1)
        threading.Thread(target=converse, args=(sock, run, tls), daemon=True).start()


def converse(sock: socket.socket, run: Run, tls: ssl.SSLContext | None) -> None:
    """Answer one request after another until the client goes or is cut off."""
    with sock, suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock if tls is None else tls.wrap_socket(sock, server_side=True) as stream:
            while (request := read_head(stream)) and answer(stream, request, run):
                if "connection: close" in request.lower():
                    break
    run.join(-1)


def read_head(sock: socket.socket) -> str:
    """Return a request head; "" where the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return ""
        data += more
    return data.decode("latin-1")


def answer(sock: socket.socket, request: str, run: Run) -> bool:
    """Send a response, or as much of it as is granted; say whether the connection can go on."""
    total = len(run.body)
    first, end, status = select(request, total)
    told = f"Content-Range: bytes {first}-{end - 1}/{total}\r\n" if status.startswith("206") else ""
    if status.startswith("416"):
        told = f"Content-Range: bytes */{total}\r\n"
    fields = f"ETag: {ETAG}\r\nAccept-Ranges: bytes\r\nContent-Length: {end - first}\r\n"
    served, cut, reset = run.begin_response()
    sock.sendall(f"HTTP/1.1 {status}\r\n{fields}{told}\r\n".encode())
    granted = end - first if cut is None else min(cut, end - first)
    send_paced(sock, run.body[first : first + granted], run, served)
    if granted == end - first:
        return True
    run.note_cut()
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return False


def select(request: str, total: int) -> tuple[int, int, str]:
    """Return which octets a request asks for (the end is not in), and the status."""
    fields = dict(line.lower().split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
    asked = RANGE.match(fields.get("range", ""))
    if asked is None or fields.get("if-range", ETAG) != ETAG:
        return 0, total, "200 OK"
    first = int(asked[1])
    if first >= total:
        return 0, 0, "416 Range Not Satisfiable"
    return first, min(int(asked[2]) + 1, total) if asked[2] else total, "206 Partial Content"


def send_paced(sock: socket.socket, data: memoryview, run: Run, served: Served) -> None:
    """Send with so many octets per second, each piece when it is due: what is late once does not stay late."""
    due = served.started
    try:
        while served.sent < len(data):
            ready = data[served.sent : served.sent + run.piece]
            due += len(ready) / run.pace
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            due = max(due, time.perf_counter() - ARREARS)
            while ready:
                count = sock.send(ready)
                served.sent += count
                ready = ready[count:]
    finally:
        served.ended = time.perf_counter()


if __name__ == "__main__":
    serve(*sys.argv[1:])

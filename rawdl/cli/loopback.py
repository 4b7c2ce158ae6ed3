"""A server of our own in a child process, on 127.0.0.1: the process as its parent sees it, and what a child is made of.

The child is told its order by a line of JSON on standard input, and reports by such lines on standard output: the port
of each scheme, and whatever else only it can know.  It ends when its standard input does, however the parent has ended.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    import ssl

BLOCK: Final = 1 << 20  # bytes, of which bodies are made
_PATIENCE: Final = 60.0  # seconds for a report of the child: a guard against hanging, not an expectation


class Broken(Exception):
    """Something is not as it must be; the message says what."""


class Stopped(Exception):
    """The user has seen enough."""


class Child:
    """The child process: ``module`` has a function `serve`, which finds ``order`` by `order_given`."""

    def __init__(self, module: str, order: object) -> None:
        self._module = module
        self._order = json.dumps(order)
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
            [sys.executable, "-P", "-c", f"from {self._module} import serve; serve()"],
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


def make_certificate(folder: str) -> str | None:
    """Make a certificate for 127.0.0.1 and its CA (`ca_of`), if there is something to make them with."""
    try:
        from trustme import CA
    except ImportError:
        return None
    authority, path = CA(), os.path.join(folder, "server.pem")
    authority.cert_pem.write_to_path(ca_of(folder))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def ca_of(folder: str) -> str:
    """Return the path of what `make_certificate` has made for clients to trust."""
    return os.path.join(folder, "ca.pem")


# In the child


def order_given() -> Any:
    """Return what the parent wants, as it was given to `Child`."""
    return json.loads(sys.stdin.readline())


def listen(scheme: str, converse: Callable[[socket.socket], None], certificate: str | None = None) -> None:
    """Have ``converse`` speak on each connection, in a thread of its own, and report the port."""
    context = None
    if certificate is not None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    Thread(target=_accept, args=(listener, converse, context), daemon=True).start()
    report(scheme, listener.getsockname()[1])


def until_alone() -> None:
    """Wait for the end of the parent."""
    sys.stdin.read()


def report(name: str, what: object) -> None:
    """Tell the parent."""
    line = json.dumps({name: what}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())  # one call: the threads do not mix their lines


def pieces(block: bytes, size: int) -> Iterator[memoryview]:
    """Yield ``size`` bytes, made of one block again and again."""
    view = memoryview(block)
    for at in range(0, size, len(block)):
        yield view[: size - at]


def _accept(listener: socket.socket, converse: Callable[[socket.socket], None], context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listener.accept()
        Thread(target=_converse, args=(sock, converse, context), daemon=True).start()


def _converse(sock: socket.socket, converse: Callable[[socket.socket], None], context: ssl.SSLContext | None) -> None:
    # A client that goes away is nothing to complain of, in a handshake either.
    with suppress(OSError), sock if context is None else context.wrap_socket(sock, server_side=True) as stream:
        converse(stream)

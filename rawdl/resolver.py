"""Host names to addresses, off the loop: getaddrinfo blocks, and nothing can interrupt it.

So it runs on daemon threads, made when first needed, and whoever waits for an answer can stop waiting at any moment.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from rawdl.errors import ResolveError

SocketAddress = tuple[Any, ...] | str  # what `socket.connect` takes for the family
Address = tuple[int, SocketAddress]
Answer = Callable[[Sequence[Address], ResolveError | None], None]
Cancel = Callable[[], None]
# What an injected lookup may return for one address: a pair, or a literal such as "127.0.0.1".
Lookup = Callable[[str, int, int], Sequence["Address | str"]]

# getaddrinfo may sit in a dead name server's time-out for half a minute: one thread each for the names that may do so
# at once.  More names than this wait in line, and their deadline holds all the same.  A thread whose name nobody waits
# for any more is replaced, so that dead names do not hold up the others for longer than their own time limit.
_THREADS: Final = 8
_MOST_THREADS: Final = 64  # each has a stack, of which some systems set 8 MiB aside


class Resolver(Protocol):
    """Look names up without blocking.

    ``resolve`` calls back once, from whatever thread, with the addresses in order of preference or with an error.
    ``cancel()``, which it returns, tells that nobody wants the answer any more.
    """

    def resolve(self, host: str, port: int, family: int, callback: Answer) -> Cancel: ...


def literal_address(host: str, port: int) -> Address | None:
    """Return the address that ``host`` spells out, or None if it is a name."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError:
        return None
    return (family, (host, port, 0, 0)) if family == socket.AF_INET6 else (family, (host, port))


def getaddrinfo(host: str, port: int, family: int) -> Sequence[Address]:
    """Ask the system; it orders the addresses by RFC 6724."""
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    return [(kind, address) for kind, _, _, _, address in found]


class ThreadResolver:
    """Run a blocking lookup on a few daemon threads."""

    def __init__(self, lookup: Lookup = getaddrinfo) -> None:
        self._lookup = lookup
        self._jobs: Any = None  # queue.SimpleQueue, once there is a thread
        self._threads = 0
        # What is not answered, by its id: emptied when that is not wanted any more.  To add or remove one is one step.
        self._open: dict[int, list[Answer]] = {}

    def resolve(self, host: str, port: int, family: int, callback: Answer) -> Cancel:
        """Look ``host`` up on a thread; the errors are `ResolveError`."""
        wanted = [callback]
        self._open[id(wanted)] = wanted
        try:
            self._add_threads()
        except Exception:  # the system has no more of them
            if not self._threads:
                del self._open[id(wanted)]
                raise
        self._jobs.put((host, port, family, wanted))
        return lambda: self._cancel(wanted)

    def _cancel(self, wanted: list[Answer]) -> None:
        wanted.clear()
        with suppress(Exception):
            self._add_threads()

    def _add_threads(self) -> None:
        """Have a thread for each name that is waited for, as far as the limits allow."""
        names = list(self._open.values())
        wanted = sum(map(bool, names))
        stuck = len(names) - wanted
        if self._threads < min(stuck + min(wanted, _THREADS), _MOST_THREADS):
            self._add_thread()

    def _add_thread(self) -> None:
        from queue import SimpleQueue
        from threading import Thread

        if self._jobs is None:
            self._jobs = SimpleQueue()
        self._threads += 1
        try:
            Thread(target=self._work, args=(self._jobs,), name="rawdl-resolver", daemon=True).start()
        except Exception:
            self._threads -= 1
            raise

    def _work(self, jobs: Any) -> None:
        while (job := jobs.get()) is not None:
            host, port, family, wanted = job
            addresses, error = self._look_up(host, port, family) if wanted else ([], None)
            self._open.pop(id(wanted), None)
            for callback in wanted:
                callback(addresses, error)

    def _look_up(self, host: str, port: int, family: int) -> tuple[list[Address], ResolveError | None]:
        try:
            found = [_as_address(address, port) for address in self._lookup(host, port, family)]
        except OSError as exc:
            again = isinstance(exc, socket.gaierror) and exc.errno == socket.EAI_AGAIN
            temporary = again or isinstance(exc, TimeoutError)
            text = f"cannot resolve {host}: {exc.strerror or exc}"
            error = ResolveError(text, temporary=temporary, errno=exc.errno)
            error.__cause__ = exc
            return [], error
        except BaseException as exc:  # UnicodeError of the idna codec, or anything from an injected lookup
            error = ResolveError(f"cannot resolve {host}: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
            return [], error
        return found, None if found else ResolveError(f"cannot resolve {host}: it has no address")

    def close(self) -> None:
        """Let the threads end as soon as getaddrinfo lets them."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0

    def __repr__(self) -> str:
        return f"<ThreadResolver {self._threads} threads, {len(self._open)} names under way>"


def _as_address(address: Address | str, port: int) -> Address:
    if not isinstance(address, str):
        return address
    found = literal_address(address, port)
    if found is None:
        raise ValueError(f"{address!r} is no address")
    return found

"""Connections in the making: resolve, race the addresses (RFC 8305), ask the proxy, shake hands."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from rawdl import sockets
from rawdl.connection import Connection, Socket, SocketFactory, address_text
from rawdl.errors import ConnectError, DownloadError, ProxyError, ResolveError, TLSError, unexpected
from rawdl.loop import WRITE, Loop, Timer
from rawdl.proto.timeouts import Phase
from rawdl.proto.url import Origin
from rawdl.resolver import Address, Cancel, Resolver, literal_address
from rawdl.sessions import Sessions, Way

if TYPE_CHECKING:
    from ssl import SSLContext

    from rawdl.passage import Passage
    from rawdl.proto.proxy import Proxy
    from rawdl.tls import Handshake
    from rawdl.trace import Tracer

# RFC 8305 5: the time that an address has before the next one is tried beside it.
_ATTEMPT_DELAY: Final = 0.25
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_IN_PROGRESS: Final = frozenset(
    {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, getattr(errno, "WSAEWOULDBLOCK", -1)}
)


class AddressRules(NamedTuple):
    """Which addresses are used: of a ``family`` (AF_UNSPEC: of any), as ``policy`` allows, and ``local`` for ours.

    ``policy`` is asked with the host and an address.  With a proxy it is asked about what that is told, if it is an
    address: what a name leads to is not known here.  ``elsewhere`` has the host and port to connect to in the place of
    others, and ``unix`` is the path of the one socket to connect to in the place of all.
    """

    family: int = socket.AF_UNSPEC
    policy: Callable[[str, str], object] | None = None
    local: Address | None = None
    elsewhere: Mapping[tuple[str, int], tuple[str, int]] = {}
    unix: str | None = None

    def permitted(self, host: str, addresses: Sequence[Address]) -> list[Address]:
        """Return those that may be used; ResolveError if there is none."""
        found = [address for address in addresses if self.family in (socket.AF_UNSPEC, address[0])]
        if not found:
            raise ResolveError(f"cannot resolve {host}: it has no address of the family that is asked for")
        if self.policy is None:
            return found
        try:
            allowed = [address for address in found if self.policy(host, address[1][0])]
        except Exception as exc:  # somebody else's code
            raise ResolveError(f"the address policy raised {type(exc).__name__} for {host}: {exc}") from exc
        if not allowed:
            refused = ", ".join(str(address[1][0]) for address in found)
            raise ResolveError(f"cannot resolve {host}: the address policy allows none of {refused}")
        return allowed

    def is_reachable(self, address: Address) -> bool:
        """Whether our ``local`` address is of a family from which this one can be connected to."""
        return self.local is None or address[0] not in _INTERNET or address[0] == self.local[0]


class Dialer:
    """Make connections: everything that they have in common."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        proxy_context: Callable[[], SSLContext],
        socket_factory: SocketFactory | None,
        pins: Collection[str],
        rules: AddressRules,
    ) -> None:
        self.loop = loop
        self.resolver = resolver
        self.proxy_context = proxy_context  # what authenticates https proxies
        self.pins = pins  # of which an origin must have one, if there are any
        self.rules = rules
        self.sessions = Sessions()
        self.socket_factory: SocketFactory = socket_factory or sockets.Socket

    def dial(self, origin: Origin, context: SSLContext | None, proxy: Proxy | None, owner: DialOwner) -> Dial:
        """Begin to connect to ``origin``, over TLS if there is a context, by way of a proxy if there is one.

        An http URL is not tunnelled through an http proxy: what the owner gets then is a connection to that.  The owner
        is told after this has returned.
        """
        return Dial(self, origin, context, proxy, owner)


class DialOwner(Protocol):
    """Who wants a connection."""

    @property
    def trace(self) -> Tracer | None:
        """Whom to tell the steps, if anybody."""

    def dial_entered(self, phase: Phase) -> None:
        """The dial has got as far as ``phase``: resolve, connect, proxy or tls."""

    def dial_done(self, connection: Connection) -> None:
        """There it is."""

    def dial_failed(self, error: DownloadError) -> None:
        """There will be none."""


class Dial:
    """One connection in the making: resolve, race the addresses, ask the proxy, shake hands.

    `cancel` closes all of it at once.
    """

    __slots__ = (
        "_addresses",
        "_attempts",
        "_cancel",
        "_connection",
        "_context",
        "_dialer",
        "_errors",
        "_handshake",
        "_host",
        "_owner",
        "_port",
        "_proxy",
        "_target",
        "_timer",
        "origin",
    )

    def __init__(
        self, dialer: Dialer, origin: Origin, context: SSLContext | None, proxy: Proxy | None, owner: DialOwner
    ) -> None:
        self.origin = origin
        self._proxy = proxy
        # Where the bytes are to end, which is what a proxy is told, and where we connect to.
        self._target = dialer.rules.elsewhere.get((origin.host, origin.port), (origin.host, origin.port))
        self._host, self._port = self._target if proxy is None else (proxy.host, proxy.port)
        self._dialer = dialer
        self._context = context
        self._owner = owner
        self._addresses: list[Address] = []
        self._attempts: dict[int, tuple[Socket, Address]] = {}
        self._errors: list[tuple[Address, int]] = []
        self._timer: Timer | None = None
        self._connection: Connection | None = None  # the one that has won, until somebody else has it
        self._handshake: Handshake | Passage | None = None
        self._cancel: Cancel | None = dialer.loop.call_at(dialer.loop.now, lambda: self._guard(self._begin)).cancel

    def _begin(self) -> None:
        self._cancel = None
        proxy = self._proxy
        if proxy is None:
            self._reach(self._found)
        elif proxy.scheme == "socks5" or literal_address(*self._target) is not None:  # its names are resolved here
            self._look_up(*self._target, self._target_found)
        else:
            self._reach(self._resolved)

    def _found(self, addresses: Sequence[Address]) -> None:
        self._resolved(self._dialer.rules.permitted(self._host, addresses))

    def _target_found(self, addresses: Sequence[Address]) -> None:
        host, port = self._target
        self._target = self._dialer.rules.permitted(host, addresses)[0][1][0], port
        self._reach(self._resolved)

    def _reach(self, then: Callable[[Sequence[Address]], None]) -> None:
        """Find the addresses to connect to."""
        unix = self._dialer.rules.unix
        if unix is None:
            self._look_up(self._host, self._port, then)
        else:
            self._resolved([(socket.AF_UNIX, unix)])

    def _look_up(self, host: str, port: int, then: Callable[[Sequence[Address]], None]) -> None:
        literal = literal_address(host, port)
        if literal is not None:
            self._go_on(then, [literal])
            return
        self._owner.dial_entered(Phase.RESOLVE)
        self._tell("resolve", "started", host=host)

        def answered(addresses: Sequence[Address], error: ResolveError | None) -> None:
            """Take the resolver's answer, in whatever thread it comes, to the loop."""
            self._dialer.loop.call_soon_threadsafe(lambda: self._guard(self._answered, host, addresses, error, then))

        try:
            self._cancel = self._dialer.resolver.resolve(host, port, self._dialer.rules.family, answered)
        except Exception as exc:  # of somebody's own resolver
            error = ResolveError(f"cannot resolve {self._named(host)}: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
            self._fail(error)

    def _answered(
        self,
        host: str,
        addresses: Sequence[Address],
        error: ResolveError | None,
        then: Callable[[Sequence[Address]], None],
    ) -> None:
        if self._cancel is None:
            return  # cancelled while the answer was on its way
        self._cancel = None
        if error is not None or not addresses:
            self._fail(error or ResolveError(f"cannot resolve {self._named(host)}: it has no address"))
        else:
            self._tell("resolve", "complete", addresses=tuple(map(address_text, addresses)))
            self._go_on(then, addresses)

    def _go_on(self, then: Callable[[Sequence[Address]], None], addresses: Sequence[Address]) -> None:
        try:
            then(addresses)
        except ResolveError as exc:
            self._fail(exc)

    def _tell(self, phase: str, event: str, **data: object) -> None:
        if self._owner.trace is not None:
            self._owner.trace(phase, event, **data)

    def _named(self, host: str) -> str:
        return f"the proxy {host}" if self._proxy is not None and host == self._proxy.host else host

    def _resolved(self, addresses: Sequence[Address]) -> None:
        self._addresses = interleave(addresses)
        self._owner.dial_entered(Phase.CONNECT)
        self._tell("connect", "started", addresses=tuple(map(address_text, self._addresses)))
        self._try_next()

    # The race (RFC 8305 5)

    def _try_next(self) -> None:
        """Begin an attempt with the next address; those that are under way go on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._addresses:
            address = self._addresses.pop(0)
            code = self._attempt(address)
            if code is None:
                if self._addresses:
                    loop = self._dialer.loop
                    self._timer = loop.call_at(loop.now + _ATTEMPT_DELAY, lambda: self._guard(self._try_next))
                return
            self._refuse(address, code)
        if not self._attempts:
            self._fail(self._refused())

    def _attempt(self, address: Address) -> int | None:
        """Begin to connect; return the error number if that failed at once."""
        self._tell("connect", "attempt", address=address_text(address))
        if not self._dialer.rules.is_reachable(address):
            return errno.EADDRNOTAVAIL  # what bind says of an address that is not ours
        try:
            sock = self._dialer.socket_factory(address[0], socket.SOCK_STREAM, 0)
        except OSError as exc:
            return exc.errno or errno.EIO
        fd = sock.fileno()
        self._attempts[fd] = (sock, address)
        try:
            sock.setblocking(False)
            if address[0] in _INTERNET:
                # The request is one small segment, sent when it is complete: there is nothing to gather it with.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local = self._dialer.rules.local
            if local is not None and local[0] == address[0]:
                sock.bind(local[1])
            code = sock.connect_ex(address[1])
            if code and code not in _IN_PROGRESS:
                self._drop(fd)
                return code
            self._dialer.loop.register(sock, WRITE, lambda mask: self._guard(self._decided, fd))
        except OSError as exc:
            self._drop(fd)
            return exc.errno or errno.EIO
        return None

    def _decided(self, fd: int) -> None:
        """One attempt has succeeded or failed."""
        sock, address = self._attempts[fd]
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._drop(fd)
            self._refuse(address, code)
            self._try_next()
            return
        self._connection = connection = Connection(self._dialer.loop, sock, address)
        del self._attempts[fd]
        self._stop_racing()
        self._connected(connection)

    def _refuse(self, address: Address, code: int) -> None:
        self._errors.append((address, code))
        self._tell("connect", "refused", address=address_text(address), error=os.strerror(code))

    def _drop(self, fd: int) -> None:
        sock, _ = self._attempts.pop(fd)
        self._dialer.loop.unregister(fd)
        sock.close()

    def _stop_racing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._addresses.clear()
        for fd in list(self._attempts):
            self._drop(fd)

    def _refused(self) -> ConnectError:
        tried = "; ".join(f"{address_text(address)}: {os.strerror(code)}" for address, code in self._errors)
        error = ConnectError(f"cannot connect to {self._place} ({tried})")
        error.errno = self._errors[-1][1]
        error.__cause__ = OSError(error.errno, os.strerror(error.errno))
        return error

    # Connected

    def _connected(self, connection: Connection) -> None:
        self._tell("connect", "complete", peer=connection.peer)
        proxy = self._proxy
        if proxy is None or proxy.scheme != "https":
            self._at_proxy(connection)
            return
        try:
            context = self._dialer.proxy_context()
        except TLSError as exc:
            self._fail(exc)
            return
        self._secure(connection, Way(proxy.host, proxy.port, context), self._at_proxy)

    def _at_proxy(self, connection: Connection) -> None:
        proxy = self._proxy
        if proxy is None or (self._context is None and proxy.speaks_http):
            self._at_origin(connection)
            return
        from rawdl.passage import Passage, asking_for

        self._owner.dial_entered(Phase.PROXY)
        host, port = self._target[0].partition("%")[0], self._target[1]  # a zone is one of this machine
        self._tell("proxy", "started", proxy=str(proxy), target=f"{host}:{port}")
        try:
            asking = asking_for(host, port, proxy)
        except ProxyError as exc:
            self._fail(exc)
            return
        self._handshake = Passage(connection, asking, self._then("proxy", self._at_origin))
        self._handshake.start()

    def _at_origin(self, connection: Connection) -> None:
        if self._context is None:
            self._hand_over(connection)
        else:
            way = Way(self.origin.host, self.origin.port, self._context, self._proxy)
            self._secure(connection, way, self._hand_over, self._dialer.pins)

    def _hand_over(self, connection: Connection) -> None:
        self._owner.dial_done(connection)
        self._connection = None

    def _secure(
        self,
        connection: Connection,
        way: Way,
        then: Callable[[Connection], None],
        pins: Collection[str] = (),
    ) -> None:
        from rawdl.tls import Handshake

        self._owner.dial_entered(Phase.TLS)
        self._tell("tls", "started", host=way.host)
        try:
            self._handshake = Handshake(connection, way, self._dialer.sessions, self._then("tls", then), pins)
        except (ValueError, OSError) as exc:  # a name that cannot be one of a certificate; no descriptor for a module
            number, reason = getattr(exc, "errno", None), getattr(exc, "strerror", None) or exc
            error = TLSError(f"cannot speak TLS to {way.host}: {reason}", errno=number)
            error.__cause__ = exc
            self._fail(error)
            return
        self._handshake.start()

    def _then(
        self, phase: str, step: Callable[[Connection], None]
    ) -> Callable[[Connection | None, DownloadError | None], None]:
        """Return what ends a handshake: with the next step, or with its error."""

        def done(connection: Connection | None, error: DownloadError | None) -> None:
            self._handshake = None
            if connection is None:
                assert error is not None
                self._fail(error)
                return
            self._tell(phase, "complete", **(connection.security if phase == "tls" else {}))
            self._guard(step, connection)

        return done

    def _guard(self, step: Callable[..., None], *args: object) -> None:
        """Take a step from the loop's hand; whatever goes wrong in it that nobody reckoned with ends the dial."""
        try:
            step(*args)
        except BaseException as exc:
            # Addresses that are none, a bug, a lack of memory, or a KeyboardInterrupt between two lines.
            self._fail(unexpected(exc))
            if not isinstance(exc, Exception):
                raise

    def _fail(self, error: DownloadError) -> None:
        self.cancel()
        self._owner.dial_failed(error)

    def cancel(self) -> None:
        """Close every socket that this has opened, and tell the owner nothing more."""
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            with suppress(Exception):  # of somebody's own resolver
                cancel()
        self._stop_racing()
        if self._handshake is not None:
            self._handshake.abort()
            self._handshake = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def describe(self) -> str:
        """Say how far this is, for the message of a time-out."""
        if self._handshake is not None:
            return f"no end yet of the handshake with {self._handshake.peer}"
        if self._attempts:
            return "no answer yet from " + ", ".join(address_text(address) for _, address in self._attempts.values())
        return f"no address yet of {self._place}"

    def __repr__(self) -> str:
        return f"<Dial {self.origin}: {self.describe()}>"

    @property
    def _place(self) -> str:
        return f"{self._named(self._host)} port {self._port}"


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Order addresses so that the families take turns, each in its own order (RFC 8305 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    mixed: list[Address] = []
    while first or others:
        mixed += first[:1] + others[:1]
        del first[:1], others[:1]
    return mixed

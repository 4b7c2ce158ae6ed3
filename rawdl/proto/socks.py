"""What a SOCKS proxy is asked, by socksio: SOCKS 5 (RFC 1928, RFC 1929) and 4A.

socksio packs and unpacks whole messages; here is which follows which, and where each ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from rawdl.errors import ProxyError
from rawdl.proto.proxy import Proxy

__all__ = ["Socks"]

_LONGEST: Final = 255  # bytes of a name, user name or password: their length is one byte
_IPV4: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")


class Socks:
    """Ask a SOCKS proxy for a way to ``host`` and ``port``, without a socket.

    ``host`` is a name, which the proxy is to resolve, or an address.  Its surface is that of `Tunnel`.  Raises
    ProxyError for a refusal, for what is no answer, and for what SOCKS cannot say, such as a name of more than 255
    bytes (B6: it is not resolved here instead); and if socksio is not installed.
    """

    __slots__ = ("_buffer", "_connection", "_hear", "_host", "_outgoing", "_port", "_proxy", "_size", "established")

    def __init__(self, host: str, port: int, proxy: Proxy) -> None:
        assert not proxy.speaks_http
        self._host, self._port, self._proxy = host, port, proxy
        self._buffer = b""
        self.established = False
        for what, text in (("host name", host), ("user name", proxy.username), ("password", proxy.password)):
            if text is not None and len(_octets(text)) > _LONGEST:
                size = len(_octets(text))
                raise self._failure(f"cannot be told a {what} of {size} bytes: {_LONGEST} are the most", permanent=True)
        try:
            import socksio  # noqa: F401
        except ImportError as exc:
            raise self._failure("needs socksio: pip install 'rawdl[socks]'", permanent=True) from exc
        self._connection: Any  # of socksio: its two have one surface, and replies of many types
        # How long the next message is, once that can be told, and who takes it.
        self._size: Callable[[bytes], int | None]
        self._hear: Callable[[bytes], None]
        if proxy.scheme == "socks4a":
            self._ask_4a()
        else:
            self._ask_for_method()
        self._outgoing: bytes = self._connection.data_to_send()

    def data_to_send(self) -> bytes:
        """Return the bytes that have not been sent; empty when all have."""
        return self._outgoing

    def data_sent(self, n: int) -> None:
        """Tell that the first ``n`` bytes of `data_to_send` went out."""
        self._outgoing = self._outgoing[n:]

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Feed what has arrived; raise ProxyError for what does not lead to the origin."""
        from socksio import SOCKSError

        self._buffer += bytes(data)
        while not self.established and (size := self._size(self._buffer)) is not None and size <= len(self._buffer):
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            try:
                self._hear(message)
            except SOCKSError as exc:
                raise self._failure(f"gave no SOCKS answer: {message[:24]!r}") from exc
            self._outgoing += self._connection.data_to_send()
        if self.established and self._buffer:
            self.established = False
            raise self._failure("sent more than its answer, before anything was asked of the origin")

    def receive_eof(self, *, clean: bool) -> None:
        """Tell that the proxy sends no more; raise ProxyError for it."""
        raise self._failure(f"{'closed' if clean else 'broke off'} the connection before it had answered")

    # SOCKS 5

    def _ask_for_method(self) -> None:
        from socksio import socks5

        methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
        if self._proxy.username is not None:
            methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
        self._connection = socks5.SOCKS5Connection()
        self._connection.send(socks5.SOCKS5AuthMethodsRequest(methods))
        self._size, self._hear = _two, self._hear_method

    def _hear_method(self, message: bytes) -> None:
        from socksio import socks5

        if message[0] != 5:
            raise self._failure(f"does not speak SOCKS 5: it begins with {message!r}")
        method = self._connection.receive_data(message).method
        if method == socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED:
            self._ask_5()
        elif method == socks5.SOCKS5AuthMethod.USERNAME_PASSWORD and self._proxy.username is not None:
            pair = _octets(self._proxy.username), _octets(self._proxy.password or "")
            self._connection.send(socks5.SOCKS5UsernamePasswordRequest(*pair))
            self._size, self._hear = _two, self._hear_login
        else:
            raise self._failure("accepts no method to log in that we have", permanent=True)

    def _hear_login(self, message: bytes) -> None:
        if not self._connection.receive_data(message).success:
            raise self._failure("refuses the user name or password", permanent=True)
        self._ask_5()

    def _ask_5(self) -> None:
        from socksio import socks5
        from socksio.utils import encode_address

        kind = socks5.SOCKS5AType.DOMAIN_NAME
        address = _octets(self._host)
        if ":" in self._host or _IPV4.fullmatch(self._host):
            family, address = encode_address(self._host)
            kind = socks5.SOCKS5AType.from_atype(family)
        self._connection.send(socks5.SOCKS5CommandRequest(socks5.SOCKS5Command.CONNECT, kind, address, self._port))
        self._size, self._hear = _size_of_reply, self._hear_reply

    def _hear_reply(self, message: bytes) -> None:
        from socksio import socks5

        code = self._connection.receive_data(message).reply_code
        if code != socks5.SOCKS5ReplyCode.SUCCEEDED:
            raise self._failure(f"refuses: {code.name.replace('_', ' ').lower()}")
        self.established = True

    # SOCKS 4A

    def _ask_4a(self) -> None:
        from socksio import socks4

        if ":" in self._host:
            raise self._failure("cannot be told an IPv6 address in SOCKS 4A", permanent=True)
        user, command = _octets(self._proxy.username or ""), socks4.SOCKS4Command.CONNECT
        self._connection = socks4.SOCKS4Connection(user)
        if _IPV4.fullmatch(self._host):
            self._connection.send(socks4.SOCKS4Request.from_address(command, (self._host, self._port), user))
        else:
            self._connection.send(socks4.SOCKS4ARequest(command, self._port, _octets(self._host), user))
        self._size, self._hear = _eight, self._hear_4a

    def _hear_4a(self, message: bytes) -> None:
        from socksio import socks4

        code = self._connection.receive_data(message).reply_code
        if code != socks4.SOCKS4ReplyCode.REQUEST_GRANTED:
            raise self._failure(f"refuses: {code.name.replace('_', ' ').lower()}")
        self.established = True

    def _failure(self, what: str, *, permanent: bool = False) -> ProxyError:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return ProxyError(f"the proxy {self._proxy} {what} ({host[:_LONGEST]}:{self._port})", permanent=permanent)

    def __repr__(self) -> str:
        return f"<Socks {self._host}:{self._port} by {self._proxy}{' established' if self.established else ''}>"


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _two(data: bytes) -> int | None:
    return 2


def _eight(data: bytes) -> int | None:
    return 8


def _size_of_reply(data: bytes) -> int | None:
    """Return the length of a reply (RFC 1928 6), whose address may be a name."""
    if len(data) < 5:
        return None
    lengths = {1: 4, 3: 1 + data[4], 4: 16}
    return 4 + lengths.get(data[3], 4) + 2

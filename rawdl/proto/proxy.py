"""Proxies: which one a URL goes through, what is asked of it, and the CONNECT exchange (RFC 9110 9.3.6).

The environment is read as curl and Python's urllib read it; where the two part, or neither has a rule:

    what is found                          what comes of it
    -------------------------------------  -----------------------------------------------------------------------------
    ``HTTP_PROXY`` in upper case           is read (curl: never), but not beside ``REQUEST_METHOD``, as in urllib
    an empty ``http_proxy``                hides ``HTTP_PROXY``, as in urllib
    ``all_proxy``                          serves where the scheme's own variable is absent or empty, as in curl
    no scheme                              http, as in both
    no port                                1080, for https 443, as in curl
    scheme ``socks4``, ``socks``           refused: it would have names resolved here, to IPv4 addresses only
    a path, query or fragment              refused, but for one slash: it may be the rest of a password
    two ``@``                              refused (curl takes the last)
    in ``no_proxy``: ``.x``, ``x``         cover x and all below it, as in both; ``*.x`` too
    in ``no_proxy``: ``x:80``, ``*:80``    hold for that port only, as in urllib
    in ``no_proxy``: ``10.0.0.0/8``        covers the addresses of the block, as in curl; no name is resolved for it
    in ``no_proxy``: ``*``                 covers everything, among other entries too (curl, urllib: only by itself)
    in ``no_proxy``: commas, white space   separate, as in curl
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

from rawdl.errors import InvalidURL, ProtocolError, ProxyError
from rawdl.proto.events import HeadReceived
from rawdl.proto.fields import percent_decoded
from rawdl.proto.http11 import Exchange, HeadWriter
from rawdl.proto.messages import Limits, Request
from rawdl.proto.url import URL

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["ProxiedWriter", "Proxy", "Tunnel", "absolute_form", "bypass_proxy", "proxy_for"]

# With the port of each where none is given: curl's choice.  443 and 1080 are registered for https and SOCKS; an http
# proxy has no port of its own.
DEFAULT_PORTS: Final = {"http": 1080, "https": 443, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy, and who we are to it: immutable, hashable, equal only where user name and password are so too.

    Make one with `Proxy.parse`; the constructor takes parts that are checked already.

    ``scheme`` is http, https (TLS to the proxy itself), socks4a, socks5 (names are resolved here) or socks5h.  ``host``
    is as in `URL`.  ``username`` and ``password`` are percent-decoded, with surrogates for octets that are no UTF-8
    (PEP 383); None where there is none.  Neither is in ``str`` or ``repr``.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Read ``[scheme://][user[:password]@]host[:port][/]``; raise ValueError for anything else.

        In a user name or password ``@ : / # ? %`` are to be percent-encoded, but for a colon in a password.  The error
        never quotes what could be part of a password.
        """
        scheme, separator, rest = text.strip().partition("://")
        if not separator or not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*+", scheme):
            scheme, rest = "http", text.strip()
        scheme = scheme.lower()
        if scheme not in DEFAULT_PORTS:
            raise _invalid(f"its scheme is none of {', '.join(DEFAULT_PORTS)}")
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        if rest[len(authority) :] not in ("", "/"):
            raise _invalid(
                "more than a slash behind the host; in a user name or password / ? # are written %2F %3F %23"
            )
        try:
            url = URL.parse(f"http://{authority}/")
        except InvalidURL as error:
            raise _invalid(str(error).removeprefix("invalid URL: ")) from error
        port = url.port if re.search(":[0-9]+$", authority) else DEFAULT_PORTS[scheme]
        return cls(scheme, url.host, port, *_credentials(scheme, url.userinfo))

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization: Basic credentials in UTF-8 (RFC 7617 2); None without a user name."""
        if self.username is None:
            return None
        pair = f"{self.username}:{self.password or ''}".encode("utf-8", "surrogateescape")
        return "Basic " + b2a_base64(pair, newline=False).decode("ascii")

    @property
    def speaks_http(self) -> bool:
        """Whether it forwards requests itself, rather than bytes only."""
        return self.scheme in ("http", "https")

    def refused(self, status_code: int, asked: str = "") -> ProxyError:
        """Make the error for its answer to what was ``asked``."""
        why = ""
        if status_code == 407:
            known = self.username is not None
            why = ": it refuses the user name or password" if known else ": it wants a user name and password"
        return ProxyError(f"the proxy {self} answered {status_code}{why}{asked}", status_code=status_code)

    def __str__(self) -> str:
        user = "" if self.username is None else "***@"
        return f"{self.scheme}://{user}{_authority(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"Proxy({str(self)!r})"


def proxy_for(url: URL, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that the environment names for this URL; None for a direct connection.

    To be asked anew for each hop of a redirect.  Raises ProxyError, with the name of the variable, for a value that
    names no proxy.
    """
    # A copy, for os.environ of Windows finds HTTP_PROXY under the name of http_proxy too: past the guard below.
    variables = dict(environment)
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        spelled, value = _variable(variables, name)
        if value:
            break
    else:
        return None
    if bypass_proxy(url.host, url.port, no_proxy=_variable(variables, "no_proxy")[1]):
        return None
    try:
        return Proxy.parse(value)
    except ValueError as error:
        raise ProxyError(f"the environment variable {spelled}: {error}", permanent=True) from error


def bypass_proxy(host: str, port: int, *, no_proxy: str) -> bool:
    """Say whether ``host`` is to be connected to directly, by a list of names, addresses and blocks of addresses.

    The rules are in the table above.  Case and a dot at the end do not matter, an IPv6 address may stand in brackets,
    and an entry that makes no sense covers nothing.  Names are compared as they are given: international ones as
    A-labels, where ``host`` is that of a `URL`.
    """
    name = _bare(host)
    address = _address(name)
    for entry in no_proxy.replace(",", " ").split():
        match = re.fullmatch(r"(\[[^]]*+\]|[^][:]++):0*+([0-9]{1,5})", entry)
        pattern, wanted = (entry, port) if match is None else (match[1], int(match[2]))
        if wanted != port:
            continue
        if pattern == "*" or (_is_below(name, pattern) if address is None else _is_within(address, pattern)):
            return True
    return False


def absolute_form(url: URL) -> str:
    """Return the request target for a plain http request that goes to an http proxy (RFC 9112 3.2.2).

    It has no userinfo (RFC 9110 4.2.4) and no fragment.
    """
    return f"{url.scheme}://{url.host_header}{url.target}"


class Tunnel:
    """Ask an http or https proxy for a tunnel to an origin, without a socket (RFC 9110 9.3.6).

    ``host`` and ``port`` are those of the `Origin`.  Send what `data_to_send` returns, telling `data_sent` how much of
    it went; feed what arrives to `receive_data`, and a close to `receive_eof`, until ``established`` is true.  Then the
    connection leads to the origin.

    Both raise ProxyError for everything but a 2xx with nothing behind its head; then the connection is to be closed.
    The answer's content is never read, and no redirect followed.  A 206, and a Content-Length or Transfer-Encoding
    that is malformed, are refused as in any other response.  ``limits`` count as there, but for ``body``.
    """

    __slots__ = ("_authority", "_exchange", "_proxy", "established")

    def __init__(self, host: str, port: int, proxy: Proxy, *, limits: Limits = Limits()) -> None:  # noqa: B008 - immutable
        assert proxy.speaks_http, "SOCKS knows no CONNECT"
        self._authority = authority = _authority(host, port)
        if not re.fullmatch(r"[\x21-\x7e]+", authority):
            raise ValueError(f"{authority!r} cannot stand in a request line (RFC 9112 3.2)")
        self._proxy = proxy
        self.established = False
        header: dict[str, str | None] = {"Host": authority, "Accept": None, "Accept-Encoding": None}
        request = Request("CONNECT", URL("http", host, port, None, "/", None, None), header)
        # A Content-Length, which means nothing here, must not be held against the limit of a body.
        self._exchange = Exchange(request, limits=replace(limits, body=None), writer=_ConnectWriter(proxy))

    def data_to_send(self) -> bytes:
        """Return the bytes of the request that have not been sent; empty when all have."""
        return self._exchange.data_to_send()

    def data_sent(self, n: int) -> None:
        """Tell that the first ``n`` bytes of `data_to_send` went out."""
        self._exchange.data_sent(n)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Feed what has arrived; raise ProxyError for a refusal, for what is no answer, and for bytes behind a 2xx."""
        data, at = bytes(data), 0
        while at < len(data) and not self.established:
            # No piece goes on behind an empty line, so that what follows the head never comes near the exchange.
            end = _EMPTY_LINE.search(data, at)
            piece = data[at : end.end() if end else len(data)]
            self._feed(piece)
            at += len(piece)
        if at < len(data):
            self.established = False
            raise self._failure("sent more than the head of its answer, before TLS had begun")

    def receive_eof(self, *, clean: bool) -> NoReturn:
        """Tell that the proxy sends no more, before anything was sent through the tunnel; raise ProxyError for it.

        ``clean`` is as in `Exchange.receive_eof`.
        """
        how = "closed the connection" if clean else "broke off the connection"
        raise self._failure(f"{how} {'after' if self.established else 'before'} it had answered")

    def __repr__(self) -> str:
        state = " established" if self.established else ""
        return f"<Tunnel {self._authority} by {self._proxy}{state}>"

    def _feed(self, piece: bytes) -> None:
        try:
            self._exchange.receive_data(piece)
            while (event := self._exchange.next_event()) is not None:
                if isinstance(event, HeadReceived):
                    return self._decide(event.status_code)
        except ProtocolError as error:
            raise self._failure(f"gave no usable answer: {error}") from error

    def _decide(self, status_code: int) -> None:
        if not 200 <= status_code <= 299:
            raise self._proxy.refused(status_code, f" (CONNECT {self._authority})")
        if self._exchange.data_to_send():
            raise self._failure(f"answered {status_code} before it had the whole request", status_code)
        self.established = True

    def _failure(self, what: str, status_code: int | None = None) -> ProxyError:
        return ProxyError(f"the proxy {self._proxy} {what} (CONNECT {self._authority})", status_code=status_code)


class ProxiedWriter(HeadWriter):
    """Write heads for an http proxy: the target is the whole URL (RFC 9112 3.2.2), and they say who we are to it."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def head(self, request: Request) -> bytes:
        """Return the bytes of the head; ValueError for what h11 refuses to send."""
        _, version, rest = super().head(request).partition(b" HTTP/1.1\r\n")
        field = self._proxy.authorization
        ours = b"" if field is None else f"Proxy-Authorization: {field}\r\n".encode("ascii")
        return f"{request.method} {self._target(request)}".encode("ascii") + version + rest[:-2] + ours + rest[-2:]

    def _target(self, request: Request) -> str:
        return absolute_form(request.url)


class _ConnectWriter(ProxiedWriter):
    """Write a head whose target is the authority, port included, as it stands in Host (RFC 9112 3.2.3)."""

    __slots__ = ()

    def _target(self, request: Request) -> str:
        return dict(request.fields)["Host"]


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(scheme: str, userinfo: str | None) -> tuple[str | None, str | None]:
    if userinfo is None:
        return None, None
    user, colon, secret = userinfo.partition(":")
    username, password = (percent_decoded(part).decode("utf-8", "surrogateescape") for part in (user, secret))
    if re.search(r"[\x00-\x1f\x7f]", username + password):
        raise _invalid("a control character in its user name or password (RFC 7617 2)")
    if ":" in username and scheme in ("http", "https"):
        raise _invalid("a colon in its user name, where Basic credentials can have none (RFC 7617 2)")
    return username, password if colon else None


def _invalid(what: str) -> ValueError:
    return ValueError(f"invalid proxy: {what}")


def _variable(variables: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return a variable's name as it is spelled, and its value; lower case goes first, and "" is as good as absent."""
    for spelled in (name, name.upper()):
        # What a CGI program finds there comes from a field Proxy of somebody's request (CVE-2016-1000110).
        if spelled in variables and not (spelled == "HTTP_PROXY" and "REQUEST_METHOD" in variables):
            return spelled, variables[spelled].strip()
    return name, ""


def _is_below(name: str, pattern: str) -> bool:
    domain = _bare(pattern).removeprefix("*.").lstrip(".")
    return name == domain or name.endswith("." + domain)


def _is_within(address: IPv4Address | IPv6Address, pattern: str) -> bool:
    text, slash, bits = pattern.partition("/")
    first = _address(_bare(text))
    if first is None or first.version != address.version:
        return False
    if not slash:
        return first == address
    shift = first.max_prefixlen - int(bits) if re.fullmatch("[0-9]{1,3}", bits) else -1
    return shift >= 0 and int(first) >> shift == int(address) >> shift


def _address(text: str) -> IPv4Address | IPv6Address | None:
    # 45 characters hold every address.  The import costs more than all else here, and few hosts are addresses.
    if len(text) > 45 or not (":" in text or text.rpartition(".")[2].isdigit()):
        return None
    from ipaddress import ip_address

    try:
        return ip_address(text)
    except ValueError:
        return None


def _bare(text: str) -> str:
    """Return a name or address as it is compared: lower case, no brackets, no dot of the root."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return text.lower().removesuffix(".")


# Where a head may end (RFC 9112 2.1).  At the beginning of a piece the line before may have been in the one before.
_EMPTY_LINE: Final = re.compile(rb"(?:\A|(?<=\n))\r?\n")

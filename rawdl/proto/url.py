"""URL: whom to connect to, and what to ask for.

The grammar and the resolution of references are those of RFC 3986; what a URL must have to be fetched is RFC 9110 4.2.
A URL in which two readers could see two different hosts is refused, never repaired.  Everything behind the host is
taken, and what may not stand there raw is percent-encoded.  Parsing takes time linear in the length.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rawdl.errors import InvalidURL

__all__ = ["PROOF", "URL", "Origin", "shown", "unproven"]

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_HOST = 253  # characters of a DNS name without its root dot (RFC 1035 2.3.4: 255 octets on the wire)

# What may stand raw in each part (RFC 3986 3.2.1, 3.3, 3.4), as the inside of a character class.  The percent sign is
# among it, since what is encoded already is not encoded again.
_USERINFO = r"A-Za-z0-9._~!$&'()*+,;=:%-"
_PATH = "@/" + _USERINFO
_QUERY = "?" + _PATH  # and a fragment
_WHITE_SPACE = " \t\n\v\f\r"
# The parameters by which signed URLs (of S3, Google's and Azure's stores, CloudFront) and tokens are known: what is
# found behind group 1 is to be hidden.
PROOF = (
    r"(?i)([?&;#](?:x-(?:amz|goog)-(?:credential|security-token|signature)|signature|sig|(?:access_|auth_)?token|api_?key"
    r"|password|secret)=)[^&;#\0]+"
)

# The fast way: a URL that needs no change.  Its host is an IPv4 address, or its last label begins with a letter.
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN = re.compile(
    rf"(https?)://((?:{_OCTET}\.){{3}}{_OCTET}(?=[:/?#]|$)|(?:[a-z0-9_-]{{1,63}}\.)*+[a-z][a-z0-9_-]{{0,62}})"
    r"(?::([1-9][0-9]{0,4}))?"
    rf"(/[{_PATH}]*+)?(?:\?([{_QUERY}]*+))?(?:#([{_QUERY}]*+))?"
)


class Origin(NamedTuple):
    """What connections and credentials belong to (RFC 9110 4.3.1); ``host`` is in lower case, without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class URL:
    """An absolute http or https URL in its one spelling: immutable, hashable, equal where the spelling is equal.

    Make one with `URL.parse` or `URL.join`; the constructor takes parts that are checked already.

    ``scheme`` and ``host`` are in lower case, ``host`` is ASCII (an A-label where it was international) and an IPv6
    address without brackets, whose zone stands behind it if it has one (``fe80::1%eth0``).  ``port`` is never absent.
    ``path`` begins with a slash and has no dot segments; ``query`` and ``fragment`` are None where there is none.
    These three and ``userinfo`` are percent-encoded.
    """

    __slots__ = ("fragment", "host", "path", "port", "query", "scheme", "userinfo")

    scheme: str
    host: str
    port: int
    userinfo: str | None
    path: str
    query: str | None
    fragment: str | None

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        userinfo: str | None,
        path: str,
        query: str | None,
        fragment: str | None,
    ) -> None:
        put = object.__setattr__
        put(self, "scheme", scheme)
        put(self, "host", host)
        put(self, "port", port)
        put(self, "userinfo", userinfo)
        put(self, "path", path)
        put(self, "query", query)
        put(self, "fragment", fragment)

    @classmethod
    def parse(cls, text: str) -> URL:
        """Read an absolute URL; raise InvalidURL for what is none, or has no host that could be connected to.

        White space around it is dropped.  A host that is not ASCII needs the ``idna`` package.  The error never
        quotes what could be part of a password.
        """
        match = _PLAIN.fullmatch(text)
        if match is not None:
            scheme, host, port, path, query, fragment = match.groups()
            number = DEFAULT_PORTS[scheme] if port is None else int(port)
            if number <= 65535 and len(host) <= MAX_HOST and (path is None or "/." not in path):
                return cls(scheme, host, number, None, path or "/", query, fragment)
        return _absolute(*_split(text))

    def join(self, ref: str) -> URL:
        """Resolve a reference against this URL (RFC 3986 5.2), as for Location; raise InvalidURL if it is unusable.

        ``ref`` is text.  Octets of a field value are to be decoded first, as UTF-8 with ``surrogateescape``: then they
        arrive in the new URL as they were.  A reference without a fragment gives a URL without one.
        """
        scheme, authority, path, query, fragment = _split(ref)
        if scheme is not None or authority is not None:
            return _absolute(scheme or self.scheme, authority, path, query, fragment)
        if path[:2] in ("\\\\", "\\/", "/\\"):
            raise _invalid("a backslash stands where the host could begin")
        if not path:
            path, query = self.path, self.query if query is None else query
        elif not path.startswith("/"):
            path = self.path[: self.path.rfind("/") + 1] + path
        return URL(self.scheme, self.host, self.port, self.userinfo, _clean(path), _encoded(query), _encoded(fragment))

    @property
    def origin(self) -> Origin:
        """What its connections and credentials belong to."""
        return Origin(self.scheme, self.host, self.port)

    @property
    def target(self) -> str:
        """The request target in origin-form: path and query, printable ASCII (RFC 9112 3.2.1)."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def host_header(self) -> str:
        """The value of Host: no userinfo, no zone, and the port only if it is not the scheme's (RFC 9110 7.2)."""
        return self._authority(self.host.partition("%")[0])

    def _authority(self, host: str) -> str:
        host = f"[{host}]" if ":" in host else host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def last_segment(self) -> str:
        """The last segment of the path, percent-decoded once; "" if the path ends in a slash.

        It is what a file name can be made of, by `safe_filename`: it may hold anything, a slash included.  Octets that
        are not UTF-8 become U+FFFD.
        """
        from rawdl.proto.fields import percent_decoded

        return percent_decoded(self.path[self.path.rfind("/") + 1 :]).decode("utf-8", "replace")

    @property
    def redacted_target(self) -> str:
        """The target for people and logs: three asterisks are what its query proves."""
        return unproven(self.target)

    @property
    def redacted(self) -> str:
        """The URL for people and logs: three asterisks are its user name and password, or what its query proves."""
        return unproven(self._spelled(self.userinfo and "***", self.target))

    def __str__(self) -> str:
        return self._spelled(self.userinfo, self.target)

    def __repr__(self) -> str:
        return f"URL({self.redacted!r})"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, URL) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a URL cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a URL cannot be changed")

    def __reduce__(self) -> tuple[object, ...]:
        return URL.parse, (str(self),)

    def _spelled(self, userinfo: str | None, target: str) -> str:
        user = f"{userinfo}@" if userinfo else ""
        fragment = "" if self.fragment is None else f"#{self.fragment}"
        authority = self._authority(self.host.replace("%", "%25"))
        return f"{self.scheme}://{user}{authority}{target}{fragment}"


def shown(text: str) -> str:
    """Return what was given as a URL as it may be shown: without the secrets in it, even if it is malformed."""
    try:
        return URL.parse(text).redacted
    except InvalidURL:
        secret, at, rest = text.rpartition("@")
        scheme, separator, _ = secret.partition("://")
        return unproven((scheme + separator if separator else "") + "***@" + rest if at else text)


def unproven(text: str) -> str:
    """Return a text without the values of the parameters of URLs that prove a right to them."""
    return re.sub(PROOF, r"\1***", text) if "=" in text else text


def _split(text: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    """Take a reference apart as RFC 3986 appendix B does: scheme, authority, path, query, fragment."""
    text = text.strip(_WHITE_SPACE)
    # Surrogates that stand for an octet (PEP 383) are let through; no others can be encoded.
    if bad := re.search(r"[\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]", text):
        kind = "control character" if bad[0] <= "\x7f" else "lone surrogate"
        raise _invalid(f"it holds the {kind} {_quoted(bad[0])}")
    match = re.fullmatch(
        r"(?:([A-Za-z][A-Za-z0-9+.-]*+):)?+(?://([^/?#]*+))?+([^?#]*+)(?:\?([^#]*+))?+(?:#(.*+))?+", text, re.DOTALL
    )
    assert match is not None, "every text is a path at least"
    scheme, authority, path, query, fragment = match.groups()
    return scheme and scheme.lower(), authority, path, query, fragment


def _absolute(scheme: str | None, authority: str | None, path: str, query: str | None, fragment: str | None) -> URL:
    if scheme is None:
        raise _invalid("it does not begin with http:// or https://")
    if scheme not in DEFAULT_PORTS:
        raise _invalid(f"{_quoted(scheme)} is neither http nor https")
    if not authority:
        raise _invalid("it names no host")  # RFC 9110 4.2.1; also http:/host and http:host, which browsers repair
    if "\\" in authority or " " in authority:
        raise _invalid("a backslash or space stands between // and the path")
    if authority.count("@") > 1:
        raise _invalid("there is more than one @ before the path; in a password it is written %40")
    user, _, host_port = authority.rpartition("@")
    userinfo = _encode(user, _USERINFO) or None
    host, port = _host_port(host_port, DEFAULT_PORTS[scheme])
    return URL(scheme, host, port, userinfo, _clean(path), _encoded(query), _encoded(fragment))


def _host_port(text: str, default: int) -> tuple[str, int]:
    head, bracket, rest = text.rpartition("]")
    if text.startswith("[") and not bracket:
        raise _invalid("the bracket of an IPv6 address is not closed")
    name, _, digits = rest.partition(":")
    port = default
    if digits:  # RFC 3986 3.2.3: it may be empty
        number = re.fullmatch(r"0*+([0-9]{1,5})", digits)
        port = 0 if number is None else int(number[1])
        if not 1 <= port <= 65535:
            raise _invalid("the port is not a number from 1 to 65535 (an IPv6 address stands in brackets)")
    return _ipv6(head + bracket + name) if bracket else _host(name), port


def _host(text: str) -> str:
    if not text:
        raise _invalid("it names no host")
    host = (text if text.isascii() else _idna(text)).lower()
    name = host.removesuffix(".")
    # RFC 3986 lets a name hold more; what is looked up and certified is letters, digits and hyphens, and the
    # underscore that hosts in use have.
    if len(name) > MAX_HOST or not re.fullmatch(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*+", name):
        raise _invalid(f"{_quoted(text)} is not a host name")
    if re.fullmatch(r"[0-9]++|0x[0-9a-f]*+", name.rpartition(".")[2]):
        return _ipv4(name)
    return host


def _ipv4(name: str) -> str:
    """Take four decimal numbers only: of 0x7f.1 and 010.0.0.1 resolvers make different addresses."""
    octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    if re.fullmatch(rf"{octet}(?:\.{octet}){{3}}", name) is None:
        raise _invalid(f"{_quoted(name)} is not an IPv4 address of four decimal numbers")
    return name


def _ipv6(text: str) -> str:
    from ipaddress import IPv6Address

    # 45 characters hold every address, and 15 the name of every interface.
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]{2,45})(?:%25([A-Za-z0-9._~-]{1,15}))?\]", text)
    try:
        address = IPv6Address(match[1] if match else "")
    except ValueError:
        raise _invalid("there is no IPv6 address in the brackets (a zone is written as in fe80::1%25eth0)") from None
    zone = match and match[2]
    if zone and not address.is_link_local:
        raise _invalid("a zone goes with a link-local address only (RFC 4007 6)")
    return f"{address}%{zone}" if zone else str(address)


def _idna(text: str) -> str:
    # Before the package sees it: its work on one label grows faster than the label.
    if len(text) > MAX_HOST or re.search(r"[^.\u3002\uff0e\uff61]{64}", text):
        raise _invalid(f"{_quoted(text)} is too long for a host name")
    try:
        import idna
    except ImportError:
        raise _invalid(f"{_quoted(text)} is not ASCII; hosts like this need: pip install rawdl[idna]") from None
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except (UnicodeError, IndexError) as error:
        raise _invalid(f"{_quoted(text)} is not a host name") from error


def _clean(path: str) -> str:
    """Remove dot segments (RFC 3986 5.2.4) and encode; ``%2e`` is left alone, as the server may tell it from a dot."""
    if "/." not in path:
        return _encode(path, _PATH) or "/"
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return _encode("/" + "/".join(kept), _PATH)


def _encoded(query: str | None) -> str | None:
    return None if query is None else _encode(query, _QUERY)


def _encode(text: str, allowed: str) -> str:
    return re.sub(rf"[^{allowed}]++", _percent_encoded, text)


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogateescape"))


def _invalid(what: str) -> InvalidURL:
    return InvalidURL(f"invalid URL: {what}")


def _quoted(text: str) -> str:
    from rawdl.proto.fields import escape

    return f"'{escape(text[:80])}'" + ("…" if len(text) > 80 else "")

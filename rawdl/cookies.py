"""Cookies, by `http.cookiejar`: those of one chain of redirects, or those of a jar that the caller keeps.

A jar that was given is used and filled as it is, by its own policy.  The one that is made for a chain is forgotten with
the task, and stricter, as is one that was read from a file: no cookie for a whole top-level domain (``strict_domain``),
none that spreads to the hosts below one that has set it for itself, none with a control character, and only so many for
a host.
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from contextlib import suppress
from email.message import Message
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy, LoadError, MozillaCookieJar
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request

from rawdl.proto.messages import Headers
from rawdl.proto.url import URL

if TYPE_CHECKING:
    from collections.abc import Sequence

# As browsers have it (RFC 6265 6.1 asks for no less), and what servers take of one line (Apache's 8190).
_MOST_FOR_A_HOST: Final = 50
_LONGEST_LINE: Final = 8190  # bytes
_ADDRESS: Final = re.compile(r"\.[0-9]+(?::[0-9]+)?$|\]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What would end a field or a line of a file.
_SEPARATOR: Final = re.compile(r"[\x00-\x1f\x7f]")
# What http.cookiejar has behind a host without a dot (RFC 2965 1), and nobody else; a mark tells its cookies from those
# of a host that is really called so.
_LOCAL: Final = ".local"
_DOTLESS: Final = "rawdl-dotless"
_FARTHEST: Final = 253402300799  # the end of the year 9999: a server may name any number, which not everybody can read


class Cookies:
    """Read Set-Cookie and write Cookie for one client, or for one task if there is no ``jar``."""

    __slots__ = ("_jar",)

    def __init__(self, jar: CookieJar | None = None) -> None:
        if jar is not None and not isinstance(jar, CookieJar):
            raise TypeError(f"cookies is a CookieJar, not {type(jar).__name__}")
        self._jar = StrictJar() if jar is None else jar

    def receive(self, header: Headers, url: URL) -> None:
        """Take the cookies that a response from ``url`` sets."""
        lines = header.get_all("set-cookie")
        if isinstance(self._jar, StrictJar):
            host = _domain_of(url.host)
            held = sum(f".{host}".endswith(f".{cookie.domain.lstrip('.')}") for cookie in self._jar)
            lines = lines[: max(0, _MOST_FOR_A_HOST - held)]
        if lines:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a line that the jar cannot read, it tells with a traceback
                self._jar.extract_cookies(_Response(lines), _request(url))  # type: ignore[arg-type]

    def field(self, url: URL, given: str | None) -> str | None:
        """Return the value of Cookie for a request of ``url``: what the caller has ``given``, and then ours."""
        request = _request(url)
        self._jar.add_cookie_header(request)
        ours = request.get_header("Cookie")
        if ours is None or _CONTROL.search(ours):
            return given
        both = ours if given is None else f"{given}; {ours}"
        if len(both) <= _LONGEST_LINE:
            return both
        return both[: both.rfind("; ", 0, _LONGEST_LINE)] if "; " in both[:_LONGEST_LINE] else given


class StrictJar(MozillaCookieJar):
    """A jar by the rules above: what a chain of redirects has, and what is read from a file."""

    def __init__(self) -> None:
        super().__init__(policy=_Policy())

    def make_cookies(self, response: Any, request: Request) -> Sequence[Cookie]:
        made = super().make_cookies(response, request)
        if "." not in request.host:
            for cookie in made:
                cookie.set_nonstandard_attr(_DOTLESS, "")
        return made

    def set_cookie(self, cookie: Cookie) -> None:
        """Keep one; a host without a dot, as a file has it, gets the name that http.cookiejar gives it."""
        if "." not in cookie.domain:
            cookie.domain = _domain_of(cookie.domain.strip("[]"))
            cookie.set_nonstandard_attr(_DOTLESS, "")
        super().set_cookie(cookie)


def _domain_of(host: str) -> str:
    """Return what http.cookiejar knows a host by."""
    host = f"[{host}]" if ":" in host else host
    return host if "." in host else host + _LOCAL


def read_cookies(path: str) -> StrictJar:
    """Read a file of Netscape's format, as browsers and curl write it; OSError, or ValueError for what is none."""
    jar = StrictJar()
    try:
        # Values are octets, here as everywhere one character for each.
        with warnings.catch_warnings(), open(path, encoding="latin-1") as file:
            warnings.simplefilter("ignore")  # a malformed line brings one with a traceback, and then the error
            jar._really_load(file, path, ignore_discard=True, ignore_expires=True)  # type: ignore[attr-defined]
    except LoadError:  # whose message may have a secret in it
        raise ValueError(f"{path} is no file of cookies in Netscape's format") from None
    for cookie in jar:
        if cookie.expires == 0:  # which is how others write that it ends with the session
            cookie.expires, cookie.discard = None, True
    jar.clear_expired_cookies()
    return jar


def write_cookies(jar: CookieJar, path: str) -> None:
    """Write a file that `read_cookies` reads, in one step, for its owner's eyes only.  OSError if that cannot be.

    It has the cookies that end with the session as well, but none that has expired or would break the format.
    """
    from tempfile import mkstemp

    if os.path.exists(path) and not os.path.isfile(path):  # as a device, whose place the file would take
        raise OSError(errno.EEXIST, "it is no regular file", path)
    fd, temporary = mkstemp(prefix="cookies-", dir=os.path.dirname(path) or os.curdir)
    try:
        with open(fd, "w", encoding="latin-1") as file:
            file.write("# Netscape HTTP Cookie File\n")
            file.writelines(line for cookie in jar if not cookie.is_expired() and (line := _line(cookie)))
        os.replace(temporary, path)
    except BaseException as exc:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(exc, UnicodeEncodeError):  # whose message may have a secret in it
            raise OSError(errno.EILSEQ, "a cookie has characters that no field can have", path) from None
        raise


def _line(cookie: Cookie) -> str:
    """Return a cookie as a line of a file; "" for one that would break it."""
    # One without a value is to others one without a name.
    name, value = (cookie.name, cookie.value) if cookie.value is not None else ("", cookie.name)
    if _SEPARATOR.search(f"{cookie.path}{name}{value}"):
        return ""
    domain = cookie.domain
    if cookie.has_nonstandard_attr(_DOTLESS):
        domain = domain.removesuffix(_LOCAL).strip("[]")
    below, secure = ("TRUE" if flag else "FALSE" for flag in (domain.startswith("."), cookie.secure))
    # 0 is the end of the session: an empty field is one that others do not know.
    expires = 0 if cookie.expires is None else min(cookie.expires, _FARTHEST)
    hidden = "#HttpOnly_" if cookie.has_nonstandard_attr("HttpOnly") else ""
    return f"{hidden}{domain}\t{below}\t{cookie.path}\t{secure}\t{expires}\t{name}\t{value}\n"


class _Policy(DefaultCookiePolicy):
    """Take no cookie that could not be sent, and none for several hosts from an address (RFC 6265 5.1.3)."""

    def __init__(self) -> None:
        super().__init__(strict_domain=True, strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain)

    def set_ok(self, cookie: Cookie, request: Request) -> bool:
        if _CONTROL.search(f"{cookie.name}{cookie.value}") or (
            cookie.domain_specified and _ADDRESS.search(request.host)
        ):
            return False
        return super().set_ok(cookie, request)


class _Response:
    """What a jar looks at of a response."""

    def __init__(self, lines: list[str]) -> None:
        self._message = Message()
        for line in lines:
            self._message["Set-Cookie"] = line

    def info(self) -> Message:
        return self._message


def _request(url: URL) -> Request:
    return Request(str(URL(url.scheme, url.host, url.port, None, url.path, url.query, None)))

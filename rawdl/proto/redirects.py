r"""Redirects: where a 3xx leads, whether to go there, and what may not come along (RFC 9110 15.4).

Every request here is a GET, which all five statuses keep; there is no body that could follow.

A Location is the server's, so it is read as RFC 3986 has it, and hardly ever repaired.  The decisions:

    in a Location                                   what comes of it
    ----------------------------------------------  --------------------------------------------------------------
    spaces and tabs around it                       are dropped, as around every field value
    any other control character, or one inside      refused (browsers delete tabs and line ends: two readings)
    octets above 0x7f                               are UTF-8; percent-encoded as they came, valid or not
    a space or any of ``"<>\^`{|}[]`` in its path   percent-encoded, in query and fragment too
    ``%`` that begins no pair of hex digits         stays
    a backslash in the host, or where one begins    refused (browsers make it a slash)
    ``http:x``, ``http:/x``, ``http:///x``, ``//``  refused: no host (browsers find one)
    another scheme, or what looks like one          refused: ``file:/x``, ``host:80/x``, ``my_file:x``, ``:x`` (RFC 3986
                                                    4.2 has a relative path with such a colon begin with ``./``)
    a user name or password                         refused (RFC 9110 4.2.4); the ``@`` of ``http://@host/`` is neither
    dot segments, upper case in scheme and host     as in every URL: removed, lowered
    nothing at all, or ``#f``                       the same document, hence a loop
    no fragment                                     that of the URL before is inherited (RFC 9110 10.2.2)
    an IPv6 zone                                    refused: it is an interface of this machine
    two Locations                                   refused, unless they are equal
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rawdl.errors import InvalidURL, RedirectError
from rawdl.proto.fields import escape
from rawdl.proto.url import URL, shown

if TYPE_CHECKING:
    from rawdl.proto.messages import Headers

__all__ = ["Chain", "Redirects"]

# 300 leaves the choice to the user, 304 answers a condition, 305 and 306 are no longer in use (RFC 9110 15.4).
FOLLOWED: Final = frozenset({301, 302, 303, 307, 308})

# As much as the head of a response may hold; RFC 9112 3 has servers take 8000 octets.  Relative Locations could make
# a URL longer with each hop.
MAX_URL: Final = 65536

# The caller's fields that may be sent to another origin, in lower case.  They say what the caller can read and wishes
# to have.  Any other may be a secret (Authorization, Cookie, X-Token), speaks of the place that was left (Host, Origin,
# Referer, conditions), or is unknown, and might be either.
CROSSES: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "dnt",
        "pragma",
        "range",  # without it the whole would come where a part was asked for; but see crossing
        "sec-gpc",
        "user-agent",
        "want-content-digest",
        "want-repr-digest",
    }
)

_SHOWN: Final = 200  # characters of a URL in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirects:
    """How the redirects of one task are followed: those of status 301, 302, 303, 307 and 308 (RFC 9110 15.4).

    ``limit`` counts over the whole task: one more fails with `RedirectError`; with 0 a redirect is an answer like any
    other.  ``allow_downgrade`` permits to go from https to http.  Raises TypeError for what is no whole number or no
    bool, and ValueError for a negative limit.
    """

    limit: int = 10
    allow_downgrade: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int):
            raise TypeError(f"redirects.limit is a whole number, not {self.limit!r}")
        if self.limit < 0:
            raise ValueError(f"redirects.limit cannot be negative, as {self.limit} is (0: follow none)")
        if not isinstance(self.allow_downgrade, bool):
            raise TypeError(f"redirects.allow_downgrade is a bool, not {self.allow_downgrade!r}")


class Chain:
    """The redirects of one task, from its URL or from a mirror on; ``hops`` are those that were before, and count too.

    ``url`` is where it is now, ``header`` what of the caller's fields may be sent there, and ``hops`` are the URLs left
    behind, without user names and passwords.

    At the first change of origin (scheme, host or port) ``header`` shrinks to the fields of `CROSSES`, for good: were
    they back with the first origin, an open redirect at the second could spend the credentials of the first on a
    request of its own choice.  The user name and password of the URL are lost in the same way.  A field that the caller
    drops (None) stays dropped.
    """

    __slots__ = ("_seen", "_settings", "has_left", "header", "hops", "url")

    def __init__(
        self, url: URL, header: Mapping[str, str | None] | None, settings: Redirects, hops: tuple[str, ...] = ()
    ) -> None:
        self.url = url
        self.header: Mapping[str, str | None] = dict(header or {})
        self.hops = hops
        self.has_left = False  # the first origin, at some time
        self._settings = settings
        self._seen = {_requested(url)}

    def follows(self, status_code: int) -> bool:
        """Say whether a response of this status is a redirect to be followed."""
        return status_code in FOLLOWED and self._settings.limit > 0

    def advance(self, status_code: int, header: Headers) -> None:
        """Move to where the response leads.

        Raises RedirectError, and stays, if there is no usable Location, or if the limit, a loop or the rules forbid it.
        """
        here = f"{status_code} from {_shortened(self.url.redacted)}"
        location = _location(header, here)
        try:
            target = _requested(self.url).join(location)
        except InvalidURL as error:
            raise RedirectError(f"{here} to {_shortened(shown(location))}: {error}") from error
        if objection := self._objection(target):
            raise RedirectError(f"{here} to {_shortened(target.redacted)}: {objection}")
        self._move(target)

    def _objection(self, target: URL) -> str | None:
        """Return why not to go there; None if there is no reason."""
        length, limit = len(str(target)), self._settings.limit
        if target.userinfo is not None:
            return "a redirect must not bring a user name or password (RFC 9110 4.2.4)"
        if "%" in target.host and target.host != self.url.host:
            return "a zone means something on this machine only, and is not a server's to choose"
        if length > MAX_URL:
            return f"a URL of {length} characters, where {MAX_URL} is the limit"
        if (self.url.scheme, target.scheme) == ("https", "http") and not self._settings.allow_downgrade:
            return "from https to http, which allow_downgrade=True would permit"
        if _requested(target) in self._seen:
            return f"a loop, after {len(self.hops)} redirects: this URL has been asked for already"
        if len(self.hops) >= limit:
            return f"too many redirects: {len(self.hops)} have been followed, and the limit is {limit}"
        return None

    def _move(self, target: URL) -> None:
        fragment = self.url.fragment if target.fragment is None else target.fragment
        userinfo = self.url.userinfo
        if target.origin != self.url.origin:
            self.header = crossing(self.header)
            self.has_left = True
            userinfo = None
        self.hops += (self.url.redacted,)
        self._seen.add(_requested(target))
        self.url = URL(target.scheme, target.host, target.port, userinfo, target.path, target.query, fragment)


def _location(header: Headers, here: str) -> str:
    """Return the Location as text, with surrogates for the octets that are no UTF-8 (PEP 383)."""
    values = {value.strip(" \t") for value in header.get_all("Location")}
    if len(values) != 1:
        raise RedirectError(f"{here}: " + (f"{len(values)} different Locations" if values else "no Location"))
    location = values.pop().encode("latin-1").decode("utf-8", "surrogateescape")
    # Not left to URL.join, which drops them at the ends, as of a URL that somebody has pasted.
    if re.search(r"[\x00-\x1f\x7f]", location):
        raise RedirectError(f"{here} to {_shortened(shown(location))}: a control character in the Location")
    scheme = re.match("([^:/?#]*+):", location)
    if scheme is not None and scheme[1].lower() not in ("http", "https"):
        raise RedirectError(f"{here} to {_shortened(shown(location))}: neither http nor https")
    return location


def crossing(header: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what of the caller's fields may be sent to another origin.

    A Range goes without a condition only: If-Range and its like stay behind, and the part would be one of who knows
    which version.
    """
    allowed = CROSSES
    if any(name.lower().startswith("if-") and value is not None for name, value in header.items()):
        allowed -= {"range"}
    return {name: value for name, value in header.items() if value is None or name.lower() in allowed}


def _requested(url: URL) -> URL:
    """Return the URL as a server gets to know it.

    Two that differ in their percent-encoding are two: a server may well send from one spelling to the other.
    """
    return URL(url.scheme, url.host, url.port, None, url.path, url.query, None)


def _shortened(text: str) -> str:
    return escape(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")

"""Requests, header fields and the limits on what a response may hold, as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rawdl.proto.url import URL, shown, unproven
from rawdl.version import __version__

USER_AGENT: Final = f"rawdl/{__version__}"

# No content coding is asked for, so that the bytes on disk and the Range of a later resume mean the same thing.
DEFAULT_FIELDS: Final = (("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Accept-Encoding", "identity"))
FRAMING_FIELDS: Final = frozenset({"content-length", "transfer-encoding"})

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 5.5; a control character is refused rather than sent


class Headers(Mapping[str, str]):
    """Header fields as received: lookup ignores case, order and repetition survive (RFC 9110 5).

    ``headers[name]`` joins repeated lines with ``", "`` (RFC 9110 5.3), except for Set-Cookie, which cannot be joined:
    there it is the first.  `get_all` lists every line.  Iteration is over the unique names, in order of appearance.
    Values are latin-1, one character per octet, so that every byte survives.
    """

    __slots__ = ("_fields", "_index", "_raw")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._raw: Sequence[tuple[bytes, bytes]] = ()
        self._fields: tuple[tuple[str, str], ...] | None = tuple(fields)
        self._index: dict[str, tuple[str, list[str]]] | None = None

    @classmethod
    def from_wire(cls, lines: Sequence[tuple[bytes, bytes]]) -> Headers:
        """Make one of the octets received; they are decoded when somebody looks."""
        headers = cls()
        headers._raw, headers._fields = lines, None
        return headers

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The lines as received: pairs of name and value."""
        if self._fields is None:
            self._fields = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in self._raw)
            self._raw = ()
        return self._fields

    def mentions(self, words: re.Pattern[bytes]) -> bool:
        """Whether these are found in the fields' names, in lower case: a look that decodes nothing."""
        if self._fields is None:
            return words.search(b"\n".join([name for name, _ in self._raw]).lower()) is not None
        if not self._fields:
            return False
        return words.search("\n".join([name for name, _ in self._fields]).lower().encode("latin-1")) is not None

    def _lines(self) -> dict[str, tuple[str, list[str]]]:
        if self._index is None:
            index: dict[str, tuple[str, list[str]]] = {}
            for name, value in self.fields:
                index.setdefault(name.lower(), (name, []))[1].append(value)
            self._index = index
        return self._index

    def __getitem__(self, name: str) -> str:
        values = self._lines()[name.lower()][1]
        return values[0] if name.lower() == "set-cookie" else ", ".join(values)

    def get_all(self, name: str) -> list[str]:
        """Return the value of each line of that name, in order; an empty list if there is none."""
        found = self._lines().get(name.lower())
        return list(found[1]) if found else []

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lines()

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._lines().values())

    def __len__(self) -> int:
        return len(self._lines())

    @property
    def redacted(self) -> dict[str, str]:
        """The values by their names as people and logs may see them: no cookie, and no URL's secrets."""
        return {name: _redacted(name, value) for name, value in self.items()}

    def __repr__(self) -> str:
        return f"Headers({[(name, _redacted(name, value)) for name, value in self.fields]!r})"

    def to_dict(self) -> dict[str, str | list[str]]:
        """Return name → value, Set-Cookie as a list, ready for ``json.dumps``."""
        return {name: self.get_all(name) if name.lower() == "set-cookie" else self[name] for name in self}


def _redacted(name: str, value: str) -> str:
    if name.lower() == "set-cookie":
        return "***"
    return shown(value) if name.lower() in ("location", "content-location") else unproven(value)


class Request:
    """One request: ``method`` and ``url``, and ``fields``, the header lines as they will be sent.

    ``header`` adds to the default fields or replaces them by name; a value of None drops one.  Raises TypeError for
    what is not a string, ValueError for a method, name or value that could not stand on the wire (RFC 9110 5.1, 5.5,
    9.1), for the fields that frame a message, and for a name that is given twice.
    """

    __slots__ = ("closes", "coded", "fields", "method", "url")

    def __init__(self, method: str, url: URL, header: Mapping[str, str | None] | None = None) -> None:
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"{method!r} is no method (RFC 9110 9.1)")
        self.method = method
        self.url = url
        self.closes = False  # whether it asks for no further exchange on its connection
        self.coded = False  # whether the body may come coded
        given = checked_fields(header)
        if not given:
            self.fields: tuple[tuple[str, str], ...] = (("Host", url.host_header), *DEFAULT_FIELDS)
            return
        self.closes = any(n.lower() == "connection" and v and "close" in v.lower() for n, v in given)
        replaced = {name.lower() for name, _ in given}
        self.coded = "accept-encoding" in replaced
        defaults = [(n, v) for n, v in (("Host", url.host_header), *DEFAULT_FIELDS) if n.lower() not in replaced]
        # Host goes first (RFC 9110 7.2), whoever chose it.
        host_first = sorted(given, key=lambda field: field[0].lower() != "host")
        lines = [*host_first, *defaults] if "host" in replaced else [*defaults, *host_first]
        self.fields = tuple((name, value) for name, value in lines if value is not None)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url!r}>"


def checked_fields(header: Mapping[str, str | None] | None) -> list[tuple[str, str | None]]:
    """Return the fields that a caller gave, or raise TypeError or ValueError for one that cannot be sent."""
    if header is None:
        return []
    if not isinstance(header, Mapping):
        raise TypeError(f"header is a mapping of names to values, not {type(header).__name__}")
    fields = [_checked(name, value) for name, value in header.items()]
    if len({name.lower() for name, _ in fields}) < len(fields):
        raise ValueError("a header field is given twice: names are the same in upper and lower case (RFC 9110 5.1)")
    return fields


def _checked(name: str, value: str | None) -> tuple[str, str | None]:
    if not isinstance(name, str) or not isinstance(value, str | None):
        raise TypeError(f"a header field is a str with a str (or None), not {name!r} with {type(value).__name__}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no header field name (RFC 9110 5.1)")
    if name.lower() in FRAMING_FIELDS:
        raise ValueError(f"{name} is not the caller's to set: it frames the message (RFC 9112 6)")
    if name.lower() == "proxy-authorization":
        raise ValueError(f"{name} is for the proxy alone: give it with the proxy (RFC 9110 11.7.2)")
    if value is None:
        if name.lower() == "host":
            raise ValueError("Host cannot be dropped: each request must have it (RFC 9112 3.2)")
        return name, None
    value = value.strip(" \t")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the value of {name} has a character that cannot be sent (RFC 9110 5.5)")
    return name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server may send before it is refused.  Bytes, except for ``fields`` and ``informational``.

    ``head`` is over all heads of one response, interim ones included; ``line`` is one header line; ``trailer`` is the
    whole trailer section.  ``body`` bounds the body as it comes over the wire, and ``decoded`` what its content codings
    make of it, ``ratio`` how many of those for each one that came (None: no bound).  These three raise `TooLarge`, and
    all the others `ProtocolError`.
    """

    head: int = 65536  # curl allows 300 KiB, node 16 KiB: room for any real server
    fields: int = 256
    line: int = 16384
    informational: int = 20  # a server may send any number (RFC 9110 15.2); real ones send one or two
    trailer: int = 16384
    chunk_line: int = 4096
    chunk_extensions: int = 65536  # over one body: extensions come with each chunk and are never used
    body: int | None = None
    decoded: int | None = None
    ratio: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None and name in ("body", "decoded", "ratio"):
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"limits.{name} is a whole number, not {value!r}")
            if value < 0:
                raise ValueError(f"limits.{name} cannot be negative, as {value} is")

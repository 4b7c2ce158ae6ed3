"""The fields that a downloader reads, and the names it makes of them.

Every function here takes what a server sent, as text with one character per octet (latin-1), and never raises on it:
what does not keep to the grammar is None, or the empty dictionary.  A number above 2^63-1 counts as malformed, since
no file is that long.  Each function takes time linear in its input.

The patterns are compiled by ``re`` on first use, not on import: most downloads need none or one of them.  Annotations
are evaluated at once here, which makes the named tuples cheaper to import than text annotations would.
"""

import re
from typing import NamedTuple

__all__ = [
    "ContentDisposition",
    "ContentRange",
    "UnsatisfiedRange",
    "escape",
    "parse_content_disposition",
    "parse_content_range",
    "parse_digest_field",
    "parse_http_date",
    "parse_retry_after",
    "percent_decoded",
    "safe_filename",
]

MAX_LENGTH = 2**63 - 1  # what off_t holds: a longer file can be neither stored nor asked for
MAX_NAME = 255  # bytes: NAME_MAX of ext4, XFS, Btrfs, APFS and NTFS (there: 16-bit units, never more than the bytes)

_OWS = " \t"  # optional white space, RFC 9110 5.6.3
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"


class ContentDisposition(NamedTuple):
    """``kind`` in lower case; ``filename`` as the server wrote it, hence not safe: see `safe_filename`."""

    kind: str
    filename: str | None


class ContentRange(NamedTuple):
    """Bytes ``first`` to ``last``, both included, of ``total``; None where the server does not know."""

    first: int
    last: int
    total: int | None


class UnsatisfiedRange(NamedTuple):
    """What a 416 says: no byte of the range exists, and the whole has ``total`` bytes."""

    total: int


def parse_content_disposition(value: str) -> ContentDisposition | None:
    """Read Content-Disposition (RFC 6266); None if it is invalid, also for a parameter that is there twice.

    ``filename*`` goes before ``filename``, and is passed over if its charset or percent-encoding is wrong (RFC 8187).
    A plain filename is UTF-8 if it is valid UTF-8, else latin-1.  Of invalid fields two sorts are read all the same,
    because servers send them often and they have one meaning: an empty parameter (``a.txt";``), and unquoted
    characters that should be quoted (``filename=a (1).txt``).
    """
    kind = re.match(rf"[ \t]*({_TOKEN})[ \t]*+(?=;|\Z)", value)
    parameters = None if kind is None else _parameters(value, kind.end())
    if kind is None or parameters is None:
        return None
    filename = None
    if "filename*" in parameters:
        filename = _extended(parameters["filename*"])
    if filename is None and "filename" in parameters:
        filename = _utf8_or_latin1(parameters["filename"])
    return ContentDisposition(kind[1].lower(), filename)


def safe_filename(name: str, default: str = "download") -> str:
    """Make one path component of any text: a name that is safe in every folder, on every system (RFC 6266 4.3).

    It is what follows the last slash or backslash, in Unicode's form C, at most 255 bytes of UTF-8 (cut before its
    extension).  It is not empty, not hidden, no option to a command, no device of Windows, ends in neither dot nor
    space, and holds nothing that a terminal would act on or not show.  Nothing is percent-decoded: that is to be done
    once, before.  ``default`` is what an empty name becomes; it passes through the same rules.
    """
    return _component(name) or _component(default) or "download"


def escape(text: str) -> str:
    r"""Make a server's text fit for a terminal or a log: what does not print becomes ``\x1b`` or ``\u202e``.

    That is: controls, DEL, C1, bidirectional and other format characters, surrogates, line separators and every space
    but the plain one.  A backslash stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(ord(c)) for c in text)


def parse_content_range(value: str) -> ContentRange | UnsatisfiedRange | None:
    """Read Content-Range (RFC 9110 14.4); None for another unit and for numbers that contradict each other."""
    number = "([0-9]{1,19})"  # 2^63-1 has 19 digits
    match = re.fullmatch(rf"(?i:bytes) (?:{number}-{number}|\*)/(?:{number}|\*)", value.strip(_OWS))
    if match is None:
        return None
    first, last, total = (None if digits is None else int(digits) for digits in match.groups())
    if total is not None and total > MAX_LENGTH:
        return None
    if first is None or last is None:
        return None if total is None else UnsatisfiedRange(total)
    if last < first or last >= (MAX_LENGTH if total is None else total):
        return None
    return ContentRange(first, last, total)


def parse_retry_after(value: str, *, wall_clock: float) -> float | None:
    """Return the seconds to wait from ``wall_clock`` (POSIX seconds) on, never negative (RFC 9110 10.2.3).

    The number is the server's and has no bound of ours but that it is finite: the caller caps it.
    """
    value = value.strip(_OWS)
    if value.isascii() and value.isdigit():
        return min(float(value), float(MAX_LENGTH))
    date = parse_http_date(value, wall_clock=wall_clock)
    return None if date is None else max(0.0, date - wall_clock)


def parse_http_date(value: str, *, wall_clock: float | None = None) -> int | None:
    """Return the POSIX seconds of an HTTP-date in any of its three forms (RFC 9110 5.6.7).

    ``wall_clock`` (POSIX seconds) settles the century of a two-digit year: at most 50 years ahead.  Without it, 70 to
    99 are the 20th century.  The name of the day is not held against the date.
    """
    value = value.strip(_OWS)
    time = "(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})"
    month, year = "(?P<month>[A-Z][a-z]{2})", "(?P<year>[0-9]{4})"
    match = (
        re.fullmatch(rf"(?:{_DAYS}), (?P<day>[0-9]{{2}}) {month} {year} {time} GMT", value)
        or re.fullmatch(rf"(?:{_LONG_DAYS}), (?P<day>[0-9]{{2}})-{month}-(?P<year>[0-9]{{2}}) {time} GMT", value)
        or re.fullmatch(rf"(?:{_DAYS}) {month} (?P<day>[0-9]{{2}}| [0-9]) {time} {year}", value)
    )
    if match is None or match["month"] not in _MONTHS:
        return None
    date = int(match["year"]), _MONTHS.index(match["month"]) + 1, int(match["day"])
    hour, minute, second = map(int, match["time"].split(":"))
    if hour > 23 or minute > 59 or second > 60:  # 60: a leap second (RFC 9110 5.6.7)
        return None
    second += hour * 3600 + minute * 60
    if len(match["year"]) == 2:
        date = _whole_year(date, second, wall_clock), *date[1:]
    return _days(*date) * 86400 + second if _exists(*date) else None


def parse_digest_field(value: str) -> dict[str, bytes]:
    """Read Repr-Digest or Content-Digest: algorithm to digest, in the order sent (RFC 9530 2 and 3).

    The field is a dictionary of structured fields (RFC 9651); if any part of it is malformed, all of it is passed over
    and the answer is {}.  Members that are no byte sequence are left out.  Which algorithms to trust is the caller's
    affair.
    """
    try:
        return _digests(value.strip(" "))
    except ValueError:
        return {}


def percent_decoded(text: str) -> bytes:
    """Undo percent-encoding once (RFC 3986 2.1); a percent sign without two hex digits stands for itself."""
    octets = text.encode("utf-8", "surrogatepass")
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda pair: bytes.fromhex(pair[1].decode()), octets)


# Content-Disposition


def _parameters(value: str, position: int) -> dict[str, str] | None:
    quoted = r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]++|\\[^\x00-\x08\x0a-\x1f\x7f])*+)"'
    unquoted = r"([!#-:<>-~](?:[!#-:<>-~ ]*[!#-:<>-~])?+)"  # no quote, and no "=", which would mean a lost ";"
    parameter = re.compile(rf"[ \t]*+;[ \t]*+(?:({_TOKEN})[ \t]*+=[ \t]*+(?:{quoted}|{unquoted}))?+")
    found: dict[str, str] = {}
    while match := parameter.match(value, position):
        position = match.end()
        if match[1] is None:
            continue
        name = match[1].lower()
        if name in found:
            return None
        if match[2] is None:
            found[name] = match[3]
        else:  # RFC 8187 knows no quotes: a quoted filename* is malformed, which an empty one is too
            found[name] = "" if name.endswith("*") else re.sub(r"\\(.)", r"\1", match[2])
    return found if not value[position:].strip(_OWS) else None


def _extended(value: str) -> str | None:
    """Decode ``charset'language'percent-encoded`` (RFC 8187 3.2.1), of which UTF-8 and ISO-8859-1 are in use."""
    match = re.fullmatch(r"(?i:(utf-8)|iso-8859-1)'[^']*'((?:[!-$&-~ ]++|%[0-9A-Fa-f]{2})*+)", value)
    if match is None:
        return None
    try:
        return percent_decoded(match[2]).decode("utf-8" if match[1] else "latin-1")
    except UnicodeDecodeError:
        return None


def _utf8_or_latin1(value: str) -> str:
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


# File names

_FORBIDDEN = frozenset(
    '<>:"/\\|?*'  # Windows; the colon names an alternate stream of a file there
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # printable by their category, and yet nothing to see
)
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
    + [port + digit for port in ("COM", "LPT") for digit in "0123456789¹²³"]  # Windows takes these three for digits
)


def _component(name: str) -> str:
    from unicodedata import normalize

    name = name[max(name.rfind("/"), name.rfind("\\")) + 1 :]
    if len(name) > 1024:  # four times what may remain; normalising a hostile megabyte takes quadratic time
        name = name[:512] + name[-512:]
    name = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in normalize("NFC", name))
    name = name.lstrip(" ").rstrip(" .")
    body = name.lstrip(".-~")  # hidden, an option, a home folder
    name = _shorten("_" * (len(name) - len(body)) + body)
    if name.partition(".")[0].rstrip(" ").upper() in _DEVICES:  # "aux.txt" is the device too
        name = _shorten("_" + name)
    return name


def _shorten(name: str) -> str:
    if len(name.encode()) <= MAX_NAME:
        return name
    # Something longer than 24 characters behind the last dot is not an extension.
    extension = re.search(r"(?i:\.tar)?\.[^.]{1,24}\Z", name)
    stem, tail = (name, "") if extension is None else (name[: extension.start()], extension[0])
    return stem.encode()[: MAX_NAME - len(tail.encode())].decode("utf-8", "ignore").rstrip(" .") + tail


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# Dates

_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_LONG_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEAR = 31_556_952  # seconds of a mean Gregorian year: 365.2425 days


def _whole_year(date: tuple[int, int, int], second: int, wall_clock: float | None) -> int:
    year, month, day = date
    if wall_clock is None:
        return year + (1900 if year >= 70 else 2000)
    now = 1970 + int(wall_clock // _YEAR)
    year = now + (year - now) % 100
    ahead = _days(year, month, day) * 86400 + second - wall_clock
    return year - 100 if ahead > 50 * _YEAR else year


def _exists(year: int, month: int, day: int) -> bool:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= day <= _MONTH_DAYS[month - 1] and (leap or (month, day) != (2, 29))


def _days(year: int, month: int, day: int) -> int:
    """Count the days from 1970-01-01; the years of this sum begin in March, so that a leap day ends them."""
    year -= month < 3
    since_march = (153 * ((month + 9) % 12) + 2) // 5
    return 365 * year + year // 4 - year // 100 + year // 400 + since_march + day - 719469


# Structured fields

_KEY = r"([a-z*][a-z0-9_.*-]*+)"  # RFC 9651 3.1.2
_BASE64 = "[A-Za-z0-9+/]"
_BARE_ITEM = (
    rf"(:(?:{_BASE64}{{4}})*+(?:{_BASE64}{{2}}(?:==)?|{_BASE64}{{3}}=?)?:"  # Byte Sequence; 4.2.7: padding may lack
    r'|%"(?:[\x20\x21\x23\x24\x26-\x7e]++|%[0-9a-f]{2})*+"'  # Display String
    r'|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]++|\\["\\])*+"'  # String
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"  # Token
    r"|\?[01]"  # Boolean
    r"|-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15})"  # Decimal; Integer, Date
)


def _digests(value: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    position = 0
    while position < len(value):
        key, position = _expect(_KEY, value, position)
        found.pop(key, None)  # of a repeated key the last counts (RFC 9651 3.2)
        octets, position = _member(value, position)
        if octets is not None:
            found[key] = octets
        position = _skip(_OWS, value, position)
        if position < len(value):
            _, position = _expect(r"(,)[ \t]*+(?!\Z)", value, position)
    return found


def _member(value: str, position: int) -> tuple[bytes | None, int]:
    if not value.startswith("=", position):
        return None, _skip_parameters(value, position)
    if not value.startswith("(", position + 1):
        return _item(value, position + 1)
    position = _skip(" ", value, position + 2)
    while not value.startswith(")", position):
        _, position = _item(value, position)
        _, position = _expect(r"( ++|(?=\)))", value, position)
    return None, _skip_parameters(value, position + 1)


def _item(value: str, position: int) -> tuple[bytes | None, int]:
    octets, position = _bare_item(value, position)
    return octets, _skip_parameters(value, position)


def _skip_parameters(value: str, position: int) -> int:
    while value.startswith(";", position):
        _, position = _expect(_KEY, value, _skip(" ", value, position + 1))
        if value.startswith("=", position):
            _, position = _bare_item(value, position + 1)
    return position


def _bare_item(value: str, position: int) -> tuple[bytes | None, int]:
    item, end = _expect(_BARE_ITEM, value, position)
    if item.startswith('%"'):
        percent_decoded(item[2:-1]).decode("utf-8")  # UnicodeDecodeError is a ValueError (RFC 9651 4.2.10)
    if not item.startswith(":"):
        return None, end
    import binascii

    body = item[1:-1]
    return binascii.a2b_base64(body + "=" * (-len(body) % 4)), end


def _expect(pattern: str, value: str, position: int) -> tuple[str, int]:
    match = re.compile(pattern).match(value, position)
    if match is None:
        raise ValueError(f"malformed at {position}")
    return match[1], match.end()


def _skip(characters: str, value: str, position: int) -> int:
    while position < len(value) and value[position] in characters:
        position += 1
    return position

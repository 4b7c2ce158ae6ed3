"""What the text behind a flag means.  Each function raises ArgumentTypeError for what makes no sense."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Final

_HOST: Final = r"(\[[^]]*\]|[^][:]*)"


def field(text: str) -> tuple[str, str | None]:
    """Read a header field; a value of None drops it."""
    name, colon, value = text.partition(":")
    if not colon:
        raise ArgumentTypeError("a header field is written 'Name: value'")
    return name.strip(), value.strip() or None


def agent(text: str) -> tuple[str, str | None]:
    """Read a User-Agent field."""
    return "User-Agent", text or None


def referer(text: str) -> tuple[str, str]:
    """Take no user name, password or fragment along (RFC 9110 10.1.3)."""
    from rawdl.errors import InvalidURL
    from rawdl.proto.url import URL

    try:
        url = URL.parse(text)
    except InvalidURL as exc:
        raise ArgumentTypeError(str(exc)) from exc
    return "Referer", str(URL(url.scheme, url.host, url.port, None, url.path, url.query, None))


def range_of(text: str) -> tuple[str, str]:
    """Read a Range field (RFC 9110 14.1.2)."""
    if not re.fullmatch(r"[0-9]{1,19}-[0-9]{0,19}|-[0-9]{1,19}", text):  # no offset has more than 19 digits
        raise ArgumentTypeError(f"a range is written 0-499, 500- or -500, not {text}")
    first, _, last = text.partition("-")
    if first and last and int(first) > int(last):  # a server would send the whole file (RFC 9110 14.1.2)
        raise ArgumentTypeError(f"the range {text} ends before it begins")
    return "Range", f"bytes={text}"


def checksum(text: str) -> str:
    """Read the name of a hash and its value in hexadecimal."""
    from rawdl.proto.checksums import Checksum

    try:
        return str(Checksum.parse(text))
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from exc


def resolve(text: str) -> tuple[str, str]:
    """Read where a host and port are, as an entry of ``connect_to``."""
    match = re.fullmatch(rf"{_HOST}:([0-9]+):(.+)", text)
    if match is None:
        raise ArgumentTypeError(f"HOST:PORT:ADDRESS, not {text}")
    host, port, address = match.groups()
    bare = address.strip("[]")
    return f"{host}:{port}", f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def connect_to(text: str) -> tuple[str, str]:
    """Read where to connect instead, as an entry of ``connect_to``."""
    match = re.fullmatch(rf"{_HOST}:([0-9]+):{_HOST}:([0-9]+)", text)
    if match is None:
        raise ArgumentTypeError(f"HOST:PORT:HOST:PORT, not {text}")
    return f"{match[1]}:{match[2]}", f"{match[3]}:{match[4]}"


def _number(text: str, least: int) -> int:
    with suppress(ValueError):
        count = int(text)
        if count >= least:
            return count
    raise ArgumentTypeError(f"{text} is not a whole number from {least} on")


def count(text: str) -> int:
    """Read a whole number."""
    return _number(text, 0)


def count_from_one(text: str) -> int:
    """Read a whole number above 0."""
    return _number(text, 1)


def tries(text: str) -> int:
    """Read a number of repetitions, as one of tries."""
    return _number(text, 0) + 1


def seconds(text: str) -> float:
    """Read a time."""
    return _above_zero(text, "number of seconds")


def rate(text: str) -> float:
    """Read how often a second something is to be."""
    return _above_zero(text, "number")


def _above_zero(text: str, what: str) -> float:
    with suppress(ValueError):
        number = float(text)
        if isfinite(number) and number > 0:
            return number
    raise ArgumentTypeError(f"{text} is not a {what} above 0")


def size(text: str) -> int:
    """Read a number of bytes, with K, M or G behind it (1024)."""
    unit = "KMG".find(text[-1:].upper()) + 1 if text else 0
    with suppress(ValueError):
        number = int(text[:-1] if unit else text) << (10 * unit)
        if number > 0:
            return number
    raise ArgumentTypeError(f"{text} is not a size above 0, such as 500K, 256M or 1G")


def progress(text: str) -> str:
    """Read how progress is shown."""
    kinds = ("auto", "bars", "line", "log", "json", "none")
    if text not in kinds:
        raise ArgumentTypeError(f"one of {', '.join(kinds)}, not {text}")
    if text == "bars":
        from importlib.util import find_spec

        if find_spec("rich") is None:
            raise ArgumentTypeError("bars need rich: pip install 'rawdl[cli]'")
    return text


def file(text: str) -> str:
    """Read the name of a file."""
    if not text:
        raise ArgumentTypeError("an empty file name was given")
    return text


def joined(fields: Sequence[tuple[str, str | None]]) -> dict[str, str | None]:
    """Join fields that were given more than once, as a recipient may do (RFC 9110 5.3; cookies: RFC 6265 5.4)."""
    header: dict[str, str | None] = {}
    spelling: dict[str, str] = {}
    for given, value in fields:
        name = spelling.setdefault(given.lower(), given)
        before = header.get(name)
        separator = "; " if name.lower() == "cookie" else ", "
        header[name] = value if before is None or value is None else f"{before}{separator}{value}"
    return header

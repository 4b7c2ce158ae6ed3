"""A file of options that hold for every download: ``limit-rate = 2M``, one a line, by their long names.

A line that begins with ``#`` is a comment.  A value goes to the end of its line and needs no quotes; an option without
one stands alone.  What the command line says goes before it.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rawdl.cli.grammar import Parser

_NONE: Final = "none"
_LINE: Final = re.compile(r"(?:--)?([a-z0-9][a-z0-9-]*)(?:\s*=\s*(.*))?")
_NOT_HERE: Final = ("config", "help", "version", "print-completion")


def with_config(given: Namespace, parser: Parser) -> Namespace:
    """Add what the file says to what the command line has said; complain about a line that makes no sense."""
    path = vars(given).pop("config", None)
    if path == _NONE:
        return given
    found = _read(path or _usual_path(), parser, must_be=path is not None)
    said = {name.lower() for name, _ in given.header}
    found.header = [field for field in getattr(found, "header", []) if field[0].lower() not in said]
    return _merged(found, given)


def _usual_path() -> str:
    """Return where it is if nothing else was said (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.config"), "rawdl", "config")


def _read(path: str, parser: Parser, *, must_be: bool) -> Namespace:
    found = Namespace()
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError) as exc:
        if must_be:
            parser.error(f"--config: {path}: {exc.strerror}")
        return found
    except (OSError, UnicodeDecodeError) as exc:
        parser.error(f"{path}: {'it is not UTF-8' if isinstance(exc, UnicodeDecodeError) else exc.strerror or exc}")
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        parser.place = f"{path}, line {number}: "
        match = _LINE.fullmatch(line)
        if match is None:
            parser.error("an option and its value are written limit-rate = 2M")
        word = f"--{match[1]}" if match[2] is None else f"--{match[1]}={match[2]}"
        more, unknown = (Namespace(), [word]) if match[1] in _NOT_HERE else parser.parse_known_args([word])
        if unknown:
            parser.error(f"there is no option {match[1]} here")
        found = _merged(found, more)
    parser.place = ""
    return found


def _merged(before: Namespace, after: Namespace) -> Namespace:
    """Return both; where they contradict, the later counts, and lists are one."""
    merged = {**vars(before), **vars(after)}
    for name, value in vars(before).items():
        if isinstance(value, list):
            merged[name] = [*value, *getattr(after, name, [])]
    return Namespace(**merged)

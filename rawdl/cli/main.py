"""The grammar of the command line, and which command runs."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite
from typing import Final, NoReturn, TextIO

from rawdl.version import __version__

_STORAGE: Final = 23  # `report` says what it means
_INTERRUPTED: Final = 130

_DESCRIPTION: Final = """\
Download each URL into a file, all at once, over HTTP/1.1.

rawdl get URL... is the same; rawdl demo shows what the library does, without
a network (rawdl demo --help)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = _COMMANDS.get(arguments[0]) if arguments else None
    try:
        status = _get(arguments) if command is None else command(arguments[1:])
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        print("rawdl: interrupted", file=sys.stderr)
        status = _INTERRUPTED
    except BrokenPipeError:
        status = _STORAGE
    return status if _flushed() else status or _STORAGE


class Parser(ArgumentParser):
    """An argument parser whose complaints are one line."""

    def __init__(self, prog: str, description: str, usage: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_Help,
            allow_abbrev=False,  # what a new option would change the meaning of
            add_help=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print it and exit."""
        from rawdl.proto.fields import escape

        self.exit(2, f"rawdl: {escape(message)} (rawdl --help tells more)\n")


def _get(arguments: list[str]) -> int:
    parser = _get_parser()
    given = parser.parse_intermixed_args(arguments)
    _check(parser, given.urls, given.output, given.directory, given.json)

    from rawdl.cli import get
    from rawdl.cli.report import UsageError

    options = get.Options(
        urls=given.urls,
        output=given.output,
        directory=given.directory,
        header=_joined(given.header),
        ca_file=given.cacert,
        verify=not given.insecure,
        timeout=given.timeout,
        quiet=given.quiet,
        json=given.json,
    )
    try:
        return get.run(options)
    except UsageError as exc:
        parser.error(str(exc))


def _check(parser: Parser, urls: Sequence[str], output: str | None, directory: str | None, json: bool) -> None:
    """Refuse what does not go together."""
    if not urls:
        parser.error("no URL was given")
    if output is not None and len(urls) > 1:
        parser.error(f"-o names one file, but there are {len(urls)} URLs")
    if output == "-" and json:
        parser.error("-o - and --json both want standard output")
    if output == "" or directory == "":
        parser.error("an empty file name was given")


def _get_parser() -> Parser:
    usage = "rawdl URL... [-o FILE | -d DIR] [options]"
    parser = Parser("rawdl", _DESCRIPTION, usage, _exit_codes())
    add = parser.add_argument
    field_help = "add, or replace, a header field; 'K:' drops it"
    add("urls", nargs="*", metavar="URL", help=SUPPRESS)
    add("-o", "--output", metavar="FILE", help="save there; - is standard output")
    add("-d", "--directory", metavar="DIR", help="save in this folder, which is made")
    add("-H", "--header", metavar="'K: V'", action="append", default=[], type=_field, help=field_help)
    add("--cacert", metavar="FILE", help="trust the certificates in this PEM file, and no other")
    add("-k", "--insecure", action="store_true", help="do not verify certificates")
    add("--timeout", metavar="S", type=_seconds, help="give up after so many seconds in total")
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("--json", action="store_true", help="print events as lines of JSON on standard output")
    add("--version", action="version", version=f"rawdl {__version__}", help="print the version")
    add("-h", "--help", action="help", help="print this")
    return parser


def _demo(arguments: list[str]) -> int:
    parser = Parser("rawdl demo", _DEMO)
    size_help = "bytes to download; K, M, G are 1024-based; 256M if not given"
    parser.add_argument("--size", metavar="N", type=_size, default=256 << 20, help=size_help)
    parser.add_argument("-h", "--help", action="help", help="print this")
    given = parser.parse_args(arguments)

    from rawdl.cli import demo

    return demo.run(given.size)


_DEMO: Final = """\
Download from an origin on this machine, a child process, over http and https:
header event, progress, checksum, abort. Needs no network, leaves no file."""

_COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {"get": _get, "demo": _demo}


class _Help(RawDescriptionHelpFormatter):
    """Help that keeps its line breaks, with the flags and their help on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)  # fixed: to ask the terminal costs an import

    def _format_action_invocation(self, action: Action) -> str:
        """Name the value once, as Python 3.13 does: ``-o, --output FILE``."""
        value = "" if action.nargs == 0 else f" {action.metavar}"
        return ", ".join(action.option_strings) + value


def _exit_codes() -> str:
    from rawdl.cli.report import CAUSES

    entries = [f"{code:>5} {meaning}".ljust(26) for code, meaning in [(0, "all saved"), *(c[:2] for c in CAUSES)]]
    lines = ("".join(entries[at : at + 3]).rstrip() for at in range(0, len(entries), 3))
    return "\n".join(["exit status (of several failures, the first URL's):", *lines])


def _joined(fields: Sequence[tuple[str, str | None]]) -> dict[str, str | None]:
    """Join fields that were given more than once, as a recipient may do (RFC 9110 5.3; cookies: RFC 6265 5.4)."""
    header: dict[str, str | None] = {}
    spelling: dict[str, str] = {}
    for given, value in fields:
        name = spelling.setdefault(given.lower(), given)
        before = header.get(name)
        separator = "; " if name.lower() == "cookie" else ", "
        header[name] = value if before is None or value is None else f"{before}{separator}{value}"
    return header


def _field(text: str) -> tuple[str, str | None]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ArgumentTypeError("a header field is written 'Name: value'")
    return name.strip(), value.strip() or None


def _seconds(text: str) -> float:
    with suppress(ValueError):
        seconds = float(text)
        if isfinite(seconds) and seconds > 0:
            return seconds
    raise ArgumentTypeError(f"{text} is not a number of seconds above 0")


def _size(text: str) -> int:
    unit = "KMG".find(text[-1:].upper()) + 1 if text else 0
    with suppress(ValueError):
        size = int(text[:-1] if unit else text) << (10 * unit)
        if size > 0:
            return size
    raise ArgumentTypeError(f"{text} is not a size above 0, such as 500K, 256M or 1G")


def _flushed() -> bool:
    """Write out what is left for standard output, so that the interpreter has nothing to complain about at its exit."""
    stream: TextIO | None = sys.stdout  # None if the descriptor is closed
    if stream is None:
        return True
    try:
        stream.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return False
    return True

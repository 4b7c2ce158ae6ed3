"""Which command runs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TextIO

# All else is imported where somebody who interrupts it is answered.

_STORAGE: Final = 23  # `report` says what it means
_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = _COMMANDS.get(arguments[0]) if arguments else None
    try:
        status = _get(arguments) if command is None else command(arguments[1:])
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        _complain("interrupted")
        status = _INTERRUPTED
    except OSError as exc:  # of what is printed: any other is translated where it is known
        status = _unprinted(exc)
    if (error := _flush(sys.stdout)) is not None:
        status = status or _unprinted(error)
    _flush(sys.stderr)
    return status


def _get(arguments: list[str]) -> int:
    from argparse import ArgumentTypeError

    from rawdl.cli.config import with_config
    from rawdl.cli.grammar import get_parser, objection_to

    parser = get_parser()
    given = with_config(parser.parse_intermixed_args(arguments), parser)
    if objection := objection_to(given):
        parser.error(objection)

    from rawdl.cli import get
    from rawdl.cli.conceal import conceal, in_fields, in_options
    from rawdl.cli.options import options_of
    from rawdl.cli.report import UsageError

    conceal(arguments, in_fields(given.header) + in_options(given))
    try:
        return get.run(options_of(given))
    except (UsageError, ArgumentTypeError) as exc:
        parser.error(str(exc))


def _bench(arguments: list[str]) -> int:
    from rawdl.cli.bench import command

    return command.main(arguments)


def _demo(arguments: list[str]) -> int:
    from rawdl.cli.grammar import Parser
    from rawdl.cli.values import size

    parser = Parser("rawdl demo", _DEMO)
    size_help = "bytes to download; K, M, G are 1024-based; 256M if not given"
    parser.add_argument("--size", metavar="N", type=size, default=256 << 20, help=size_help)
    parser.add_argument("-h", "--help", action="help", help="print this")
    given = parser.parse_args(arguments)

    from rawdl.cli import demo

    return demo.run(given.size)


def _record(arguments: list[str]) -> int:
    from rawdl.cli import record

    return record.main(arguments)


def _replay(arguments: list[str]) -> int:
    from rawdl.cli import replay

    return replay.main(arguments)


_DEMO: Final = """\
Download from an origin on this machine, a child process, over http and https:
header event, progress, checksum, abort. Needs no network, leaves no file."""

_COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "bench": _bench,
    "get": _get,
    "demo": _demo,
    "record": _record,
    "replay": _replay,
}


def _complain(text: str) -> None:
    from rawdl.cli.report import complain

    complain(f"rawdl: {text}")


def _unprinted(exc: OSError) -> int:
    """Say why nothing can be printed, unless the reader has gone."""
    if exc.errno != errno.EPIPE:
        _complain(str(exc).removeprefix(f"[Errno {exc.errno}] "))
    return _STORAGE


def _flush(stream: TextIO | None) -> OSError | None:
    """Write out what is left of an output, so that the interpreter has nothing to complain about at its exit.

    None is one whose descriptor is closed.
    """
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as exc:
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return exc
    return None

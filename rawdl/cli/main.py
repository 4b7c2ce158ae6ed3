"""The grammar of the command line, and which command runs."""

from __future__ import annotations

import os
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from rawdl.version import __version__

if TYPE_CHECKING:
    from rawdl.cli.options import Options
    from rawdl.proto.auth import Credentials

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
    if objection := _objection(given):
        parser.error(objection)

    from rawdl.cli import get
    from rawdl.cli.conceal import conceal
    from rawdl.cli.report import UsageError

    conceal(_secrets(given))

    try:
        return get.run(_options(given))
    except (UsageError, ArgumentTypeError) as exc:
        parser.error(str(exc))


def _objection(given: Namespace) -> str | None:
    """Return what does not go together, or None."""
    count = len(given.urls)
    if not count:
        return "no URL was given"
    for flag, value in (("-o", given.output), ("--checksum", given.checksum)):
        if value is not None and count > 1:
            return f"{flag} is for one file, but there are {count} URLs"
    if given.output == "-" and given.json:
        return "-o - and --json both want standard output"
    if given.output == "-" and given.resume is True:
        return "-c goes on with a file, and -o - makes none"
    if given.compressed and given.resume is True:
        return "-c goes on where the bytes end, which --compressed cannot"
    if given.digest and given.user is None:
        return "--digest needs a user: -u USER"
    if given.key_password_file is not None and given.cert is None:
        return "--key-password-file is for the key of a certificate: --cert FILE"
    if given.output is not None and given.suggested_name:
        return "-o and -J both name the file"
    if "" in (given.output, given.directory, given.cookie_jar):
        return "an empty file name was given"
    return None


def _secrets(given: Namespace) -> list[str]:
    """Return patterns for what must not stay in the list of processes."""
    from rawdl.cli.conceal import USERINFO

    secrets = [rf"{re.escape(name)}[ \t]*:[ \t]*({re.escape(value)})" for name, value in given.header if value]
    if given.user is not None:
        secrets.append(rf"({re.escape(given.user)})\0")
    return [*secrets, USERINFO] if any("@" in text for text in (*given.urls, given.proxy)) else secrets


def _options(given: Namespace) -> Options:
    from rawdl.cli.options import Options

    return Options(
        urls=given.urls,
        output=given.output,
        directory=given.directory,
        use_suggested_name=given.suggested_name,
        exists=given.exists,
        resume=given.resume,
        checksum=given.checksum,
        remote_time=given.remote_time,
        decode=given.compressed,
        header=_joined(given.header),
        auth=_credentials(given.user, digest=given.digest),
        netrc=given.netrc,
        cookies=given.cookies,
        cookie_jar=given.cookie_jar,
        proxy=None if given.proxy == "none" else given.proxy,
        ca_file=given.cacert,
        client_cert=given.cert,
        client_key=given.key,
        key_password_file=given.key_password_file,
        pins=tuple(given.pin),
        verify=not given.insecure,
        timeout=given.timeout,
        retries=given.retries,
        max_redirects=given.max_redirects,
        allow_downgrade=given.allow_downgrade,
        quiet=given.quiet,
        json=given.json,
    )


def _get_parser() -> Parser:
    usage = "rawdl URL... [-o FILE | -d DIR] [options]"
    parser = Parser("rawdl", _DESCRIPTION, usage, _exit_codes())
    parser.add_argument("urls", nargs="*", metavar="URL", help=SUPPRESS)
    _add_file_options(parser)
    _add_network_options(parser)
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("--json", action="store_true", help="print events as lines of JSON on standard output")
    add("--version", action="version", version=f"rawdl {__version__}", help="print the version")
    add("-h", "--help", action="help", help="print this")
    return parser


def _add_file_options(parser: Parser) -> None:
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="save there; - is standard output")
    add("-d", "--directory", metavar="DIR", help="save in this folder, which is made")
    suggested_help = "save under the server's name for it; no file is replaced"
    add("-J", "--suggested-name", action="store_true", help=suggested_help)
    store, add = "store_const", parser.add_mutually_exclusive_group().add_argument
    exists_help = "replace a file that is there (the default)"
    add("--overwrite", dest="exists", action=store, const="overwrite", default="overwrite", help=exists_help)
    add("--no-clobber", dest="exists", action=store, const="error", help="fail instead")
    add("--skip-existing", dest="exists", action=store, const="skip", help="leave it, and ask the server for nothing")
    add = parser.add_mutually_exclusive_group().add_argument
    continue_help = "fail if a FILE.part is there and cannot be continued"
    add("-c", "--continue", dest="resume", action=store, const=True, default="auto", help=continue_help)
    add("--no-resume", dest="resume", action=store, const=False, help="begin anew in any case, and keep no FILE.part")
    add = parser.add_argument
    add("--checksum", metavar="NAME:HEX", type=_checksum, help="fail if it is not that; as in sha256:9f86d0...")
    add("-R", "--remote-time", action="store_true", help="date the file as the server does (Last-Modified)")


def _add_network_options(parser: Parser) -> None:
    add = parser.add_argument
    field_help = "add, or replace, a header field; 'K:' drops it"
    add("-H", "--header", metavar="'K: V'", action="append", default=[], type=_field, help=field_help)
    add("-u", "--user", metavar="USER", help="log in, as USER:PASSWORD, or the password is asked for")
    add("--digest", action="store_true", help="prove the password by a digest instead of sending it")
    add("-n", "--netrc", action="store_true", help="look for passwords in ~/.netrc")
    proxy_help = "go by this proxy, in place of the environment's; none: by none"
    add("-x", "--proxy", metavar="URL", default="env", help=proxy_help)
    add("--cookies", metavar="FILE", help="send the cookies in this file (Netscape's format)")
    add("--cookie-jar", metavar="FILE", help="write all cookies there in the end (may be the same)")
    add("--cacert", metavar="FILE", help="trust the certificates in this PEM file, and no other")
    add("--compressed", action="store_true", help="ask for compressed content, and save it decompressed")
    add("-E", "--cert", metavar="FILE", help="show this client certificate (PEM, with its key)")
    add("--key", metavar="FILE", help="the key of it, if it is in a file of its own")
    password_help = "its first line opens the key; -: standard input's"
    add("--key-password-file", metavar="FILE", help=password_help)
    pin_help = "accept this public key only: sha256// and base64"
    add("--pin", metavar="KEY", action="append", default=[], help=pin_help)
    add("-k", "--insecure", action="store_true", help="do not verify certificates")
    add("--timeout", metavar="S", type=_seconds, help="give up after so many seconds in total")
    retries_help = "try again so often, with no new byte in between (4)"
    add("--retries", metavar="N", type=_count, default=4, help=retries_help)
    add("--max-redirects", metavar="N", type=_count, default=10, help="follow so many redirects, or none (10)")
    add("--allow-downgrade", action="store_true", help="follow redirects from https to http as well")


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

    entries = [f"{code:>5} {meaning}".ljust(27) for code, meaning in [(0, "all saved"), *(c[:2] for c in CAUSES)]]
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


def _credentials(user: str | None, *, digest: bool) -> Credentials | None:
    if user is None:
        return None
    from rawdl.cli.prompt import asked
    from rawdl.proto.auth import BasicAuth, DigestAuth

    name, colon, password = user.partition(":")
    if not colon:
        password = asked("-u", name)
    try:
        return DigestAuth(name, password) if digest else BasicAuth(name, password)
    except ValueError as exc:
        raise ArgumentTypeError(f"-u: {exc}") from exc


def _field(text: str) -> tuple[str, str | None]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ArgumentTypeError("a header field is written 'Name: value'")
    return name.strip(), value.strip() or None


def _checksum(text: str) -> str:
    from rawdl.proto.checksums import Checksum

    try:
        return str(Checksum.parse(text))
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from exc


def _count(text: str) -> int:
    with suppress(ValueError):
        count = int(text)
        if count >= 0:
            return count
    raise ArgumentTypeError(f"{text} is not a whole number from 0 on")


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

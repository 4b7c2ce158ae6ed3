"""The grammar of ``rawdl URL...``: which words become which options.

The name that argparse keeps a value under says where it goes: ``task.x`` is an option of `Client.download_file`,
``client.x`` one of `Client`, and ``tls.x``, ``retry.x``, ``redirects.x``, ``timeouts.x`` and ``limits.x`` are fields of
what has that name there.  What is not given is not there, and the library's own default holds.
"""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

from rawdl.cli import values
from rawdl.version import __version__

_DESCRIPTION: Final = """\
Download each URL into a file, all at once, over HTTP/1.1.
Also: rawdl bench, demo, record and replay, each with a --help."""
COMMANDS: Final = ("bench", "demo", "get", "record", "replay")


class Parser(ArgumentParser):
    """An argument parser whose complaints are one line, which begins with the ``place`` of what is wrong."""

    place = ""

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

        self.exit(2, f"rawdl: {escape(self.place + message)} (rawdl --help tells more)\n")


class _Help(RawDescriptionHelpFormatter):
    """Help that keeps its line breaks, with the flags and their help on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=29, width=79)  # fixed: to ask the terminal costs an import

    def _format_action_invocation(self, action: Action) -> str:
        """Name the value once, as Python 3.13 does: ``-o, --output FILE``."""
        value = "" if action.nargs == 0 else f" {action.metavar}"
        return ", ".join(action.option_strings) + value


class _HelpAction(Action):
    """Print the common options, or with ``all`` every one and the exit codes."""

    def __call__(self, parser: ArgumentParser, given: Namespace, value: Any, option: str | None = None) -> None:
        if value not in (None, "all"):
            parser.error(f"--help or --help all, not --help {value}")
        get_parser(everything=value == "all").print_help()
        parser.exit()


class _CompletionAction(Action):
    """Print a script for a shell."""

    def __call__(self, parser: ArgumentParser, given: Namespace, value: Any, option: str | None = None) -> None:
        from rawdl.cli.completion import SHELLS, completion

        if value not in SHELLS:
            parser.error(f"{option} knows {', '.join(SHELLS)}, not {value}")
        print(completion(value, get_parser(everything=True), COMMANDS), end="")
        parser.exit()


def get_parser(*, everything: bool = False) -> Parser:
    """Make the parser; its help has the common options only, unless it is to have ``everything``."""
    usage = "rawdl URL... [-o FILE | -d DIR] [options]"
    epilog = _exit_codes() if everything else "rawdl --help all has the other options, and the exit codes."
    parser = Parser("rawdl", _DESCRIPTION, usage, epilog)
    parser.add_argument("urls", nargs="*", metavar="URL", help=SUPPRESS)
    for title, table in _TABLES.items():
        group = parser.add_argument_group(title) if everything else parser
        add_entries(group, table, lambda flags: everything or not _COMMON.isdisjoint(flags))
    add = parser.add_argument
    add("--version", action="version", version=f"rawdl {__version__}", help=SUPPRESS)
    shells = "print what bash, fish or zsh needs to complete our words" if everything else SUPPRESS
    nowhere: dict[str, Any] = {"dest": SUPPRESS, "default": SUPPRESS}
    add("--print-completion", action=_CompletionAction, metavar="SHELL", help=shells, **nowhere)
    add("-h", "--help", nargs="?", action=_HelpAction, metavar="[all]", help="print this, or all there is", **nowhere)
    return parser


def add_entries(group: Any, table: Iterable[Entry], shown: Callable[[Sequence[str]], bool] = bool) -> None:
    """Add options to a parser or a group of one, and their help where it is to be ``shown``."""
    exclusive: dict[str, Any] = {}
    for names, dest, text, more in table:
        flags, settings = names.split(), {"default": SUPPRESS, **more}
        place: Any = group
        if (name := settings.pop("exclusive", None)) is not None:
            place = exclusive.setdefault(name, None) or group.add_mutually_exclusive_group()
            exclusive[name] = place
        place.add_argument(*flags, dest=dest, help=text if shown(flags) else SUPPRESS, **settings)


def entries(*flags: str) -> list[Entry]:
    """Return the options that have these flags, for a command that has them too."""
    return [entry for table in _TABLES.values() for entry in table if not set(flags).isdisjoint(entry[0].split())]


def _exit_codes() -> str:
    from rawdl.cli.report import CAUSES

    entries = [f"{code:>5} {meaning}".ljust(27) for code, meaning in [(0, "all saved"), *(c[:2] for c in CAUSES)]]
    lines = ("".join(entries[at : at + 3]).rstrip() for at in range(0, len(entries), 3))
    return "\n".join(["exit status (of several failures, the first URL's):", *lines])


# The options

Entry = tuple[str, str, str, dict[str, Any]]  # flags, where the value goes, help, and what argparse needs


def _flag(flags: str, to: str, text: str, value: object = True, **more: Any) -> Entry:
    return flags, to, text, {"action": "store_const", "const": value, **more}


def _value(flags: str, to: str, name: str, text: str, kind: Callable[[str], object] = str, **more: Any) -> Entry:
    return flags, to, text, {"type": kind, "metavar": name, **more}


def _list(flags: str, to: str, name: str, text: str, kind: Callable[[str], object] = str) -> Entry:
    return _value(flags, to, name, text, kind, action="append", default=[])


_FILES: Final = (
    _value("-o --output", "output", "FILE", "save there; - is standard output", values.file),
    _value("-d --directory", "directory", "DIR", "save in this folder, which is made", values.file),
    _flag("-J --suggested-name", "suggested", "save under the server's name; no file is replaced"),
    _value("-i --input-file", "input_file", "FILE", "read URLs from this file too; - is standard input", values.file),
    _flag("--create-dirs", "create_dirs", "make the folders in -o as well"),
    _flag("--overwrite", "task.exists", "replace a file that is there (the default)", "overwrite", exclusive="exists"),
    _flag("--no-clobber", "task.exists", "fail where a file is there", "error", exclusive="exists"),
    _flag("--skip-existing", "task.exists", "leave it, and ask the server for nothing", "skip", exclusive="exists"),
    _flag("--rename", "task.exists", "save beside it, as a.1.iso beside a.iso", "rename", exclusive="exists"),
    _flag("-c --continue", "task.resume", "fail if FILE.part cannot be continued", exclusive="resume"),
    _flag("--no-resume", "task.resume", "begin anew in any case, and keep no FILE.part", False, exclusive="resume"),
    _value("--checksum", "task.checksum", "NAME:HEX", "fail if it is not that, as in sha256:9f86d0..", values.checksum),
    _flag("-R --remote-time", "task.remote_time", "date the file as the server does (Last-Modified)"),
    _flag("--fsync", "task.durable", "have the file on the disk before success is told"),
    _value("--max-filesize", "limits.body", "SIZE", "fail if it is larger; K, M, G are 1024-based", values.size),
    _flag("--compressed", "task.decode", "ask for compressed content, and save it decompressed"),
    _flag("--no-fail", "task.fail_on_status", "save the body of a 4xx or 5xx as well", False),
    _flag("--dry-run", "dry_run", "say what would be saved where, and ask nobody"),
)
_REQUESTS: Final = (
    _list("-H --header", "header", "'K: V'", "add, or replace, a header field; 'K:' drops it", values.field),
    _list("-A --user-agent", "header", "NAME", "be called that", values.agent),
    _list("-e --referer", "header", "URL", "say that this URL led there", values.referer),
    _list("-r --range", "header", "RANGE", "ask for these bytes only: 0-499, 500- or -500", values.range_of),
    _value("-u --user", "user", "USER", "log in; as USER:PASSWORD, or you are asked for it"),
    _flag("--digest", "digest", "prove the password instead of sending it"),
    _value("--oauth2-bearer", "bearer", "TOKEN", "log in by a token"),
    _flag("-n --netrc", "client.netrc", "look for passwords in ~/.netrc"),
    _value("--netrc-file", "client.netrc", "FILE", "look for passwords there", values.file),
    _value("-b --cookie", "cookie", "DATA|FILE", "send a=b, or the cookies of a Netscape file", values.file),
    _value("--cookie-jar", "cookie_jar", "FILE", "write all cookies there in the end (may be the same)", values.file),
    _value("--max-redirects", "redirects.limit", "N", "follow so many redirects, or none (10)", values.count),
    _flag("--allow-downgrade", "redirects.allow_downgrade", "follow redirects from https to http as well"),
)
_CONNECTIONS: Final = (
    _value("-j --parallel-max", "client.max_concurrent", "N", "so many files at once (10)", values.count_from_one),
    _value("-x --connections", "task.connections", "N", "so many connections for each file (1)", values.count_from_one),
    _value("--proxy", "client.proxy", "URL", "go by this proxy, or by none"),
    _value("--noproxy", "no_proxy", "LIST", "but not to these hosts; * is all of them"),
    _flag("-4 --ipv4", "client.family", "use IPv4 addresses only", "ipv4", exclusive="family"),
    _flag("-6 --ipv6", "client.family", "use IPv6 addresses only", "ipv6", exclusive="family"),
    _value("--interface", "client.local_address", "ADDRESS", "connect from this address of ours"),
    _list("--resolve", "elsewhere", "H:P:ADDRESS", "connect to this address for host H and port P", values.resolve),
    _list("--connect-to", "elsewhere", "H:P:H:P", "connect to the second for the first", values.connect_to),
    _value("--unix-socket", "client.unix_socket", "PATH", "connect to this Unix socket", values.file),
)
_TLS: Final = (
    _value("--cacert", "tls.ca_file", "FILE", "trust the certificates in this PEM file only", values.file),
    _value("--capath", "tls.ca_dir", "DIR", "trust those in this folder only (hashed by OpenSSL)", values.file),
    _value("-E --cert", "tls.client_cert", "FILE", "show this client certificate (PEM, with its key)", values.file),
    _value("--key", "tls.client_key", "FILE", "the key of it, if it is in a file of its own", values.file),
    _value("--key-password-file", "key_password_file", "FILE", "what opens it: the first line of that", values.file),
    _list("--pinnedpubkey", "tls.pins", "KEY", "accept this public key only: sha256// and base64"),
    _value("--tls-min", "tls.minimum_version", "VERSION", "speak at least 1.2 (the default) or 1.3"),
    _flag("-k --insecure", "tls.verify", "do not verify certificates", False),
)
_TIMES: Final = (
    _value("--timeout", "task.timeout", "S", "give up after so many seconds in total", values.seconds),
    _value("--connect-timeout", "timeouts.setup", "S", "or if there is no connection after so many", values.seconds),
    _value("--idle-timeout", "timeouts.idle", "S", "or if nothing comes for so many (60)", values.seconds),
    _value("--speed-limit", "speed_limit", "SIZE", "or if it is slower than that a second", values.size),
    _value("--speed-time", "speed_time", "S", "for so many (30)", values.seconds),
    _value("--limit-rate", "client.rate_limit", "SIZE", "be no faster than that a second, all together", values.size),
    _value("--retries", "retry.attempts", "N", "try again N times in a row without a new byte (4)", values.tries),
    _value("--retry-delay", "retry.backoff", "S", "wait so long each time, not longer and longer", values.seconds),
    _value("--retry-max-time", "retry.max_time", "S", "stop trying when no byte has come for so long", values.seconds),
)
_OUTPUT: Final = (
    _flag("-q --quiet", "quiet", "print errors only"),
    _flag("-v --verbose", "verbose", "print each step, and the header fields"),
    _value("--trace", "trace", "FILE", "write each step there, as lines of JSON", values.file),
    _flag("--json", "json", "print events as lines of JSON on standard output"),
    _value("--progress", "progress", "KIND", "show it as bars, line, log, json or none (auto)", values.progress),
    _value("--config", "config", "FILE", "read options there, not ~/.config/rawdl/config; none: nowhere", values.file),
    _value("-w --write-out", "write_out", "FORMAT", "print that after each file; %%{...} as curl has it"),
)
_TABLES: Final = {
    "files": _FILES,
    "requests": _REQUESTS,
    "connections": _CONNECTIONS,
    "TLS": _TLS,
    "time": _TIMES,
    "output": _OUTPUT,
}
# What the short help has: it is to fit on one screen.
_COMMON: Final = {"-o", "-d", "-J", "-c", "--checksum", "-H", "-u", "-x", "--proxy", "-k", "--timeout"} | {
    *("--limit-rate", "--retries", "-q", "-v")
}


def objection_to(given: Namespace) -> str | None:
    """Return what does not go together, or None."""
    has = vars(given).__contains__
    count = len(given.urls)
    if not count and not has("input_file"):
        return "no URL was given"
    for flag, name in (("-o", "output"), ("--checksum", "task.checksum")):
        if has(name) and (count > 1 or has("input_file")):
            return f"{flag} is for one file, but there are {'more of them in -i' if count < 2 else f'{count} URLs'}"
    return next((text for broken, text in _rules(given) if broken), None)


def _rules(given: Namespace) -> Iterable[tuple[bool, str]]:
    """Return of each contradiction whether it is there, and what is to be said of it."""
    has = vars(given).__contains__
    pipes = has("output") and given.output == "-"
    resumes = getattr(given, "task.resume", None) is True
    return (
        (pipes and has("json"), "-o - and --json both want standard output"),
        (pipes and getattr(given, "progress", "") == "json", "-o - and --progress=json both want standard output"),
        (pipes and resumes, "-c goes on with a file, and -o - makes none"),
        (resumes and has("task.decode"), "-c goes on where the bytes end, which --compressed cannot"),
        (
            getattr(given, "task.connections", 1) > 1 and has("task.decode"),
            "-x takes it in pieces, which --compressed cannot",
        ),
        (has("digest") and not has("user"), "--digest needs a user: -u USER"),
        (has("user") and has("bearer"), "-u and --oauth2-bearer both log in"),
        (
            has("key_password_file") and not has("tls.client_cert"),
            "--key-password-file is for the key of a certificate: --cert FILE",
        ),
        (has("tls.client_key") and not has("tls.client_cert"), "--key is of no use without --cert FILE"),
        (has("output") and has("suggested"), "-o and -J both name the file"),
        (
            getattr(given, "input_file", "") == getattr(given, "key_password_file", None) == "-",
            "-i - and --key-password-file - both read standard input",
        ),
        (
            has("client.unix_socket") and bool(given.elsewhere),
            "--unix-socket goes there for every host, whatever --resolve says",
        ),
    )


def grouped(given: Namespace) -> dict[str, dict[str, Any]]:
    """Return the values by what stands before the dot of their names; "" has those without one."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in vars(given).items():
        group, _, option = name.rpartition(".")
        if value != []:
            groups.setdefault(group, {})[option] = value
    return groups

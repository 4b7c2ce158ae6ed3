"""``rawdl bench [URL]``: what is asked for, what is run, and the exit status."""

from __future__ import annotations

import errno
import os
import sys
import time
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib import resources
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, TextIO

from rawdl.cli.bench import machine
from rawdl.cli.bench.drafts import Draft
from rawdl.cli.bench.load import Load, Plan, Record, punctual
from rawdl.cli.bench.origin import origin
from rawdl.cli.bench.summary import document
from rawdl.cli.bench.table import spelled, table
from rawdl.cli.bench.terminal import heading, interval_line, report
from rawdl.cli.conceal import conceal, in_fields, in_options
from rawdl.cli.grammar import Parser, add_entries, entries, grouped
from rawdl.cli.loopback import Broken, ca_of, make_certificate
from rawdl.cli.options import Options, client_of, options_of
from rawdl.cli.output import Stdout
from rawdl.cli.report import SIGNALLED, Unusable, UsageError, complain, exit_code, message
from rawdl.cli.signals import Signals
from rawdl.cli.values import count_from_one, rate, seconds, size
from rawdl.client import Client
from rawdl.errors import InvalidURL, StorageError
from rawdl.proto.messages import checked_fields
from rawdl.proto.retry import Retry
from rawdl.proto.url import URL, shown
from rawdl.sinks import DiscardSink, HashingTee, MemorySink

STDOUT: Final = "-"
_SIZE: Final = 64 << 20  # so large that a transfer is more than its head, so small that a run has many
_SECONDS: Final = 10.0  # of measuring: intervals enough to see whether they differ
_SINKS: Final = ("null", "memory", "file", "hash")
_MOST: Final = 1000  # transfers at once in an open loop: each takes memory, and descriptors, of which there is an end
_OUTPUTS: Final = ("json", "csv", "html")

_DESCRIPTION: Final = """\
Download a URL again and again, and report how fast that is. Without a URL,
from an origin of its own: a child process on this machine, no network.
Redirects are followed, nothing is tried again, a failure is in no figure.
Two reports are held against each other by: rawdl bench compare A.json B.json"""
_EPILOG: Final = """\
The exit status is 0, or that of the first failure (rawdl --help all). Ctrl-C
ends the measuring (130), and what was measured is reported. These are known as
well, and mean what they mean to a download: -A -u --oauth2-bearer --proxy
--noproxy -4 -6 --interface --resolve --connect-to --unix-socket
--connect-timeout --capath -E --key --key-password-file --pinnedpubkey
--tls-min"""

# What `rawdl URL` has as well, and the same there.
_SHARED: Final = (
    *("-x", "-H", "-A", "-u", "--oauth2-bearer", "--timeout", "--connect-timeout", "--proxy", "--noproxy", "-4", "-6"),
    *("--interface", "--resolve", "--connect-to", "--unix-socket"),
    *("--cacert", "--capath", "--cert", "--key", "--key-password-file", "--pinnedpubkey", "--tls-min", "-k"),
)
_SHOWN: Final = frozenset({"-x", "-H", "--cacert", "-k", "--timeout"})


def main(arguments: list[str]) -> int:
    """Measure, report, and return the exit status."""
    if arguments[:1] == ["compare"]:
        from rawdl.cli.bench import compare

        return compare.main(arguments[1:])
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    own = Namespace(**grouped(given)["bench"])
    if objection := _objection_to(own, getattr(given, "task.connections", 1)):
        parser.error(objection)
    conceal(arguments, in_fields(given.header) + in_options(given))
    try:
        return _run(own, options_of(given))
    except (UsageError, ArgumentTypeError) as exc:
        parser.error(str(exc))
    except Unusable as exc:
        return _complain(str(exc), exc.code)
    except Broken as exc:
        return _complain(str(exc), 1)
    except InvalidURL as exc:
        complain(message(shown(own.url), exc))
        return exit_code(exc)
    except StorageError as exc:  # of standard output
        return exit_code(exc) if exc.errno == errno.EPIPE else _complain(str(exc), exit_code(exc))


class Run(NamedTuple):
    """A load that was carried out; ``number`` is that of the signal that ended it, or 0."""

    record: Record
    began: str
    load: list[float] | None
    peak_rss: int | None
    number: int
    word: str


def _run(own: Namespace, options: Options) -> int:
    try:
        checked_fields(options.task["header"])
    except ValueError as exc:
        raise UsageError(f"-H: {exc}") from exc
    paths = _paths(own)
    screen = Screen(to_stderr=STDOUT in paths.values())
    with ExitStack() as stack:
        drafts = {kind: stack.enter_context(Draft(path)) for kind, path in paths.items() if path != STDOUT}
        with ExitStack() as site:
            url, options = _site(own, options, site)
            settings = _settings(own, options, url)
            run = _measure(own, options, settings, url, screen)
        if run.record.usage is None:  # not even the warm-up was over
            return _end(run, url)
        found = document(run.record, settings, machine.environment(run.load), began=run.began, peak_rss=run.peak_rss)
        screen.print(("" if own.quiet else "\n") + report(found, fancy=screen.fancy) + "\n")
        for kind in paths:
            text = _text(kind, found)
            if kind in drafts:
                drafts[kind].commit(text)
            else:
                Stdout().write(memoryview(text.encode("utf-8", "backslashreplace")))
    return _status(run)


def _paths(own: Namespace) -> dict[str, str]:
    return {kind: path for kind in _OUTPUTS if (path := getattr(own, kind)) is not None}


def _text(kind: str, found: Mapping[str, Any]) -> str:
    """Spell a document in the form that is asked for."""
    if kind == "html":
        from rawdl.cli.bench.page import page

        return page(found)
    return spelled(found) if kind == "json" else table(found)


def _end(run: Run, url: str) -> int:
    """Say why there is nothing to report."""
    if run.record.first_error is not None and not run.number:
        complain(message(shown(url), run.record.first_error))
    return _status(run)


def _status(run: Run) -> int:
    if run.number:
        return _complain(run.word, SIGNALLED + run.number)
    return 0 if run.record.first_error is None else exit_code(run.record.first_error)


# What is measured


def _site(own: Namespace, options: Options, site: ExitStack) -> tuple[str, Options]:
    """Return the URL, and the options with what its origin needs, which lasts as long as ``site``."""
    task = dict(options.task)
    if not own.keep_alive:
        task["header"] = {**task["header"], "Connection": "close"}
    if own.url is not None:
        URL.parse(own.url)
        return own.url, options._replace(task=task)
    certificate, tls = None, {}
    if own.tls:
        folder = site.enter_context(TemporaryDirectory(prefix="rawdl-bench-"))
        certificate, tls = make_certificate(folder), {"ca_file": ca_of(folder)}
        if certificate is None:
            raise UsageError("--tls needs a certificate: pip install rawdl[demo] gets what makes one")
    child = site.enter_context(origin(own.size or _SIZE, certificate, chunked=own.chunked))
    url = f"{child.url('https' if certificate else 'http')}/"
    return url, options._replace(task=task, client={**options.client, "proxy": None}, tls={**tls, **options.tls})


def _measure(own: Namespace, options: Options, settings: Mapping[str, Any], url: str, screen: Screen) -> Run:
    plan = Plan(**{name: settings[name] for name in Plan._fields if name in settings})
    plan = plan._replace(most=settings["concurrency"])
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="rawdl-bench-")) if own.sink == "file" else ""
        client = stack.enter_context(_client(plan, options))
        task = {"url": url, "fail_on_status": True, **options.task}
        work = Load(
            client,
            plan,
            lambda slot: {**task, **_place(own.sink, folder, slot)},
            clock=time.monotonic,
            look=lambda: machine.usage(client.stats().wake_ups),
            tell=lambda interval: None if own.quiet else screen.print(interval_line(interval._asdict())),
        )
        screen.print(heading(settings) + "\n")
        began, load = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"), machine.load_average()
        with Signals(work.stop, client.wakeup_fileno()) as signals:
            record = work.run()
        return Run(record, began, load, machine.peak_rss(), signals.number, signals.word)


def _client(plan: Plan, options: Options) -> Client:
    """Make the client: the schedule alone says how much it does at once."""
    most = plan.most * options.task.get("connections", 1)
    settings = {"max_concurrent": most, "max_per_host": most, "retry": Retry(attempts=1)}
    if plan.rate is not None:
        settings["selector"] = punctual()
    return client_of(options._replace(client={**options.client, **settings}), None, None)


def _place(sink: str, folder: str, slot: int) -> dict[str, Any]:
    """Return where the bytes go.  A file is written over that of the transfer before, as a download does."""
    if sink == "file":
        return {"file_path": os.path.join(folder, str(slot)), "resume": False}
    if sink == "hash":
        return {"sink": HashingTee(DiscardSink(), ["sha256"])}
    return {"sink": MemorySink() if sink == "memory" else DiscardSink()}


def _settings(own: Namespace, options: Options, url: str) -> dict[str, Any]:
    embedded, connections = own.url is None, options.task.get("connections", 1)
    most = machine.most_at_once(_MOST, connections + 2)  # one for the file, one on the way from one to the next
    return {
        "url": shown(url),
        "origin": "embedded" if embedded else "given",
        "size": (own.size or _SIZE) if embedded else None,
        "tls": url.lower().startswith("https:"),
        "chunked": own.chunked,
        "transfers": own.transfers,
        "duration": own.duration if own.duration or own.transfers else _SECONDS,
        "concurrency": (own.concurrency or 1) if own.rate is None else most,
        "connections": connections,
        "rate": own.rate,
        "warm_up": own.warm_up,
        "omit": own.omit,
        "sink": own.sink,
        "interval": own.interval,
        "keep_alive": own.keep_alive,
    }


# What is told


class Screen:
    """Where the text goes: standard output, or standard error where that is taken."""

    def __init__(self, *, to_stderr: bool) -> None:
        stream: TextIO | None = sys.stderr if to_stderr else sys.stdout
        self._stdout = None if to_stderr else Stdout()
        self._encoding = getattr(stream, "encoding", None) or "ascii"
        self.fancy = "█▏".encode(self._encoding, "replace").decode(self._encoding) == "█▏"

    def print(self, text: str) -> None:
        """Write lines.  StorageError if standard output cannot be written; standard error is not worth failing for."""
        data = f"{text}\n".encode(self._encoding, "backslashreplace")
        if self._stdout is not None:
            self._stdout.write(memoryview(data))
            return
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(data.decode(self._encoding))
            sys.stderr.flush()


def _complain(text: str, code: int) -> int:
    complain(f"rawdl: {text}")
    return code


# The grammar


class _SchemaAction(Action):
    """Print the schema of the document."""

    def __call__(self, parser: ArgumentParser, given: Namespace, value: Any, option: str | None = None) -> None:
        print(resources.files("rawdl.cli.bench").joinpath("report.schema.json").read_text("utf-8"), end="")
        parser.exit()


def _parser() -> Parser:
    parser = Parser("rawdl bench", _DESCRIPTION, "rawdl bench [URL] [-n N | -t S] [options]", _EPILOG)
    add = parser.add_argument
    add("bench.url", nargs="?", metavar="URL", help=SUPPRESS)
    end = parser.add_mutually_exclusive_group()
    end.add_argument("-n", dest="bench.transfers", metavar="N", type=count_from_one, help="so many transfers")
    end.add_argument("-t", dest="bench.duration", metavar="S", type=seconds, help=f"or so many seconds ({_SECONDS:g})")
    add("-c", dest="bench.concurrency", metavar="N", type=count_from_one, help="so many at a time (1)")
    rate_help = "or begin so many a second, whoever is late"
    add("--rate", dest="bench.rate", metavar="N", type=rate, help=rate_help)
    _add_numbers(parser)
    sink_help = f"where the bytes go: {', '.join(_SINKS)} (null)"
    add("--sink", dest="bench.sink", metavar="KIND", choices=_SINKS, default="null", help=sink_help)
    alive_help = "a new connection for each (sessions of TLS are resumed)"
    add("--no-keep-alive", dest="bench.keep_alive", action="store_false", help=alive_help)
    size_help = "what its own origin sends: K, M, G are 1024-based (64M)"
    add("--size", dest="bench.size", metavar="N", type=size, help=size_help)
    add("--tls", dest="bench.tls", action="store_true", help="have it speak https")
    add("--chunked", dest="bench.chunked", action="store_true", help="have it send chunks, and no length")
    add_entries(parser, entries(*_SHARED), lambda flags: not _SHOWN.isdisjoint(flags))
    for kind, what in zip(_OUTPUTS, ("the report (see --schema)", "the transfers", "a page with plots"), strict=True):
        add(f"--{kind}", dest=f"bench.{kind}", metavar="FILE", help=f"write {what}; - is standard output")
    add("-q", "--quiet", dest="bench.quiet", action="store_true", help="print the report only, no line an interval")
    add("--schema", nargs=0, action=_SchemaAction, dest=SUPPRESS, default=SUPPRESS, help="print the schema of it")
    add("-h", "--help", action="help", help="print this")
    return parser


def _add_numbers(parser: Parser) -> None:
    add = parser.add_argument
    add("--warm-up", dest="bench.warm_up", metavar="N", type=count_from_one, default=0, help="not counting the first N")
    add("--omit", dest="bench.omit", metavar="S", type=seconds, default=0.0, help="nor those of the first S seconds")
    interval_help = "print, and tell apart, intervals of so long (1)"
    add("--interval", dest="bench.interval", metavar="S", type=seconds, default=1.0, help=interval_help)


def _objection_to(own: Namespace, connections: int) -> str | None:
    """Return what does not go together, or None."""
    paths = list(_paths(own).values())
    flags = " and ".join(f"--{kind} -" for kind, path in _paths(own).items() if path == STDOUT)
    rules = (
        (own.rate is not None and own.concurrency is not None, "--rate begins without regard to -c"),
        (own.url is not None and own.size is not None, "--size is for the origin of our own, and a URL was given"),
        (own.url is not None and own.tls, "--tls is for the origin of our own, and a URL was given"),
        (own.url is not None and own.chunked, "--chunked is for the origin of our own, and a URL was given"),
        (connections > 1 and own.sink != "file", "-x writes to several places of a file: --sink file"),
        (connections > 1 and own.chunked, "-x needs a length, which --chunked has not"),
        (paths.count(STDOUT) > 1, f"{flags} both want standard output"),
        ("" in paths, "an empty file name was given"),
    )
    return next((text for broken, text in rules if broken), None)

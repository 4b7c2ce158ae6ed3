"""``rawdl URL...``: download all of them at once, with their progress, and say how it ended."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rawdl.cli.display import Display
from rawdl.cli.jar import open_jar, save_jar
from rawdl.cli.lists import STDIN, STDOUT, Target, Targets
from rawdl.cli.meter import duration_text, rate_text, size_text
from rawdl.cli.options import Options, client_of
from rawdl.cli.output import Stdout
from rawdl.cli.report import (
    SIGNALLED,
    STORAGE,
    USAGE,
    Unusable,
    UsageError,
    exit_code,
    json_line,
    kept_text,
    message,
)
from rawdl.cli.signals import REPORT, Signals, suspend
from rawdl.cli.steps import Steps
from rawdl.cli.watch import FEED_SECONDS, Watch
from rawdl.errors import Aborted, DownloadError, RangeError, StatusError, StorageError
from rawdl.proto.fields import escape
from rawdl.proto.messages import checked_fields
from rawdl.proto.url import shown
from rawdl.results import DownloadResult
from rawdl.sinks import DiscardSink

if TYPE_CHECKING:
    from rawdl.cli.feed import Feed
    from rawdl.cli.watch import OnStall
    from rawdl.client import Client
    from rawdl.results import HeadersReceived
    from rawdl.task import DownloadTask

# No body that could be saved belongs to these (RFC 9110 15.3.5, 15.3.6, 15.4.5).
_NOTHING_TO_SAVE: Final = frozenset({204, 205, 304})
# What Python's table of media types does not have.
_NO_PAGES: Final = (".7z", ".apk", ".deb", ".dmg", ".img", ".iso", ".jar", ".msi", ".rpm", ".whl", ".zst")
_EVENT_SECONDS: Final = 0.25  # between two progress events of one file in JSON
_LIVE: Final = 1000  # downloads beyond which no further line of standard input is taken: each has its memory


def run(options: Options) -> int:
    """Download everything, keep the cookies, and return the exit status; UsageError for what cannot be done."""
    places = Targets(options)
    targets = places.of_command()
    _check(options, targets)
    stdout = Stdout()
    to_terminal = options.output == STDOUT and stdout.is_terminal
    json_alone = options.json and options.progress == "auto"
    display = Display.on_stderr(options.progress, silent=options.quiet or json_alone or to_terminal)
    feed = _feed(places) if options.input_file == STDIN else None
    if options.dry_run:
        return _tell_plan(targets, feed, display, stdout)
    steps = Steps()
    try:
        if options.verbose:
            steps.print_to(display.note)
        if options.trace is not None:
            steps.write_to(options.trace)
        status = _download(options, targets, feed, display, stdout, steps)
    except Unusable as exc:
        status = _complain(display, str(exc), exc.code)
    finally:
        steps.close()
    if steps.unwritten is not None:
        code = _complain(display, str(steps.unwritten), steps.unwritten.code)
        return status or code
    return status


def _download(
    options: Options, targets: Sequence[Target], feed: Feed | None, display: Display, stdout: Stdout, steps: Steps
) -> int:
    jar = open_jar(options.cookies, options.cookie_jar)
    with client_of(options, jar, steps if steps or options.json else None) as client:
        _make_folders(options, targets)
        if options.tls.get("verify") is False:
            _warn_unverified(display, options.quiet)
        status = Batch(client, options, display, stdout, steps).run(targets, feed)
    try:
        save_jar(jar, options.cookie_jar)
    except Unusable as exc:
        code = _complain(display, str(exc), exc.code)
        return status or code
    return status


def _check(options: Options, targets: Sequence[Target]) -> None:
    """Raise UsageError for what would be raised at some download."""
    _check_fields(options.task)
    for target in targets:
        _check_fields(target.task)
    if options.write_out is not None:
        from rawdl.cli.writeout import check

        check(options.write_out)


def _check_fields(task: Mapping[str, Any]) -> None:
    try:
        checked_fields(task.get("header"))
    except ValueError as exc:
        raise UsageError(f"-H: {exc}") from exc


def _feed(places: Targets) -> Feed:
    from rawdl.cli.feed import Feed

    return Feed(places)


def _tell_plan(targets: Sequence[Target], feed: Feed | None, display: Display, stdout: Stdout) -> int:
    status = 0

    def tell(found: Target | UsageError) -> int:
        if isinstance(found, UsageError):
            return _complain(display, str(found), USAGE)
        stdout.write(memoryview(f"{shown(found.url)} -> {escape(found.path or 'standard output')}\n".encode()))
        return 0

    for target in targets:
        tell(target)
    while feed is not None and not feed.ended:
        for found in feed.take(FEED_SECONDS):
            status = tell(found) or status
    return status


class Batch:
    """The downloads of one command, what is told of them, and the exit status."""

    def __init__(self, client: Client, options: Options, display: Display, stdout: Stdout, steps: Steps) -> None:
        self._client = client
        self._options = options
        self._display = display
        self._stdout = stdout
        self._feed: Feed | None = None
        self._count = 0  # of the URLs so far
        self._tasks: dict[int, DownloadTask] = {}  # that have not ended, by the position of their URL
        self._errors: dict[int, DownloadError] = {}
        self._refused: dict[int, int] = {}  # the exit codes of those that made no sense
        self._kept: list[str] = []  # parts of what was stopped
        self._unwritable: StorageError | None = None  # what befell the JSON on standard output
        self._watch = Watch(display, options.client.get("rate_limit"))
        also = {name: self._watch.report for name in REPORT}
        if display.live:
            also |= {"SIGTSTP": lambda: suspend(display.clear), "SIGCONT": display.lose_place}
        self._signals = Signals(self._stop, client.wakeup_fileno(), last=display.abandon, also=also)
        if options.json:
            steps.tell_as_events(self._emit)

    def run(self, targets: Sequence[Target], feed: Feed | None) -> int:
        """Run all of them, and those that come meanwhile, and return the status."""
        self._feed = feed
        with self._signals:
            for target in targets:
                self._add(target)
            if self._signals.number or self._unwritable:  # it came between two of them
                self._stop()
            self._watch.drive(self._client, None if feed is None else self._take_more)
        return self._status()

    def _take_more(self, wait: float) -> bool:
        """Begin what has come on standard input, or comes within ``wait`` seconds; return whether there may be more."""
        feed = self._feed
        if feed is None or feed.ended or self._signals.number or self._unwritable:
            return False
        if len(self._tasks) < _LIVE:
            for found in feed.take(wait):
                self._admit(found)
        return True

    def _admit(self, found: Target | UsageError) -> None:
        try:
            if isinstance(found, UsageError):
                raise found
            _check_fields(found.task)
            _make_folders(self._options, [found])
        except (UsageError, Unusable) as exc:
            code = exc.code if isinstance(exc, Unusable) else USAGE
            self._refused[self._count] = _complain(self._display, str(exc), code)
            self._count += 1
        else:
            self._add(found)

    def _add(self, target: Target) -> None:
        index, options, url = self._count, self._options, shown(target.url)
        self._count += 1
        self._emit("queued", url, {})
        task = self._client.download_file(
            url=target.url,
            **self._place(target),
            **{"fail_on_status": True, **_merged(options.task, target.task)},
            progress_interval=_EVENT_SECONDS if options.json else 0.05,
            complete=lambda outcome: self._settled(index, target, outcome),
        )
        self._tasks[index] = task
        self._watch.add(task, target.name, self._stall_listener(url))
        task.on_headers_received(lambda event: self._headers_received(index, url, event))
        if options.json:
            task.on_progress_update(lambda update: self._emit("progress", url, update.to_dict()))

    def _place(self, target: Target) -> dict[str, Any]:
        """Return the options that say where a file goes."""
        if target.path is None or target.path == os.devnull:
            return {"sink": self._stdout if target.path is None else DiscardSink()}
        if self._options.suggested:
            return {"directory": target.folder or None, "use_suggested_name": True}
        return {"file_path": target.path}

    def _stop(self) -> None:
        for task in tuple(self._tasks.values()):
            task.abort(keep=True)
        try:
            self._stdout.interrupt()
        finally:
            self._display.interrupt()

    # Events

    def _headers_received(self, index: int, url: str, event: HeadersReceived) -> None:
        written = self._tasks[index].progress.total_bytes_written
        self._watch.found += written
        if written:
            self._emit("resume", url, {"totalBytesWritten": written})
        self._emit("headers", url, event.to_dict())
        status = event.status_code
        if status in _NOTHING_TO_SAVE or 300 <= status < 400:
            self._errors[index] = _nothing_to_save(event)
            self._tasks[index].abort()

    def _settled(self, index: int, target: Target, outcome: DownloadResult | DownloadError) -> None:
        url = shown(target.url)
        del self._tasks[index]
        if isinstance(outcome, DownloadResult):
            self._watch.found += outcome.data_length if outcome.skipped else 0
            self._emit("done", url, outcome.to_dict())
            if not self._display.silent:
                self._display.note(_saved(target, outcome))
            self._write_out(index, target, outcome)
            return
        error = self._errors.setdefault(index, outcome)  # what made us abort it counts
        self._emit("failed", url, error.to_dict())
        stopped = isinstance(error, Aborted) and (self._signals.number or self._unwritable)
        if stopped and error.part is not None:
            self._kept.append(error.part)
        if not stopped and not _is_broken_pipe(error):
            # What -c could not go on from, it cannot go on from the next time either.
            kept = [] if error.part is None or isinstance(error, RangeError) else [error.part]
            self._display.note(message(url, error) + kept_text(kept))
        self._write_out(index, target, error)

    def _stall_listener(self, url: str) -> OnStall | None:
        if not self._options.json:
            return None
        return lambda seconds, written: self._emit("stall", url, {"seconds": seconds, "totalBytesWritten": written})

    def _emit(self, event: str, url: str, fields: dict[str, object]) -> None:
        if self._options.json:
            self._print(json_line(event, url, fields))

    def _write_out(self, index: int, target: Target, outcome: DownloadResult | DownloadError) -> None:
        if self._options.write_out is not None:
            from rawdl.cli.writeout import Ended, expand

            ended = Ended(shown(target.url), index, target.path, outcome)
            text = expand(self._options.write_out, ended, to_terminal=self._stdout.is_terminal)
            self._print(text.encode("utf-8", "surrogateescape"))

    def _print(self, data: bytes) -> None:
        if self._unwritable is not None:
            return
        if self._stdout.is_terminal:
            self._display.clear()
        try:
            self._stdout.write(memoryview(data))
        except StorageError as exc:
            if exc.errno != errno.EINTR:
                self._unwritable = exc
                self._stop()

    # The end

    def _status(self) -> int:
        if self._signals.number:
            text = self._signals.word + kept_text(self._kept)
            return _complain(self._display, text, SIGNALLED + self._signals.number)
        if self._unwritable is not None:
            if not _is_broken_pipe(self._unwritable):
                self._display.note(escape(f"rawdl: {self._unwritable}"))
            return exit_code(self._unwritable)
        codes = {index: exit_code(error) for index, error in self._errors.items()} | self._refused
        return codes[min(codes)] if codes else 0


def _make_folders(options: Options, targets: Sequence[Target]) -> None:
    """Make the folders that files are to go to: that of -d and of a list, and with --create-dirs any."""
    folders = {os.path.dirname(target.path) for target in targets if target.path} if options.create_dirs else set()
    folders |= {target.folder for target in targets}
    for path in sorted(folders - {None, ""}):
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as exc:
            raise Unusable(f"cannot make the folder {path}: {exc.strerror or exc}", STORAGE) from exc


def _merged(all: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of one download: its own go before those of all, but fields are added to theirs."""
    merged = {**all, **own}
    if "header" in own:
        merged["header"] = {**(all.get("header") or {}), **own["header"]}
    return merged


def _warn_unverified(display: Display, quiet: bool) -> None:
    import logging

    logging.getLogger("rawdl").setLevel(logging.ERROR)  # which warns of the same
    if not quiet:
        display.note("rawdl: warning: with -k anybody on the way can pose as the server and change what it sends")


def _nothing_to_save(event: HeadersReceived) -> StatusError:
    status = event.status_code
    answer = f"the server answered {status} {event.reason}".rstrip()
    if status in _NOTHING_TO_SAVE:
        return StatusError(f"{answer}: there is nothing to save", status_code=status)
    where = f", to {shown(event.header['location'])}" if "location" in event.header else ""
    return StatusError(f"{answer}{where}: it is not followed", status_code=status)


def _saved(target: Target, result: DownloadResult) -> str:
    """Return the line for a download that has ended well, and what is odd about it."""
    line = f"{escape(result.file_path or target.path or target.name)}  {size_text(result.data_length)}"
    if result.skipped:
        return f"{line}  (skipped: it was there already)"
    profile = result.profile
    seconds = (profile.response_end - profile.fetch_start) / 1000
    if seconds > 0:
        line += f" in {duration_text(seconds)}  {rate_text(result.data_length - result.resumed_from, seconds)}"
    if result.resumed_from:
        line += f"  (resumed from {size_text(result.resumed_from)})"
    if result.content_encoding:
        line += f"  (saved as sent: {escape(result.content_encoding)})"
    if not result.length_known:
        line += "  (the server did not say how long it is)"
    if result.surplus:
        line += f"  (warning: {result.surplus} bytes came behind its end, and were dropped)"
    if _is_page_instead(result):
        line += "  (but the server says that it is a web page)"
    return line


def _is_page_instead(result: DownloadResult) -> bool:
    """Whether HTML came where the name promises something else: the login page of a captive portal, as a rule."""
    media_type = result.header.get("content-type", "").partition(";")[0]
    if result.file_path is None or media_type.strip(" \t").lower() != "text/html":
        return False
    if result.file_path.lower().endswith(_NO_PAGES):
        return True
    import mimetypes

    promised, coding = mimetypes.MimeTypes().guess_type(
        result.file_path
    )  # by Python's own table, on every system the same
    return coding is not None or (promised is not None and not promised.startswith("text/"))


def _is_broken_pipe(error: DownloadError) -> bool:
    """Whether nobody reads standard output any more, which is the reader's good right."""
    return isinstance(error, StorageError) and error.errno == errno.EPIPE


def _complain(display: Display, text: str, code: int) -> int:
    display.note(escape(f"rawdl: {text}"))
    return code

"""The targets of a command: URLs on the command line and in files, and where each is saved.

A file of URLs has the form of aria2's: a line for each download, with its URL, and those of mirrors behind tabs; below
it lines that begin with white space say ``name=value`` for that one: ``out``, ``dir``, ``checksum``, ``header`` (as
often as needed) and ``split`` (connections).  Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rawdl.cli.options import Options
from rawdl.cli.report import UsageError
from rawdl.errors import InvalidURL
from rawdl.proto.fields import escape, safe_filename
from rawdl.proto.url import URL, shown
from rawdl.sinks import native_name

STDOUT: Final = "-"
STDIN: Final = "-"
_OPTIONS: Final = ("out", "dir", "checksum", "header", "split")


class Target(NamedTuple):
    """Where one URL goes: ``path`` is None for standard output; ``task`` are options of its own.

    ``folder`` is the one that was asked for, which is made; "" for none.
    """

    url: str
    path: str | None
    task: Mapping[str, Any] = {}
    folder: str = ""

    @property
    def name(self) -> str:
        """What the progress line calls it; by the end it may have another."""
        if self.path is None or self.path == os.devnull:
            return self.path or "stdout"
        return escape(os.path.basename(self.path) or self.path)


class Entry(NamedTuple):
    """A download as the user asks for it: its URL with those of mirrors, and what stands in the lines below."""

    urls: list[str]
    said: list[tuple[str, str]]

    def value(self, name: str) -> str | None:
        """Return what was said last of a name."""
        return next((value for said, value in reversed(self.said) if said == name), None)


class Entries:
    """Entries made of lines, one after another; UsageError for a line that makes no sense."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = 0
        self._entry: Entry | None = None

    def line(self, text: str) -> list[Entry]:
        """Take a line, and return the entry that it shows to be complete, if any."""
        self._number += 1
        if not text.strip() or text.startswith("#"):
            return []
        if not text[0].isspace():
            complete = self.end()
            self._entry = Entry([url.strip() for url in text.split("\t") if url.strip()], [])
            return complete
        name, equals, value = (each.strip() for each in text.partition("="))
        if self._entry is None or not equals or name not in _OPTIONS:
            place, self._entry = f"{self._path}, line {self._number}", None
            raise UsageError(f"-i: {place}: {_OPTIONS} are understood, each with = and below a URL")
        self._entry.said.append((name, value))
        return []

    def end(self) -> list[Entry]:
        """Return the entry that is complete if there is no line below it, if any."""
        entry, self._entry = self._entry, None
        return [] if entry is None else [entry]


class Targets:
    """The choice of a file for each URL, and for no two of them the same."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._taken: dict[str, str] = {}  # path -> URL

    def of_command(self) -> list[Target]:
        """Return those that the command line names, and the file that it names; UsageError for what makes no sense."""
        options = self._options
        entries = [Entry([url], []) for url in options.urls]
        if options.input_file not in (None, STDIN):
            assert options.input_file is not None
            entries += _read(options.input_file)
        if not entries and options.input_file != STDIN:
            raise UsageError(f"-i: there is no URL in {options.input_file}")
        return [self.of(entry) for entry in entries]

    def of(self, entry: Entry) -> Target:
        """Return where one goes; UsageError for what makes no sense."""
        options, url = self._options, entry.urls[0]
        if options.output == STDOUT:
            return Target(url, None, _task(entry))
        folder = entry.value("dir") or options.directory or ""
        path = os.path.join(folder, options.output or entry.value("out") or _file_name(url))
        if not options.suggested and path != os.devnull:
            if path in self._taken:
                raise UsageError(f"{self._taken[path]} and {shown(url)} would both be saved as {path}")
            self._taken[path] = shown(url)
        return Target(url, path, _task(entry), folder)


def _task(entry: Entry) -> dict[str, Any]:
    """Return what was said below a URL as options of `Client.download_file`."""
    from rawdl.cli.values import checksum, count_from_one, field, joined

    task: dict[str, Any] = {"mirrors": entry.urls[1:]} if len(entry.urls) > 1 else {}
    fields = [value for name, value in entry.said if name == "header"]
    try:
        if (given := entry.value("checksum")) is not None:
            task["checksum"] = checksum(given.replace("=", ":", 1).replace("-", "", 1) if "=" in given else given)
        if (given := entry.value("split")) is not None:
            task["connections"] = count_from_one(given)
        if fields:
            task["header"] = joined([field(text) for text in fields])
        for mirror in entry.urls[1:]:
            URL.parse(mirror)
    except (ArgumentTypeError, InvalidURL) as exc:
        raise UsageError(f"-i: {shown(entry.urls[0])}: {exc}") from exc
    return task


def _file_name(url: str) -> str:
    try:
        return native_name(safe_filename(URL.parse(url).last_segment, default="download"))
    except InvalidURL:
        return os.devnull  # not for long: the task ends with that error


def _read(path: str) -> list[Entry]:
    try:
        with open(path, encoding="utf-8-sig") as file:  # with the mark that editors on Windows put in front
            lines = list(file)
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"-i: {path}: {reason_of(exc)}") from exc
    entries = Entries(path)
    return [entry for line in lines for entry in entries.line(line)] + entries.end()


def reason_of(exc: OSError | UnicodeDecodeError) -> str:
    """Say in words why a list cannot be read."""
    return "it is not UTF-8" if isinstance(exc, UnicodeDecodeError) else exc.strerror or str(exc)

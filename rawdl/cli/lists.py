"""The targets of a command: URLs on the command line and in files, and where each is saved.

A file of URLs has the form of aria2's: a line for each download, with its URL, and those of mirrors behind tabs; below
it lines that begin with white space say ``name=value`` for that one: ``out``, ``dir``, ``checksum``, ``header`` (as
often as needed) and ``split`` (connections).  Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from rawdl.cli.options import Options
from rawdl.cli.report import UsageError
from rawdl.errors import InvalidURL
from rawdl.proto.fields import escape, safe_filename
from rawdl.proto.url import URL, shown

STDOUT: Final = "-"
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


class _Entry(NamedTuple):
    """A download as the user asks for it."""

    urls: list[str]
    said: list[tuple[str, str]]  # in the lines below it

    def value(self, name: str) -> str | None:
        return next((value for said, value in reversed(self.said) if said == name), None)


def targets_of(options: Options) -> list[Target]:
    """Choose the file for each URL; UsageError for two with one file, and for a list that makes no sense."""
    entries = [_Entry([url], []) for url in options.urls]
    if options.input_file is not None:
        entries += _read(options.input_file)
    targets = [_target(entry, options) for entry in entries]
    if not targets:
        raise UsageError(f"-i: there is no URL in {options.input_file}")
    if not options.suggested and options.output != STDOUT:
        _check_twins(targets)
    return targets


def _check_twins(targets: Iterable[Target]) -> None:
    seen: dict[str | None, str] = {}
    for url, path, *_ in targets:
        if path in seen and path != os.devnull:
            raise UsageError(f"{seen[path]} and {shown(url)} would both be saved as {path}")
        seen[path] = shown(url)


def _target(entry: _Entry, options: Options) -> Target:
    url = entry.urls[0]
    if options.output == STDOUT:
        return Target(url, None, _task(entry))
    folder = entry.value("dir") or options.directory or ""
    name = options.output or entry.value("out") or _file_name(url)
    return Target(url, os.path.join(folder, name), _task(entry), folder)


def _task(entry: _Entry) -> dict[str, Any]:
    """Return what was said below a URL as options of `Client.download_file`."""
    from rawdl.cli.grammar import checksum, count_from_one, field, joined

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
        return safe_filename(URL.parse(url).last_segment, default="download")
    except InvalidURL:
        return os.devnull  # not for long: the task ends with that error


def _read(path: str) -> Iterator[_Entry]:
    try:
        text = sys.stdin.read() if path == STDOUT and sys.stdin else _text(path)
    except (OSError, UnicodeDecodeError) as exc:
        reason = "it is not UTF-8" if isinstance(exc, UnicodeDecodeError) else exc.strerror or str(exc)
        raise UsageError(f"-i: {path}: {reason}") from exc
    entry: _Entry | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            if entry is not None:
                yield entry
            entry = _Entry([url.strip() for url in line.split("\t") if url.strip()], [])
            continue
        name, equals, value = line.strip().partition("=")
        if entry is None or not equals or name not in _OPTIONS:
            raise UsageError(f"-i: {path}, line {number}: {_OPTIONS} are understood, each with = and below a URL")
        entry.said.append((name, value))
    if entry is not None:
        yield entry


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()

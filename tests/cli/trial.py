"""A program that downloads, and the flags of a cell of the README's table."""

from __future__ import annotations

import re
import shlex
import ssl
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import trustme

from tests.cli.conftest import Command, Outcome
from tests.origin import Origin, Request, Script
from tests.resource import Resource

BODY = bytes(range(256)) * 400
# What a row is not about: one try, and little that is printed.
CALM = {
    "rawdl": ["-q", "--retries", "0"],
    "curl": ["-sS"],
    "wget": ["-nv", "-t", "1"],
    "aria2c": ["--console-log-level=error", "-m", "1"],
}
NAMING = {"-O", "-o", "-OJ", "-I"}  # of curl: where there is none of them, -O goes with the flags of a cell
TRUST = {
    "rawdl": "--cacert",
    "curl": "--cacert",
    "wget": "--ca-certificate",
    "aria2c": "--ca-certificate",
}


class Trial(Command):
    """A program, with the flags of a cell, in a folder and a home of its own."""

    def __init__(self, folder: Path, program: str, flags: str, origin: Origin, ca: trustme.CA, ca_file: Path) -> None:
        super().__init__(folder / "here")
        self.program, self.flags, self.origin, self.ca, self.ca_file = program, flags, origin, ca, ca_file
        self.home = folder / "home"
        for path in (folder, self.folder, self.home):
            path.mkdir()
        self.trust: list[str] = []
        self.environment |= {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        for name in ("NETRC", "CURL_HOME", "WGETRC"):
            self.environment.pop(name, None)

    @property
    def plain(self) -> Trial:
        """The same program, without the flags of the cell."""
        other = copy(self)
        other.flags = ""
        return other

    def trust_the_ca(self) -> None:
        self.trust = [TRUST[self.program], str(self.ca_file)]

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def argv(self, *arguments: str) -> list[str]:
        return super().argv(*arguments) if self.program == "rawdl" else [self.program, *arguments]

    def run(self, *urls: str, calm: bool = True, saving: bool = True, **values: object) -> Outcome:
        """Carry out the cell for these URLs, its placeholders replaced by the values.

        ``calm``: with what keeps the program from trying again and from printing much, which some rows are about.
        ``saving``: into a file, which curl does by -O.
        """
        words = [_filled(word, values) for word in shlex.split(self.flags)]
        if self.program == "curl" and saving and NAMING.isdisjoint(words):
            words += ["-O"] * len(urls)
        if "URL" in self.flags:
            urls = ()
        return self(*(CALM[self.program] if calm else ()), *self.trust, *words, *urls)

    def get(self, *urls: str, **options: Any) -> Outcome:
        """The same, which must not fail."""
        ended = self.run(*urls, **options)
        assert ended.code == 0, ended
        return ended

    def fails(self, *urls: str, **options: Any) -> Outcome:
        ended = self.run(*urls, **options)
        assert ended.code != 0, ended
        return ended

    def saved(self, name: str = "a") -> bytes:
        return (self.folder / name).read_bytes()

    def serve(self, answer: Script | Callable[[Request], Script] | None = None, path: str = "/a") -> str:
        return self.origin.serve(path, answer or Resource(BODY))

    def asked(self, name: str) -> list[str | None]:
        """Return that field of each request."""
        return [request.field(name) for request in self.origin.requests]

    def write(self, text: str, name: str = "file") -> str:
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)


def _filled(word: str, values: dict[str, object]) -> str:
    """Replace what is in capitals, but in the name of an option."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value.startswith("-"):
        return word
    return option + equals + re.sub(r"\b[A-Z]+\b", lambda found: str(values[found[0]]), value)

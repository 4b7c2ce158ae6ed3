"""Files that appear under their names when they are complete, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Self

from rawdl.cli.report import STORAGE, Unusable


class Draft:
    """A file to be written in the end; whether it can be is known when it is made.  Raises Unusable if it cannot."""

    def __init__(self, path: str) -> None:
        self._path = path
        # A link is followed, and what is no file (a pipe, a terminal) cannot be replaced by one.
        self._real = os.path.realpath(path)
        self._replaces = not os.path.exists(self._real) or os.path.isfile(self._real)
        folder, name = os.path.split(self._real)
        self._name = os.path.join(folder, f".{name}.{os.urandom(4).hex()}") if self._replaces else self._real
        try:
            mode = "x" if self._replaces else "w"
            self._file = open(self._name, mode, encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
        except OSError as exc:
            raise self._unusable(exc) from exc

    def __enter__(self) -> Self:
        return self

    def commit(self, text: str) -> None:
        """Write it, and let it be seen."""
        try:
            with self._file:
                self._file.write(text)
            if self._replaces:
                os.replace(self._name, self._real)
        except OSError as exc:
            raise self._unusable(exc) from exc

    def __exit__(self, *exc: object) -> None:
        """Leave nothing of what was not committed."""
        with suppress(OSError):
            self._file.close()
        if self._replaces:
            with suppress(OSError):
                os.unlink(self._name)

    def _unusable(self, exc: OSError) -> Unusable:
        return Unusable(f"cannot write {self._path}: {exc.strerror or exc}", STORAGE)

"""Cookies: the file that they come from, and the file that they are written to.

Nothing is imported before there is such a file: what reads one takes as long to load as all the rest.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from rawdl.cli.report import STORAGE, Unusable, UsageError

if TYPE_CHECKING:
    from http.cookiejar import CookieJar


def open_jar(source: str | None, target: str | None) -> CookieJar | None:
    """Return the cookies of ``source``; an empty jar if they are only to be written, and None if neither.

    There need be no ``source`` yet if it is the ``target`` too.  Raise UsageError for what is no file of cookies, and
    Unusable if there is no writing in the target's folder.
    """
    empty = None if target is None else _empty_jar(target)
    if source is None:
        return empty
    from rawdl.cookies import read_cookies

    try:
        return read_cookies(source)
    except OSError as exc:
        is_first = isinstance(exc, FileNotFoundError) and target is not None
        if is_first and os.path.abspath(source) == os.path.abspath(target or ""):
            return empty
        raise UsageError(f"--cookie: {source}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise UsageError(f"--cookie: {exc}") from exc


def save_jar(jar: CookieJar | None, target: str | None) -> None:
    """Write what is in it by now, or raise Unusable."""
    if jar is None or target is None:
        return
    from rawdl.cookies import write_cookies

    try:
        write_cookies(jar, target)
    except OSError as exc:
        raise _unwritable(target, exc) from exc


def _empty_jar(target: str) -> CookieJar:
    """Make a jar to be filled.  That there is no writing it is better known now than after the downloads."""
    from rawdl.cookies import StrictJar

    folder = os.path.dirname(target) or os.curdir
    try:
        os.stat(os.path.join(folder, ""))
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(target, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return StrictJar()


def _unwritable(target: str, exc: OSError) -> Unusable:
    return Unusable(f"cannot write {target}: {exc.strerror or exc}", STORAGE)

"""The passwords that a netrc file has, by host."""

from __future__ import annotations

import os
from netrc import NetrcParseError, netrc

from rawdl.proto.auth import BasicAuth
from rawdl.proto.url import URL


class Passwords:
    """Read the file at ``path``, once.  Raises OSError, or ValueError for what is no netrc."""

    def __init__(self, path: str) -> None:
        try:
            entries = netrc(path).hosts
        except NetrcParseError as exc:  # whose message may have a password in it
            raise ValueError(f"{path}, line {exc.lineno}: this is no netrc entry") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no netrc file: it is not UTF-8") from None
        self._entries: dict[str, BasicAuth] = {}  # "": for any host
        for host, (login, _, password) in entries.items():
            if password:  # an entry without one is none
                self._entries["" if host == "default" else host.lower()] = _credentials(path, host, login, password)

    @classmethod
    def own(cls) -> Passwords | None:
        """Read that of the user, if there is one: ``$NETRC``, or ``~/.netrc`` (``~/_netrc``)."""
        given = os.environ.get("NETRC")
        for path in [given] if given else map(os.path.expanduser, ("~/.netrc", "~/_netrc")):
            try:
                return cls(path)
            except FileNotFoundError:
                continue
        return None

    def look_up(self, url: URL, is_first: bool, username: str | None = None) -> BasicAuth | None:
        """Return what the file has for the host of a URL: for that user, if one is named.

        What it has for any host (``default``) is for the first URL alone, and not for wherever that leads.
        """
        found = self._entries.get(url.host) or (self._entries.get("") if is_first else None)
        return None if found is None or username not in (None, found.username) else found


def _credentials(path: str, host: str, login: str, password: str) -> BasicAuth:
    try:
        return BasicAuth(login, password)
    except ValueError as exc:
        raise ValueError(f"{path}, machine {host}: {exc}") from None

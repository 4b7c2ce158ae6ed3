"""The arguments of `Client` and its methods: what is wrong with them is said at the call (TypeError, ValueError)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Final, TypeVar

from rawdl.dial import AddressRules
from rawdl.errors import InvalidURL
from rawdl.proto.messages import checked_fields
from rawdl.proto.url import URL
from rawdl.resolver import Lookup, Resolver, ThreadResolver, literal_address
from rawdl.sinks import Sink, TemporaryFile, as_sink, native_name

if TYPE_CHECKING:
    from ssl import SSLContext

    from rawdl.job import Proxies
    from rawdl.passwords import Passwords
    from rawdl.proto.auth import Credentials
    from rawdl.proto.checksums import Checksum
    from rawdl.tls import TLS

_T = TypeVar("_T")

_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,16}$")


def resolver_of(given: Lookup | Resolver | None) -> Resolver:
    """Return a resolver: the system's, somebody's own, or a function to be called on threads."""
    if given is None:
        return ThreadResolver()
    if hasattr(given, "resolve"):
        return given
    if callable(given):
        return ThreadResolver(given)
    raise TypeError(f"a resolver is a callable or has resolve(); {type(given).__name__} is neither")


def address_rules(
    family: str | None,
    policy: Callable[[str, str], object] | None,
    local: str | None,
    connect_to: Mapping[str, str] | None,
    unix_socket: str | os.PathLike[str] | None,
) -> AddressRules:
    """Return which addresses a client uses."""
    families = {None: socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
    if family not in families:
        raise ValueError(f"family is 'ipv4', 'ipv6' or None, not {family!r}")
    address = None if local is None else literal_address(local, 0)
    if local is not None and address is None:
        raise ValueError(f"local_address is an IP address, not {local!r}")
    unix = None if unix_socket is None else checked_path("unix_socket", unix_socket)
    if unix is not None and not hasattr(socket, "AF_UNIX"):
        raise ValueError("unix_socket: this system has none that Python can use")
    elsewhere = {_place("connect_to", old): _place("connect_to", new) for old, new in (connect_to or {}).items()}
    return AddressRules(families[family], policy, address, elsewhere, unix)


def _place(name: str, text: str) -> tuple[str, int]:
    """Read ``host:port``."""
    if not isinstance(text, str):
        raise TypeError(f"{name} maps host:port to host:port, each a str, not {text!r}")
    try:
        url = URL.parse(f"http://{text}")
    except InvalidURL as exc:
        raise ValueError(f"{name}: {text!r} is no host:port: {exc}") from exc
    if not re.search(r":[0-9]+$", text) or url.target != "/" or url.userinfo is not None:
        raise ValueError(f"{name}: {text!r} is no host:port")
    return url.host, url.port


def check_scalars(url: str | None, progress_interval: float) -> None:
    """Check what has a type of Python's own."""
    if not isinstance(url, str | None):
        raise TypeError(f"url is a str, not {type(url).__name__}")
    if isinstance(progress_interval, bool) or not isinstance(progress_interval, int | float):
        raise TypeError(f"progress_interval is a number of seconds, not {progress_interval!r}")
    if not isfinite(progress_interval) or progress_interval < 0:
        raise ValueError(f"progress_interval must be finite and not negative, as {progress_interval!r} is")


def check_options(
    flags: Iterable[tuple[str, bool]],
    counts: Iterable[tuple[str, int]],
    *,
    exists: str,
    resume: bool | str,
) -> None:
    """Check what is True or False, a number from 1 on, or one of some choices."""
    for name, flag in flags:
        if flag is not False and flag is not True:
            raise TypeError(f"{name} is True or False, not {flag!r}")
    for name, count in counts:
        if type(count) is not int or count < 1:
            checked_count(name, count, 1)
    if exists != "overwrite":
        _check_choice("exists", exists, ("overwrite", "error", "rename", "skip"))
    if resume != "auto":
        _check_choice("resume", resume, ("auto", True, False))


def _check_choice(name: str, value: bool | str, choices: tuple[bool | str, ...]) -> None:
    if not isinstance(value, bool | str):
        raise TypeError(f"{name} is one of {choices}, not {value!r}")
    if value not in choices:
        raise ValueError(f"{name} is one of {choices}, not {value!r}")


def undivided(
    header: Mapping[str, str | None] | None, connections: int, *, resume: bool | str
) -> tuple[Mapping[str, str | None], bool]:
    """Return header and ``resume`` for a body that is to be decoded, which no part of it can be."""
    from rawdl.proto.decoding import accepted

    if connections > 1 or resume is True:
        raise ValueError("decode needs the body in one piece: neither resume=True nor several connections")
    header = {} if header is None else header
    names = {name.lower() for name, _ in checked_fields(header)}
    if "range" in names:
        raise ValueError("decode needs the body in one piece, and the Range in header asks for a part")
    return header if "accept-encoding" in names else {**header, "Accept-Encoding": accepted()}, False


def mirrors_of(given: Iterable[str]) -> tuple[URL, ...]:
    """Read the URLs of mirrors; InvalidURL, which is a ValueError, for one that is none."""
    if isinstance(given, str):
        raise TypeError("mirrors is a collection of URLs, not a str")
    return tuple(URL.parse(url) for url in given)


def checksums_of(given: str | None) -> tuple[Checksum, ...]:
    """Read a checksum, if there is one."""
    if given is None:
        return ()
    from rawdl.proto.checksums import Checksum

    return (Checksum.parse(given),)


def credentials_of(given: Credentials | tuple[str, str] | str | None) -> Credentials | None:
    """Return credentials; a pair is for Basic."""
    if given is None:
        return None
    from rawdl.proto.auth import BasicAuth, BearerAuth, DigestAuth

    if isinstance(given, BasicAuth | BearerAuth | DigestAuth):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return BasicAuth(*given)
    raise TypeError(f"auth is a user name and a password, or one of rawdl's, not {type(given).__name__}")


def proxies_of(given: str | None) -> Proxies:
    """Return what tells the proxy of each URL: none, always the same, or that of the environment as it is now."""
    if given is None:
        return lambda url: None
    if not isinstance(given, str):
        raise TypeError(f"proxy is a URL, 'env' or None, not {type(given).__name__}")
    if given != "env":
        from rawdl.proto.proxy import Proxy

        proxy = Proxy.parse(given)
        return lambda url: proxy
    environment = dict(os.environ)
    if not any(name.lower().endswith("_proxy") for name in environment):
        return lambda url: None
    from rawdl.proto.proxy import proxy_for

    return lambda url: proxy_for(url, environment)


def passwords_of(netrc: bool | str | os.PathLike[str]) -> Passwords | None:
    """Read a netrc file: the user's own, if there is one, or that with a path."""
    if netrc is False:
        return None
    from rawdl.passwords import Passwords

    return Passwords.own() if netrc is True else Passwords(checked_path("netrc", netrc))


def temporary_file(url: URL, directory: str | os.PathLike[str] | None) -> TemporaryFile:
    """Make the sink for a download that has no other, with the suffix that its URL has."""
    suffix = _SUFFIX.search(url.last_segment)
    return TemporaryFile(None if directory is None else os.path.abspath(directory), suffix[0] if suffix else "")


def target_of(
    file_path: str | os.PathLike[str] | None,
    sink: object,
    directory: str | os.PathLike[str] | None,
    *,
    suggested: bool,
) -> tuple[str | None, Sink | None]:
    """Return the path of the file to write, or the sink; neither, for a temporary file.

    ``suggested``: the server names the file, and the path is that of its folder.
    """
    if suggested and (file_path is not None or sink is not None):
        raise ValueError("use_suggested_name is for a file in directory; file_path and sink leave nothing to name")
    if suggested:
        return "" if directory is None else checked_path("directory", directory), None
    if (file_path is not None) + (sink is not None) + (directory is not None) > 1:
        raise ValueError("give one of file_path, sink and directory: each says where the bytes go")
    if sink is not None:
        return None, as_sink(sink)
    if file_path is not None:
        return checked_path("file_path", file_path), None
    if directory is not None:
        checked_path("directory", directory)
    return None, None


def open_name(url: URL, folder: str) -> tuple[str, str]:
    """Return the path that a file has until the server gives it a name, and a tag that tells its URL from others."""
    from zlib import crc32

    from rawdl.proto.fields import safe_filename

    tag = f"{crc32(str(url).encode('utf-8', 'surrogatepass')):08x}"
    return os.path.join(folder, native_name(safe_filename(url.last_segment))), tag


def tls_settings(given: TLS | SSLContext | None) -> TLS | SSLContext | None:
    """Check what was given for TLS."""
    if given is not None:
        from ssl import SSLContext

        from rawdl.tls import TLS

        if not isinstance(given, TLS | SSLContext):
            raise TypeError(f"tls is a TLS or an ssl.SSLContext, not {type(given).__name__}")
    return given


def checked_path(name: str, given: str | os.PathLike[str]) -> str:
    """Return a path as text; TypeError or ValueError for what is none."""
    path = os.fspath(given)
    if not isinstance(path, str):
        raise TypeError(f"{name} is a str or a path of str, not {type(path).__name__}")
    if not path or "\0" in path:
        raise ValueError(f"{name} cannot be {path!r}")
    return path


def checked_count(name: str, value: int, least: int) -> int:
    """Return a whole number, of which ``least`` is the least."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def checked_instance(name: str, value: _T, kind: type[_T]) -> _T:
    """Return it, if it is of that kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {kind.__name__}, not {type(value).__name__}")
    return value

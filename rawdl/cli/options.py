"""What the command line asked for, and the client that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rawdl.cli.report import CA_FILE, Unusable, UsageError
from rawdl.client import Client
from rawdl.proto.redirects import Redirects
from rawdl.proto.retry import Retry

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from rawdl.proto.auth import Credentials
    from rawdl.tls import TLS


class Options(NamedTuple):
    """What the command line asked for."""

    urls: Sequence[str]
    output: str | None = None
    directory: str | None = None
    use_suggested_name: bool = False
    exists: str = "overwrite"  # and the next three: as of `Client.download_file`
    resume: bool | str = "auto"
    checksum: str | None = None
    remote_time: bool = False
    decode: bool = False
    header: Mapping[str, str | None] | None = None
    auth: Credentials | None = None
    netrc: bool = False
    cookies: str | None = None
    cookie_jar: str | None = None
    proxy: str | None = "env"
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    key_password_file: str | None = None
    pins: Sequence[str] = ()
    verify: bool = True
    timeout: float | None = None
    retries: int = 4
    max_redirects: int = 10
    allow_downgrade: bool = False
    quiet: bool = False
    json: bool = False


def client_of(options: Options, jar: CookieJar | None) -> Client:
    """Make the client.  Raise UsageError for an option that makes no sense, Unusable for a PEM file that is none."""
    tls = _tls_of(options)
    try:
        return Client(
            tls=tls,
            retry=Retry(attempts=options.retries + 1),
            redirects=Redirects(limit=options.max_redirects, allow_downgrade=options.allow_downgrade),
            auth=options.auth,
            netrc=options.netrc,
            cookies=jar,
            proxy=options.proxy,
        )
    except (OSError, ValueError) as exc:
        raise UsageError(f"{'-x' if str(exc).startswith('invalid proxy') else '-n'}: {exc}") from exc


def _tls_of(options: Options) -> TLS | None:
    files = list(filter(None, (options.ca_file, options.client_cert, options.client_key)))
    if not (files or options.pins) and options.verify:
        return None
    from rawdl.tls import TLS

    password = _key_password(options)
    try:
        settings = TLS(
            ca_file=options.ca_file,
            client_cert=options.client_cert,
            client_key=options.client_key,
            key_password=password,
            pins=options.pins,
            verify=options.verify,
        )
        if files:
            settings.context()  # to learn now what is wrong with them, before anything is asked for
    except OSError as exc:  # ssl.SSLError is one
        raise Unusable(f"certificates in {', '.join(files)}: {_reason(exc, options)}", CA_FILE) from exc
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    return settings


def _key_password(options: Options) -> str | None:
    if options.key_password_file is None:
        return None
    from rawdl.cli.prompt import first_line

    key = options.client_key or options.client_cert or "the key"
    return first_line("--key-password-file", options.key_password_file, key)


def _reason(exc: OSError, options: Options) -> str:
    """Say what is wrong with a PEM file: OpenSSL's reasons are spelled in capitals, and need no place in its source."""
    words: str = getattr(exc, "reason", None) or exc.strerror or str(exc)
    if "PEM lib" in words:  # which is all that Python says of what is not PEM, and of a password that is not right
        if options.client_cert is None:
            return "that is no PEM"
        lock = "needs a password (--key-password-file)" if options.key_password_file is None else "has another password"
        return f"there is no certificate or no key in PEM, or the key {lock}"
    return words.replace("_", " ").lower() if words.isupper() else words

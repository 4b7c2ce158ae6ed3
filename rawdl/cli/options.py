"""What the command line asked for, and the client that does it."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rawdl.cli.grammar import grouped
from rawdl.cli.report import CA_FILE, Unusable, UsageError
from rawdl.cli.values import joined
from rawdl.client import Client
from rawdl.proto.messages import Limits
from rawdl.proto.redirects import Redirects
from rawdl.proto.retry import Retry
from rawdl.proto.timeouts import Timeouts

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from rawdl.proto.auth import Credentials
    from rawdl.tls import TLS
    from rawdl.trace import Trace

_SPEED_SECONDS = 30.0  # as curl has it


class Options(NamedTuple):
    """What the command line asked for.

    ``task`` are options of `Client.download_file`, ``client`` of `Client`, and ``tls`` of `TLS`: those that were given.
    """

    urls: Sequence[str] = ()
    task: Mapping[str, Any] = {}
    client: Mapping[str, Any] = {}
    tls: Mapping[str, Any] = {}
    output: str | None = None
    directory: str | None = None
    suggested: bool = False
    input_file: str | None = None
    create_dirs: bool = False
    dry_run: bool = False
    cookies: str | None = None
    cookie_jar: str | None = None
    key_password_file: str | None = None
    no_proxy: str | None = None
    quiet: bool = False
    verbose: bool = False
    trace: str | None = None
    json: bool = False
    progress: str = "auto"
    write_out: str | None = None


def options_of(given: Namespace) -> Options:
    """Make sense of what was given; ArgumentTypeError for what makes none."""
    groups = grouped(given)
    plain, task, client = groups.get("", {}), dict(groups.get("task", {})), dict(groups.get("client", {}))
    fields = [*plain.pop("header", [])]
    cookies = plain.pop("cookie", None)
    if cookies is not None and "=" in cookies:
        fields.append(("Cookie", cookies))
        cookies = None
    task["header"] = joined(fields)
    credentials = _credentials(plain)
    if credentials is not None:
        client["auth"] = credentials
    if client.get("proxy") == "none":
        client["proxy"] = None
    if "connections" in task:
        client["max_per_host"] = max(6, task["connections"])
    client |= _terms(groups, plain)
    if plain.get("progress") == "json":  # which is --json by another name
        plain |= {"progress": "auto", "json": True}
    if elsewhere := plain.pop("elsewhere", None):
        client["connect_to"] = dict(elsewhere)
    return Options(task=task, client=client, tls=groups.get("tls", {}), cookies=cookies, **plain)


def _terms(groups: Mapping[str, Mapping[str, Any]], plain: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a client that bound what it does."""
    terms: dict[str, Any] = {}
    retry = dict(groups.get("retry", {}))
    if "backoff" in retry:
        retry |= {"factor": 1.0, "jitter": "none", "max_delay": retry["backoff"]}
    timeouts = dict(groups.get("timeouts", {}))
    if "idle" in timeouts:
        timeouts["head"] = timeouts["idle"]
    limits = dict(groups.get("limits", {}))
    if "body" in limits:
        limits["decoded"] = limits["body"]
    kinds: tuple[tuple[str, Callable[..., Any], Mapping[str, Any]], ...] = (
        ("retry", Retry, retry),
        ("timeouts", Timeouts, timeouts),
        ("limits", Limits, limits),
        ("redirects", Redirects, groups.get("redirects", {})),
    )
    for name, kind, fields in kinds:
        if fields:
            terms[name] = kind(**fields)
    limit, time = plain.pop("speed_limit", None), plain.pop("speed_time", None)
    if limit is not None or time is not None:
        terms["low_speed"] = (limit or 1, time or _SPEED_SECONDS)
    return terms


def _credentials(plain: dict[str, Any]) -> Credentials | None:
    """Take the options about who asks out of the others."""
    user, token, digest = plain.pop("user", None), plain.pop("bearer", None), plain.pop("digest", False)
    if user is None and token is None:
        return None
    from rawdl.cli.prompt import asked
    from rawdl.proto.auth import BasicAuth, BearerAuth, DigestAuth

    try:
        if user is None:
            return BearerAuth(token)
        name, colon, password = user.partition(":")
        if not colon:
            password = asked("-u", name)
        return DigestAuth(name, password) if digest else BasicAuth(name, password)
    except ValueError as exc:
        raise ArgumentTypeError(f"{'--oauth2-bearer' if user is None else '-u'}: {exc}") from exc


def client_of(options: Options, jar: CookieJar | None, trace: Trace | None) -> Client:
    """Make the client.  Raise UsageError for an option that makes no sense, Unusable for a PEM file that is none."""
    tls = tls_of(options)
    settings = dict(options.client)
    if options.no_proxy is not None:
        settings["proxy"] = _exempt(settings.get("proxy", "env"), options.no_proxy)
    try:
        return Client(**settings, tls=tls, cookies=jar, trace=trace)
    except (OSError, ValueError) as exc:
        raise UsageError(f"{_culprit(exc, options)}: {exc}") from exc


def _exempt(proxy: str | None, hosts: str) -> str | None:
    """Have our environment say which hosts no proxy is for: it is what the library asks."""
    os.environ["no_proxy"] = hosts
    if proxy in (None, "env"):
        return proxy
    for name in ("http_proxy", "https_proxy"):
        os.environ[name] = proxy
    return "env"


def _culprit(exc: Exception, options: Options) -> str:
    """Return the flag whose value the library did not like."""
    text = str(exc)
    flags = {"invalid proxy": "--proxy", "local_address": "--interface", "unix_socket": "--unix-socket"}
    flags["connect_to"] = "--resolve or --connect-to"
    return next((flag for words, flag in flags.items() if text.startswith(words)), "-n")


def tls_of(options: Options) -> TLS | None:
    """Make the settings of TLS, None for the usual ones.  Raises what `client_of` does."""
    if not options.tls:
        return None
    from rawdl.tls import TLS

    files = [options.tls[name] for name in ("ca_file", "ca_dir", "client_cert", "client_key") if name in options.tls]
    try:
        settings = TLS(**options.tls, key_password=_key_password(options))
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

    key = options.tls.get("client_key") or options.tls.get("client_cert", "the key")
    return first_line("--key-password-file", options.key_password_file, key)


def _reason(exc: OSError, options: Options) -> str:
    """Say what is wrong with a PEM file: OpenSSL's reasons are spelled in capitals, and need no place in its source."""
    words: str = getattr(exc, "reason", None) or exc.strerror or str(exc)
    if "PEM lib" in words:  # which is all that Python says of what is not PEM, and of a password that is not right
        if "client_cert" not in options.tls:
            return "that is no PEM"
        lock = "needs a password (--key-password-file)" if options.key_password_file is None else "has another password"
        return f"there is no certificate or no key in PEM, or the key {lock}"
    return words.replace("_", " ").lower() if words.isupper() else words

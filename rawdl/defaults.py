"""What the tasks of a client have unless they are told otherwise."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from rawdl.arguments import checked_instance, credentials_of, passwords_of, proxies_of, tls_settings
from rawdl.errors import TLSError
from rawdl.job import Terms
from rawdl.pool import Key
from rawdl.proto.messages import Limits
from rawdl.proto.redirects import Redirects
from rawdl.proto.retry import Retry
from rawdl.proto.timeouts import Timeouts, check_seconds

if TYPE_CHECKING:
    from http.cookiejar import CookieJar
    from ssl import SSLContext

    from rawdl.job import Proxies
    from rawdl.proto.auth import Authority, Credentials
    from rawdl.proto.course import CookieStore
    from rawdl.proto.pacing import LowSpeed
    from rawdl.proto.url import URL
    from rawdl.tls import TLS


class Defaults:
    """The terms of a client's downloads, as whom they ask, and by which way.

    Raises TypeError, ValueError or OSError for what an argument of `Client` is not.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None,
        limits: Limits | None,
        low_speed: LowSpeed | tuple[float, float] | None,
        retry: Retry | None,
        redirects: Redirects | None,
        auth: Credentials | tuple[str, str] | None,
        netrc: bool | str | os.PathLike[str],
        proxy: str | None,
        tls: TLS | SSLContext | None,
    ) -> None:
        self._timeouts = Timeouts() if timeouts is None else checked_instance("timeouts", timeouts, Timeouts)
        self._limits = Limits() if limits is None else checked_instance("limits", limits, Limits)
        self.terms = Terms.of(
            self._timeouts,
            self._limits,
            _low_speed_of(low_speed),
            Retry() if retry is None else checked_instance("retry", retry, Retry),
            Redirects() if redirects is None else checked_instance("redirects", redirects, Redirects),
        )
        self.credentials = credentials_of(auth)
        self.proxies = proxies_of(proxy)
        self.trust = Trust(tls_settings(tls))
        self._passwords = passwords_of(netrc)

    def key(self, url: URL, proxies: Proxies) -> Key:
        """Return what a connection for the own URL of a task is known by.  ProxyError, TLSError."""
        return Key(url.origin, self.trust.own_context_for(url), proxies(url))

    def chosen_terms(
        self,
        timeout: float | None,
        timeouts: Timeouts | None,
        limits: Limits | None,
        low_speed: LowSpeed | tuple[float, float] | None,
        retry: Retry | None,
        redirects: Redirects | None,
    ) -> Terms:
        """Return the terms with what was given for one task in their place."""
        terms = self.terms
        return Terms.of(
            self._chosen_timeouts(timeout, timeouts),
            self._limits if limits is None else checked_instance("limits", limits, Limits),
            terms.low_speed if low_speed is None else _low_speed_of(low_speed),
            terms.retry if retry is None else checked_instance("retry", retry, Retry),
            terms.redirects if redirects is None else checked_instance("redirects", redirects, Redirects),
        )

    def _chosen_timeouts(self, timeout: float | None, timeouts: Timeouts | None) -> Timeouts:
        times = self._timeouts if timeouts is None else checked_instance("timeouts", timeouts, Timeouts)
        if timeout is None:
            return times
        check_seconds("timeout", timeout)
        if timeouts is not None and timeouts.total is not None:
            raise ValueError(f"timeout={timeout:g} and timeouts.total={timeouts.total:g} say the same thing twice")
        return replace(times, total=timeout)

    def authority(self, url: URL, given: Credentials | None) -> Authority | None:
        """Return what proves who asks; None if there is nothing."""
        if given is None and self._passwords is None and url.userinfo is None:
            return None
        from rawdl.proto.auth import Authority, userinfo_of

        named, look_up = userinfo_of(url), None if self._passwords is None else self._passwords.look_up
        if given is None and named is not None:
            given = (look_up and not named.password and look_up(url, True, named.username)) or named
        return Authority(given, url.origin, look_up, os.urandom(16).hex())


def _low_speed_of(value: LowSpeed | tuple[float, float] | None) -> LowSpeed | None:
    if value is None:
        return None
    from rawdl.proto.pacing import LowSpeed

    return LowSpeed.of(value)


class Jar:
    """Where tasks have their cookies from: the caller's jar, or one of their own once a redirect sets some."""

    def __init__(self, jar: CookieJar | None) -> None:
        self.kept: CookieStore | None = None
        if jar is not None:
            from rawdl.cookies import Cookies

            self.kept = Cookies(jar)

    def new(self) -> CookieStore:
        """Make a store for one task."""
        from rawdl.cookies import Cookies

        return Cookies()


class Trust:
    """What authenticates https servers, and us to them: contexts that are made when the first is needed.

    A client certificate is for the origin of a task's own URL, as all credentials are (I4): there is a context without
    one for the others, and for proxies.  A context of the caller's own is used for all, whatever it has.
    """

    def __init__(self, settings: TLS | SSLContext | None) -> None:
        self._settings = settings
        self._named: SSLContext | None = None
        self._nameless: SSLContext | None = None
        self.pins: Collection[str] = getattr(settings, "pins", ())

    def own_context_for(self, url: URL) -> SSLContext | None:
        """Return the context for the origin of a task's own URL; None for http.  TLSError if there can be none."""
        if url.scheme != "https":
            return None
        if self._named is None:
            named = getattr(self._settings, "client_cert", None) is not None
            self._named = self._made(self._settings) if named else self.context()
        return self._named

    def context_for(self, url: URL) -> SSLContext | None:
        """Return the context for any other origin; None for http.  Raises as that for the own one."""
        return self.context() if url.scheme == "https" else None

    def context(self) -> SSLContext:
        """Return the context for whoever is not to know us."""
        if self._nameless is None:
            settings = self._settings
            if getattr(settings, "client_cert", None) is not None:
                settings = replace(cast("TLS", settings), client_cert=None, client_key=None, key_password=None)
            self._nameless = self._made(settings)
        return self._nameless

    def _made(self, settings: TLS | SSLContext | None) -> SSLContext:
        from rawdl.tls import context_of

        try:
            context = context_of(settings)
        except OSError as exc:  # ssl.SSLError is one
            raise TLSError(f"cannot use the files of tls=: {exc}", certificate=True, errno=exc.errno) from exc
        if not context.verify_mode and not (self._named or self._nameless):
            import logging

            logging.getLogger("rawdl").warning("certificates are not verified: anybody can be the server")
        return context

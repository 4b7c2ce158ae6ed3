"""Everything that can go wrong with a download, as one tree.

    DownloadError                 .err_msg .err_code .reason .url .attempts .part
    ├── InvalidURL (ValueError)       what was given is no usable http(s) URL
    ├── Aborted                       somebody called abort(), or closed the client
    ├── Timeout (TimeoutError)        .phase: which limit fired
    ├── NetworkError (OSError)        .errno is the operating system's, where there is one
    │   ├── ResolveError                  the name has no address
    │   ├── ConnectError                  no address could be connected to
    │   ├── TLSError                      .certificate: whether the certificate is what was refused
    │   ├── ProxyError                    the proxy refused, or broke off: .status_code
    │   └── ConnectionLost                the connection broke outside of the body
    ├── ProtocolError                 the server broke HTTP/1.1
    │   └── IncompleteHead                closed inside the response head
    │       IncompleteBody                closed inside the body: .received .expected
    ├── RedirectError                 a redirect that is not followed: too many, a loop, a forbidden target
    ├── StatusError                   a 4xx or 5xx, where fail_on_status asked for this: .status_code
    ├── TooLarge                      the body exceeds limits.body: .limit
    ├── DecodingError                 the content coding is unknown, broken or incomplete
    ├── ChecksumError                 the bytes are not those that were promised: .expected .actual
    ├── RangeError                    the download cannot be resumed, and must not begin anew
    └── StorageError (OSError)        a file or sink failed: .path

Errors hold plain data only, never a live object.  ``str(error)`` is the long message, with the numbers; ``err_msg``
is Taro's short one, made of a fixed set of reasons and never of the server's text.
"""

from __future__ import annotations


class DownloadError(Exception):
    """The root: catch this to catch every way in which a download can fail.

    ``err_code`` is the number that mini programs give to this kind of failure; ``to_dict()`` calls it ``errno``.
    ``attempts`` are the errors of the tries before.  ``part`` is the file that was kept, if one was, because a later
    download of the same URL to the same path can go on from there.
    """

    reason = "interrupted"
    err_code = 602001
    url: str | None = None
    attempts: tuple[DownloadError, ...] = ()
    part: str | None = None

    def __init__(self, message: str, *, url: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if url is not None:
            self.url = url

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        state = dict(self.__dict__)
        if isinstance(self, OSError):
            state["errno"] = self.errno
        return _rebuild, (type(self), self.message, state)

    @property
    def err_msg(self) -> str:
        """Taro's ``errMsg``: ``downloadFile:fail <reason>``."""
        return f"downloadFile:fail {self.reason}"

    def to_dict(self) -> dict[str, object]:
        """Return Taro's spelling of the failure, ready for ``json.dumps``."""
        told: dict[str, object] = {"errMsg": self.err_msg, "errno": self.err_code, "message": self.message}
        return told if self.part is None else told | {"part": self.part}


def _rebuild(kind: type[DownloadError], message: str, state: dict[str, object]) -> DownloadError:
    error = kind.__new__(kind)
    DownloadError.__init__(error, message)
    for name, value in state.items():
        setattr(error, name, value)
    return error


class InvalidURL(DownloadError, ValueError):
    """What was given is not a usable http or https URL."""

    reason = "invalid url"
    err_code = 600009


class Aborted(DownloadError):
    """The task was aborted."""

    reason = "abort"
    err_code = 600003


class Timeout(DownloadError, TimeoutError):
    """A time limit ran out; ``phase`` is the `Phase` of that name: that of `Timeouts`, or low_speed."""

    reason = "timeout"
    err_code = 5

    def __init__(self, message: str, *, phase: str, url: str | None = None) -> None:
        super().__init__(message, url=url)
        self.phase = phase


class NetworkError(DownloadError, OSError):
    """The network failed; ``errno`` is the operating system's number, or None."""

    reason = "interrupted"
    err_code = 600001

    def __init__(self, message: str, *, errno: int | None = None, url: str | None = None) -> None:
        super().__init__(message, url=url)
        self.errno = errno


class ResolveError(NetworkError):
    """The host name could not be resolved to an address.  ``temporary``: it may be, a little later."""

    reason = "name not resolved"

    def __init__(
        self, message: str, *, temporary: bool = False, errno: int | None = None, url: str | None = None
    ) -> None:
        super().__init__(message, errno=errno, url=url)
        self.temporary = temporary


class ConnectError(NetworkError):
    """No address of the host could be connected to; the message lists each of them with its error."""

    reason = "connection failed"


class TLSError(NetworkError):
    """The TLS handshake failed.

    ``certificate`` says whether the server's certificate is what was refused, and ``unpinned`` whether that was because
    its public key is none of those that are pinned.
    """

    reason = "connection failed"

    def __init__(
        self,
        message: str,
        *,
        certificate: bool = False,
        unpinned: bool = False,
        errno: int | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, url=url)
        self.certificate = certificate
        self.unpinned = unpinned
        if certificate:
            self.reason = "certificate"


class ConnectionLost(NetworkError):
    """The connection broke while the request was sent or the response head was awaited."""


class ProxyError(NetworkError):
    """The proxy is unusable, refused, or broke off.

    ``status_code`` is that of its answer, or None.  ``permanent`` says that a little later it would be the same: it
    wants another password, or cannot be asked at all.
    """

    reason = "proxy"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        permanent: bool = False,
        errno: int | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, url=url)
        self.status_code = status_code
        self.permanent = permanent or (status_code is not None and status_code < 500)


class ProtocolError(DownloadError):
    """The server sent something that is not HTTP/1.1 (RFC 9112), or more of it than the limits allow."""

    reason = "protocol error"
    err_code = 600001


class IncompleteHead(ProtocolError):
    """The peer closed the connection inside the response head, or before it (RFC 9112 8)."""

    reason = "incomplete"


class IncompleteBody(ProtocolError):
    """The peer went away inside the body (RFC 9112 8).

    ``received`` counts the payload bytes of this response; ``expected`` is its length, or None where the framing
    does not tell.
    """

    reason = "incomplete"

    def __init__(self, message: str, *, received: int, expected: int | None, url: str | None = None) -> None:
        super().__init__(message, url=url)
        self.received = received
        self.expected = expected


class RedirectError(DownloadError):
    """A redirect that is not followed: one too many, a loop, another scheme, a downgrade, or no usable target."""

    reason = "redirect"


class StatusError(DownloadError):
    """The server answered 4xx or 5xx and ``fail_on_status`` was set."""

    def __init__(self, message: str, *, status_code: int, url: str | None = None) -> None:
        super().__init__(message, url=url)
        self.status_code = status_code
        self.reason = f"http status {status_code}"


class TooLarge(DownloadError):
    """The body is larger than ``limits.body``; ``limit`` is that number of bytes."""

    reason = "exceed max file size"

    def __init__(self, message: str, *, limit: int, url: str | None = None) -> None:
        super().__init__(message, url=url)
        self.limit = limit


class DecodingError(DownloadError):
    """The content coding of the body is unknown, broken or incomplete."""

    reason = "decoding"


class ChecksumError(DownloadError):
    """The bytes that arrived are not those that were promised.

    ``expected`` and ``actual`` are digests in hexadecimal, each with the name of its hash and a colon before it.
    """

    reason = "checksum mismatch"

    def __init__(self, message: str, *, expected: str, actual: str, url: str | None = None) -> None:
        super().__init__(message, url=url)
        self.expected = expected
        self.actual = actual


class RangeError(DownloadError):
    """The download was to be resumed and cannot be; what is there of it is kept."""

    reason = "cannot resume"


class StorageError(DownloadError, OSError):
    """The bytes could not be stored: ``path`` names the file (None for a sink), ``errno`` the system's number."""

    reason = "storage"

    def __init__(
        self, message: str, *, path: str | None = None, errno: int | None = None, url: str | None = None
    ) -> None:
        super().__init__(message, url=url)
        self.path = path
        self.errno = errno


def status_error(status_code: int, url: str) -> StatusError:
    """Make the error for a 4xx or 5xx."""
    return StatusError(f"the server answered {status_code} for {url}", status_code=status_code, url=url)


def too_large(size: int, limit: int) -> TooLarge:
    """Make the error for a body that has ``size`` bytes, or more."""
    return TooLarge(f"the body has {size} bytes or more; {limit} are allowed", limit=limit)


def unexpected(exc: BaseException) -> DownloadError:
    """Wrap what nobody reckoned with."""
    error = DownloadError(f"unexpected {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error

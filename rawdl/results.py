"""What listeners and callers get: the header event and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rawdl.errors import DownloadError, status_error

if TYPE_CHECKING:
    from rawdl.profile import Profile
    from rawdl.proto.messages import Headers


class HeadersReceived(NamedTuple):
    """The head of the final response, seen before any of its body."""

    header: Headers
    status_code: int
    reason: str
    http_version: str
    url: str

    def to_dict(self) -> dict[str, object]:
        """Return Taro's spelling, ready for ``json.dumps``."""
        return {
            "header": self.header.to_dict(),
            "statusCode": self.status_code,
            "reason": self.reason,
            "httpVersion": self.http_version,
            "url": self.url,
        }


class Marks:
    """The moments of one download, in the loop's clock; 0.0 for what has not happened."""

    __slots__ = (
        "connect_end",
        "connect_start",
        "lookup_end",
        "lookup_start",
        "offset",
        "peer",
        "queue_end",
        "queue_start",
        "received",
        "redirect_end",
        "redirect_start",
        "request_end",
        "request_start",
        "response_end",
        "response_start",
        "reused",
        "sent",
        "tls_end",
        "tls_start",
    )

    def __init__(self, now: float, wall_offset: float) -> None:
        self.offset = wall_offset
        self.queue_start = now
        self.queue_end = self.redirect_start = self.redirect_end = 0.0
        self.received = 0
        self.renew()

    def renew(self) -> None:
        """Forget the exchange: there will be another, and that is the one to be told of."""
        self.lookup_start = self.lookup_end = self.connect_start = self.connect_end = 0.0
        self.tls_start = self.tls_end = self.request_start = self.request_end = 0.0
        self.response_start = self.response_end = 0.0
        self.peer: tuple[str, int] = ("", 0)
        self.reused = False
        self.sent = 0


class DownloadResult:
    """A download that ended as the server meant it to, whatever the status.

    ``file_path`` is what was given, and ``temp_file_path`` the file that was made where none was; with a sink both are
    None.  ``data_length`` is the bytes that were written.  ``cookies`` are the raw Set-Cookie values.
    ``content_encoding`` is that of the bytes as they were saved ("" for none, as after ``decode=True``).
    ``length_known`` is False where only the close of the connection told where the body ended, so that nothing could
    tell a truncated one.  ``redirects`` are the URLs left behind, ``attempts`` the errors of the tries that failed,
    ``resumed_from`` the bytes that were there from an earlier download, and ``checksum`` what the bytes were verified
    against ("" for nothing).  ``surplus`` bytes came behind the end that the server had told, and were dropped: it may
    have told it wrong.  ``skipped``: the file was there already, and ``exists="skip"`` left it alone; the status
    is 0 then.
    """

    __slots__ = (
        "_decoded",
        "attempts",
        "checksum",
        "data_length",
        "err_msg",
        "file_path",
        "header",
        "length_known",
        "marks",
        "redirects",
        "resumed_from",
        "skipped",
        "status_code",
        "surplus",
        "temp_file_path",
        "url",
    )

    def __init__(
        self,
        *,
        temp_file_path: str | None,
        file_path: str | None,
        head: HeadersReceived,
        data_length: int,
        length_known: bool,
        marks: Marks,
        redirects: tuple[str, ...] = (),
        attempts: tuple[DownloadError, ...] = (),
        resumed_from: int = 0,
        checksum: str = "",
        surplus: int = 0,
        skipped: bool = False,
        decoded: bool = False,
    ) -> None:
        self._decoded = decoded
        self.temp_file_path = temp_file_path
        self.file_path = file_path
        self.status_code = head.status_code
        self.err_msg = "downloadFile:ok"
        self.header = head.header
        self.data_length = data_length
        self.url = head.url
        self.redirects = redirects
        self.attempts = attempts
        self.resumed_from = resumed_from
        self.checksum = checksum
        self.surplus = surplus
        self.skipped = skipped
        self.length_known = length_known
        self.marks = marks

    @property
    def cookies(self) -> tuple[str, ...]:
        """The raw Set-Cookie values, in order."""
        return tuple(self.header.get_all("set-cookie"))

    @property
    def content_encoding(self) -> str:
        """The codings that the saved bytes have, in the order in which they were applied (RFC 9110 8.4)."""
        return "" if self._decoded else ", ".join(self.header.get_all("content-encoding"))

    @property
    def profile(self) -> Profile:
        """When what happened, in WeChat's terms."""
        from rawdl.profile import profile_of

        return profile_of(self.marks)

    def raise_for_status(self) -> DownloadResult:
        """Raise StatusError for a 4xx or 5xx, unless it is a 416 that proves the file whole; else return this."""
        if self.status_code >= 400 and not (self.status_code == 416 and self.resumed_from):
            raise status_error(self.status_code, self.url)
        return self

    def __repr__(self) -> str:
        where = self.file_path or self.temp_file_path or "a sink"
        return f"<DownloadResult {self.status_code} {self.url} to {where}, {self.data_length} bytes>"

    def to_dict(self) -> dict[str, object]:
        """Return Taro's spelling, ready for ``json.dumps``."""
        return {
            "tempFilePath": self.temp_file_path,
            "filePath": self.file_path,
            "statusCode": self.status_code,
            "errMsg": self.err_msg,
            "header": self.header.to_dict(),
            "dataLength": self.data_length,
            "cookies": list(self.cookies),
            "profile": self.profile.to_dict(),
            "url": self.url,
            "redirects": list(self.redirects),
            "resumedFrom": self.resumed_from,
            "checksum": self.checksum,
            "surplus": self.surplus,
            "skipped": self.skipped,
        }

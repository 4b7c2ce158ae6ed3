"""What listeners and callers get: the header event, the result, and its profile."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from rawdl.errors import DownloadError, StatusError

if TYPE_CHECKING:
    from rawdl.proto.messages import Headers


@dataclass(frozen=True, slots=True)
class HeadersReceived:
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
        self.queue_end = self.lookup_start = self.lookup_end = self.connect_start = self.connect_end = 0.0
        self.tls_start = self.tls_end = self.request_start = self.request_end = 0.0
        self.response_start = self.response_end = 0.0
        self.peer: tuple[str, int] = ("", 0)
        self.reused = False
        self.sent = self.received = 0

    def profile(self) -> Profile:
        """Turn them into wall-clock milliseconds."""
        fetch = self.queue_end

        def ms(mark: float) -> int:
            return round((mark + self.offset) * 1000) if mark else 0

        # Nothing was looked up or connected on a reused connection: those moments are that of the fetch.
        lookup_start, lookup_end = self.lookup_start or fetch, self.lookup_end or fetch
        connect_start = max(self.connect_start or fetch, lookup_end)
        seconds = self.response_end - self.response_start
        return Profile(
            invoke_start=ms(self.queue_start),
            queue_start=ms(self.queue_start),
            queue_end=ms(fetch),
            fetch_start=ms(fetch),
            domain_look_up_start=ms(lookup_start),
            domain_look_up_end=ms(lookup_end),
            connect_start=ms(connect_start),
            connect_end=ms(max(self.connect_end, connect_start)),
            ssl_connection_start=ms(self.tls_start),
            ssl_connection_end=ms(self.tls_end),
            request_start=ms(self.request_start),
            request_end=ms(self.request_end),
            response_start=ms(self.response_start),
            response_end=ms(self.response_end),
            peer_ip=self.peer[0],
            port=self.peer[1],
            socket_reused=self.reused,
            send_bytes_count=self.sent,
            received_bytes_count=self.received,
            throughput_kbps=round(self.received * 8 / 1000 / seconds) if seconds > 0 else 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """When what happened: wall-clock milliseconds, 0 for what did not happen or cannot be measured.

    fetch_start ≤ domain_look_up ≤ connect ≤ request ≤ response; ``connect_end`` includes TLS.  On a reused connection
    look-up and connect equal ``fetch_start``.  The byte counts are the request and the response head with the payload.
    """

    invoke_start: int = 0
    queue_start: int = 0
    queue_end: int = 0
    fetch_start: int = 0
    redirect_start: int = 0
    redirect_end: int = 0
    domain_look_up_start: int = 0
    domain_look_up_end: int = 0
    connect_start: int = 0
    connect_end: int = 0
    ssl_connection_start: int = 0
    ssl_connection_end: int = 0
    request_start: int = 0
    request_end: int = 0
    response_start: int = 0
    response_end: int = 0
    rtt: int = 0
    estimate_nettype: int = 0
    http_rtt_estimate: int = 0
    transport_rtt_estimate: int = 0
    downstream_throughput_kbps_estimate: int = 0
    throughput_kbps: int = 0
    protocol: str = "http1.1"
    peer_ip: str = ""
    port: int = 0
    socket_reused: bool = False
    send_bytes_count: int = 0
    received_bytes_count: int = 0
    using_high_performance_mode: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return WeChat's spelling, slips of the pen included."""
        return {_wechat_name(field.name): getattr(self, field.name) for field in fields(self)}


_ODD_NAMES: Final = {
    "ssl_connection_start": "SSLconnectionStart",
    "ssl_connection_end": "SSLconnectionEnd",
    "estimate_nettype": "estimate_nettype",
    "peer_ip": "peerIP",
    "received_bytes_count": "receivedBytedCount",
}


def _wechat_name(name: str) -> str:
    first, *rest = name.split("_")
    return _ODD_NAMES.get(name) or first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadResult:
    """A download that ended as the server meant it to, whatever the status.

    ``file_path`` is what was given, and ``temp_file_path`` the file that was made where none was; with a sink both are
    None.  ``data_length`` is the bytes that were written.  ``cookies`` are the raw Set-Cookie values.
    ``content_encoding`` is that of the bytes as they were saved ("" for none): they are not decoded.
    ``length_known`` is False where only the close of the connection told where the body ended, so that nothing could
    tell a truncated one.
    """

    temp_file_path: str | None
    file_path: str | None
    status_code: int
    header: Headers
    data_length: int
    url: str
    length_known: bool
    marks: Marks
    err_msg: str = "downloadFile:ok"
    redirects: tuple[str, ...] = ()
    attempts: tuple[DownloadError, ...] = ()
    resumed_from: int = 0

    @property
    def cookies(self) -> tuple[str, ...]:
        """The raw Set-Cookie values, in order."""
        return tuple(self.header.get_all("set-cookie"))

    @property
    def content_encoding(self) -> str:
        """The codings that the saved bytes have, in the order in which they were applied (RFC 9110 8.4)."""
        return ", ".join(self.header.get_all("content-encoding"))

    @property
    def profile(self) -> Profile:
        """When what happened, in WeChat's terms."""
        return self.marks.profile()

    def raise_for_status(self) -> DownloadResult:
        """Raise StatusError for a 4xx or 5xx; else return this."""
        if self.status_code >= 400:
            raise status_error(self.status_code, self.url)
        return self

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
        }


def status_error(status_code: int, url: str) -> StatusError:
    """Make the error for a 4xx or 5xx."""
    return StatusError(f"the server answered {status_code} for {url}", status_code=status_code, url=url)

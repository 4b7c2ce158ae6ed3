"""When what happened in a download, as WeChat's profile tells it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rawdl.results import Marks


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


def profile_of(marks: Marks) -> Profile:
    """Turn the moments of a download into wall-clock milliseconds."""
    fetch = marks.queue_end

    def ms(mark: float) -> int:
        return round((mark + marks.offset) * 1000) if mark else 0

    # Nothing was looked up or connected on a reused connection: those moments are that of the fetch.
    lookup_start, lookup_end = marks.lookup_start or fetch, marks.lookup_end or fetch
    connect_start = max(marks.connect_start or fetch, lookup_end)
    seconds = marks.response_end - marks.response_start
    return Profile(
        invoke_start=ms(marks.queue_start),
        queue_start=ms(marks.queue_start),
        queue_end=ms(fetch),
        fetch_start=ms(fetch),
        redirect_start=ms(marks.redirect_start),
        redirect_end=ms(marks.redirect_end),
        domain_look_up_start=ms(lookup_start),
        domain_look_up_end=ms(lookup_end),
        connect_start=ms(connect_start),
        connect_end=ms(max(marks.connect_end, connect_start)),
        ssl_connection_start=ms(marks.tls_start),
        ssl_connection_end=ms(marks.tls_end),
        request_start=ms(marks.request_start),
        request_end=ms(marks.request_end),
        response_start=ms(marks.response_start),
        response_end=ms(marks.response_end),
        peer_ip=marks.peer[0],
        port=marks.peer[1],
        socket_reused=marks.reused,
        send_bytes_count=marks.sent,
        received_bytes_count=marks.received,
        throughput_kbps=round(marks.received * 8 / 1000 / seconds) if seconds > 0 else 0,
    )


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

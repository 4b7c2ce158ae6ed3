"""Time the pure half, without a socket: heads, framing, the speed meter, URLs; beside h11 and http.client.

CPU time in one process, the subjects of a group measured in turn, round after round; the median of the rounds.  See
README.md for how to read it.
"""

from __future__ import annotations

import http.client
import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from rounds import ROOT, Result, Sample, number, options, spread, table, write_json

sys.path.insert(0, str(ROOT))

import h11

from rawdl.proto import BodyComplete, Exchange, HeadReceived, Request
from rawdl.proto.http11 import HeadWriter
from rawdl.proto.progress import Progress, SpeedMeter
from rawdl.proto.url import URL

MIB = 1 << 20
PIECE = 1 << 18  # octets in one read from the network
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 01 Jul 2025 06:30:00 GMT\r\n"
    b"Content-Type: application/octet-stream\r\n%b\r\nLast-Modified: Tue, 01 Jul 2025 06:00:00 GMT\r\n"
    b'Connection: keep-alive\r\nETag: "6863a0b0-2800"\r\nAccept-Ranges: bytes\r\n\r\n'
)
SIZED, CHUNKED = b"Content-Length: %d", b"Transfer-Encoding: chunked"
ADDRESS = "http://example.org/pool/main/a/file.bin"
FIELDS = [("Host", "example.org"), ("User-Agent", "bench/1"), ("Accept", "*/*"), ("Accept-Encoding", "identity")]


class Subject(NamedTuple):
    """`call` is timed `calls` times in a row; the figure is for one `unit`, of which a call does `units`."""

    name: str
    call: Callable[[], object]
    calls: int
    units: float = 1.0


class Group(NamedTuple):
    title: str
    unit: str
    subjects: list[Subject]


def main() -> int:
    args = options(__doc__.partition("\n")[0], rounds=7).parse_args()
    found: dict[str, dict[str, Result]] = {}
    for group in groups():
        results = {subject.name: Result(subject.name, []) for subject in group.subjects}
        for turn in range(args.rounds):
            at = turn % len(group.subjects)
            for subject in group.subjects[at:] + group.subjects[:at]:
                results[subject.name].samples.append(clock(subject))
        found[group.title] = results
        print(show(group, args.rounds, results), flush=True)
    if args.json:
        write_json(args.json, "pure", {"rounds": args.rounds, "unit": "cpu: seconds per unit of the title"}, found)
    if args.plot:
        from chart import bar_chart

        bar_chart(args.plot, "The pure half", [chart(group, found[group.title]) for group in groups()])
    return 0


def clock(subject: Subject) -> Sample:
    """Return the CPU seconds for one unit."""
    call = subject.call
    started, wall = time.process_time(), time.perf_counter()
    for _ in range(subject.calls):
        call()
    units = subject.calls * subject.units
    cpu = (time.process_time() - started) / units
    return Sample(cpu, cpu, (time.perf_counter() - wall) / units, 0, {})


def groups() -> list[Group]:
    """Return everything that is timed; each call was made once, and checks that it did the work."""
    made = [
        heads(),
        sized_body(),
        large_chunks(),
        tiny_chunks(),
        Group("The speed of a download", "µs per sample", meters()),
        Group("An absolute URL", "µs per URL", urls()),
    ]
    for group in made:
        for subject in group.subjects:
            subject.call()
    return made


def heads() -> Group:
    head = HEAD % (SIZED % 10240)
    request, writer = Request("GET", URL.parse(ADDRESS)), HeadWriter()
    h11_request = h11.Request(method="GET", target="/pool/main/a/file.bin", headers=FIELDS)

    def exchange() -> None:
        one = Exchange(request, writer=writer)  # one writer serves all exchanges of a client
        one.data_sent(len(one.data_to_send()))
        one.receive_data(head)
        assert isinstance(one.next_event(), HeadReceived)

    def h11_exchange() -> None:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11_request)
        connection.send(h11.EndOfMessage())
        connection.receive_data(head)
        assert isinstance(connection.next_event(), h11.Response)

    def begin() -> None:
        http.client.HTTPResponse(Wire(head)).begin()  # type: ignore[arg-type]

    return Group(
        "A request written and a response head read",
        "µs per exchange",
        [
            Subject("rawdl Exchange", exchange, 500),
            Subject("rawdl Request built", lambda: Request("GET", URL.parse(ADDRESS)), 500),
            Subject("h11 alone", h11_exchange, 500),
            Subject("http.client (reads only)", begin, 500),
        ],
    )


def sized_body() -> Group:
    wire = HEAD % (SIZED % (16 * MIB)) + bytes(16 * MIB)
    past = Subject("rawdl, payload let past", lambda: rawdl_window(wire), 1, 16)
    return Group("Content-Length, 16 MiB in reads of 256 KiB", "µs per MiB", [past, *readers(wire)])


def large_chunks() -> Group:
    wire = HEAD % CHUNKED + (b"10000\r\n" + bytes(65536) + b"\r\n") * 256 + b"0\r\n\r\n"
    return Group("Chunks of 64 KiB, 16 MiB in reads of 256 KiB", "µs per MiB", readers(wire))


def readers(wire: bytes) -> list[Subject]:
    """Return those who read a whole recorded response of 16 MiB."""
    return [
        Subject("rawdl, every octet fed", lambda: rawdl_body(wire), 1, 16),
        Subject("h11", lambda: h11_body(wire), 1, 16),
        Subject("http.client readinto", lambda: http_client_body(wire), 1, 16),
    ]


def tiny_chunks() -> Group:
    """Return the worst case: 6 octets on the wire for 1 of payload.  The others get less of it, scaled to 1 MiB."""

    def wire(payload: int) -> bytes:
        return HEAD % CHUNKED + b"1\r\nx\r\n" * payload + b"0\r\n\r\n"

    whole, part = wire(MIB), wire(MIB // 64)
    return Group(
        "Chunks of 1 octet, reads of 256 KiB",
        "µs per MiB",
        [
            Subject("rawdl, every octet fed", lambda: rawdl_body(whole), 1, 1),
            Subject("h11 (from 16 KiB)", lambda: h11_body(part), 1, 1 / 64),
            Subject("http.client readinto (from 16 KiB)", lambda: http_client_body(part), 1, 1 / 64),
        ],
    )


def pieces(wire: bytes) -> Iterator[memoryview]:
    view = memoryview(wire)
    return (view[at : at + PIECE] for at in range(0, len(view), PIECE))


def rawdl_body(wire: bytes) -> None:
    """Feed everything and take the events."""
    exchange, event = Exchange(Request("GET", URL.parse(ADDRESS))), None
    exchange.data_sent(len(exchange.data_to_send()))
    for piece in pieces(wire):
        exchange.receive_data(piece)
        while (latest := exchange.next_event()) is not None:
            event = latest
    assert isinstance(event, BodyComplete)


def rawdl_window(wire: bytes) -> None:
    """Feed only what is not certainly payload, as where the kernel moves the body."""
    exchange, event, at = Exchange(Request("GET", URL.parse(ADDRESS))), None, 0
    exchange.data_sent(len(exchange.data_to_send()))
    view = memoryview(wire)
    while at < len(view) and not isinstance(event, BodyComplete):
        if window := min(exchange.body_window(), len(view) - at, PIECE):
            exchange.advance(window)
            at += window
            taken = view[:0]
        else:
            taken = view[at : at + 512]
            at += len(taken)
        exchange.receive_data(taken)
        while (latest := exchange.next_event()) is not None:
            event = latest
    assert isinstance(event, BodyComplete)


def h11_body(wire: bytes) -> None:
    connection, event = h11.Connection(h11.CLIENT), None
    connection.send(h11.Request(method="GET", target="/", headers=FIELDS))
    connection.send(h11.EndOfMessage())
    for piece in pieces(wire):
        connection.receive_data(piece)
        while (latest := connection.next_event()) is not h11.NEED_DATA:
            event = latest
            if isinstance(event, h11.EndOfMessage):
                return
    raise AssertionError(event)


class Wire:
    """Just enough of a socket for http.client."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def http_client_body(wire: bytes) -> None:
    response = http.client.HTTPResponse(Wire(wire), method="GET")  # type: ignore[arg-type]
    response.begin()
    buffer = bytearray(PIECE)
    while response.readinto(buffer):
        pass
    assert response.isclosed()


def meters() -> list[Subject]:
    meter, progress = SpeedMeter(0.0), Progress(0.0, 1 << 40, 0.05)
    moments = iter(range(1, 1 << 62))

    def sample() -> None:
        moment = next(moments)
        meter.sample(moment * 0.001, moment * 1000)
        meter.speed(moment * 0.001)

    def advance() -> None:
        moment = next(moments)
        if progress.advance(moment * 0.001, moment * 1000):
            progress.snapshot(moment * 0.001)

    return [
        Subject("SpeedMeter sample and speed", sample, 2000),
        Subject("Progress at 1000 a second, 20 events", advance, 2000),
    ]


def urls() -> list[Subject]:
    """Every call gets another address: urlsplit remembers those that it has seen."""
    numbers = iter(range(1 << 62))

    def parse() -> None:
        assert URL.parse(f"{ADDRESS}?{next(numbers)}").host == "example.org"

    def split() -> None:
        assert urlsplit(f"{ADDRESS}?{next(numbers)}").hostname == "example.org"

    return [Subject("rawdl URL.parse", parse, 1000), Subject("urllib.parse.urlsplit", split, 1000)]


def show(group: Group, rounds: int, results: dict[str, Result]) -> str:
    first = next(iter(results.values()))
    rows = [
        [
            name,
            number(result.median("cpu") * 1e6, 1),
            spread([cpu * 1e6 for cpu in result.values("cpu")], 1),
            number(result.ratio(first), 2),
        ]
        for name, result in results.items()
    ]
    header = ["subject", group.unit, "least–most", "× the first"]
    return table(f"{group.title}, {rounds} rounds", header, rows)


def chart(group: Group, results: dict[str, Result]) -> tuple[str, str, dict[str, float]]:
    return group.title, group.unit, {name: result.median("cpu") * 1e6 for name, result in results.items()}


if __name__ == "__main__":
    sys.exit(main())

"""What is told of a recording that was replayed: its events, its outcome, and what others make of it."""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from rawdl.cli.compare import Outcome, differences
from rawdl.cli.output import Stdout
from rawdl.cli.report import ndjson
from rawdl.proto import BodyComplete, DataReceived, Event, Headers, HeadReceived
from rawdl.proto.fields import escape
from rawdl.proto.framing import Chunked, ContentLength, Framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawdl.cli.replay import How, Reading

_ENOUGH: Final = 65536  # bytes of output that are worth a write
_BRIEF: Final = 16  # digits by which one digest is told from another
_EOF: Final = {"clean": "a clean close", "abrupt": "a broken connection", None: "silence"}


class Output:
    """Standard output, in large writes."""

    def __init__(self) -> None:
        self._stdout = Stdout()
        self._encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        self._pending = bytearray()

    def line(self, text: str) -> None:
        self.write(text.encode(self._encoding, "backslashreplace") + b"\n")

    def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= _ENOUGH:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, bytearray()
        self._stdout.write(memoryview(pending))


class Text:
    """For people.  Whatever the server has sent is escaped."""

    def __init__(self, out: Output, *, with_data: bool) -> None:
        self._out = out
        self._with_data = with_data
        self._path = ""

    def begin(self, path: str, size: int, how: How) -> None:
        self._path = escape(path)
        self._line(f"{self._path}: {size} bytes, {_split_text(how.split)}, then {_EOF[how.eof]}")

    def event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            data = f"  {bytes(event.data).decode('latin-1')}" if self._with_data else ""
            self._line(escape(f"  data {len(event.data)}{data}"))
        elif isinstance(event, BodyComplete):
            self._fields(event.trailer)
            surplus = f", {event.surplus} bytes behind it" if event.surplus else ""
            self._line(f"  end of {event.length} bytes{surplus}")
            for reason in event.close_reasons:
                self._line(f"    no further exchange: {reason}")
        elif isinstance(event, HeadReceived):
            self._line(escape(f"  HTTP/{event.http_version} {event.status_code} {event.reason}".rstrip(" ")))
            self._fields(event.header)
            self._line(f"  body {_framing_text(event.framing)}")
        else:
            self._line(f"  interim {event.status_code}")
            self._fields(event.header)

    def end(self, reading: Reading) -> None:
        self._line(f"{self._path}: {outcome_text(reading.outcome)}")

    def comparison(self, ours: Outcome, peers: Sequence[tuple[str, Outcome | str]]) -> None:
        for name, outcome in [("rawdl", ours), *peers]:
            if isinstance(outcome, str):
                self._line(f"  {name:<12}{outcome}")
                continue
            apart = differences(ours, outcome)
            told = f"{outcome.verdict:<11}{_status_text(outcome):<10}{outcome.length:>9}  {outcome.sha256[:_BRIEF]}"
            told += f"  DIFFERS in {', '.join(apart)}" if apart else ""
            told += f": {outcome.why}" if apart and outcome.why else ""
            self._line(escape(f"  {name:<12}{told}"))

    def splits(self, apart: str | None) -> None:
        self._line(f"{self._path}: {apart or 'the same however it is cut'}")

    def reproduction(self, command: str) -> None:
        self._line(command)

    def _fields(self, header: Headers) -> None:
        for name, value in header.fields:
            self._line(escape(f"    {name}: {value}"))

    def _line(self, text: str) -> None:
        self._out.line(text)


class Json:
    """For programs: one object a line, with Taro's spelling where Taro has a word for it."""

    def __init__(self, out: Output, *, with_data: bool) -> None:
        self._out = out
        self._with_data = with_data
        self._path = ""

    def begin(self, path: str, size: int, how: How) -> None:
        self._path = path
        self._line("replay", {"bytes": size, "split": how.split, "eof": how.eof, "method": how.method})

    def event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            data = {"data": b64encode(event.data).decode()} if self._with_data else {}
            self._line("data", {"length": len(event.data), **data})
        elif isinstance(event, BodyComplete):
            reasons = [reason.value for reason in event.close_reasons]
            told = {"dataLength": event.length, "trailer": event.trailer.to_dict()}
            self._line("complete", {**told, "closeReasons": reasons, "surplus": event.surplus})
        elif isinstance(event, HeadReceived):
            head = {"header": event.header.to_dict(), "statusCode": event.status_code, "reason": event.reason}
            body = {"framing": _framing_name(event.framing), "length": event.framing.length}
            self._line("headers", {**head, "httpVersion": event.http_version, **body})
        else:
            self._line("informational", {"header": event.header.to_dict(), "statusCode": event.status_code})

    def end(self, reading: Reading) -> None:
        if reading.error is not None:
            self._line("failed", reading.error.to_dict())
        self._line("outcome", {**_outcome(reading.outcome), "exitStatus": reading.status})

    def comparison(self, ours: Outcome, peers: Sequence[tuple[str, Outcome | str]]) -> None:
        for name, outcome in peers:
            if isinstance(outcome, str):
                self._line("comparison", {"parser": name, "skipped": outcome})
            else:
                apart = [_KEYS[field] for field in differences(ours, outcome)]
                self._line("comparison", {"parser": name, **_outcome(outcome), "differs": apart})

    def splits(self, apart: str | None) -> None:
        self._line("splits", {"agree": apart is None, "message": apart or ""})

    def reproduction(self, command: str) -> None:
        self._line("reproduction", {"command": command})

    def _line(self, event: str, told: dict[str, object]) -> None:
        self._out.write(ndjson({"event": event, **told, "file": self._path}))


_KEYS: Final = {
    "verdict": "verdict",
    "status": "statusCode",
    "length": "dataLength",
    "sha256": "sha256",
    "why": "message",
}


def _outcome(outcome: Outcome) -> dict[str, object]:
    return {_KEYS[field]: value for field, value in outcome._asdict().items()}


def outcome_text(outcome: Outcome) -> str:
    """Say on one line what a recording amounts to."""
    digest = f", SHA-256 {outcome.sha256}" if outcome.length else ""
    text = f"{outcome.verdict}, {_status_text(outcome)}, {outcome.length} bytes of body{digest}"
    return escape(f"{text}: {outcome.why}" if outcome.why else text)


def _status_text(outcome: Outcome) -> str:
    return "no status" if outcome.status is None else str(outcome.status)


def _split_text(split: str) -> str:
    if split in ("whole", "bytes"):
        return "whole" if split == "whole" else "byte by byte"
    return f"cut at {split}" if split.startswith("random") else f"in pieces of {split}"


def _framing_name(framing: Framing) -> str:
    if isinstance(framing, Chunked):
        return "chunked"
    return "content-length" if isinstance(framing, ContentLength) else "until-close"


def _framing_text(framing: Framing) -> str:
    return _framing_name(framing) + ("" if framing.length is None else f", {framing.length} bytes")

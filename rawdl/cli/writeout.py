r"""``-w FORMAT``: a text after each file, with curl's variables in it.

``%{name}`` is one of `NAMES`, ``%header{name}`` a field of the last response, ``%{json}`` all variables, ``%%`` a
percent sign, and ``\n``, ``\r``, ``\t`` and ``\\`` are what they are in C.  Times are in seconds from the moment at
which the download left the queue, sizes in bytes, speeds in bytes per second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from rawdl.cli.report import UsageError, exit_code
from rawdl.errors import DownloadError, StatusError
from rawdl.proto.fields import escape

if TYPE_CHECKING:
    from rawdl.results import DownloadResult, Marks

_PIECE: Final = re.compile(r"%%|%\{([^}]*)\}|%header\{([^}]*)\}|\\([nrt\\])|%", re.IGNORECASE)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_TIMES: Final = (
    *("time_queue", "time_namelookup", "time_connect", "time_appconnect", "time_pretransfer", "time_starttransfer"),
    *("time_redirect", "time_total"),
)
NAMES: Final = (
    *("content_type", "errormsg", "exitcode", "filename_effective", "http_code", "http_version"),
    *("method", "num_connects", "num_headers", "num_redirects", "num_retries", "remote_ip", "remote_port"),
    *("response_code", "scheme", "size_download", "size_request", "speed_download"),
    *(*_TIMES, "url", "url_effective", "urlnum"),
)


class Ended(NamedTuple):
    """A download that has ended: the URL and its number, where it was saved, and how it ended."""

    url: str
    number: int
    path: str | None
    outcome: DownloadResult | DownloadError


def check(template: str) -> None:
    """Raise UsageError for a variable that there is not."""
    for match in _PIECE.finditer(template):
        if match[1] is not None and match[1] not in (*NAMES, "json"):
            raise UsageError(f"-w: there is no variable {match[1]}; there are json, {', '.join(NAMES)}")


def expand(template: str, ended: Ended, *, to_terminal: bool = False) -> str:
    """Return the text for a download; no value in it acts on a terminal if it goes there."""
    values, header = _values(ended), _header(ended.outcome)

    def piece(match: re.Match[str]) -> str:
        if match[1] == "json":
            return _json(values)
        if match[1] is not None or match[2] is not None:
            text = header.get(match[2], "") if match[1] is None else _text(match[1], values[match[1]])
            return escape(text) if to_terminal else text
        return "%" if match[3] is None else _ESCAPES[match[3]]

    return _PIECE.sub(piece, template)


def _header(outcome: DownloadResult | DownloadError) -> Mapping[str, str]:
    return {} if isinstance(outcome, DownloadError) else outcome.header


def _values(ended: Ended) -> dict[str, object]:
    outcome = ended.outcome
    values: dict[str, object] = dict.fromkeys(NAMES, "") | dict.fromkeys(_TIMES, 0.0)
    values |= dict.fromkeys(("num_connects", "num_headers", "num_redirects", "remote_port", "size_request"), 0)
    values |= {"url": ended.url, "url_effective": ended.url, "urlnum": ended.number}
    values |= {"filename_effective": ended.path or "", "method": "GET", "num_retries": len(outcome.attempts)}
    values |= {"http_code": 0, "response_code": 0, "size_download": 0, "speed_download": 0, "exitcode": 0}
    values["scheme"] = ended.url.partition(":")[0].lower()
    if isinstance(outcome, DownloadError):
        code = outcome.status_code if isinstance(outcome, StatusError) else 0
        values |= {"errormsg": str(outcome), "exitcode": exit_code(outcome), "http_code": code, "response_code": code}
        return values
    return values | _of_result(outcome)


def _of_result(result: DownloadResult) -> dict[str, object]:
    marks, times = result.marks, _times(result.marks)
    size = 0 if result.skipped else result.data_length - result.resumed_from
    return {
        **times,
        "content_type": result.header.get("content-type", ""),
        "filename_effective": result.file_path or "",
        "http_code": result.status_code,
        "http_version": "1.1",
        "num_connects": int(not marks.reused),
        "num_headers": len(result.header.fields),
        "num_redirects": len(result.redirects),
        "remote_ip": marks.peer[0],
        "remote_port": marks.peer[1],
        "response_code": result.status_code,
        "scheme": result.url.partition(":")[0],
        "size_download": size,
        "size_request": marks.sent,
        "speed_download": round(size / times["time_total"]) if times["time_total"] else 0,
        "url_effective": result.url,
    }


def _times(marks: Marks) -> dict[str, float]:
    """Return when what was done, in seconds; what was not needed is done when that before it is."""
    moments = (marks.lookup_end, marks.tls_start or marks.connect_end, marks.tls_end)
    begin, done = marks.queue_end, 0.0
    seconds = {"time_queue": begin - marks.queue_start}
    for name, moment in zip(_TIMES[1:4], moments, strict=True):
        done = max(done, moment - begin) if moment else (0.0 if name == "time_appconnect" else done)
        seconds[name] = done
    for name, moment in zip(_TIMES[4:6], (marks.request_end, marks.response_start), strict=True):
        seconds[name] = max(0.0, moment - begin) if moment else 0.0
    seconds["time_redirect"] = marks.redirect_end - marks.redirect_start
    seconds["time_total"] = max(0.0, marks.response_end - begin) if marks.response_end else 0.0
    return seconds


def _text(name: str, value: object) -> str:
    if name in _TIMES:
        return f"{value:.6f}"
    return f"{value:03}" if name in ("http_code", "response_code") else str(value)


def _json(values: Mapping[str, object]) -> str:
    from json import dumps

    return dumps(values).replace("\x7f", "\\u007f")  # as `ndjson` has it

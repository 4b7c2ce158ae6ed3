"""The steps of all downloads, for who wants to see them: ``-v``, ``--trace``, and the events of ``--json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

from rawdl.cli.report import STORAGE, Unusable
from rawdl.proto.fields import escape

if TYPE_CHECKING:
    from rawdl.trace import Trace

Emit = Callable[[str, str, dict[str, object]], None]

# Which step is which event of a life, and how its data are called there.
_EVENTS: Final[Mapping[tuple[str, str], tuple[str, Mapping[str, str]]]] = {
    ("resolve", "complete"): ("resolve", {"addresses": "addresses"}),
    ("connect", "complete"): ("connect", {"peer": "peer"}),
    ("connect", "reused"): ("connect", {"peer": "peer", "exchanges": "exchanges"}),
    ("tls", "complete"): ("tls", {"version": "version", "cipher": "cipher", "resumed": "resumed"}),
    ("send", "started"): ("request", {"method": "method", "header": "header"}),
    ("task", "redirect"): ("redirect", {"status_code": "statusCode", "location": "location"}),
    ("task", "retry"): ("retry", {"error": "errMsg", "delay": "delay", "resumes": "totalBytesWritten"}),
}


class Steps:
    """Hand each step on to all who listen."""

    def __init__(self) -> None:
        self._listeners: list[Trace] = []
        self._files: list[_TraceFile] = []

    def __call__(self, phase: str, event: str, data: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener(phase, event, data)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def print_to(self, note: Callable[[str], None]) -> None:
        """Have them printed as curl does."""
        self._listeners.append(lambda phase, event, data: note("\n".join(_lines(phase, event, data))))

    def write_to(self, path: str) -> None:
        """Have them written to a file as lines of JSON, or raise Unusable."""
        file = _TraceFile(path)
        self._files.append(file)
        self._listeners.append(file.write)

    def tell_as_events(self, emit: Emit) -> None:
        """Have those told that are events in the life of a download: ``emit(event, url, fields)``."""

        def tell(phase: str, step: str, data: dict[str, Any]) -> None:
            found = _EVENTS.get((phase, step))
            if found is not None:
                event, names = found
                emit(event, data["task"].url, {told: _plain(data[name]) for name, told in names.items()})

        self._listeners.append(tell)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    @property
    def unwritten(self) -> Unusable | None:
        """What befell a file, once they are closed, so that steps are missing in it."""
        return next((file.error for file in self._files if file.error is not None), None)


class _TraceFile:
    """A file with the steps as lines of JSON; nothing is written any more where that has failed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.error: Unusable | None = None
        try:
            self._file: TextIO = open(path, "w", encoding="ascii", buffering=1)  # noqa: SIM115 - until close
        except OSError as exc:
            raise self._failed(exc) from exc

    def write(self, phase: str, event: str, data: dict[str, Any]) -> None:
        if self.error is None:
            try:
                print(_json(phase, event, data), file=self._file)
            except OSError as exc:
                self.error = self._failed(exc)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as exc:
            self.error = self.error or self._failed(exc)

    def _failed(self, exc: OSError) -> Unusable:
        return Unusable(f"cannot write {self._path}: {exc.strerror or exc}", STORAGE)


def _lines(phase: str, event: str, data: Mapping[str, Any]) -> list[str]:
    """Return what is printed of a step: a request and a response head line by line."""
    if (phase, event) == ("send", "started"):
        head = [f"{data['method']} {data['url']}", *(f"{name}: {value}" for name, value in data["header"].items())]
        return [escape(f"> {line}") for line in head]
    if phase == "head" and "status_code" in data:
        reason = data.get("reason", "")
        head = [f"{data['status_code']} {reason}", *(f"{name}: {value}" for name, value in data["header"].items())]
        return [escape(f"< {line}") for line in head]
    details = [f"{name}={_plain(value)}" for name, value in data.items() if name != "task"]
    return [escape(" ".join([f"* {phase} {event}", *details]))]


def _json(phase: str, event: str, data: Mapping[str, Any]) -> str:
    from json import dumps

    plain = {name: _plain(value) for name, value in data.items() if name != "task"}
    return dumps({"phase": phase, "event": event, "task": data["task"].url, **plain})


def _plain(value: object) -> object:
    """Return a value as JSON can have it."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)

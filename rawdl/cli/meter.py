"""The progress line: what it says, and how it fits.

All sizes are in powers of 1024 and say so.  Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

from rawdl.proto.progress import SpeedMeter
from rawdl.task import TaskState

if TYPE_CHECKING:
    from rawdl.task import DownloadTask

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SHORTEST_LABEL: Final = 8  # cells below which a cut name tells nothing
BEFORE_HEAD: Final = (TaskState.QUEUED, TaskState.CONNECTING, TaskState.WAITING)


class Status(NamedTuple):
    """What one line says; ``expected`` and ``speed`` are None while unknown, ``waiting`` is for what.

    ``stalled`` are the seconds since the last byte, where they are too many.
    """

    label: str
    written: int = 0
    expected: int | None = None
    speed: float | None = None
    waiting: str = ""
    stalled: float | None = None
    connections: int = 1


class Tally:
    """The sum of some downloads, as a `Status`.  Times are in seconds, of one clock."""

    def __init__(self, tasks: Sequence[DownloadTask], label: str, now: float) -> None:
        self._total = len(tasks)
        self._tasks = list(tasks)
        self._label = label
        self._settled = 0  # bytes of the tasks that have ended and are no longer looked at
        self._meter: SpeedMeter | None = None
        self._looked = now
        self._arrived = 0  # at that time

    def add(self, task: DownloadTask) -> None:
        """Count one more."""
        self._total += 1
        self._tasks.append(task)

    def status(self, now: float, found: int = 0) -> Status:
        """Return what the line is to say at ``now``; ``found`` of the bytes were there before the downloads began."""
        label, waiting = self._label, ""
        if self._total > 1:
            self._settle()
            label = f"{self._total - len(self._tasks)} of {self._total} files"
        elif self._tasks[0].state in BEFORE_HEAD:
            waiting = self._tasks[0].state
        updates = [task.progress for task in self._tasks]
        written = self._settled + sum(update.total_bytes_written for update in updates)
        expected = None
        if all(update.length_computable for update in updates):
            expected = self._settled + sum(update.total_bytes_expected_to_write for update in updates)
        return Status(label, written, expected, self._speed(now, written - found), waiting)

    def _settle(self) -> None:
        self._settled += sum(task.progress.total_bytes_written for task in self._tasks if task.done())
        self._tasks = [task for task in self._tasks if not task.done()]

    def _speed(self, now: float, arrived: int) -> float | None:
        """Measure from the last look before the first byte: connecting and waiting are not slow downloading."""
        if self._meter is None and arrived > self._arrived:
            self._meter = SpeedMeter(self._looked, self._arrived)
        elif arrived < self._arrived:  # one of them has begun anew
            self._meter = SpeedMeter(now, arrived)
        self._looked, self._arrived = now, arrived
        if self._meter is None:
            return None
        self._meter.sample(now, arrived)
        return self._meter.speed(now)


def progress_line(status: Status, width: int | None) -> str:
    """Return the line, cut to less than ``width`` cells (None: as long as it is).

    The label gives way first, then what stands last.  Three columns stay free: some terminals wrap once the last is
    used, and the ``^C`` of a user who has had enough should not make the line two.
    """
    parts = [column for column in columns_of(status) if column]
    numbers = "  ".join(parts)
    if width is None:
        return f"{status.label}  {numbers}"
    room = width - 3
    left = room - len(numbers) - 2
    if left >= min(_SHORTEST_LABEL, cells(status.label)):
        return f"{elided(status.label, left)}  {numbers}"
    while len(parts) > 1 and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)[: max(room, 0)]


def size_text(count: float) -> str:
    """Spell a number of bytes with its unit: ``512 B``, ``1.5 KiB``, ``107.5 MiB``."""
    exponent = _exponent(count)
    return f"{_scaled(count, exponent)} {_UNITS[exponent]}"


def rate_text(count: float, seconds: float) -> str:
    """Spell bytes in a time as a speed."""
    return f"{size_text(count / seconds)}/s"


def duration_text(seconds: float) -> str:
    """Spell how long something took: ``0.06 ms``, ``3.1 ms``, ``250 ms``, ``1.2 s``, ``2:05``."""
    if seconds >= 99.95:
        return clock_text(seconds)
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    decimals = 0 if milliseconds >= 9.95 else 1 if milliseconds >= 0.995 else 2
    return f"{milliseconds:.{decimals}f} ms"


def stall_text(seconds: float) -> str:
    """Spell for how long nothing has come: ``stalled 12 s``, ``stalled 2:05``."""
    return f"stalled {f'{seconds:.0f} s' if seconds < 99.5 else clock_text(seconds)}"


def clock_text(seconds: float) -> str:
    """Spell whole seconds, rounded up, as ``0:03`` or ``1:02:03``; days where they are too many."""
    whole = ceil(seconds)
    if whole >= 360_000:
        return f"{whole // 86400} days"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def elided(text: str, room: int) -> str:
    """Cut a text to ``room`` cells of a terminal, and show that it was cut."""
    if cells(text) <= room:
        return text
    kept, left = "", room - 2
    for character in text:
        left -= cells(character)
        if left < 0:
            break
        kept += character
    return f"{kept}.."


def cells(text: str) -> int:
    """Count the columns that a text takes in a terminal: two for an East Asian wide character, none for a mark."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(character) in ("Mn", "Me") else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def columns_of(status: Status) -> tuple[str, str, str, str, str]:
    """Return how far, of how much, how fast or what else there is to say, for how long still, by how many connections.

    Each is of a width that does not change from one redraw to the next, or empty.
    """
    written, expected, speed = status.written, status.expected, status.speed
    if status.waiting and not written:
        return "", "", status.waiting, "", ""
    if expected is None:
        how_far, of_what = size_text(written).rjust(9), ""
    else:
        percent = written * 100 // expected if expected else 100
        how_far, of_what = f"{percent:3} %", _pair(written, expected)
    if status.waiting:  # for another try
        return how_far, of_what, status.waiting, "", ""
    if status.stalled is not None:
        return how_far, of_what, stall_text(status.stalled), "", ""
    fast = "" if speed is None else rate_text(speed, 1).rjust(11)
    left = ""
    if expected is not None and speed and speed >= 1:  # slower is a stall, whose end nobody knows
        left = f"ETA {clock_text((expected - written) / speed)}"
    return how_far, of_what, fast, left, f"x{status.connections}" if status.connections > 1 else ""


def _pair(written: int, expected: int) -> str:
    """Spell both in the unit of the larger: ``107.5 of 256.0 MiB``."""
    exponent = _exponent(expected)
    whole = _scaled(expected, exponent)
    return f"{_scaled(written, exponent).rjust(len(whole))} of {whole} {_UNITS[exponent]}"


def _exponent(count: float) -> int:
    exponent = 0
    # Bytes are whole up to 1023; of the larger units, what would need four digits takes the next one.
    while count >= (999.95 if exponent else 1023.5) and exponent < len(_UNITS) - 1:
        count /= 1024
        exponent += 1
    return exponent


def _scaled(count: float, exponent: int) -> str:
    return f"{count:.0f}" if exponent == 0 else f"{count / 1024**exponent:.1f}"

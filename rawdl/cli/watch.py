"""Look at the downloads while they run: what the display shows of them, and which have stalled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rawdl.cli.display import Display
from rawdl.cli.meter import BEFORE_HEAD, Status, Tally, progress_line
from rawdl.cli.signals import held
from rawdl.task import TaskState

if TYPE_CHECKING:
    from rawdl.client import Client
    from rawdl.task import DownloadTask

OnStall = Callable[[float, int], None]  # told of the seconds, and of the bytes that are there

_STALLED: Final = 5.0  # seconds without a byte that are no hiccup any more
_GLANCE: Final = 1.0  # seconds between two looks for stalls, where nothing is drawn in between
FEED_SECONDS: Final = 0.1  # between two looks for more to do
# If we have not looked for so long, it is we who stood still: stopped, or writing to a pipe that nobody reads.
_ABSENT: Final = 3.0


class Watch:
    """What there is to see of some downloads.  Times are in seconds, of one clock.

    ``rate`` is their limit in bytes per second, if they have one.  ``found`` is to be the number of bytes that were
    there before they began.
    """

    def __init__(self, display: Display, rate: float | None = None) -> None:
        self._display = display
        self._rate = rate
        self._tally: Tally | None = None  # once there is one
        self._watched: list[_Watched] = []  # that have not ended
        self._several = False
        self._looked = self._due = time.monotonic()
        self._asks_for_stalls = False
        self.found = 0

    def add(self, task: DownloadTask, name: str, on_stall: OnStall | None = None) -> None:
        """Watch one more; ``on_stall`` is called once in each stall of it."""
        self._watched.append(_Watched(task, name, on_stall))
        self._asks_for_stalls |= on_stall is not None
        if self._tally is None:
            self._tally = Tally([task], name, self._looked)
        else:
            self._several = True
            self._tally.add(task)

    def drive(self, client: Client, more: Callable[[float], bool] | None = None) -> None:
        """Run the client until it has nothing left to do, and show how far it is.

        ``more(wait)``, asked time and again, waits so many seconds at most for more to do, and says whether there may
        be some later.
        """
        period = self._display.period
        glance = _GLANCE if period is None else min(period, _GLANCE)
        patience = glance if period is not None or self._asks_for_stalls else None
        if more is not None:
            patience = min(glance, FEED_SECONDS)
        self._due = time.monotonic() + (period or 0)
        try:
            while (busy := client.run(patience)) or more is not None:
                if more is not None and not more(0.0 if busy else FEED_SECONDS) and not busy:
                    return
                self.turn(time.monotonic())
        finally:
            self._display.clear()

    def turn(self, now: float) -> None:
        """Look, and show it if it is time to."""
        self.look(now)
        period = self._display.period
        if period is not None and now >= self._due and self._tally is not None:
            self._due = now + period
            with held():
                self._display.show(*self.overview(now))

    def report(self) -> None:
        """Tell at once how far each is, and all together: a line each, which stay.  From a signal handler, too."""
        with held():
            if self._tally is not None:
                total, files = self.overview(time.monotonic())
                self._display.note("\n".join(progress_line(status, None) for status in [*files, total]))

    def look(self, now: float) -> None:
        """See who has stalled."""
        absent, self._looked = now - self._looked > _ABSENT, now
        self._watched = [each for each in self._watched if not each.task.done()]
        patience = self._patience()
        for each in self._watched:
            each.look(now, patience, forgive=absent)

    def overview(self, now: float) -> tuple[Status, list[Status]]:
        """Return what there is to say of all together, and of each that is under way if they are several."""
        assert self._tally is not None
        total = self._tally.status(now, self.found)
        under_way = [each for each in self._watched if each.is_under_way]
        patience = self._patience()
        files = [each.status(now, patience) for each in under_way]
        if not self._several:
            return (total._replace(stalled=files[0].stalled, connections=files[0].connections) if files else total), []
        silence = [status.stalled for status in files if status.stalled is not None]
        return total._replace(stalled=min(silence) if silence and len(silence) == len(files) else None), files

    def _patience(self) -> float:
        """Return the seconds without a byte that are a stall: who is held up by our own limit has not stalled.

        Those that share a limit take turns, and each is of a byte at least.
        """
        if self._rate is None:
            return _STALLED
        readers = sum(each.task.connections for each in self._watched)
        return max(_STALLED, 2 * readers / self._rate)


class _Watched:
    """One of them, and since when nothing has come."""

    def __init__(self, task: DownloadTask, name: str, on_stall: OnStall | None) -> None:
        self.task = task
        self._name = name
        self._on_stall = on_stall
        self._written = -1
        self._since = 0.0
        self._told = False  # of this stall

    @property
    def is_under_way(self) -> bool:
        """Whether there is something to show of it."""
        return self.task.state is not TaskState.QUEUED and not self.task.done()

    def look(self, now: float, patience: float, *, forgive: bool) -> None:
        """Compare it with the last time; ``forgive`` what has not come since."""
        written = self.task.progress.total_bytes_written
        if written != self._written or self.task.state is not TaskState.RECEIVING:
            self._written, self._since, self._told = written, now, False
        elif forgive:
            self._since = now
        elif self._on_stall is not None and not self._told and now - self._since >= patience:
            self._told = True
            self._on_stall(now - self._since, written)

    def status(self, now: float, patience: float) -> Status:
        """Return what its row says."""
        task, update = self.task, self.task.progress
        return Status(
            self._name,
            update.total_bytes_written,
            update.total_bytes_expected_to_write if update.length_computable else None,
            update.bytes_per_second,
            task.state if task.state in BEFORE_HEAD else "",
            now - self._since if self._written >= 0 and now - self._since >= patience else None,
            task.connections,
        )

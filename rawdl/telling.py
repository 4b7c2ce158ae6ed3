"""What the listeners of one task are told: the head once, and how far the body is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawdl.loop import Loop
from rawdl.proto.events import HeadReceived
from rawdl.proto.messages import Headers
from rawdl.proto.progress import Progress, ProgressUpdate
from rawdl.results import HeadersReceived
from rawdl.task import DownloadTask

if TYPE_CHECKING:
    from rawdl.proto.decoding import Decoder


class Telling:
    """Tell the listeners of a task; ``headers`` is the head that was told, or that has taken its place since.

    ``interval`` is the shortest time between two progress events, in seconds.
    """

    __slots__ = ("_interval", "_loop", "_progress", "_restarted", "_task", "decoder", "headers")

    def __init__(self, loop: Loop, task: DownloadTask, interval: float) -> None:
        self._loop = loop
        self._task = task
        self._interval = interval
        self._progress: Progress | None = None
        self._restarted: ProgressUpdate | None = None  # to be told after the head
        self.headers: HeadersReceived | None = None
        self.decoder: Decoder | None = None  # which counts as well

    def skipped(self, url: str, size: int) -> None:
        """There is no response, and the file has ``size`` bytes."""
        self.headers = HeadersReceived(Headers(), 0, "", "", url)
        self._progress = Progress(self._loop.now, size, 0, size)

    def measure(self, written: int, total: int | None) -> None:
        """Count from ``written`` on, towards ``total`` if that is known."""
        if self._progress is None:
            self._progress = Progress(self._loop.now, total, self._interval, written)
        else:
            self._restarted = self._progress.continue_with(self._loop.now, total, written)

    def head(self, head: HeadReceived, url: str) -> None:
        """Tell of the head, once in the life of the task."""
        first = self.headers is None
        told = HeadersReceived(head.header, head.status_code, head.reason, head.http_version, url)
        if self.headers is None or head.status_code not in (206, 416):
            self.headers = told
        else:  # it only goes on with what has been told
            self.headers = self.headers._replace(url=url)
        if first:
            self._task.dispatch_headers(told)

    def restart(self) -> None:
        """Tell that the counts begin anew, if they do."""
        restarted, self._restarted = self._restarted, None
        if restarted is not None:
            self._tell(restarted)

    def advance(self, written: int) -> None:
        """Take note of how many bytes there are, and tell it if that is due."""
        now = self._loop.now
        if self._progress is not None and self._progress.advance(now, written):
            self._tell(self._progress.snapshot(now))

    def last(self, written: int) -> None:
        """Tell that everything is there."""
        assert self._progress is not None
        self._tell(self._progress.finish(self._loop.now, written))

    def _tell(self, update: ProgressUpdate) -> None:
        if self._task.has_progress_listeners:
            self._task.dispatch_progress(self._completed(update))

    def _completed(self, update: ProgressUpdate) -> ProgressUpdate:
        return update if self.decoder is None else update._replace(decoded_bytes_written=self.decoder.decoded)

    def __repr__(self) -> str:
        return f"<Telling {self.written} bytes, {'after' if self.headers is not None else 'before'} the head>"

    @property
    def written(self) -> int:
        """How many bytes were there when that was last noted."""
        return 0 if self._progress is None else self._progress.written

    def snapshot(self) -> ProgressUpdate:
        """Return how far it is now."""
        if self._progress is None:
            return ProgressUpdate()
        return self._completed(self._progress.snapshot(self._loop.time()))

"""The engine of a task that cannot begin, because its URL is none or its destination is in use."""

from __future__ import annotations

from rawdl.errors import Aborted, DownloadError
from rawdl.job import Shared
from rawdl.proto.progress import ProgressUpdate
from rawdl.task import DownloadTask, TaskState


class Refusal:
    """End the task in the next turn, with the error that is known already."""

    __slots__ = ("_error", "_shared", "_task")

    def __init__(self, shared: Shared, task: DownloadTask, error: DownloadError) -> None:
        self._shared = shared
        self._task = task
        self._error = error
        shared.live.add(task)
        shared.loop.call_soon(self._settle)

    def _settle(self) -> None:
        if not self._task.claim():
            self._error = Aborted("the download was aborted before it began")
        self._error.url = self._task.url
        self._tell()

    def _tell(self) -> None:
        """Tell the end; in the next turn, if an interrupt comes into it."""
        try:
            self._shared.settled(self._task, self._error)
            self._task.settle(None, self._error)
        except (KeyboardInterrupt, SystemExit):
            self._shared.loop.call_soon(self._tell)
            raise

    def abort(self) -> None:
        """Have it end as aborted instead."""
        if not self._task.done():
            self._task.enter(TaskState.ABORTED)

    def pause(self) -> None:
        """Do nothing: it ends in the next turn."""

    resume = pause

    def progress(self) -> ProgressUpdate:
        """Return nothing, in numbers."""
        return ProgressUpdate()

    def connections(self) -> int:
        """Return none."""
        return 0

    def __repr__(self) -> str:
        return f"<Refusal {self._task.url}: {self._error}>"

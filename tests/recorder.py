"""Write down everything that a task tells, in order, and wait for parts of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import rawdl

PATIENCE = 10.0  # seconds: hang guard, far above what anything here takes

EVENTS = ("headers", "progress", "success", "fail", "complete")


class Recorder:
    """Stand in for all five callbacks of a task; `react` lets one of them do something."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._reactions: dict[str, list[Callable[[Any], object]]] = {}
        self._changed = threading.Condition()

    def react(self, name: str, action: Callable[[Any], object]) -> None:
        """Call `action` with the event, each time that an event of that name has been written down."""
        self._reactions.setdefault(name, []).append(action)

    @property
    def callbacks(self) -> dict[str, Callable[[Any], None]]:
        return {name: self._callback(name) for name in ("success", "fail", "complete")}

    def listen(self, task: rawdl.DownloadTask) -> rawdl.DownloadTask:
        task.on_headers_received(self._callback("headers"))
        task.on_progress_update(self._callback("progress"))
        return task

    def download(self, client: rawdl.Client, **options: Any) -> rawdl.DownloadTask:
        """Make a task whose every event is written down."""
        return self.listen(client.download_file(**self.callbacks, **options))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    @property
    def outcome(self) -> list[str]:
        """The names of the settlement's events."""
        return [name for name in self.names if name in ("success", "fail", "complete")]

    def of(self, name: str) -> list[Any]:
        return [event for each, event in self.events if each == name]

    def wait_for(self, name: str) -> None:
        """Wait, while another thread drives, until there is an event of that name."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.names, PATIENCE), f"no {name!r} in {self.names}"

    def _callback(self, name: str) -> Callable[[Any], None]:
        def callback(event: Any) -> None:
            with self._changed:
                self.events.append((name, event))
                self._changed.notify_all()
            for action in self._reactions.get(name, ()):
                action(event)

        return callback

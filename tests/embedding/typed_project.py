"""A project that uses all of rawdl under mypy --strict: fetch a file in all the ways there are, and report each end.

    python typed_project.py URL FOLDER

`assert_type` does nothing when it runs; it has mypy say what it takes each thing for.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import assert_type

import rawdl
from rawdl import TLS, Client, DownloadError, DownloadResult, DownloadTask, TaskState

Outcome = DownloadResult | DownloadError

# Whom to blame, the first that fits.
BLAME: tuple[tuple[type[DownloadError] | tuple[type[DownloadError], ...], str], ...] = (
    ((rawdl.Aborted, rawdl.InvalidURL), "the user"),
    ((rawdl.IncompleteHead, rawdl.IncompleteBody, rawdl.ConnectionLost, rawdl.Timeout), "the line"),
    ((rawdl.ResolveError, rawdl.ConnectError, rawdl.ProxyError, rawdl.NetworkError), "the network"),
    ((rawdl.StorageError, rawdl.TooLarge), "the disk"),
    ((rawdl.ChecksumError, rawdl.DecodingError, rawdl.RangeError, rawdl.StatusError), "the file"),
    ((rawdl.TLSError, rawdl.ProtocolError, rawdl.RedirectError), "the server"),
)


def blamed(error: DownloadError) -> str:
    if isinstance(error, rawdl.IncompleteBody):
        assert_type(error.received, int)
        assert_type(error.expected, int | None)
    elif isinstance(error, rawdl.Timeout):
        assert_type(error.phase, str)
        return "nobody" if error.phase == rawdl.Phase.TOTAL else "the line"
    elif isinstance(error, rawdl.StatusError):
        assert_type(error.status_code, int)
    elif isinstance(error, rawdl.StorageError):
        assert_type(error.path, str | None)
    assert_type(error.attempts, tuple[DownloadError, ...])
    return next((who for kinds, who in BLAME if isinstance(error, kinds)), "nobody")


@contextmanager
def careful_client(auth: rawdl.BasicAuth | rawdl.DigestAuth | rawdl.BearerAuth) -> Iterator[Client]:
    with Client(
        timeouts=rawdl.Timeouts(connect=5, total=60),
        retry=rawdl.Retry(attempts=2, backoff=0.1),
        redirects=rawdl.Redirects(limit=3),
        limits=rawdl.Limits(body=1 << 30),
        low_speed=rawdl.LowSpeed(1, 30),
        tls=TLS(minimum_version="1.3"),
        auth=auth,
        proxy=None,
        trace=lambda phase, event, data: None,
        address_policy=lambda host, address: True,
    ) as client:
        yield client


class Reporter:
    """Hear what one task tells."""

    def __init__(self, task: DownloadTask) -> None:
        self.lines: list[str] = []
        task.on_headers_received(self.head)
        task.on_progress_update(self.progress)

    def head(self, event: rawdl.HeadersReceived) -> None:
        assert_type(event.header, rawdl.Headers)
        self.lines.append(f"{event.status_code} {event.header.get('content-length', 'unknown')}")

    def progress(self, update: rawdl.ProgressUpdate) -> None:
        assert_type(update.progress, int)
        assert_type(update.eta, float | None)
        if update.progress == 100:
            self.lines.append(f"{update.total_bytes_written} of {update.total_bytes_expected_to_write}")


def described(result: DownloadResult) -> Mapping[str, object]:
    profile = result.raise_for_status().profile
    assert_type(profile, rawdl.Profile)
    assert_type(result.file_path, str | None)
    assert_type(result.redirects, tuple[str, ...])
    json.dumps([result.to_dict(), profile.to_dict()])
    return {"length": result.data_length, "reused": profile.socket_reused}


def told(outcome: Outcome) -> str:
    return blamed(outcome) if isinstance(outcome, DownloadError) else str(described(outcome)["length"])


def at_once(client: Client, url: str, folder: Path) -> None:
    ends: list[str] = []
    memory = rawdl.MemorySink()
    file = client.download_file(url=url, file_path=folder / "a", complete=lambda end: ends.append(told(end)))
    kept = client.download_file(url=url, sink=memory, success=lambda result: ends.append("kept"))
    client.download_file(url=url, sink=rawdl.DiscardSink(), fail=lambda error: ends.append(blamed(error)))
    client.download_file(url="", complete=lambda end: ends.append(told(end)))
    reporter = Reporter(file)
    assert_type(client.run(), bool)
    assert_type(kept.state, TaskState)
    assert_type(file.resume_data(), dict[str, object] | None)
    assert file.state is TaskState.COMPLETED and len(memory.getvalue()) == file.result().data_length
    print(sorted(ends), reporter.lines)
    stats = client.stats()
    assert_type(stats.bytes_received, int)
    print(stats.completed, "completed,", stats.failed, "failed,", stats.tasks[TaskState.QUEUED], "queued")


async def awaited(client: Client, url: str) -> None:
    result = await client.download_file(url=url, sink=lambda data: None)
    assert_type(result, DownloadResult)
    print("awaited", result.data_length)


def main(url: str, folder: str) -> None:
    print("rawdl", rawdl.__version__)
    for auth in (rawdl.BasicAuth("user", "password"), rawdl.DigestAuth("user", "password"), rawdl.BearerAuth("token")):
        with careful_client(auth) as client:
            at_once(client, url, Path(folder))
            asyncio.run(awaited(client, url))
    task = rawdl.download_file(url=url, file_path=f"{folder}/b")
    assert_type(task, DownloadTask)
    task.abort()
    print("blames", blamed(task.exception() or rawdl.Aborted("it was not")))
    assert_type(rawdl.download(url, f"{folder}/b"), DownloadResult)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Downloads to be disturbed in what they ask of the system, and what must be true of their folder afterwards.

    ordeal.prepare(folder)
    run = ordeal.run(folder, disturbance)  # a context manager that is entered around the download
    ordeal.check(folder)                   # a right file or none, and nothing but what can be continued
    ordeal.complete(folder)                # a later download, which nothing disturbs

They run in virtual time, against `tests.resource.Resource`, and are the same each time: the nth call of a function is
always the same one.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rawdl
from rawdl import partfile, reserve
from rawdl.journal import Journal, Ranges, Record, believed
from rawdl.proto.ranges import OVERLAP
from tests.origin import Script
from tests.recorder import Recorder
from tests.resource import Fault, Resource
from tests.sim import Link, World, http_peer

URL = "http://example.org/a"
BODY = random.Random(0).randbytes(120_000)
OTHER = BODY[:1000][::-1] + BODY[1000:]  # another version, with an end that is the same
VERSIONS = {'"v1"': BODY, '"v2"': OTHER}  # by ETag
OLD = b"what was there before"
PART, JOURNAL = "a.part", "a.part.json"
# A download takes 3 s, so that journals are written in the midst of it, and comes in eight pieces.
LINK = Link(bandwidth=40_000, segment=15_000)
CUT = Fault(in_body=80_000, kind="rst")
BUFFER = 65536  # bytes


class Run(NamedTuple):
    """How a download ended, and the ranges that were asked for."""

    end: rawdl.DownloadResult | rawdl.DownloadError
    asked: list[str | None]


@dataclass(frozen=True)
class Ordeal:
    """One download to `folder`/a, or to a temporary file there.  `ends` is how it ends if nothing disturbs it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of download_file
    resource: Mapping[str, Any] = field(default_factory=dict)  # of Resource
    tries: int = 1
    old: bool = False  # there is a file of that name
    before: Ordeal | None = None  # the download that has left a part
    temporary: bool = False
    ends: type[object] = rawdl.DownloadResult
    link: Link = LINK

    @property
    def body(self) -> bytes:
        return VERSIONS[self.resource.get("etag") or '"v1"']

    def prepare(self, folder: Path) -> None:
        """Make the folder anew, with what is there before."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if self.old:
            (folder / "a").write_bytes(OLD)
        if self.before:
            self.before.run(folder)
            assert self.kept(folder)

    def run(
        self,
        folder: Path,
        disturbance: AbstractContextManager[object] | None = None,
        drive: Callable[[rawdl.DownloadTask], object] = rawdl.DownloadTask.exception,
    ) -> Run:
        """Download, and close the client."""
        resource, recorder = Resource(self.body, **self.resource), Recorder()
        where = {"directory": folder} if self.temporary else {"file_path": folder / "a"}
        with no_descriptor_left(), pytest.MonkeyPatch.context() as patch, World() as world:
            patch.setattr(partfile, "_WORTH_RESERVING", 1)
            patch.setattr(reserve, "is_memory", lambda device: False)
            world.listen("example.org", 80, http_peer(resource), link=self.link)
            retry = rawdl.Retry(attempts=self.tries, jitter="none")
            # The factory is looked up at each call, so that a disturbance may replace it.
            client = world.client(retry=retry, buffer_size=BUFFER, socket_factory=lambda *args: world.socket(*args))
            with disturbance or nullcontext():
                drive(recorder.download(client, url=URL, progress_interval=0, **where, **self.options))
                client.close()
        assert recorder.outcome in (["success", "complete"], ["fail", "complete"])
        end = recorder.of("complete")[0]
        if isinstance(end, rawdl.DownloadResult):
            assert Path(end.temp_file_path or end.file_path or "").read_bytes() == self.body
        return Run(end, resource.ranges_asked)

    def check(self, folder: Path, *, tidy: bool = True) -> None:
        """See that every file is right and whole, but for a part, which is the true beginning of one.

        `tidy`: and that there is no part which cannot be continued, and no journal without a part.
        """
        left = {path.name: path.read_bytes() for path in folder.iterdir()}
        has_part, has_journal = PART in left, JOURNAL in left
        part = left.pop(PART, b"")
        left.pop(JOURNAL, None)
        record, kept = record_in(folder), self.kept(folder)
        if record is not None and kept:
            assert record.validator is not None
            whole = VERSIONS[record.validator[1]]
            for first, end in kept:
                assert part[first:end] == whole[first:end], "what the journal tells of is not there"
        if tidy:
            assert has_part == has_journal == bool(kept), f"left: {sorted(os.listdir(folder))}"
        else:
            left = {name: data for name, data in left.items() if not name.startswith(JOURNAL)}
        assert set(left.values()) <= {OLD, *VERSIONS.values()}, f"wrong: {sorted(left)}"
        assert "a" in left or not self.old, "what was there before is gone"
        assert len(left) <= 1 + self.old, f"left: {sorted(left)}"

    def kept(self, folder: Path) -> Ranges:
        """Return what there is of a part that can be continued."""
        record = record_in(folder)
        return () if record is None else believed(record, (folder / PART).stat().st_size)

    def complete(self, folder: Path) -> None:
        """Download once more, when nothing disturbs it: from where the part ends, if there is one.

        That is so fast that no journal is written, with which an old one would go.
        """
        kept = self.kept(folder)
        run = LATER.run(folder)
        assert isinstance(run.end, rawdl.DownloadResult), f"a later download failed: {run.end}"
        assert (run.asked == [None]) == (not kept)
        if len(kept) == 1 and kept[0][0] == 0:
            assert run.asked == [f"bytes={max(0, kept[0][1] - OVERLAP)}-"]
        assert not {name for name in os.listdir(folder) if ".part" in name}, "a success leaves nothing but its file"
        self.check(folder)


def record_in(folder: Path) -> Record | None:
    """Return the journal of a part that is there, and that has not got its final name already."""
    part = folder / PART
    return Journal(str(part)).load() if part.exists() and part.stat().st_nlink == 1 else None


def bytes_in(ranges: Ranges) -> int:
    return sum(end - first for first, end in ranges)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fail if there is another number of open descriptors afterwards."""
    before = _descriptors()
    yield
    assert _descriptors() == before, "a descriptor is left, or one too many was closed"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


FRESH = Ordeal("fresh")
LATER = Ordeal("later", link=Link(segment=15_000))
KEPT = Ordeal("kept", resource={"faults": [CUT]}, ends=rawdl.IncompleteBody)
SEGMENTS = {"connections": 2, "min_segment": 10_000}
CUTS = [Fault(in_body=40_000), Fault(in_body=20_000), *[Fault(at=20)] * 20]
KEPT_SEGMENTS = replace(KEPT, name="kept segments", options=SEGMENTS, resource={"faults": CUTS})
CHECKSUM = {"checksum": f"sha256:{sha256(BODY).hexdigest()}"}

ORDEALS = (
    FRESH,
    Ordeal("chunked", resource={"framing": "chunked", "like": Script(chunk=6_000)}),
    Ordeal("retry", resource={"faults": [CUT]}, tries=2),
    Ordeal("restart", resource={"faults": [CUT], "ranges": "ignore"}, tries=2),
    Ordeal("resume", before=KEPT),
    Ordeal("anew", resource={"etag": '"v2"'}, before=KEPT),
    KEPT,
    Ordeal("lost", resource={"faults": [CUT], "etag": None, "last_modified": None}, ends=rawdl.IncompleteBody),
    Ordeal("error", {"exists": "error", **CHECKSUM}),
    Ordeal("rename", {"exists": "rename"}, old=True),
    Ordeal("durable", {"durable": True, "remote_time": True}, old=True),
    Ordeal("read back", CHECKSUM, before=KEPT),
    Ordeal("segments", SEGMENTS),
    KEPT_SEGMENTS,
    Ordeal("more segments", SEGMENTS, before=KEPT_SEGMENTS),
    Ordeal("segments anew", SEGMENTS, resource={"etag": '"v2"'}, before=KEPT_SEGMENTS),
    Ordeal("temporary", temporary=True),
)

"""The disk fails under a download over several connections: one error, and what can be kept is (K1, K2, T42, H8)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.resource import Fault
from tests.resuming import AT_ONCE
from tests.sim import Link, World
from tests.sim_tests.crews import BODY, SPEED, CrewBench
from tests.sim_tests.fetch import assert_nothing_left


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[CrewBench]:
    with World() as world:
        yield CrewBench(world, tmp_path)


DISK = [("pwrite", errno.ENOSPC), ("pwrite", errno.EIO), ("pwrite", errno.EDQUOT)]


@pytest.mark.parametrize("nth", [1, 3, 10, 60])
@pytest.mark.parametrize(("name", "number"), DISK, ids=lambda value: errno.errorcode.get(value, value))
def test_K1_K2_T42_a_write_fails_in_one_of_them(
    name: str, number: int, nth: int, bench: CrewBench, monkeypatch: pytest.MonkeyPatch
):
    real, calls = os.pwrite, []

    def fails(*args: Any) -> int:
        calls.append(args)
        if len(calls) >= nth:
            raise OSError(number, os.strerror(number))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fails)
        attempt = bench.attempt(retry=AT_ONCE)
    error = attempt.error
    assert isinstance(error, rawdl.StorageError)
    assert (error.errno, error.attempts) == (number, ())
    assert not bench.world.sockets
    assert len(calls) == nth, "the others stop too"
    assert bench.names == ([] if number == errno.EIO or nth == 1 else ["a.part", "a.part.json"])
    bench.attempt()
    bench.assert_whole()


def test_K1_a_short_write_is_continued(bench: CrewBench, monkeypatch: pytest.MonkeyPatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[: max(1, len(data) // 2)], offset))
    bench.attempt()
    bench.assert_whole()


@pytest.mark.parametrize("moment", [1.1, 2.2, 4.1])
def test_K1_the_journal_cannot_be_written(moment: float, bench: CrewBench, monkeypatch: pytest.MonkeyPatch):
    """Whether it is in the midst of a response, or when one of them has come to its end."""
    bench.relay(SPEED / 5)
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, moment)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *args, **options: (_ for _ in ()).throw(OSError(errno.EACCES, "not yours")))
        client.run()
    assert isinstance(attempt.error, rawdl.StorageError)
    assert not bench.world.sockets
    bench.attempt()
    bench.assert_whole()


def test_K1_the_journal_cannot_be_written_at_the_end_of_a_response(bench: CrewBench, monkeypatch: pytest.MonkeyPatch):
    """Of responses that come in one piece each, a second after the first bytes: a checkpoint is due with their end."""
    bench.resource.body = BODY[:150_000]
    bench.resource.faults = [Fault(in_body=1_000, kind="stall")]
    bench.listener.link = Link(latency=1.2, segment=65536)
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, lambda: bool(attempt.of("progress")))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *args, **options: (_ for _ in ()).throw(OSError(errno.EACCES, "not yours")))
        client.run()
    assert isinstance(attempt.error, rawdl.StorageError)
    assert len(bench.world.requests) == 4
    assert bench.world.elapsed < 15  # it is told when it happens, not when the silent one has run out of time
    assert_nothing_left(bench.world, client, idle=len(bench.world.sockets))


def test_H8_a_file_that_is_larger_than_the_disk_is_not_begun(bench: CrewBench, monkeypatch: pytest.MonkeyPatch):
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result([*real(fd)[:3], 1, 1, *real(fd)[5:]]))
    assert isinstance(bench.attempt().error, rawdl.StorageError)
    assert bench.names == []
    assert len(bench.world.conns) == 1


def test_a_body_of_more_than_is_allowed(bench: CrewBench):
    assert isinstance(bench.attempt(limits=rawdl.Limits(body=len(BODY) - 1)).error, rawdl.TooLarge)
    assert bench.attempt(limits=rawdl.Limits(body=len(BODY))).result.data_length == len(BODY)
    assert bench.most == 4
    bench.assert_whole()

"""The ways to embed a client: each example runs as it is, against a scripted origin, and does what it says."""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.embedding.conftest import GUARD, Program
from tests.origin import Origin, Request, Script
from tests.resource import Fault, Resource

EXAMPLES = Path(__file__).parent / "examples"
BODY = bytes(range(256)) * 400  # 100 KiB: several reads
LINES = 40

posix = pytest.mark.skipif(os.name != "posix", reason="waits on the descriptor of a POSIX selector")


@pytest.fixture
def url(origin: Origin) -> str:
    return origin.serve("/a", Script(body=BODY))


def example(name: str) -> Path:
    return EXAMPLES / f"{name}.py"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_short_documented_and_tested(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < LINES
    assert ast.get_docstring(ast.parse(source))
    used = {
        name for other in EXAMPLES.glob("*.py") for name in re.findall(r"^from (\w+) import", other.read_text(), re.M)
    }
    assert f'"{path.stem}"' in Path(__file__).read_text(encoding="utf-8") or path.stem in used


@posix
def test_nested_in_select_it_hears_other_things_meanwhile(program: Program, origin: Origin) -> None:
    heard = threading.Event()

    def answer(request: Request) -> Script:
        assert heard.wait(GUARD)
        return Script(body=BODY)

    process = program.start(example("nested_in_select"), origin.serve("/a", answer), "a")
    assert process.stdin is not None
    process.stdin.write(b"anybody there?")
    assert program.line(process) == "heard b'anybody there?'\n"
    heard.set()
    assert program.end(process).endswith(f"{len(BODY)} bytes\n")
    assert (program.folder / "a").read_bytes() == BODY


def test_in_asyncio_one_of_several_is_cancelled(program: Program, origin: Origin, url: str) -> None:
    stalled = origin.serve("/stalled", Script(body=BODY, stall_at=1000))
    told = program.run(example("in_asyncio"), url, url, stalled)
    assert told.splitlines() == ["completed DownloadResult"] * 2 + ["aborted CancelledError"]
    assert {path.name: path.read_bytes() for path in program.folder.iterdir()} == {"0.bin": BODY, "1.bin": BODY}


@posix
def test_in_tk_the_bar_is_full_in_the_end(program: Program, origin: Origin, display: Callable[[], str]) -> None:
    program.environment["DISPLAY"] = display()
    url = origin.serve("/a", Script(body=BODY, pace=1e6))
    assert program.run(example("in_tk"), url, "a") == f"100 %, {len(BODY)} bytes\n"
    assert (program.folder / "a").read_bytes() == BODY


def test_in_a_thread_the_other_one_waits_and_aborts(program: Program, origin: Origin, url: str) -> None:
    stalled = origin.serve("/stalled", Script(body=BODY, stall_at=1000))
    told = program.run(example("in_a_thread"), url, "a", stalled)
    assert told.splitlines() == ["told in rawdl", f"{len(BODY)} bytes, waited for in MainThread", "Aborted"]
    assert [path.name for path in program.folder.iterdir()] == ["a"]
    assert (program.folder / "a").read_bytes() == BODY


@posix
def test_in_trio_other_tasks_run_meanwhile(program: Program, origin: Origin) -> None:
    pytest.importorskip("trio", reason="trio is not installed")
    ticked = threading.Event()

    def answer(request: Request) -> Script:
        assert ticked.wait(GUARD)
        return Script(body=BODY)

    process = program.start(example("in_trio"), origin.serve("/a", answer), "a")
    assert program.line(process) == "tick\n"
    ticked.set()
    assert program.end(process).endswith(f"{len(BODY)} bytes\n")
    assert (program.folder / "a").read_bytes() == BODY


@posix
@pytest.mark.usefixtures("leaves_parts")
def test_a_daemon_that_is_terminated_goes_on_when_it_is_started_again(program: Program, origin: Origin) -> None:
    url = origin.serve("/a", Resource(BODY, faults=[Fault(in_body=50_000, kind="stall")]))
    process = program.start(example("as_a_daemon"), url, "a")
    assert re.fullmatch(r"[1-9]\d* bytes\n", program.line(process))
    process.send_signal(signal.SIGTERM)
    assert program.end(process, code=143).endswith(f"Aborted, kept {program.folder / 'a.part'}\n")
    assert not (program.folder / "a").exists()
    resumed = re.search(r"complete, resumed from (\d+)\n", program.run(example("as_a_daemon"), url, "a"))
    assert resumed is not None and 0 < int(resumed[1]) <= 50_000
    assert (program.folder / "a").read_bytes() == BODY
    assert not (program.folder / "a.part").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits the address space")
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_with_little_memory_a_file_may_be_larger_than_that(program: Program, origin: Origin, framing: str) -> None:
    size, piece = 64 << 20, bytes(1 << 20)
    body = (piece for _ in range(size // len(piece)))
    url = origin.serve("/a", Script(body=body, framing=framing, content_length=size))
    told = program.run(example("with_little_memory"), url, "a")
    assert told == f"{size} bytes with room for {24 << 20}\n"
    assert (program.folder / "a").stat().st_size == size


def test_without_threads_a_name_is_looked_up_in_a_table(program: Program, origin: Origin) -> None:
    url = origin.serve("/a", Script(body=BODY)).replace("127.0.0.1", "files.example.org")
    told = program.run(example("without_threads"), url, "a", "files.example.org=127.0.0.1")
    assert told == f"{len(BODY)} bytes by threads: 1\n"
    assert (program.folder / "a").read_bytes() == BODY


def test_without_threads_a_name_that_is_not_in_the_table_is_an_error(program: Program) -> None:
    told = program.run(example("without_threads"), "http://files.example.org/a", "a")
    assert told == "cannot resolve files.example.org: it has no address by threads: 1\n"


def test_into_an_object_store_it_goes_in_parts(program: Program, url: str) -> None:
    assert len(BODY) == 20 * 5120
    told = program.run(example("into_an_object_store"), url)
    assert told == f"{len(BODY)} bytes in 20 parts\n{len(BODY)} bytes stored, uploads left over: 0\n"
    assert list(program.folder.iterdir()) == []


@pytest.mark.parametrize(("size", "parts"), [(0, 1), (1, 1), (5120, 1), (5121, 2)])
def test_into_an_object_store_the_last_part_may_be_short(
    program: Program, origin: Origin, size: int, parts: int
) -> None:
    told = program.run(example("into_an_object_store"), origin.serve("/a", Script(body=BODY[:size])))
    assert told == f"{size} bytes in {parts} parts\n{size} bytes stored, uploads left over: 0\n"


def test_into_an_object_store_nothing_is_left_of_a_failure(program: Program, origin: Origin) -> None:
    script = Script(body=BODY)
    url = origin.serve("/a", Script(body=BODY, cut_at=script.body_at + 50_000))
    told = program.run(example("into_an_object_store"), url)
    assert "50000" in told and told.endswith("\n0 bytes stored, uploads left over: 0\n")


def test_with_tqdm_the_bar_ends_at_the_last_byte(program: Program, url: str) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    process = program.start(example("with_tqdm"), url, "a")
    stdout, stderr = process.communicate(timeout=GUARD)
    assert (process.returncode, stdout) == (0, b"")
    assert re.search(rb"a: 100%.*102k/102k", stderr), stderr
    assert (program.folder / "a").read_bytes() == BODY


def test_with_rich_each_download_has_a_row(program: Program, url: str) -> None:
    pytest.importorskip("rich", reason="rich is not installed")
    told = program.run(example("with_rich"), url, url)
    for name in ("0.bin", "1.bin"):
        assert re.search(rf"^{name} \S+ 100% \S+ 102\.4/102\.4 kB", told, re.MULTILINE), told
        assert (program.folder / name).read_bytes() == BODY

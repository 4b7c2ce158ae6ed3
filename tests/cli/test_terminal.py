"""The progress line as a terminal shows it, and what takes its place where there is none."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest

from tests.cli.conftest import GUARD, Command, screen
from tests.origin import Origin, Script

pytestmark = pytest.mark.one_version

BODY = bytes(1 << 20)
SLOW = Script(body=BODY, pace=1.5e6)  # 0.7 s: some redraws
UNKNOWN = Script(body=BODY, pace=1.5e6, framing="chunked")


def frames(written: str) -> list[str]:
    """Return what was drawn, one redraw after the other."""
    return [drawn.removesuffix("\x1b[K") for drawn in written.replace("\n", "\r").split("\r")]


def test_the_line_is_redrawn_and_then_gone(rawdl: Command, origin: Origin) -> None:
    code, written = rawdl.on_terminal("--progress=line", origin.serve("/a.bin", SLOW))
    drawn = [line for line in frames(written) if "%" in line]
    assert code == 0 and drawn
    assert all(line.startswith("a.bin  ") and " of 1.0 MiB" in line and len(line) < 80 for line in drawn)
    assert any("KiB/s  ETA 0:0" in line or "MiB/s  ETA 0:0" in line for line in drawn)
    last, end = screen(written)
    assert last.startswith("a.bin  1.0 MiB in ") and end == ""


def test_an_unknown_length_has_a_count_and_no_percentage(rawdl: Command, origin: Origin) -> None:
    code, written = rawdl.on_terminal("--progress=line", origin.serve("/a.bin", UNKNOWN))
    assert code == 0 and "%" not in written and "ETA" not in written
    assert any(line.startswith("a.bin  ") and "KiB  " in line for line in frames(written))


@pytest.mark.parametrize(("columns", "room"), [(0, 80), (40, 40), (20, 20), (4, 4), (1, 1)])
def test_the_line_fits_the_width(rawdl: Command, origin: Origin, columns: int, room: int) -> None:
    code, written = rawdl.on_terminal("--progress=line", origin.serve("/a.bin", SLOW), columns=columns)
    drawn = [line for line in written.replace("\n", "\r").split("\r") if line.endswith("\x1b[K")]
    assert code == 0 and drawn
    assert all(len(line.removesuffix("\x1b[K")) < room for line in drawn)


def test_several_files_share_one_line(rawdl: Command, origin: Origin) -> None:
    urls = [origin.serve("/a", SLOW), origin.serve("/b", SLOW), origin.serve("/c", Script(body=BODY))]
    code, written = rawdl.on_terminal("--progress=line", *urls)
    assert code == 0 and any(line.startswith("1 of 3 files") and "of 3.0 MiB" in line for line in frames(written))
    shown = screen(written)
    assert sorted(line[:12] for line in shown) == ["", "a  1.0 MiB i", "b  1.0 MiB i", "c  1.0 MiB i"]


def test_a_skipped_file_is_no_speed(rawdl: Command, origin: Origin) -> None:
    with open(rawdl.folder / "b", "wb") as large:
        large.truncate(64 << 20)
    code, written = rawdl.on_terminal("--progress=line", "--skip-existing", origin.serve("/a", SLOW), origin.url("/b"))
    assert code == 0 and "1 of 2 files" in written and " of 65.0 MiB" in written
    assert not re.search(r"\d\d\.\d MiB/s", written)


def test_a_failure_takes_the_place_of_the_line(rawdl: Command, origin: Origin) -> None:
    url = origin.serve("/a", Script(body=BODY, pace=1.5e6, cut_at=600_000))
    code, written = rawdl.on_terminal("--progress=line", "--retries", "0", url)
    assert code == 18 and any("%" in line for line in frames(written))
    assert [line[:7] for line in screen(written)] == ["rawdl: ", ""]


def test_waiting_is_shown_as_such(rawdl: Command, origin: Origin) -> None:
    _, written = rawdl.on_terminal("--progress=line", origin.serve("/a", Script(body=BODY, head_delay=0.4)))
    assert "a  waiting" in frames(written)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_dumb_terminal_gets_plain_lines(rawdl: Command, origin: Origin, term: str) -> None:
    rawdl.environment["TERM"] = term
    _, written = rawdl.on_terminal("--progress=line", origin.serve("/a", SLOW))
    assert ("\x1b" in written) == (term != "dumb")


def test_no_terminal_gets_one_plain_line(rawdl: Command, origin: Origin) -> None:
    outcome = rawdl(origin.serve("/a", SLOW))
    assert outcome.stderr.startswith("a  1.0 MiB in ") and outcome.stderr.count("\n") == 1
    assert "\r" not in outcome.stderr and "\x1b" not in outcome.stderr


@pytest.mark.parametrize("arguments", [["-q"], ["-q", "-o", "-"]])
def test_quiet_is_quiet(rawdl: Command, origin: Origin, arguments: list[str]) -> None:
    code, written = rawdl.on_terminal(*arguments, origin.serve("/a", Script(body=b"x", head_delay=0.3)))
    assert (code, written) == (0, "x" if "-" in arguments else "")


def test_a_body_on_the_terminal_is_not_mixed_with_progress(rawdl: Command, origin: Origin) -> None:
    code, written = rawdl.on_terminal("-o", "-", origin.serve("/a", Script(body=b"x" * 60, head_delay=0.3)))
    assert (code, written) == (0, "x" * 60)


def test_ctrl_c_on_the_terminal(rawdl: Command, origin: Origin) -> None:
    master, slave = os.openpty()
    options = ["--progress=line", origin.serve("/a", Script(body=BODY, stall_at=500_000))]
    with rawdl.start(*options, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        written = b""
        while b"%" not in written:
            written += os.read(master, 65536)
        process.send_signal(2)
        while not written.endswith(b"rawdl: interrupted\r\n"):
            written += os.read(master, 65536)
        assert process.wait(GUARD) == 130
    os.close(master)
    assert screen(written.decode()) == ["rawdl: interrupted", ""]


@pytest.mark.contract("K9")
def test_K9_a_stop_erases_the_line_and_it_is_drawn_again(rawdl: Command, origin: Origin) -> None:
    master, slave = os.openpty()
    url = origin.serve("/a", Script(body=BODY, stall_at=500_000))
    # In a group of its own: a group without a parent that could continue it is not stopped (POSIX, "orphaned").
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    with rawdl.start("--progress=line", url, **streams, process_group=0) as process:
        os.close(slave)
        written = _read_until(master, b"%")
        process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGCONT)
        written += _read_until(master, b"%")
        process.send_signal(signal.SIGTERM)
        written += _read_until(master, b"rawdl: terminated\r\n")
        assert process.wait(GUARD) == 143
    os.close(master)
    assert screen(written.decode()) == ["rawdl: terminated", ""]


@pytest.mark.usefixtures("leaves_parts")
def test_a_second_signal_leaves_no_line_either(rawdl: Command, origin: Origin) -> None:
    master, slave = os.openpty()
    url = origin.serve("/a", Script(body=BODY, stall_at=500_000))
    code = "from rawdl.cli import get, main; get.Batch._stop = lambda *_: None; main.main()"
    argv = [*rawdl.argv()[:3], "-c", code, "--progress=line", url]
    with subprocess.Popen(argv, cwd=rawdl.folder, env=rawdl.environment, stdout=slave, stderr=slave) as process:
        written = _read_until(master, b"%")
        process.send_signal(signal.SIGINT)  # of two that wait, the one with the lower number is handled first
        process.send_signal(signal.SIGTERM)
        assert process.wait(GUARD) == 143
    os.close(slave)
    while not written.endswith(b"\r\x1b[K"):  # the end is there already
        written += os.read(master, 65536)
    os.close(master)
    assert screen(written.decode()) == [""]


def _read_until(master: int, expected: bytes) -> bytes:
    written = b""
    while expected not in written:
        written += os.read(master, 65536)
    return written


def test_a_name_that_standard_error_cannot_encode(rawdl: Command, origin: Origin) -> None:
    rawdl.environment["PYTHONIOENCODING"] = "ascii:backslashreplace"
    _, written = rawdl.on_terminal("--progress=line", origin.serve("/" + "%E4%B8%AD" * 30, SLOW))
    drawn = [line for line in frames(written) if "%" in line]
    assert drawn and all(line.startswith("\\u4e2d") and len(line) < 80 for line in drawn)


def test_standard_error_that_is_full_does_not_matter(rawdl: Command, origin: Origin) -> None:
    url = origin.serve("/a", Script(body=BODY))
    with open("/dev/full", "wb") as full, rawdl.start(url, stderr=full) as process:
        assert process.wait(GUARD) == 0
    assert rawdl.files() == ["a"]


def test_progress_goes_on_after_the_terminal_is_gone(rawdl: Command, origin: Origin) -> None:
    reader, writer = os.pipe()
    with rawdl.start(origin.serve("/a", SLOW), stderr=writer, stdout=subprocess.DEVNULL) as process:
        os.close(writer)
        os.close(reader)
        assert process.wait(GUARD) == 0

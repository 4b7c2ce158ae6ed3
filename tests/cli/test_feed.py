"""``-i -``: URLs on standard input, whose downloads begin as lines come."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256

import pytest

from tests.cli.conftest import GUARD, Command, wait_for_event
from tests.origin import Origin, Script

BODY = b"hello"
Feeding = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def url(origin: Origin) -> str:
    for path in ("/a", "/b", "/c"):
        origin.serve(path, Script(body=BODY + path.encode()))
    return origin.url("")


@pytest.fixture
def fed(rawdl: Command) -> Iterator[Feeding]:
    """Start the command with a pipe for its standard input."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
            process = stack.enter_context(rawdl.start(*arguments, "-i", "-", **pipes))
            stack.callback(process.kill)
            return process

        yield start


def write(process: subprocess.Popen[bytes], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text.encode())


def end(process: subprocess.Popen[bytes], code: int = 0) -> str:
    """Close its input, and return what it wrote on standard error."""
    _, complaint = process.communicate(timeout=GUARD)
    assert process.returncode == code, complaint
    return complaint.decode()


def test_a_download_begins_when_its_line_has_come(fed: Feeding, rawdl: Command, url: str) -> None:
    process = fed("--json")
    write(process, f"{url}/a\n")
    assert wait_for_event(process, "done")["url"] == f"{url}/a"
    write(process, f"{url}/b\n  out=x\n")
    assert wait_for_event(process, "done")["filePath"] == "x"
    assert end(process) == "" and rawdl.files() == ["a", "x"]


def test_one_that_runs_does_not_hold_up_the_next(fed: Feeding, rawdl: Command, origin: Origin, url: str) -> None:
    slow = origin.serve("/slow", Script(body=BODY, stall_at=0))
    process = fed("--json", slow)
    origin.wait_request()
    write(process, f"{url}/a\n")
    assert wait_for_event(process, "done")["url"] == f"{url}/a"
    process.send_signal(signal.SIGINT)
    assert "interrupted" in end(process, 130)


def test_all_at_once_with_options_and_no_end_of_the_last_line(fed: Feeding, rawdl: Command, url: str) -> None:
    digest = sha256(BODY + b"/b").hexdigest()
    process = fed("-q", f"{url}/c")
    write(process, "\ufeff# mine\r\n")
    write(process, f"{url}/a\r\n\n{url}/nowhere\t{url}/b\n  dir=sub\n\tchecksum=sha-256={digest}\n  out=ü")
    assert end(process) == "" and rawdl.files() == ["a", "c", "sub/ü"]


def test_a_character_may_come_in_two_pieces(fed: Feeding, rawdl: Command, url: str) -> None:
    process = fed("--json")
    assert process.stdin is not None
    text = f"{url}/a\n{url}/b\n  out=ü\n".encode()
    process.stdin.write(text[:-2])
    assert wait_for_event(process, "done")["url"] == f"{url}/a", "the first piece has been read"
    process.stdin.write(text[-2:])
    assert end(process) == "" and rawdl.files() == ["a", "ü"]


def test_more_than_can_be_live_at_once(fed: Feeding, rawdl: Command, origin: Origin) -> None:
    origin.serve("*", Script(body=BODY))
    process = fed("-q", "-j", "30")
    write(process, "".join(f"{origin.url('/')}{n}\n" for n in range(1500)))
    assert end(process) == "" and len(rawdl.files()) == 1500


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("{url}/b\n  out\n", "-i: -, line 2: "),
        ("  out=x\n", "-i: -, line 1: "),
        ("{url}/b\n  split=0\n", "whole number"),
        ("{url}/b\n  header=a b: c\n", "no header field name"),
        ("{url}/c\n", "would both be saved as c"),
        ("{url}/b\n  out=file/b\n", "cannot make the folder"),
    ],
)
def test_what_makes_no_sense_is_left_out_and_told_of(
    fed: Feeding, rawdl: Command, url: str, lines: str, words: str
) -> None:
    (rawdl.folder / "file").write_bytes(b"")
    process = fed("-q", "--create-dirs", f"{url}/c")
    write(process, lines.format(url=url) + f"{url}/a\n")
    complaint = end(process, 23 if "folder" in words else 2)
    assert words in complaint and len(complaint.splitlines()) == 1
    assert rawdl.files() == ["a", "c", "file"]


def test_what_is_no_text_ends_the_list(fed: Feeding, rawdl: Command, url: str) -> None:
    process = fed("-q", f"{url}/a")
    assert process.stdin is not None
    process.stdin.write(b"\xff\n")
    assert end(process, 2) == "rawdl: -i: -: it is not UTF-8\n" and rawdl.files() == ["a"]


def test_an_interrupt_while_nothing_comes(fed: Feeding, rawdl: Command, url: str) -> None:
    process = fed("--json")
    write(process, f"{url}/a\n")
    wait_for_event(process, "done")
    process.send_signal(signal.SIGINT)
    assert process.wait(GUARD) == 130
    assert end(process, 130) == "rawdl: interrupted\n"


def test_a_dry_run_tells_as_lines_come(fed: Feeding, rawdl: Command, origin: Origin, url: str) -> None:
    process = fed("--dry-run")
    write(process, f"{url}/a\n")
    assert process.stdout is not None
    assert process.stdout.readline() == f"{url}/a -> a\n".encode()
    write(process, f"{url}/b\n  split=0\n")
    assert "whole number" in end(process, 2) and not origin.requests


def test_no_line_is_nothing_to_do(fed: Feeding) -> None:
    assert end(fed("-q")) == ""


def test_a_closed_input(rawdl: Command, url: str) -> None:
    assert rawdl.after("import os; os.close(0); sys.stdin = None", "-i", "-").complaint.startswith(
        "rawdl: -i: standard input is closed"
    )


def test_two_that_read_standard_input(rawdl: Command) -> None:
    outcome = rawdl("-i", "-", "--cert", "c", "--key-password-file", "-")
    assert (outcome.code, "both read standard input" in outcome.complaint) == (2, True)

"""``rawdl demo``: it shows what it says, fails if that is not so, and leaves nothing."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.cli.conftest import GUARD, Command, screen

pytestmark = pytest.mark.one_version


def test_shows_every_step(rawdl: Command) -> None:
    outcome = rawdl("demo", "--size", "8M")
    lines = outcome.stdout.decode().splitlines()
    assert (outcome.code, outcome.stderr) == (0, "")
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")][1:5] == [
        "headers",
        "http",
        "https",
        "abort",
    ]
    assert sum("SHA-256" in line for line in lines) == 2
    assert max(map(len, lines)) < 80
    assert rawdl.files() == []  # its temporary folder would be here


def test_without_trustme_it_says_how_to_get_it(rawdl: Command) -> None:
    outcome = rawdl.after("sys.modules['trustme'] = None", "demo", "--size", "1M")
    assert outcome.code == 0
    assert "https     left out: it needs a certificate; pip install rawdl[demo] gets it" in outcome.stdout.decode()


def test_on_a_terminal_progress_is_live_and_then_gone(rawdl: Command) -> None:
    code, written = rawdl.on_terminal("demo", "--size", "1M")
    assert code == 0 and "\rheaders " in written and " of 8.0 MiB" in written
    assert not any("ETA" in line for line in screen(written))


@pytest.mark.parametrize(
    ("sabotage", "step"),
    [
        ("demo.Show._digest = lambda *_: 'another'", "http"),
        ("demo._abort_at = lambda *_: None", "abort"),
        ("demo.DiscardSink = lambda: open('/dev/full', 'wb', 0)", "headers"),
    ],
)
def test_a_promise_that_is_not_kept_is_a_failure(rawdl: Command, sabotage: str, step: str) -> None:
    outcome = rawdl.after(f"from rawdl.cli import demo; {sabotage}", "demo", "--size", "1M")
    lines = outcome.stdout.decode().splitlines()
    assert outcome.code == 1 and lines[-1].startswith("FAILED: ") and step in lines[-1]
    assert any(line.startswith(f"{step:<10}FAILED: ") for line in lines)
    assert rawdl.files() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(rawdl: Command, number: int) -> None:
    with rawdl.start("demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not process.stdout.readline().startswith(b"headers"):
            pass
        process.send_signal(number)
        # The child has the same standard error: its end means that the child has ended as well.
        _, complaint = process.communicate(timeout=GUARD)
        assert process.returncode == 128 + number
    assert complaint == (b"rawdl: interrupted\n" if number == signal.SIGINT else b"rawdl: terminated\n")
    assert rawdl.files() == []


def test_a_reader_that_goes_away_ends_it(rawdl: Command) -> None:
    with rawdl.start("demo", "--size", "1M", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(GUARD) == 23
    assert rawdl.files() == []

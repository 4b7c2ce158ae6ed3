"""Where progress and messages go: what is written, with invented values."""

from __future__ import annotations

import io
import sys

import pytest

from rawdl.cli.display import Display, Mode
from rawdl.cli.meter import Status

STATUS = Status("a", 1, None, None)
DRAWN = "a        1 B\x1b[K"


def test_a_line_is_redrawn_and_messages_stand_above_it() -> None:
    stream = io.StringIO()
    display = Display(stream, "line")
    display.show(STATUS)
    display.show(STATUS)
    display.note("said")
    display.clear()
    assert stream.getvalue() == f"\r{DRAWN}\r{DRAWN}\r\x1b[Ksaid\n{DRAWN}\r\x1b[K"


def test_clear_erases_once_what_was_drawn() -> None:
    stream = io.StringIO()
    display = Display(stream, "line")
    display.show(STATUS)
    display.clear()
    display.clear()
    display.note("said")
    assert stream.getvalue() == f"\r{DRAWN}\r\x1b[Ksaid\n"


def test_who_has_lost_its_place_draws_where_the_cursor_is() -> None:
    stream = io.StringIO()
    display = Display(stream, "line")
    display.show(STATUS)
    display.lose_place()
    display.clear()
    assert stream.getvalue() == f"\r{DRAWN}"


def test_a_log_has_lines_that_stay() -> None:
    stream = io.StringIO()
    display = Display(stream, "log")
    display.show(STATUS)
    display.note("said")
    display.clear()
    assert stream.getvalue() == "a        1 B\nsaid\n"
    assert display.period is not None and display.period >= 1


@pytest.mark.parametrize("silent", [True, False])
def test_without_progress_there_are_still_messages(silent: bool) -> None:
    stream = io.StringIO()
    display = Display(stream, "none", silent=silent)
    display.show(STATUS)
    display.note("said")
    assert (display.period, stream.getvalue()) == (None, "said\n")


@pytest.mark.parametrize("mode", ["bars", "line", "log", "none"])
def test_without_a_stream_nothing_happens(mode: Mode) -> None:
    display = Display(None, mode)
    display.show(STATUS)
    display.note("said")
    display.abandon()
    display.clear()


def test_bars_are_drawn_over_each_other_and_erased_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    stream, status = io.StringIO(), Status("a", waiting="waiting")
    display = Display(stream, "bars")
    display.show(status, [status, status])
    row = stream.getvalue()[1:].partition("\x1b[K")[0]
    assert row.startswith("a  ") and row.endswith("waiting")
    two, three = f"{row}\x1b[K\r\n{row}", f"{row}\x1b[K\r\n{row}\x1b[K\r\n{row}"
    assert stream.getvalue() == f"\r{three}\x1b[K"
    stream.truncate(0), stream.seek(0)
    display.show(status, [status])
    display.note("said")
    display.clear()
    assert stream.getvalue() == f"\r\x1b[2A{two}\x1b[J\r\x1b[1A\x1b[Jsaid\n{two}\x1b[K\r\x1b[1A\x1b[J"


def test_without_rich_the_bars_are_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawdl.cli.bars", None)
    stream = io.StringIO()
    Display(stream, "bars").show(STATUS, [STATUS, STATUS])
    assert stream.getvalue() == f"\r{DRAWN}"

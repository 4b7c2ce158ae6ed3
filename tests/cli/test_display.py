"""Where progress and messages go: what is written, with invented values."""

from __future__ import annotations

import io

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


@pytest.mark.parametrize("mode", ["line", "log", "none"])
def test_without_a_stream_nothing_happens(mode: Mode) -> None:
    display = Display(None, mode)
    display.show(STATUS)
    display.note("said")
    display.abandon()
    display.clear()

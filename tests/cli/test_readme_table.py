"""The README's table for those who know curl, wget or aria2c: each cell is carried out, and does what its row says.

The table is the data; `tests.cli.scenarios` has what each row promises, by its first cell.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from tests.cli.scenarios import SCENARIOS
from tests.cli.trial import Trial
from tests.origin import Origin
from tests.readme import sections, tables

pytestmark = pytest.mark.one_version

PROGRAMS = ["rawdl", "curl", "wget", "aria2c"]
TABLE = next(table for table in tables("The command line") if table.head[1:] == PROGRAMS)
PACKAGES = {"curl": "curl", "wget": "wget", "aria2c": "aria2"}
MARKS = "[¹²³⁴⁵⁶⁷⁸⁹]"
CELL = re.compile(f"(default|–|`([^`]+)`)( {MARKS}+)?")


@pytest.mark.parametrize("row", TABLE.rows, ids=[row[0] for row in TABLE.rows])
@pytest.mark.usefixtures("leaves_parts")
def test_each_cell_does_what_its_row_says(row: list[str], ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """All programs at once, since most of the time is theirs to wait."""

    def attempt(program: str, flags: str) -> None:
        if program != "rawdl" and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {PACKAGES[program]})")
        try:
            with Origin() as origin:
                SCENARIOS[row[0]](Trial(tmp_path / program, program, flags, origin, ca, ca_file))
        except BaseException as error:
            error.add_note(f"{program} {flags}")
            raise

    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        ends = [pool.submit(attempt, program, flags) for program, flags in cells(row).items()]
    errors = [error for end in ends if (error := end.exception()) is not None]
    if failures := [error for error in errors if not isinstance(error, pytest.skip.Exception)]:
        raise BaseExceptionGroup(row[0], failures)
    if errors:
        pytest.skip("; ".join(map(str, errors)))


def test_each_row_has_a_scenario_and_each_scenario_a_row() -> None:
    assert sorted(row for row, *_ in TABLE.rows) == sorted(SCENARIOS)


def test_each_mark_has_its_note_and_each_note_its_mark() -> None:
    notes = sections()["The command line"].rpartition("|\n\n")[2]
    marks = {mark for row in TABLE.rows for cell in row[1:] for mark in re.findall(MARKS, cell)}
    assert sorted(marks) == sorted(re.findall(MARKS, notes))


def cells(row: list[str]) -> dict[str, str]:
    """Return the flags of each program that has any for it."""
    found = {}
    for program, cell in zip(PROGRAMS, row[1:], strict=True):
        match = CELL.fullmatch(cell)
        assert match, f"{row[0]}: {program}: no cell is written {cell}"
        if match[1] != "–":
            found[program] = match[2] or ""
    return found

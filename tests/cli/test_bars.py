"""The bars as rows of text, with invented values."""

from __future__ import annotations

import os
import re

import pytest

pytest.importorskip("rich")

from rawdl.cli.bars import Painter
from rawdl.cli.meter import Status, cells

MIB = 1 << 20
FILES = [
    Status("large.iso", 100 * MIB, 200 * MIB, 5.0 * MIB, connections=4),
    Status("small.iso", MIB, 2 * MIB, 1.0 * MIB),
    Status("unknown.iso", 3 * MIB, None, 1.0 * MIB),
    Status("held.iso", 5 * MIB, 10 * MIB, 1.0, stalled=12.3),
    Status("new.iso", waiting="connecting"),
]
TOTAL = Status("1 of 6 files", 109 * MIB, None, 8.0 * MIB)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def painted(
    total: Status = TOTAL, files: list[Status] = FILES, columns: int = 100, lines: int = 24, encoding: str = "utf-8"
) -> list[str]:
    return Painter(encoding).rows(total, files, os.terminal_size((columns, lines)))


def plain(rows: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in rows]


def test_a_row_says_how_far_how_fast_and_how_long() -> None:
    [row] = plain(painted(Status("a.iso", 107 * MIB + MIB // 2, 256 * MIB, 43.1 * MIB, connections=4), []))
    numbers = r" 41 %  107.5 of 256.0 MiB   43.1 MiB/s  ETA 0:04  x4"
    assert re.fullmatch(rf"a\.iso  ━+╸?╺?━+  {numbers}".replace("  43.1", "   43.1"), row)


def test_the_largest_stand_last_above_the_total() -> None:
    assert [row.split(".iso")[0][:6] for row in plain(painted())] == [
        *("unknow", "new", "small", "held", "large", "1 of 6"),
    ]


def test_columns_stand_below_each_other() -> None:
    rows = plain(painted())
    assert len({row.index("/s") for row in rows if "/s" in row}) == 1
    assert len({row.index("%") for row in rows if "%" in row}) == 1
    assert len({re.search("[KMG]iB", row).end() for row in rows if "new" not in row}) == 1


def test_an_unknown_length_has_a_count_and_no_percentage() -> None:
    unknown = plain(painted())[0]
    assert "%" not in unknown and "ETA" not in unknown and "3.0 MiB" in unknown and "━" in unknown


def test_a_stall_has_its_time_instead_of_an_estimate() -> None:
    [held] = [row for row in plain(painted()) if "held" in row]
    assert held.endswith("stalled 12 s") and " 50 %" in held


def test_before_the_first_byte_there_is_no_bar() -> None:
    [new] = [row for row in plain(painted()) if "new" in row]
    assert re.fullmatch(r"new\.iso +connecting", new)


@pytest.mark.parametrize("lines", range(1, 12))
def test_there_are_no_more_rows_than_fit(lines: int) -> None:
    rows = plain(painted(lines=lines))
    assert len(rows) == min(len(FILES) + 1, max(1, lines - 1))
    assert rows[-1].startswith("1 of 6")
    assert lines < 3 or rows[-2].startswith("large")


@pytest.mark.parametrize("label", ["a", "a-long-name-of-a-file-1.2.3.tar.gz", "中文文件名" * 9, "e\u0301" * 60])
def test_three_columns_stay_free(label: str) -> None:
    files = [status._replace(label=label) for status in FILES]
    for width in range(1, 140):
        alone = [*painted(files[0], [], width), *painted(files[-1], [], width)]
        for row in plain([*painted(files=files, columns=width), *alone]):
            assert cells(row) <= max(width - 3, 0)


def test_what_stands_last_gives_way_first() -> None:
    status = Status("a-rather-long-name-of-a-file", 107 * MIB, 256 * MIB, 43.1 * MIB)
    found = [plain(painted(status, [], columns))[0] for columns in (120, 80, 40, 20, 10, 4)]
    assert ["━" in row for row in found] == [True, True, False, False, False, False]
    assert ["ETA" in row for row in found] == [True, True, False, False, False, False]
    assert [" of " in row for row in found] == [True, True, True, False, False, False]
    assert ["41 %" in row for row in found] == [True, True, True, True, True, False]
    assert ["a-" in row for row in found] == [True, True, True, True, False, False]


@pytest.mark.parametrize("label", ["[red]x[/red]", "[/]", "[link=http://h]x[/link]", ":smile:", "\\[b]"])
def test_a_name_is_no_markup(label: str) -> None:
    files = [FILES[1]._replace(label=label)]
    assert painted(files=files)[0].startswith(f"{label}  ")


def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(re.search(r"\x1b\[[0-9;]*3[0-9]", row) for row in painted())
    monkeypatch.setenv("NO_COLOR", "1")
    rows = painted()
    assert not any(re.search(r"\x1b\[[0-9;]*[349][0-9]", row) for row in rows)
    assert len({row.index("%") for row in plain(rows) if "%" in row}) == 1
    monkeypatch.setenv("NO_COLOR", "")
    assert any(re.search(r"\x1b\[[0-9;]*3[0-9]", row) for row in painted())


def test_a_terminal_without_these_characters_has_others() -> None:
    rows = painted(encoding="ascii")
    assert all(row.isascii() for row in rows) and any("--" in row for row in rows)


def test_a_short_name_is_not_lost() -> None:
    assert painted(Status("a", 0, 0), [])[0].startswith("a  ")


def test_an_empty_file_is_whole() -> None:
    assert "100 %  0 of 0 B" in plain(painted(Status("a", 0, 0), []))[0]

"""What README.md shows, in parts: sections, blocks of code, what a console does, tables."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Step(NamedTuple):
    """A command of a console, without the comment behind it, and the lines that are shown below it."""

    command: str
    printed: list[str]

    @property
    def pattern(self) -> str:
        """Return a regular expression for what it prints; a line of … stands for lines that are not shown."""
        return "".join("(?:.*\n)+" if line == "…" else re.escape(line) + "\n" for line in self.printed)


class Table(NamedTuple):
    head: list[str]
    rows: list[list[str]]


@cache
def sections() -> dict[str, str]:
    """Return the text of each section by its title; "" is what stands before the first."""
    before, *parts = re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": before} | {title: text for title, _, text in (part.partition("\n") for part in parts)}


def blocks(section: str, language: str) -> list[str]:
    """Return what stands in the fences of that language ("": of none) in a section."""
    return [text for found, text in _fenced(section) if found == language]


def languages(section: str) -> list[str]:
    """Return the language of each fenced block, in order."""
    return [language for language, _ in _fenced(section)]


def steps(section: str) -> list[Step]:
    """Return what the consoles of a section do, in order."""
    return [_step(part) for block in blocks(section, "console") for part in _parts(block)]


def tables(section: str) -> list[Table]:
    """Return the tables of a section, in order."""
    found = re.findall(r"(?:^\|.*\n)+", sections()[section], re.MULTILINE)
    return [Table(head, rows) for head, _, *rows in (list(map(_cells, text.splitlines())) for text in found)]


def _fenced(section: str) -> list[tuple[str, str]]:
    text = sections()[section]
    found = re.findall(r"^ *```(\S*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    if 2 * len(found) != text.count("```"):
        raise AssertionError(f"{section}: a fence that is not closed, or not on a line of its own")
    return found


def _parts(block: str) -> list[str]:
    before, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    if before:
        raise AssertionError(f"a console begins with a command, not with {before!r}")
    return parts


def _step(part: str) -> Step:
    command, *printed = part.splitlines()
    return Step(re.sub(r"\s+# .*", "", command), printed)


def _cells(line: str) -> list[str]:
    """Take a line of a table apart; a bar that belongs to a cell has a backslash before it."""
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]

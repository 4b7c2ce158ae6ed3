"""The grammar: which words become which options."""

from __future__ import annotations

import re

import pytest

import rawdl
from rawdl.cli import demo, get, main as grammar
from rawdl.cli.options import Options
from rawdl.cli.report import CAUSES


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect what commands are run with, instead of running them."""
    calls: list[object] = []
    monkeypatch.setattr(get, "run", lambda options: calls.append(options) or 0)
    monkeypatch.setattr(demo, "run", lambda size: calls.append(size) or 0)
    return calls


def test_the_defaults(asked: list[object]) -> None:
    assert grammar.main(["http://h/"]) == 0
    assert asked == [Options(urls=["http://h/"], header={})]


def test_every_option(asked: list[object]) -> None:
    words = ["-o", "f", "-d", "d", "-H", "A:b", "-H", "a:c", "-H", "C:", "--cacert", "ca", "-k"]
    words += ["--timeout", "1.5", "-q", "--json", "--no-clobber", "-c", "--checksum", f"MD5:{'A' * 32}", "-R"]
    words += ["--retries", "0", "--max-redirects", "3", "--allow-downgrade", "http://h/"]
    assert grammar.main(words) == 0
    options = Options(
        urls=["http://h/"],
        output="f",
        directory="d",
        exists="error",
        resume=True,
        checksum=f"md5:{'a' * 32}",
        remote_time=True,
        header={"A": "b, c", "C": None},
        ca_file="ca",
        verify=False,
        timeout=1.5,
        retries=0,
        max_redirects=3,
        allow_downgrade=True,
        quiet=True,
        json=True,
    )
    assert asked == [options]


@pytest.mark.parametrize(
    ("flag", "chosen"),
    [
        ("--overwrite", {"exists": "overwrite"}),
        ("--no-clobber", {"exists": "error"}),
        ("--skip-existing", {"exists": "skip"}),
        ("-c", {"resume": True}),
        ("--continue", {"resume": True}),
        ("--no-resume", {"resume": False}),
    ],
)
def test_one_flag_of_several(asked: list[object], flag: str, chosen: dict[str, object]) -> None:
    assert grammar.main([flag, "http://h/"]) == 0
    assert asked == [Options(urls=["http://h/"], header={}, **chosen)]


def test_the_defaults_are_the_librarys() -> None:
    options = Options(urls=[])
    assert options.retries + 1 == rawdl.Retry().attempts
    assert (options.max_redirects, options.allow_downgrade) == (rawdl.Redirects().limit, False)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("500K", 512000), ("8m", 8 << 20), ("2G", 2 << 30), (None, 256 << 20)]
)
def test_sizes_are_1024_based(asked: list[object], text: str | None, size: int) -> None:
    assert grammar.main(["demo", *(["--size", text] if text else [])]) == 0
    assert asked == [size]


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_fits_80_columns_and_55_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80 and len(lines) <= 55


def test_help_documents_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    grammar.main(["--help"])
    words = capsys.readouterr().out.partition("exit status")[2].split()
    assert {str(cause.code) for cause in CAUSES} <= set(words)


def test_the_exit_codes_are_columns(capsys: pytest.CaptureFixture[str]) -> None:
    grammar.main(["--help"])
    first, *rest = capsys.readouterr().out.partition("exit status")[2].splitlines()[1:]
    columns = [match.start(1) for match in re.finditer(r"\d (\w)", first)]
    assert len(columns) == 3
    assert all(line[column - 1 : column] in ("", " ") for line in rest for column in columns)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rawdl ")

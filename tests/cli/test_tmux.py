"""The bars on a real terminal, whatever happens to it, to the process and to its names; and what is left behind."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.conftest import GUARD, Command, open_terminal
from tests.cli.tmux import Terminal, bars, needs_tmux
from tests.origin import Origin, Script

pytestmark = pytest.mark.one_version

pytest.importorskip("rich")
pytestmark = needs_tmux()

BODY = bytes(1 << 20)
HELD = Script(body=BODY, stall_at=500_000)  # for ever
SLOW = Script(body=BODY, pace=0.7e6)  # 1.5 s: long enough to be seen
Open = Callable[..., Terminal]


@pytest.fixture
def terminal(rawdl: Command) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda columns=80, rows=24: stack.enter_context(
            Terminal(rawdl.folder, rawdl.environment, columns, rows),
        )


@pytest.fixture
def command(rawdl: Command) -> Callable[..., str]:
    """Make a command line; its process is then told by a file."""

    def line(*arguments: str, code: str = "", env: str = "") -> str:
        argv = rawdl.argv(*arguments) if not code else [*rawdl.argv()[:3], "-c", code, *arguments]
        return f"{env} sh -c 'echo $$ > pid; exec \"$@\"' sh {shlex.join(argv)}"

    return line


def pid(folder: Path) -> int:
    return int((folder / "pid").read_text())


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (20, 10)])
def test_bars_come_and_go(
    terminal: Open, command: Callable[..., str], origin: Origin, columns: int, rows: int, rawdl: Command
) -> None:
    shell = terminal(columns, rows)
    urls = [origin.serve("/a.bin", SLOW), origin.serve("/b.bin", SLOW)]
    shell.type("clear; " + command(*urls))
    shell.wait(lambda shown: len([row for row in shown if "%" in row]) == 3)
    assert shell.cursor_is_visible
    shown = shell.prompt()
    assert not bars(shown) and "/s" in "".join(shown)
    shell.assert_as_before()
    assert {"a.bin", "b.bin"} <= set(rawdl.files())


def test_an_unknown_length_has_a_bar_and_no_percentage(
    terminal: Open, command: Callable[..., str], origin: Origin
) -> None:
    shell = terminal()
    shell.type(command(origin.serve("/a.bin", Script(body=BODY, framing="chunked", stall_at=500_000))))
    shown = shell.wait(lambda shown: any("KiB" in row for row in shown))
    assert "%" not in "".join(bars(shown))
    shell.press("C-c")
    shell.prompt()


def test_thirty_files_on_a_terminal_of_fewer_rows(
    terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command
) -> None:
    shell = terminal(80, 24)
    urls = [origin.serve(f"/f{number:02}", HELD) for number in range(30)]
    shell.type(command("-j", "30", "-x", "30", *urls))
    origin.wait_request(30)
    shown = shell.wait(lambda shown: len([row for row in shown if " 47 %" in row]) == 23)
    assert shown[-1].startswith("0 of 30 files") and len(shown) <= 24
    os.kill(pid(rawdl.folder), signal.SIGTERM)
    assert shell.prompt()[-1] == "rawdl: terminated"
    shell.assert_as_before()


def test_names_are_shown_as_they_are(terminal: Open, command: Callable[..., str], origin: Origin) -> None:
    shell = terminal(100)
    paths = ["/%5Bred%5Dx%5Bbold%5D", "/%E4%B8%AD%E6%96%87.zip", "/a%1B%5B31mb"]
    shell.type("clear; " + command(*(origin.serve(path, HELD) for path in paths)))
    shown = bars(shell.wait(lambda shown: len(bars(shown)) == 4))
    assert {row.split("  ")[0] for row in shown} == {"[red]x[bold]", "中文.zip", "a_[31mb", "0 of 3 files"}
    # Wide characters count as two: all bars begin at the same cell.
    assert len({row.index("━") + row.count("中") + row.count("文") for row in shown}) == 1
    shell.press("C-c")
    shell.prompt()


@pytest.mark.parametrize(("columns", "rows"), [(50, 24), (120, 30), (80, 6)])
def test_it_is_resized_meanwhile(
    terminal: Open, command: Callable[..., str], origin: Origin, columns: int, rows: int
) -> None:
    shell = terminal(80, 24)
    shell.type("clear; " + command(*(origin.serve(path, HELD) for path in ("/a", "/b", "/c"))))
    before = shell.wait(lambda shown: len([row for row in bars(shown) if " 47 %" in row]) == 4)
    shell.resize(columns, rows)
    shown = shell.wait(lambda shown: shown[-4:] != before[-4:] or rows < 24)
    shown = shell.wait(lambda shown: [row[:1] for row in bars(shown)] == ["a", "b", "c", "0"])
    assert all(len(row) <= columns - 3 for row in bars(shown))
    shell.press("C-c")
    assert not bars(shell.prompt())
    shell.assert_as_before()


@pytest.mark.parametrize("value", ["1", ""])
def test_NO_COLOR(terminal: Open, command: Callable[..., str], origin: Origin, value: str) -> None:
    shell = terminal()
    shell.type(command(origin.serve("/a", HELD), env=f"NO_COLOR={value}"))
    shell.wait(lambda shown: bars(shown[-1:]))
    row = shell.screen(attributes=True)[-1]
    assert "━━" in row and ("\x1b" in row) == (not value)
    shell.press("C-c")
    shell.prompt()


@pytest.mark.parametrize(
    ("before", "arguments"), [("stty cols 0", []), ("true", ["--progress=line"])], ids=["no width", "line"]
)
def test_a_line_instead(
    terminal: Open, command: Callable[..., str], origin: Origin, before: str, arguments: list[str]
) -> None:
    shell = terminal()
    shell.run(before)
    shell.type(command(*arguments, origin.serve("/a", HELD), origin.serve("/b", HELD)))
    shown = shell.wait(lambda shown: bars(shown))
    assert len(bars(shown)) == 1 and "━" not in "".join(shown)
    shell.press("C-c")
    shell.prompt()


@pytest.mark.parametrize(
    ("env", "arguments"), [("TERM=dumb", []), ("", ["--progress=log"])], ids=["dumb terminal", "log"]
)
def test_lines_that_stay_instead(
    terminal: Open, command: Callable[..., str], origin: Origin, env: str, arguments: list[str]
) -> None:
    shell = terminal()
    code = "from rawdl.cli import display; display._PERIODS['log'] = 0.2; from rawdl.cli.main import main; main()"
    shell.type(command(*arguments, origin.serve("/a", HELD), env=env, code=code))
    shown = shell.wait(lambda shown: len(bars(shown)) >= 3)
    assert "━" not in "".join(shown)
    shell.press("C-c")
    shell.prompt()
    shell.assert_as_before()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_closed_streams(
    terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command, closed: str
) -> None:
    shell = terminal()
    shell.run(f"{command(origin.serve('/a', SLOW))} {closed}; echo $? > status")
    assert (rawdl.folder / "status").read_text() == "0\n" and "a" in rawdl.files()
    shell.assert_as_before()


def test_stopped_and_continued(terminal: Open, command: Callable[..., str], origin: Origin) -> None:
    shell = terminal()
    shell.type("clear; " + command(*(origin.serve(path, HELD) for path in ("/a", "/b"))))
    shell.wait(lambda shown: len(bars(shown)) == 3)
    shell.press("C-z")
    shell.wait(lambda shown: any("Stopped" in row for row in shown))
    assert not bars(shell.prompt())
    shell.assert_as_before()
    shell.type("clear; fg")
    shell.wait(lambda shown: len(bars(shown)) == 3)
    shell.press("C-c")
    shown = shell.prompt()
    assert not bars(shown) and shown[-1] == "rawdl: interrupted"
    shell.assert_as_before()


def test_in_the_background_nothing_is_drawn(
    terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command
) -> None:
    shell = terminal()
    url = origin.serve("/a", Script(body=BODY, stall_at=500_000, stall_for=2.0))
    shell.type("clear; " + command(url))
    shell.wait(bars)
    shell.press("C-z")
    shell.wait(lambda shown: any("Stopped" in row for row in shown))
    shell.prompt()
    shell.type("clear; bg")
    shown = shell.wait(lambda shown: any("a  1.0 MiB in " in row for row in shown))
    assert not bars(shown) and "a" in rawdl.files()


def test_stopped_by_what_nobody_can_handle(
    terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command
) -> None:
    shell = terminal()
    shell.type("clear; " + command(*(origin.serve(path, HELD) for path in ("/a", "/b"))))
    shell.wait(lambda shown: len(bars(shown)) == 3)
    os.kill(pid(rawdl.folder), signal.SIGSTOP)
    shell.wait(lambda shown: any("Stopped" in row for row in shown))
    assert shell.cursor_is_visible
    shell.type("fg")
    shown = shell.wait(lambda shown: len(bars(shown)) == 6)  # anew, below what it could not erase
    assert "fg" in "".join(shown)
    shell.press("C-c")
    shell.prompt()
    shell.assert_as_before()


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_ended_by_a_signal(
    terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command, number: int, word: str
) -> None:
    shell = terminal()
    shell.type("clear; " + command(*(origin.serve(path, HELD) for path in ("/a", "/b"))))
    shell.wait(lambda shown: len(bars(shown)) == 3)
    os.kill(pid(rawdl.folder), number)
    shown = shell.prompt()
    assert not bars(shown) and shown[-1] == f"rawdl: {word}"
    shell.assert_as_before()


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("mode", ["bars", "line"])
def test_ended_by_the_second_signal(
    terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command, mode: str
) -> None:
    shell = terminal()
    code = "from rawdl.cli import get, main; get.Batch._stop = lambda *_: None; main.main()"
    shell.type("clear; " + command(f"--progress={mode}", origin.serve("/a", HELD), origin.serve("/b", HELD), code=code))
    shell.wait(bars)
    os.kill(pid(rawdl.folder), signal.SIGTERM)
    os.kill(pid(rawdl.folder), signal.SIGINT)
    assert not bars(shell.prompt())
    shell.assert_as_before()


def test_ended_by_a_mistake_of_ours(terminal: Open, command: Callable[..., str], origin: Origin) -> None:
    shell = terminal()
    code = (
        "from rawdl.cli import main, watch\n"
        "def look(self, now, looks=[]):\n"
        "    looks.append(now)\n"
        "    assert len(looks) < 9\n"
        "watch.Watch.look = look\n"
        "main.main()"
    )
    shell.type("clear; " + command(origin.serve("/a", HELD), origin.serve("/b", HELD), code=code))
    shell.wait(lambda shown: "AssertionError" in shown)
    assert not bars(shell.prompt())
    shell.assert_as_before()


def test_asked_how_far_it_is(terminal: Open, command: Callable[..., str], origin: Origin, rawdl: Command) -> None:
    shell = terminal()
    shell.type("clear; " + command(*(origin.serve(path, HELD) for path in ("/a", "/b"))))
    shell.wait(lambda shown: len([row for row in bars(shown) if " 47 %" in row]) == 3)
    for count in (1, 2):
        os.kill(pid(rawdl.folder), signal.SIGUSR1)
        shown = bars(shell.wait(lambda shown, count=count: len(bars(shown)) == 3 * (count + 1)))
        assert [row[:2] for row in shown] == ["a ", "b ", "0 "] * (count + 1)
        assert ["━" in row for row in shown] == [False] * 3 * count + [True] * 3
    shell.press("C-c")
    assert len(bars(shell.prompt())) == 6
    shell.assert_as_before()


def test_a_terminal_that_goes_away_does_not_matter(rawdl: Command, origin: Origin) -> None:
    master, slave = open_terminal(80, 24)
    with rawdl.start(origin.serve("/a", SLOW), stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        written = b""
        while "━".encode() not in written:
            written += os.read(master, 65536)
        os.close(master)
        assert process.wait(GUARD) == 0
    assert rawdl.files() == ["a"]

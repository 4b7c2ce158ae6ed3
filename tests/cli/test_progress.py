"""``--progress``, and what is told of it to who asks by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rawdl.cli.signals import Signals
from tests.cli.conftest import GUARD, Command, open_terminal, wait_for_event
from tests.origin import Origin, Script

pytestmark = pytest.mark.one_version

BODY = bytes(1 << 20)
HELD = Script(body=BODY, stall_at=500_000)
SLOW = Script(body=BODY, pace=1.5e6)
needs_usr1 = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1 here")


def test_json_is_json_by_another_name(rawdl: Command, origin: Origin) -> None:
    outcome = rawdl("--progress=json", origin.serve("/a", Script(body=BODY)))
    assert (outcome.code, outcome.stderr) == (0, "")
    assert [json.loads(line)["event"] for line in outcome.stdout.splitlines()][-1] == "done"


def test_json_beside_bars(rawdl: Command, origin: Origin) -> None:
    pytest.importorskip("rich")
    master, slave = open_terminal(80, 24)
    url = origin.serve("/a", SLOW)
    with rawdl.start("--json", "--progress=bars", url, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        assert wait_for_event(process, "done")["filePath"] == "a"
        assert process.wait(GUARD) == 0
    assert "%" in os.read(master, 65536).decode()
    os.close(master)


def test_none_leaves_the_messages(rawdl: Command, origin: Origin) -> None:
    code, written = rawdl.on_terminal("--progress=none", origin.serve("/a", SLOW))
    assert code == 0 and written.startswith("a  1.0 MiB in ") and written.count("\n") == 1


@pytest.mark.parametrize("kind", ["auto", "bars", "line", "log"])
def test_where_there_is_no_terminal_lines_stay(rawdl: Command, origin: Origin, kind: str) -> None:
    if kind == "bars":
        pytest.importorskip("rich")
    often = "from rawdl.cli import display; display._PERIODS['log'] = 0.1"
    outcome = rawdl.after(often, f"--progress={kind}", origin.serve("/a", SLOW))
    assert outcome.stderr.count("%") >= 2 and not {"\r", "\x1b"} & set(outcome.stderr)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--progress=dots"], "argument --progress: one of auto, bars, line, log, json, none, not dots"),
        (["--progress=json", "-o", "-"], "-o - and --progress=json both want standard output"),
    ],
)
def test_what_cannot_be(rawdl: Command, arguments: list[str], complaint: str) -> None:
    outcome = rawdl(*arguments, "http://h/")
    assert (outcome.code, outcome.complaint) == (2, f"rawdl: {complaint} (rawdl --help tells more)")


def test_bars_without_rich_say_what_to_install(rawdl: Command) -> None:
    outcome = rawdl.after("import importlib.util as u; u.find_spec = lambda name: None", "--progress=bars", "http://h/")
    assert outcome.code == 2 and "bars need rich: pip install 'rawdl[cli]'" in outcome.complaint


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [([], True), (["-q"], False), (["-o", "-"], False), (["--progress=line"], False), (["--json"], False)],
)
def test_rich_is_loaded_for_bars_alone(rawdl: Command, origin: Origin, arguments: list[str], loaded: bool) -> None:
    pytest.importorskip("rich")
    code = (
        "import sys; from rawdl.cli.main import main; main()\n"
        "with open('loaded', 'w') as file: print('rich' in sys.modules, file=file)"
    )
    master, slave = open_terminal(80, 24)
    url = origin.serve("/a", Script(body=b"x", head_delay=0.5))
    argv = [*rawdl.argv()[:3], "-c", code, *arguments, url]
    subprocess.run(argv, cwd=rawdl.folder, env=rawdl.environment, stdout=slave, stderr=slave, timeout=GUARD, check=True)
    os.close(slave)
    os.close(master)
    assert (rawdl.folder / "loaded").read_text() == f"{loaded}\n"


@needs_usr1
@pytest.mark.parametrize("arguments", [[], ["-q"], ["--progress=none"], ["--json"]])
def test_a_signal_asks_how_far_it_is(rawdl: Command, origin: Origin, arguments: list[str]) -> None:
    urls = [origin.serve("/a", HELD), origin.serve("/b", Script(body=BODY, head_delay=GUARD))]
    part = rawdl.folder / "a.part"
    with rawdl.start(*arguments, *urls, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        origin.wait_request(2)
        assert process.stderr is not None
        while not (part.exists() and part.stat().st_size >= 490_000):
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(500):  # the file may be a write ahead of what is counted
            process.send_signal(signal.SIGUSR1)
            found = "".join(process.stderr.readline().decode() for _ in range(3))
            assert [line.split("  ")[0] for line in found.splitlines()] == ["a", "b", "0 of 2 files"]
            if found.startswith("a   4"):
                break
            time.sleep(0.01)
        assert found.startswith("a   4") and "waiting" in found
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == b"rawdl: terminated\n"
        assert process.wait(GUARD) == 143


@needs_usr1
def test_a_signal_that_is_ignored_stays_ignored(rawdl: Command, origin: Origin) -> None:
    url = origin.serve("/a", HELD)
    command = ["sh", "-c", 'trap "" USR1; exec "$@"', "sh", *rawdl.argv("-q", url)]
    with subprocess.Popen(command, cwd=rawdl.folder, env=rawdl.environment, stderr=subprocess.PIPE) as process:
        origin.wait_request()
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=GUARD) == (None, b"rawdl: interrupted\n")


@needs_usr1
def test_who_asks_again_meanwhile_is_answered_once() -> None:
    asked = []

    def report() -> None:
        asked.append(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)

    with Signals(lambda: None, also={"SIGUSR1": report}):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
    assert len(asked) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what a process waits for")
@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_though_nobody_reads_what_it_tells(rawdl: Command, origin: Origin, number: int) -> None:
    fields = tuple((f"X-{n}", "x" * 1000) for n in range(40))
    url = origin.serve("/a", Script(body=BODY, header=fields, stall_at=500_000))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while _fills(writer):
        pass
    os.set_blocking(writer, True)
    with rawdl.start("-v", url, stderr=writer) as process:
        os.close(writer)
        _wait_for_writer(process)
        process.send_signal(number)
        assert process.wait(GUARD) == 128 + number
    os.close(reader)


def _fills(writer: int) -> bool:
    try:
        return os.write(writer, bytes(65536)) > 0
    except BlockingIOError:
        return False


def _wait_for_writer(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process waits for the reader of a pipe."""
    end = time.monotonic() + GUARD
    while "pipe_write" not in Path(f"/proc/{process.pid}/wchan").read_text():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)

"""What is told of the progress to who asks by a signal."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from rawdl.cli.signals import Signals
from tests.cli.conftest import GUARD, Command
from tests.origin import Origin, Script

BODY = bytes(1 << 20)
HELD = Script(body=BODY, stall_at=500_000)
needs_usr1 = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1 here")


@needs_usr1
@pytest.mark.parametrize("arguments", [[], ["-q"], ["--json"]])
def test_a_signal_asks_how_far_it_is(rawdl: Command, origin: Origin, arguments: list[str]) -> None:
    urls = [origin.serve("/a", HELD), origin.serve("/b", Script(body=BODY, head_delay=GUARD))]
    part = rawdl.folder / "a.part"
    with rawdl.start(*arguments, *urls, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        origin.wait_request(2)
        assert process.stderr is not None
        while not (part.exists() and part.stat().st_size >= 490_000):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        found = "".join(process.stderr.readline().decode() for _ in range(3))
        assert [line.split("  ")[0] for line in found.splitlines()] == ["a", "b", "0 of 2 files"]
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

"""Kill a real download again and again, and look at what becomes of it (T47, R1).

    python -m tests.kill --kills 300 --seed 0 --connections 1

A child process downloads from a paced origin on loopback.  It is killed (SIGKILL) at a random moment, and another one
goes on, until there is the whole file: then it is compared, and nothing else may be there.  The origin counts what it
had to send again.  The moments are drawn by the seed; what exactly they hit is the scheduler's doing.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.origin import Origin, Script
from tests.resource import Resource, Served

ROOT = Path(__file__).resolve().parent.parent
GUARD = 60.0  # seconds: hang guard
IN_START = 0.125  # of the kills are to come before the request
START = 0.2  # seconds from the start of a process to its request, about
AFTERWARDS = 0.1  # of the time that a download takes: what there is to do after its last byte, and more
NAME = "a.bin"

CHILD = """
import sys, rawdl
url, path, connections = sys.argv[1:]
rawdl.download(url, path, **({"connections": int(connections)} if connections != "1" else {}))
"""


def start(code: str, *args: str | Path, **streams: int) -> subprocess.Popen[str]:
    """Run a piece of Python, with `args` as its sys.argv[1:], in a process in which every warning is an error."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=streams.get("stdout"), stderr=streams.get("stderr")
    )


def fork(body: Callable[[], object]) -> int:
    """Run something in a process forked from this one; return its exit code, or the negative number of its signal."""
    with warnings.catch_warnings():
        # There is a thread: the watchdog that dumps the tracebacks of a test that hangs, which holds no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(GUARD))
            body()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass
class Report:
    """What a campaign came to; `sent_again` is in bytes, and `kills` counts them by the moment that they hit."""

    size: int
    seconds: float
    connections: int
    seed: int
    downloads: int = 0
    sent_again: int = 0
    continued: int = 0
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Return what was sent again, as a part of all that was to be sent."""
        return self.sent_again / max(1, self.size * self.downloads)

    def __str__(self) -> str:
        kills, again = self.kills.total(), self.sent_again / max(1, self.kills.total())
        where = ", ".join(f"{count} {moment}" for moment, count in sorted(self.kills.items()))
        return (
            f"{self.size / 1e6:g} MB in {self.seconds:g} s over {self.connections} connection(s), seed {self.seed}:\n"
            f"{kills} kills in {self.downloads} downloads ({where}); each file is right, and alone\n"
            f"{self.continued} times a part was continued\n"
            f"sent again: {self.sent_again / 1e6:.1f} MB, {self.share:.2%} of the downloads, "
            f"{again / 1e6:.2f} MB for each kill ({again / self.size:.2%} of a file)"
        )


class Campaign:
    """Download the same resource into `folder` until there were enough kills."""

    def __init__(self, folder: Path, *, size: int, seconds: float, connections: int = 1, seed: int = 0) -> None:
        self._path = folder / NAME
        self._random = random.Random(seed)
        self._resource = Resource(self._random.randbytes(size), like=Script(pace=size / seconds / connections))
        self._digest = sha256(self._resource.body).digest()
        self.report = Report(size, seconds, connections, seed)

    def run(self, kills: int) -> Report:
        """Kill that often, and complete what was begun last.  Raises AssertionError if anything is wrong."""
        with Origin() as origin:
            url = origin.serve(f"/{NAME}", self._resource)
            while self.report.kills.total() < kills:
                self._download(origin, url, kills)
        return self.report

    def _download(self, origin: Origin, url: str, kills: int) -> None:
        """Let one download come to its end, over as many processes as it takes."""
        sent = 0
        while not self._path.exists():
            last = self.report.kills.total() == kills
            asked = len(origin.requests)
            with start(CHILD, url, self._path, str(self.report.connections), stderr=subprocess.PIPE) as child:
                killed = not last and self._kill(child, origin, asked)
                assert killed or child.wait(GUARD) == 0, child.communicate()[1]
            sent += self._account(killed)
            if not killed:
                assert os.listdir(self._path.parent) == [NAME], "a success leaves the file, and nothing else"
        assert sha256(self._path.read_bytes()).digest() == self._digest
        self._path.unlink()
        self.report.downloads += 1
        self.report.sent_again += sent - self.report.size

    def _kill(self, child: subprocess.Popen[str], origin: Origin, asked: int) -> bool:
        """Kill the process at some moment, if it has not ended until then; say whether it was killed.

        `asked` is how many requests there were before it.
        """
        if self._random.random() < IN_START:
            moment = self._random.uniform(0, START)
        else:
            origin.wait_request(asked + 1, GUARD)
            moment = self._random.uniform(0, self.report.seconds * (1 + AFTERWARDS))
        try:
            child.wait(moment)
        except subprocess.TimeoutExpired:
            child.kill()
        return child.wait(GUARD) == -signal.SIGKILL

    def _account(self, killed: bool) -> int:
        """Return how many bytes were sent to a process that has ended, and forget them."""
        log = self._resource.log[:]
        self._resource.log.clear()  # it holds a copy of each range
        self.report.continued += any(served.status == 206 for served in log)
        if killed:
            self.report.kills[self._moment(log)] += 1
        return sum(served.sent for served in log)

    def _moment(self, log: list[Served]) -> str:
        if self._path.exists():
            return "behind the rename"
        if not log:
            return "before the request"
        whole = all(served.span and served.sent > served.span.last - served.span.first for served in log)
        return "behind the last byte" if whole else "in the body"


def main() -> None:
    """Run a campaign, and print its report."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=50_000_000, help="bytes")
    parser.add_argument("--seconds", type=float, default=1.5, help="that an undisturbed download takes")
    parser.add_argument("--connections", type=int, default=1)
    options = vars(parser.parse_args())
    kills = options.pop("kills")
    with tempfile.TemporaryDirectory(prefix="rawdl-kill-") as folder:
        print(Campaign(Path(folder), **options).run(kills))


if __name__ == "__main__":
    main()

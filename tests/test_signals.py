"""Signals that reach a program which uses the library (K9), and KeyboardInterrupt anywhere in its files (K10)."""

from __future__ import annotations

import itertools
import os
import random
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import rawdl
import rawdl.destination
import rawdl.journal
import rawdl.partfile
from tests import once
from tests.interruption import Interruption, interrupt
from tests.kill import GUARD, fork, start
from tests.ordeals import BODY, LINK, ORDEALS, URL, Ordeal
from tests.origin import Origin, Script
from tests.recorder import Recorder
from tests.resource import Fault, Resource
from tests.sim import World, http_peer

pytestmark = [
    pytest.mark.usefixtures("leaves_parts"),  # what may be left is looked at here
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the processes and signals of POSIX"),
]

# K10: at each line of what handles files

FILES = {module.__file__ for module in (rawdl.partfile, rawdl.journal, rawdl.destination)}
INTERRUPTED = 3  # exit code
STRIDE = 19  # lines: with 1, and all ordeals, it takes minutes


def leave(task: rawdl.DownloadTask) -> None:
    """End the process, as a program does that does not catch it."""
    os._exit(INTERRUPTED)


def close(task: rawdl.DownloadTask) -> None:
    """Do nothing more: the client is closed, as at the end of a with statement."""


def interrupted(ordeal: Ordeal, folder: Path, nth: int, then: Callable[[rawdl.DownloadTask], object]) -> None:
    """Run an ordeal, interrupt it, and end the process with INTERRUPTED if it was."""
    interruption = Interruption(nth, interrupt, lambda code: code.co_filename in FILES)

    def drive(task: rawdl.DownloadTask) -> None:
        try:
            task.exception()
        except KeyboardInterrupt:
            then(task)

    try:
        ordeal.run(folder, interruption, drive)
    finally:
        if interruption.where:  # whatever else came of that
            os._exit(INTERRUPTED)


@pytest.mark.parametrize("then", [leave, close, rawdl.DownloadTask.exception], ids=["leave", "close", "drive"])
@pytest.mark.parametrize("name", ["anew", "kept", "rename", "durable", "read back"])
def test_K10_I1_an_interrupt_at_any_line_never_makes_a_wrong_file(
    name: str, then: Callable[[rawdl.DownloadTask], object], tmp_path: Path
):
    """And a later process completes what there is then."""
    folder, ordeal = tmp_path / "folder", next(each for each in ORDEALS if each.name == name)
    first = random.Random(f"{name} {then.__name__}").randrange(STRIDE) + 1  # so that each case has other lines
    for nth in itertools.count(first, STRIDE):
        ordeal.prepare(folder)
        code = fork(lambda nth=nth: interrupted(ordeal, folder, nth, then))
        assert code in (0, INTERRUPTED)
        try:
            ordeal.check(folder, tidy=False)
            ordeal.complete(folder)
        except AssertionError as exc:
            exc.add_note(f"interrupted at line {nth}")
            raise
        if code == 0:
            return


def interrupted_and_closed(ordeal: Ordeal, folder: Path, nth: int) -> None:
    """Run an ordeal, interrupt where it is seen to have failed, and close the client: all that is true then is."""
    interruption = Interruption(nth, interrupt, lambda code: code.co_name in ("_advance", "_broken_off", "_let_go"))

    def drive(task: rawdl.DownloadTask) -> None:
        with suppress(KeyboardInterrupt), interruption:
            task.exception()

    ordeal.run(folder, drive=drive)
    os._exit(INTERRUPTED if interruption.where else 0)


def test_K10_I8_an_interrupt_where_a_failure_is_taken_note_of_leaves_nothing(tmp_path: Path):
    """And nobody who waits for ever for what has failed."""
    folder, ordeal = tmp_path / "folder", next(each for each in ORDEALS if each.name == "kept")
    for nth in itertools.count(1):
        ordeal.prepare(folder)
        code = fork(lambda nth=nth: interrupted_and_closed(ordeal, folder, nth))
        assert code in (0, INTERRUPTED), f"interrupted at line {nth}"
        ordeal.complete(folder)
        if code == 0:
            assert nth > 50
            return


# K9: a signal while a program waits for a download

SIZE = 400_000
AT = 300_000  # where the origin stalls
PROGRAM = """
import os, signal, socket, sys, rawdl
url, path, how = sys.argv[1:]

class Noisy(socket.socket):
    def send(self, data, *flags):
        count = super().send(data, *flags)
        print("sent", flush=True)
        return count

def told(update):
    if update.total_bytes_written == {at}:
        print("stalls", flush=True)

def interrupt(when, to, real=os.replace):
    def replace(source, target):
        if when == "after":
            real(source, target)
        if target.endswith(to):
            os.replace = real
            os.kill(os.getpid(), signal.SIGINT)
        if when == "before":
            real(source, target)
    os.replace = replace

for word in how.split():
    if ":" in word:
        interrupt(*word.split(":"))
signal.alarm(30)  # a hang guard
resume = True if "keep" in how else "auto"
client = rawdl.Client(socket_factory=Noisy) if "noisy" in how else rawdl.Client()
if "start" in how:
    client.start()
with client:
    task = client.download_file(url=url, file_path=path, resume=resume, progress_interval=0)
    task.on_progress_update(told)
    if "abort" in how:
        signal.signal(signal.SIGTERM, lambda *_: task.abort())
        task.exception()
    else:
        task.result()
"""


@contextmanager
def program(url: str, path: Path, how: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until it says a word; it must have ended when the context does."""
    process = start(PROGRAM.replace("{at}", str(AT)), url, path, how, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert not until or f"{until}\n" in iter(process.stdout.readline, ""), process.communicate()
        yield process
        process.wait(GUARD)


def ends_by_interrupt(process: subprocess.Popen[str]) -> None:
    """See that a process ends as Python does at Ctrl-C, and complains of nothing else."""
    _, complaint = process.communicate(timeout=GUARD)
    assert process.returncode == -signal.SIGINT
    assert complaint.endswith("KeyboardInterrupt\n") and complaint.count("Traceback") == 1, complaint


@pytest.fixture
def resource() -> Resource:
    return Resource(random.Random(1).randbytes(SIZE), faults=[Fault(in_body=AT, kind="stall")])


def completes(origin: Origin, resource: Resource, path: Path) -> int:
    """See that a later download ends well and leaves only its file; return how many bytes it went on from."""
    with once.client() as client:
        result = client.download_file(url=origin.url("/a"), file_path=path).result()
    assert path.read_bytes() == resource.body
    assert os.listdir(path.parent) == ["a"]
    return result.resumed_from


@pytest.mark.parametrize("thread", ["result", "start"])
@pytest.mark.parametrize(("keep", "kept"), [("keep", AT), ("", 0)])
def test_K9_T32_ctrl_c_in_the_body(
    keep: str, kept: int, thread: str, origin: Origin, resource: Resource, tmp_path: Path
):
    """The part is kept up to the last byte if the program said so, and else removed."""
    with program(origin.serve("/a", resource), tmp_path / "a", f"{keep} {thread}", "stalls") as process:
        process.send_signal(signal.SIGINT)
        origin.wait_closed()
        ends_by_interrupt(process)
    assert sorted(os.listdir(tmp_path)) == (["a.part", "a.part.json"] if keep else [])
    assert completes(origin, resource, tmp_path / "a") == kept


def test_K9_ctrl_c_in_the_tls_handshake(server_context: ssl.SSLContext, tmp_path: Path):
    with (
        Origin(tls=server_context, on_accept="mute") as origin,
        program(origin.url("/a"), tmp_path / "a", "noisy", "sent") as process,
    ):
        process.send_signal(signal.SIGINT)
        origin.wait_closed()
        ends_by_interrupt(process)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("keep", "kept"), [("keep", AT), ("", 0)])
def test_K9_T28_T32_a_handler_that_aborts(keep: str, kept: int, origin: Origin, resource: Resource, tmp_path: Path):
    with program(origin.serve("/a", resource), tmp_path / "a", f"{keep} abort", "stalls") as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=GUARD)[1] == ""
        assert process.returncode == 0
    assert completes(origin, resource, tmp_path / "a") == kept


@pytest.mark.parametrize("when", ["before", "after"])
def test_K9_ctrl_c_at_the_rename(when: str, origin: Origin, resource: Resource, tmp_path: Path):
    """That is done in the middle of our work, for which it waits."""
    resource.faults = ()
    with program(origin.serve("/a", resource), tmp_path / "a", f"{when}:/a", "") as process:
        ends_by_interrupt(process)
    assert os.listdir(tmp_path) == ["a"]
    completes(origin, resource, tmp_path / "a")


@pytest.mark.parametrize("when", ["before", "after"])
def test_K9_a_second_ctrl_c_while_the_part_is_being_kept(when: str, origin: Origin, resource: Resource, tmp_path: Path):
    """There is the journal, or not; it is whole if it is there."""
    with program(origin.serve("/a", resource), tmp_path / "a", f"keep {when}:.json", "stalls") as process:
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=GUARD)
        assert process.returncode == -signal.SIGINT
        assert "Exception ignored" not in complaint
    completes(origin, resource, tmp_path / "a")


def test_K9_N18_a_process_that_was_stopped_goes_on(tmp_path: Path):
    """What has come meanwhile is looked at before the clock is: no limit has run out for it."""
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)), link=LINK)
        client = world.client(timeouts=rawdl.Timeouts(idle=5, head=5))
        recorder = Recorder()
        task = recorder.download(client, url=URL, file_path=tmp_path / "a", progress_interval=0)
        world.drive(client, lambda: "progress" in recorder.names)
        world.wait(3600)
        assert task.exception() is None
    assert (tmp_path / "a").read_bytes() == BODY

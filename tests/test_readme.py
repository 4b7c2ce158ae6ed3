"""README.md: each of its commands and programs is carried out as it stands there, and none is left out."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.cli.conftest import GUARD, Command
from tests.cli.test_record import STEPS
from tests.embedding.test_readme import BLOCKS
from tests.origin import Origin, Script
from tests.readme import ROOT, Step, blocks, languages, sections, steps
from tests.resource import Fault, Resource

pytestmark = pytest.mark.one_version

SHOWN = "http://example.org/"
BODY = bytes(range(256)) * 400
FIGURE = r"\d[\d.,]*(?: (?:[µm]?s|[KMG]i?B(?:/s)?|[KMG]bit/s)\b)?"
INSTALLING = [step.command for title in ("Install", "Contribute") for step in steps(title)]
EXAMPLE, OUTPUT = blocks("Use", "python")[0], blocks("Use", "")[0]
REPLAY = blocks("Fuzz it", "python")[0]


@pytest.fixture
def rawdl(tmp_path: Path) -> Command:
    folder = tmp_path / "here"
    folder.mkdir()
    return Command(folder)


def carry_out(rawdl: Command, origin: Origin, step: Step) -> str:
    """Return what it prints, which is what is shown below it, figures aside; the server that it names is ours."""
    ended = rawdl.shell(step.command.replace(SHOWN, origin.url("/")))
    assert ended.code == 0, ended.stderr
    printed = ended.stdout.decode()
    if step.printed:
        shown = step._replace(printed=[shape(line) for line in step.printed])
        assert re.fullmatch(shown.pattern, "".join(f"{shape(line)}\n" for line in printed.splitlines())), printed
    return printed


def shape(line: str) -> str:
    """Take the figures out of a line, and what aligns them."""
    return " ".join(re.sub(FIGURE, "#", line).split())


def save(rawdl: Command, origin: Origin, step: Step) -> None:
    origin.serve("/a.iso", Script(body=BODY))
    assert carry_out(rawdl, origin, step) == ""
    assert (rawdl.folder / "a.iso").read_bytes() == BODY


def save_under_a_name(rawdl: Command, origin: Origin, step: Step) -> None:
    origin.serve("/a.iso", Script(body=BODY))
    assert carry_out(rawdl, origin, step) == ""
    assert (rawdl.folder / "b.iso").read_bytes() == BODY
    assert origin.requests[0].field("X-Token") == "1"


def save_several(rawdl: Command, origin: Origin, step: Step) -> None:
    for name in "abc":
        origin.serve(f"/{name}.iso", Script(body=name.encode() + BODY))
    assert carry_out(rawdl, origin, step) == ""
    for name in "abc":
        assert (rawdl.folder / f"isos/{name}.iso").read_bytes() == name.encode() + BODY


def tell_in_json(rawdl: Command, origin: Origin, step: Step) -> None:
    origin.serve("/a.iso", Script(body=BODY))
    events = [json.loads(line)["event"] for line in carry_out(rawdl, origin, step).splitlines()]
    assert {"headers", "progress", "done"} <= set(events) and events[-1] == "done"


def pass_on(rawdl: Command, origin: Origin, step: Step) -> None:
    (rawdl.folder / "inside").write_bytes(BODY)
    archive = subprocess.run(["tar", "c", "inside"], cwd=rawdl.folder, capture_output=True, check=True).stdout
    origin.serve("/a.tar", Script(body=archive))
    assert carry_out(rawdl, origin, step) == "inside\n"


def go_on(rawdl: Command, origin: Origin, step: Step) -> None:
    """The hash that is cut short in the README is that of the file, and there is a part to go on with."""
    resource = Resource(BODY, faults=[Fault(in_body=60_000)])
    url = origin.serve("/a.iso", resource)
    assert rawdl("-q", "--retries", "0", url).code == 18 and (rawdl.folder / "a.iso.part").exists()
    whole, cut = re.subn("sha256:[0-9a-f]+…", f"sha256:{sha256(BODY).hexdigest()}", step.command)
    assert cut == 1 and carry_out(rawdl, origin, step._replace(command=whole)) == ""
    assert (rawdl.folder / "a.iso").read_bytes() == BODY
    asked = resource.ranges_asked
    assert asked[0] is None and asked[1] is not None


def measure(rawdl: Command, origin: Origin, step: Step) -> None:
    carry_out(rawdl, origin, step)


def measure_a_server(rawdl: Command, origin: Origin, step: Step) -> None:
    """For half a second, where the README has a minute; http is for the server that there is."""
    url = origin.serve("/small", Script(body=b"x"))
    command = step.command.replace("-t 60", "-t 0.5").replace("https://example.org/small", url)
    assert url in command and "-t 0.5" in command
    carry_out(rawdl, origin, step._replace(command=command))
    document = json.loads((rawdl.folder / "a.json").read_text())
    assert document["totals"]["succeeded"] == len(origin.requests) > 10 and document["totals"]["failed"] == 0
    assert (rawdl.folder / "a.html").stat().st_size > 1000


def compare(rawdl: Command, origin: Origin, step: Step) -> None:
    for name in ("a.json", "b.json"):
        assert rawdl("bench", "-q", "-n", "20", "--size", "10K", "--json", name).code == 0
    printed = carry_out(rawdl, origin, step)
    assert "a.json" in printed and "b.json" in printed


COMMANDS: dict[str, Callable[[Command, Origin, Step], None]] = {
    "rawdl http://example.org/a.iso": save,
    "rawdl -o b.iso -H 'X-Token: 1' http://example.org/a.iso": save_under_a_name,
    "rawdl -d isos --timeout 600 http://example.org/{a,b,c}.iso": save_several,
    "rawdl --json http://example.org/a.iso": tell_in_json,
    "rawdl -o - http://example.org/a.tar | tar t": pass_on,
    "rawdl -c --checksum sha256:9f86… http://example.org/a.iso": go_on,
    "rawdl bench -t 5 -c 2 --size 16M": measure,
    "rawdl bench --rate 100 -t 60 --json a.json --html a.html https://example.org/small": measure_a_server,
    "rawdl bench compare a.json b.json": compare,
}
EVERY = [step for title in sections() for step in steps(title)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_readme_says(rawdl: Command, origin: Origin, command: str) -> None:
    (step,) = [step for step in EVERY if step.command == command]
    COMMANDS[command](rawdl, origin, step)


def test_the_demo_works(rawdl: Command) -> None:
    """The first command ends with it; here it is smaller, and what installs the package is left to the test below."""
    pytest.importorskip("trustme")
    ended = rawdl.shell("rawdl demo --size 8M")
    assert (ended.code, ended.stderr) == (0, "")


@pytest.mark.parametrize("command", INSTALLING)
def test_what_installs_the_package_is_what_the_whole_check_does(command: str) -> None:
    """pip is not run by a test: .ci/run carries out the first command and the last, each in a fresh environment."""
    check = (ROOT / ".ci/run").read_text(encoding="utf-8")
    lines = re.findall(r"^.*(?:pip|rawdl|pytest).*$", check, re.MULTILINE)
    carried_out = [[word.rpartition("/")[2] for word in shlex.split(line, comments=True)] for line in lines]
    for part in command.split(" && "):
        assert any(_in_order(shlex.split(part), words) for words in carried_out), part


def _in_order(wanted: list[str], words: list[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in wanted)


def test_the_example_prints_what_is_shown_below_it(rawdl: Command, origin: Origin) -> None:
    """Its first line and its last to the letter; how far it was when it told of its progress differs each time."""
    first, *progress, last = OUTPUT.splitlines()
    total = int(first.split()[1])
    url = origin.serve("/a.iso", Script(body=bytes(total), chunk=1 << 20))
    printed = run(rawdl, EXAMPLE.replace(f"{SHOWN}a.iso", url)).splitlines()
    assert (printed[0], printed[-1]) == (first, last)
    assert percentages(printed[1:-1], total)[-1] == percentages(progress, total)[-1] == 100


def percentages(lines: list[str], total: int) -> list[int]:
    """Return what lines of progress say, which must be true and rise."""
    told = [tuple(map(int, line.split(" % "))) for line in lines if line != "…"]
    assert told == sorted(set(told))
    assert all(percentage == 100 * written // total for percentage, written in told)
    return [percentage for percentage, _ in told]


def test_the_replay_tells_each_byte_of_the_body(rawdl: Command) -> None:
    events = re.findall(r"^(\w+)\(", run(rawdl, REPLAY), re.MULTILINE)
    assert events == ["HeadReceived", *["DataReceived"] * 3, "BodyComplete"]


def run(rawdl: Command, program: str) -> str:
    (rawdl.folder / "example.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "-W", "error", "example.py"]
    ended = subprocess.run(
        command, cwd=rawdl.folder, env=rawdl.environment, capture_output=True, text=True, timeout=GUARD
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


class TestNothingIsLeftOut:
    def test_each_command_is_carried_out(self) -> None:
        claimed = [*INSTALLING, *COMMANDS, *(step.command for step in STEPS)]
        assert sorted(step.command for step in EVERY) == sorted(claimed)
        assert [step for step in EVERY if step.command in INSTALLING and step.printed] == []

    def test_each_program_is_run(self) -> None:
        every = [block for title in sections() for block in blocks(title, "python")]
        assert every == [EXAMPLE, *BLOCKS, REPLAY]

    def test_all_else_in_a_fence_is_output_or_a_drawing(self) -> None:
        every = {title: sorted({*languages(title)} - {"python", "console"}) for title in sections()}
        assert {title: found for title, found in every.items() if found} == {"Use": [""], "How it is built": [""]}
        assert blocks("Use", "") == [OUTPUT]

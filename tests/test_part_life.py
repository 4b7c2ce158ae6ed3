"""The life of a part file: whatever befalls it, its server and its process, the file is whole or it is not there."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests.part_life import KILLED, PACE, SEGMENT, Disk, Life, Plan, Server, Version, differences, fill_up, kill
from tests.resource import Fault, Framing, Ranges
from tests.scratch import scratch_folder

pytestmark = [
    pytest.mark.one_version,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="to kill a process takes fork"),
]

LARGEST = 9000
SIZES = (LARGEST, LARGEST, LARGEST, LARGEST, LARGEST, OVERLAP + 1, OVERLAP, 100, 1, 0)
ROOM_FOR_JOURNALS = 1500  # bytes


@pytest.mark.contract("T47", "R1", "I1", "I3")
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("before", ["nothing", "a part", "a part of another version", "a file"])
def test_T47_killed_at_any_call(before: str, durable: bool) -> None:
    """Each call that changes something is the last of a process, once; the next one goes on from the last journal."""
    for calls in count():
        with scratch_folder() as folder:
            life = Life(Path(folder), Version(random.Random(1).randbytes(LARGEST)))
            prepare(life, before)
            code = kill(life, Plan(durable=durable), calls=calls)
            life.check()
            written = life.part.stat().st_size if life.part.exists() else 0
            if before != "a part of another version":
                assert written - life.claim.end <= PACE * 1.0 + 2 * SEGMENT
            result = life.run(Plan())
            assert isinstance(result, rawdl.DownloadResult)
            life.check()
        if code == 0:
            break
    assert calls > 10


@pytest.mark.contract("S32", "K1")
@pytest.mark.parametrize(("resume", "ranges"), [(True, "no-content-range"), ("auto", "honour")])
def test_S32_nothing_is_lost_on_a_full_disk(resume: bool | str, ranges: Ranges) -> None:
    """No journal can be written, and none need be: the one that is there is as true as before."""
    with scratch_folder() as folder:
        life = Life(Path(folder), Version(random.Random(1).randbytes(LARGEST)))
        prepare(life, "a part")
        life.server.resource.ranges = ranges
        with Disk(fill_up, room=0).installed():
            error = life.run(Plan(resume=resume))
        assert isinstance(error, rawdl.RangeError if resume is True else rawdl.StorageError)
        assert life.claim.ranges == ((0, 6000),)
        life.server.resource.ranges = "honour"
        result = life.run(Plan())
        assert isinstance(result, rawdl.DownloadResult) and result.resumed_from == 6000


def prepare(life: Life, before: str) -> None:
    if before.startswith("a part"):
        life.server.fault = Fault(in_body=6000)
        life.run(Plan(attempts=1))
        assert life.claim.end == 6000
    elif before == "what a killed process wrote":
        assert kill(life, Plan(), room=8000) == KILLED
        assert life.claim.ranges
    elif before == "a file":
        life.run(Plan())
    if before.endswith(("another version", "file")):
        life.server.change(Version(random.Random(2).randbytes(LARGEST), '"v1"'))


# What may become of the file on the server

CHANGES = ("bytes", "length", "growth", "one byte", "dated", "silently", "one byte silently", "back")
INVALIDATING = ("weak", "bare")


def changed(server: Server, how: str, size: int, place: int) -> Version:
    """Make another version of what a server has."""
    body, number = server.version.body, len(server.versions)
    draw = random.Random(number)
    if how == "back":
        return server.versions[place % number]
    if how.startswith("one byte"):
        place = place % min(500, max(1, len(body)))  # mostly out of reach of what is compared
        body = body[:place] + bytes(255 - byte for byte in body[place : place + 1]) + body[place + 1 :]
    elif how == "growth":
        body += draw.randbytes(100)
    else:
        body = draw.randbytes(size if how == "length" else len(body))
    if how.endswith("silently"):
        return server.version._replace(body=body)
    modified = f"Thu, 22 Oct 2015 07:{number // 60 % 60:02}:{number % 60:02} GMT"
    etag = {"weak": f'W/"v{number}"', "dated": None, "bare": None}.get(how, f'"v{number}"')
    return Version(body, etag, None if how == "bare" else modified)


# What somebody else may do to a part and to its journal


def flip(life: Life, place: int) -> None:
    data = bytearray(life.part.read_bytes())
    if data:
        place %= len(data)
        data[place] ^= 255
        life.part.write_bytes(data)
        life.edited.add(place)


def resize(life: Life, place: int) -> None:
    size = place * 2
    life.edited |= set(range(*sorted((size, life.part.stat().st_size))))
    os.truncate(life.part, size)


def delete(life: Life, place: int) -> None:
    life.part.unlink()
    # And what a killed process was writing: without a part nobody looks for that.
    life.journal.with_name("a.part.json.new").unlink(missing_ok=True)


def delete_journal(life: Life, place: int) -> None:
    life.journal.unlink(missing_ok=True)


def tear(life: Life, place: int) -> None:
    if life.journal.exists():
        os.truncate(life.journal, place % (life.journal.stat().st_size + 1))


def rewrite(edit: Callable[[Life, dict[str, Any]], None]) -> Callable[[Life, int], None]:
    """Make a change of a journal out of one of its fields."""

    @wraps(edit)
    def change(life: Life, place: int) -> None:
        if life.claim.ranges:
            fields = json.loads(life.journal.read_text())
            edit(life, fields)
            life.journal.write_text(json.dumps(fields))

    return change


def claim_another_url(life: Life, fields: dict[str, Any]) -> None:
    fields["url_key"] = "0" * 64


def claim_another_total(life: Life, fields: dict[str, Any]) -> None:
    fields["total"] = (fields["total"] or fields["done"][-1][1]) + 1


def claim_this_validator(life: Life, fields: dict[str, Any]) -> None:
    """Let it be of what the server has now."""
    claim, version = life.claim, life.server.version
    if version.validator is None or claim.end > len(version.body):
        return
    fields["validator"] = version.validator
    for start, stop in claim.ranges:
        life.edited |= differences(life.part.read_bytes(), version.body, start, stop)


def claim_more(life: Life, fields: dict[str, Any]) -> None:
    end = fields["done"][-1][1]
    fields["done"][-1][1] += 50
    life.edited |= set(range(end, end + 50))


def claim_less(life: Life, fields: dict[str, Any]) -> None:
    fields["done"][-1][1] -= 1
    fields["synced"] = []


def cut_the_power(life: Life, fields: dict[str, Any]) -> None:
    """Leave what was synced, and zeros where the rest was."""
    data = bytearray(life.part.read_bytes())
    lost = set(range(len(data))).difference(*(range(start, stop) for start, stop in fields["synced"]))
    for place in lost:
        data[place] = 0
    life.part.write_bytes(data)
    fields["owner"]["boot"] = "another"


JOURNAL_EDITS = (claim_another_url, claim_another_total, claim_this_validator, claim_more, claim_less, cut_the_power)
MEDDLING = [flip, resize, delete, delete_journal, tear, *map(rewrite, JOURNAL_EDITS)]


# All but one where the same ETag comes with another Last-Modified: which of them lies?
MISCHIEF = [ranges for ranges in get_args(Ranges) if ranges not in ("honour", "other-modified")]


# One at a time


@pytest.mark.contract("R2", "R3", "R4", "R5", "R6", "R7", "R9", "T46", "T48", "S32", "I1", "I3")
@pytest.mark.parametrize("how", ["nothing", *CHANGES, *INVALIDATING])
def test_T48_each_change_under_each_answer(how: str) -> None:
    """The part is more than is compared; the server may lie about what it has behind it."""
    for ranges in MISCHIEF:
        with scratch_folder() as folder:
            life = Life(Path(folder), Version(random.Random(1).randbytes(LARGEST)))
            prepare(life, "a part")
            if how != "nothing":
                life.server.change(changed(life.server, how, LARGEST + 1, 7))
            life.server.resource.ranges = ranges
            result = life.run(Plan())
            assert isinstance(result, rawdl.DownloadResult) or ranges == "error", (ranges, result)
            life.check()


@pytest.mark.contract("R10", "S29", "I1", "I3")
@pytest.mark.parametrize("meddle", MEDDLING, ids=lambda meddle: meddle.__name__)
@pytest.mark.parametrize("before", ["a part", "what a killed process wrote"])
@pytest.mark.parametrize("checksum", [False, True])
def test_R10_each_kind_of_meddling(meddle: Callable[[Life, int], None], before: str, checksum: bool) -> None:
    """Where nothing is compared (place 0), it takes a checksum to notice."""
    for place in (0, 2000, 5999, LARGEST):
        with scratch_folder() as folder:
            life = Life(Path(folder), Version(random.Random(1).randbytes(LARGEST)))
            prepare(life, before)
            meddle(life, place)
            life.check()
            end = life.run(Plan(checksum=checksum))
            assert isinstance(end, rawdl.DownloadResult) or (checksum and isinstance(end, rawdl.ChecksumError))
            life.check()


@pytest.mark.contract("I3", "T47")
def test_I3_a_journal_whose_part_is_gone_does_not_speak_for_the_next() -> None:
    """The second process is killed before it has written one of its own."""
    with scratch_folder() as folder:
        life = Life(Path(folder), Version(random.Random(1).randbytes(LARGEST)))
        life.server.fault = Fault(in_body=50)
        life.run(Plan(attempts=1))
        assert life.claim.end == 50
        life.part.unlink()
        life.server.change(Version(random.Random(2).randbytes(LARGEST), '"v1"'))
        assert kill(life, Plan(), room=100) == KILLED
        assert life.part.stat().st_size == 100
        life.check()
        life.run(Plan())


# Any number of lives


PLACES = st.integers(0, LARGEST)
# What leaves a part to go on with comes often, or there would seldom be one.
RESUME = st.sampled_from(["auto", "auto", "auto", "auto", True, True, True, False])
TRIES, CONNECTIONS = st.sampled_from([1, 1, 1, 3]), st.sampled_from([1, 1, 3])
PLANS = st.builds(Plan, RESUME, st.sampled_from([False, False, True]), TRIES, st.booleans(), CONNECTIONS)
CUTS = ("fin", "rst", "stall", "fin", "rst", "abort")
RANGES = st.sampled_from(["honour", "honour", "ignore-if-range"]) | st.sampled_from(MISCHIEF)
FRAMINGS = st.sampled_from(get_args(Framing))


needs_part = precondition(lambda self: self.life.part.exists())  # the other rules are to make one


class PartLife(RuleBasedStateMachine):
    """Do to a part what can be done to it, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._scratch = scratch_folder()
        self.life = Life(Path(self._scratch.name), Version(b""))

    def teardown(self) -> None:
        self._scratch.cleanup()

    @initialize(size=st.sampled_from(SIZES), place=PLACES)
    def begin(self, size: int, place: int) -> None:
        self.life.server.versions.clear()
        self.life.server.change(Version(random.Random(0).randbytes(size)))
        self.cut(Plan(attempts=1), place, "rst")

    @property
    def server(self) -> Server:
        return self.life.server

    @property
    def size(self) -> int:
        return len(self.server.version.body)

    @invariant()
    def is_sound(self) -> None:
        self.life.check()

    # Downloads

    @precondition(lambda self: self.life.names() not in ([], ["a"]))
    @rule(plan=PLANS)
    def complete(self, plan: Plan) -> None:
        doubtful = self.life.edited or self.server.alike or self.server.next
        end = self.life.run(plan)
        if plan.resume is not True and self.server.resource.ranges != "error":
            assert isinstance(end, rawdl.DownloadResult) or (plan.checksum and doubtful), repr(end)

    @rule(plan=PLANS, place=PLACES, how=st.sampled_from(CUTS))
    def cut(self, plan: Plan, place: int, how: Literal["fin", "rst", "stall", "abort"]) -> None:
        place %= self.size + 1
        if how == "abort":
            self.life.run(plan, abort_at=place)
            return
        if how == "fin" and self.server.resource.framing == "until-close":
            how = "rst"  # nobody could know
        # The head has more than a hundred bytes.
        self.server.fault = Fault(at=place % 100, kind=how) if place % 5 == 0 else Fault(in_body=place, kind=how)
        self.life.run(plan)
        self.server.fault = None  # if nothing was asked

    @needs_part
    @rule(plan=PLANS, room=PLACES)
    def fill_the_disk(self, plan: Plan, room: int) -> None:
        with Disk(fill_up, room=room % (self.size + ROOM_FOR_JOURNALS)).installed():
            self.life.run(plan)

    @rule(plan=PLANS, room=PLACES)
    def kill_after_bytes(self, plan: Plan, room: int) -> None:
        self.server.next = None  # of which that process alone would know
        kill(self.life, plan, room=room % (self.size + ROOM_FOR_JOURNALS))

    @rule(plan=PLANS, calls=st.integers(0, 50))
    def kill_at_call(self, plan: Plan, calls: int) -> None:
        self.server.next = None
        kill(self.life, plan, calls=calls)

    # What else happens

    @rule(how=st.sampled_from(CHANGES + INVALIDATING), size=st.sampled_from(SIZES), place=PLACES, at_once=st.booleans())
    def change(self, how: str, size: int, place: int, at_once: bool) -> None:
        """Put another version on the server, at once or after the next request."""
        version = changed(self.server, how, size, place)
        if at_once:
            self.server.change(version)
        else:
            self.server.next = version

    @rule(ranges=RANGES, framing=FRAMINGS, part_framing=FRAMINGS)
    def behave(self, ranges: Ranges, framing: Framing, part_framing: Framing) -> None:
        """Let the server answer in another way from now on."""
        resource = self.server.resource
        resource.ranges, resource.framing, resource.part_framing = ranges, framing, part_framing
        record = self.life.claim.record
        if ranges == "total-changed" and self.size and (framing != "content-length" or (record and not record.total)):
            self.server.alike.add(self.size - 1)  # the wrong byte: whoever was not told the length takes it, for now

    @needs_part
    @rule(days=st.sampled_from([-10000, -1, 1, 10000]), uptime=st.sampled_from([0.0, 1000.0, 1e9]))
    def jump(self, days: int, uptime: float) -> None:
        """Let the wall clock jump, which is to say that the files are of another day; the monotonic one begins anew."""
        self.life.uptime = uptime
        for path in (self.life.part, self.life.journal):
            if path.exists():
                moment = path.stat().st_mtime + days * 86400
                os.utime(path, (moment, moment))

    @needs_part
    @rule(how=st.sampled_from(MEDDLING), place=PLACES)
    def meddle(self, how: Callable[[Life, int], None], place: int) -> None:
        how(self.life, place)


TestPartLife = PartLife.TestCase
TestPartLife.settings = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    stateful_step_count=20,
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure takes minutes: add Phase.shrink for that
    suppress_health_check=list(HealthCheck),
)

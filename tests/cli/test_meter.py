"""The numbers of the progress line and how it fits, with invented values."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rawdl import ProgressUpdate, TaskState
from rawdl.cli.meter import (
    Status,
    Tally,
    cells,
    clock_text,
    duration_text,
    elided,
    progress_line,
    rate_text,
    size_text,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (999.9 * 1024, "999.9 KiB"),
        (999.96 * 1024, "1.0 MiB"),
        (1023.99 * 1024, "1.0 MiB"),
        (256 * MIB, "256.0 MiB"),
        (1 << 40, "1.0 TiB"),
        (2**63 - 1, "8.0 EiB"),
        (1 << 80, "1048576.0 EiB"),
    ],
)
def test_sizes_are_in_powers_of_1024_and_say_so(count: float, text: str) -> None:
    assert size_text(count) == text


def test_a_rate_is_bytes_by_seconds() -> None:
    assert rate_text(3 * MIB, 2.0) == "1.5 MiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 ms"),
        (0.00006, "0.06 ms"),
        (0.00099, "0.99 ms"),
        (0.001, "1.0 ms"),
        (0.0099, "9.9 ms"),
        (0.00999, "10 ms"),
        (0.25, "250 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (99.9, "99.9 s"),
        (99.96, "1:40"),
        (3725.0, "1:02:05"),
    ],
)
def test_durations_keep_about_two_digits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.1, "0:01"),
        (59.5, "1:00"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (360_000, "4 days"),
        (1e9, "11574 days"),
    ],
)
def test_clock_times_are_rounded_up(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


class TestLine:
    def test_of_a_known_length(self) -> None:
        status = Status("a.iso", 107 * MIB + MIB // 2, 256 * MIB, 43.1 * MIB)
        assert progress_line(status, 80) == "a.iso   41 %  107.5 of 256.0 MiB   43.1 MiB/s  ETA 0:04"

    def test_columns_stay_where_they_are(self) -> None:
        lines = [
            progress_line(Status("a", written, 999 * MIB, speed), 80)
            for written, speed in [(0, 1000.0), (MIB, 9.0 * MIB), (500 * MIB, 999.9 * MIB), (999 * MIB, 1.0)]
        ]
        assert {line.index(" of ") for line in lines} == {lines[0].index(" of ")}
        assert {line.index("/s") for line in lines} == {lines[0].index("/s")}

    def test_of_an_unknown_length_has_no_percentage(self) -> None:
        assert progress_line(Status("a.iso", 107 * MIB, None, 43.1 * MIB), 80) == "a.iso  107.0 MiB   43.1 MiB/s"

    def test_before_the_head(self) -> None:
        assert progress_line(Status("a.iso", waiting="connecting"), 80) == "a.iso  connecting"

    def test_between_two_tries_it_says_how_far_it_is(self) -> None:
        status = Status("a", 5 * MIB, 10 * MIB, 1000.0, waiting="connecting")
        assert progress_line(status, 80) == "a   50 %   5.0 of 10.0 MiB  connecting"

    def test_without_a_speed_there_is_no_eta(self) -> None:
        assert progress_line(Status("a", 0, 10 * MIB, None), 80) == "a    0 %   0.0 of 10.0 MiB"

    @pytest.mark.parametrize("speed", [0.0, 5e-324, 0.5])
    def test_in_a_stall_there_is_no_eta(self, speed: float) -> None:
        assert progress_line(Status("a", 1, 1 << 40, speed), 80) == "a    0 %  0.0 of 1.0 TiB        0 B/s"

    def test_a_stall_has_its_time_instead_of_an_estimate(self) -> None:
        status = Status("a", 5 * MIB, 10 * MIB, 900.0, stalled=12.3)
        assert progress_line(status, 80) == "a   50 %   5.0 of 10.0 MiB  stalled 12 s"
        assert progress_line(status._replace(stalled=125.0), 80).endswith("stalled 2:05")

    def test_several_connections_are_told_where_there_is_room(self) -> None:
        status = Status("a", 5 * MIB, 10 * MIB, 1.0 * MIB, connections=4)
        assert progress_line(status, 80).endswith("ETA 0:05  x4")
        assert progress_line(status, 50).endswith("ETA 0:05")

    def test_an_empty_file_is_whole(self) -> None:
        assert progress_line(Status("a", 0, 0, None), 80) == "a  100 %  0 of 0 B"

    @pytest.mark.parametrize("label", ["a", "a-long-name-of-a-file-1.2.3.tar.gz", "中文文件名" * 9, "e\u0301" * 60])
    def test_leaves_three_columns_free(self, label: str) -> None:
        for width in range(120):
            line = progress_line(Status(label, 107 * MIB, 256 * MIB, 43.1 * MIB), width)
            assert cells(line) <= max(width - 3, 0)

    def test_the_label_gives_way_first_then_the_end(self) -> None:
        status = Status("a-rather-long-name", 107 * MIB, 256 * MIB, 43.1 * MIB)
        numbers = " 41 %  107.0 of 256.0 MiB   43.1 MiB/s  ETA 0:04"
        assert progress_line(status, 71) == f"a-rather-long-name  {numbers}"
        assert progress_line(status, 70) == f"a-rather-long-n..  {numbers}"
        assert progress_line(status, 51) == numbers
        assert progress_line(status, 50) == numbers.removesuffix("  ETA 0:04")
        assert progress_line(status, 8) == " 41 %"

    def test_where_there_is_no_width_it_is_whole(self) -> None:
        assert progress_line(Status("a" * 300, 1, 2, 3.0), None).startswith("a" * 300 + "   50 %")


@pytest.mark.parametrize(("text", "count"), [("abc", 3), ("中文", 4), ("é", 1), ("e\u0301", 1), ("ｗ", 2), ("", 0)])
def test_cells(text: str, count: int) -> None:
    assert cells(text) == count


@pytest.mark.parametrize(
    ("text", "room", "cut"),
    [("abcdef", 6, "abcdef"), ("abcdef", 5, "abc.."), ("中文文", 5, "中.."), ("中文文", 4, "中..")],
)
def test_elided(text: str, room: int, cut: str) -> None:
    assert elided(text, room) == cut


@dataclass
class Task:
    """What a tally asks of a task."""

    state: TaskState = TaskState.QUEUED
    progress: ProgressUpdate = field(default_factory=ProgressUpdate)

    def done(self) -> bool:
        return self.state in (TaskState.COMPLETED, TaskState.FAILED)

    def at(self, state: TaskState, written: int, expected: int | None = None) -> None:
        self.state = state
        self.progress = ProgressUpdate(0, written, expected or 0, expected is not None)


class TestTally:
    def test_one_task_says_what_it_waits_for(self) -> None:
        task = Task(TaskState.CONNECTING)
        tally = Tally([task], "a", now=0.0)
        assert tally.status(1.0) == Status("a", waiting="connecting")
        task.at(TaskState.RECEIVING, 0, 100)
        assert tally.status(2.0) == Status("a", 0, 100)

    def test_waiting_does_not_count_into_the_speed(self) -> None:
        task = Task(TaskState.WAITING)
        tally = Tally([task], "a", now=0.0)
        tally.status(10.0)
        task.at(TaskState.RECEIVING, 500)
        speed = tally.status(10.1).speed
        assert speed == pytest.approx(5000)

    def test_what_was_there_does_not_count_into_the_speed(self) -> None:
        task = Task(TaskState.WAITING)
        tally = Tally([task], "a", now=0.0)
        tally.status(10.0)
        task.at(TaskState.RECEIVING, 1_000_500)
        status = tally.status(10.1, found=1_000_000)
        assert status.written == 1_000_500 and status.speed == pytest.approx(5000)

    def test_a_download_that_begins_anew_is_measured_anew(self) -> None:
        task = Task(TaskState.RECEIVING)
        tally = Tally([task], "a", now=0.0)
        task.at(TaskState.RECEIVING, 1_000_000)
        tally.status(1.0)
        task.at(TaskState.RECEIVING, 100)
        assert tally.status(1.1) == Status("a", 100)
        task.at(TaskState.RECEIVING, 600)
        assert tally.status(1.2).speed == pytest.approx(5000)

    def test_the_speed_falls_in_a_stall(self) -> None:
        task = Task(TaskState.RECEIVING)
        tally = Tally([task], "a", now=0.0)
        task.at(TaskState.RECEIVING, 1000)
        speeds = [tally.status(at).speed for at in (1.0, 2.0, 5.0, 60.0)]
        assert speeds == sorted(speeds, reverse=True) and speeds[-1] < 1

    def test_several_tasks_are_one_sum(self) -> None:
        tasks = [Task(), Task(), Task()]
        tally = Tally(tasks, "a", now=0.0)
        assert tally.status(1.0)[:3] == ("0 of 3 files", 0, None)
        tasks[0].at(TaskState.COMPLETED, 100, 100)
        tasks[1].at(TaskState.RECEIVING, 50, 200)
        assert tally.status(2.0)[:3] == ("1 of 3 files", 150, None)  # nobody knows how long the third is
        tasks[2].at(TaskState.RECEIVING, 1, 300)
        assert tally.status(3.0)[:3] == ("1 of 3 files", 151, 600)
        tasks[1].at(TaskState.FAILED, 60, 200)  # what will not come is not waited for
        assert tally.status(4.0)[:3] == ("2 of 3 files", 161, 460)

    def test_a_task_of_unknown_length_counts_once_it_has_ended(self) -> None:
        tasks = [Task(), Task()]
        tally = Tally(tasks, "a", now=0.0)
        tasks[0].at(TaskState.RECEIVING, 10, None)
        tasks[1].at(TaskState.RECEIVING, 10, 20)
        assert tally.status(1.0).expected is None
        tasks[0].at(TaskState.COMPLETED, 30, None)
        assert tally.status(2.0)[1:3] == (40, 50)

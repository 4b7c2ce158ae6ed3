"""What is seen of downloads that run, at invented times."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import pytest

from rawdl import ProgressUpdate, TaskState
from rawdl.cli.display import Display
from rawdl.cli.watch import Watch


@dataclass
class Task:
    """What is asked of a task."""

    state: TaskState = TaskState.RECEIVING
    progress: ProgressUpdate = field(default_factory=ProgressUpdate)
    connections: int = 1

    def done(self) -> bool:
        return self.state is TaskState.COMPLETED

    def at(self, written: int, expected: int | None = None) -> None:
        self.progress = ProgressUpdate(0, written, expected or 0, expected is not None, 1000.0)


class Bench:
    """A watch over some tasks, and what it tells of their stalls."""

    def __init__(self, *tasks: Task, rate: float | None = None, begin: float = 0.0) -> None:
        self.written = io.StringIO()
        self.watch = Watch(Display(self.written, "none"), rate)
        self.stalls: list[tuple[int, float, int]] = []
        for number, task in enumerate(tasks):
            self.watch.add(task, f"f{number}", lambda *told, number=number: self.stalls.append((number, *told)))
        self.now = begin
        self.watch.look(begin)

    def until(self, now: float) -> None:
        """Look each second."""
        while self.now < now:
            self.now += 1.0
            self.watch.look(self.now)


class TestStalls:
    def test_one_is_told_once(self) -> None:
        bench = Bench(Task())
        bench.until(4.0)
        assert bench.stalls == []
        bench.until(60.0)
        assert bench.stalls == [(0, 5.0, 0)]

    def test_the_next_is_another(self) -> None:
        task = Task()
        bench = Bench(task)
        bench.until(10.0)
        task.at(1000)
        bench.until(15.0)
        assert len(bench.stalls) == 1
        bench.until(16.0)
        assert bench.stalls[1:] == [(0, 5.0, 1000)]

    @pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.CONNECTING, TaskState.WAITING, TaskState.FINISHING])
    def test_only_a_body_can_stall(self, state: TaskState) -> None:
        bench = Bench(task := Task(state))
        bench.until(30.0)
        task.state = TaskState.RECEIVING
        bench.until(34.0)
        assert bench.stalls == []
        bench.until(35.0)
        assert bench.stalls == [(0, 5.0, 0)]

    def test_what_comes_slowly_has_not_stalled(self) -> None:
        task = Task()
        bench = Bench(task)
        for second in range(0, 100, 4):
            task.at(second)
            bench.until(second)
        assert bench.stalls == []

    def test_while_we_stood_still_nobody_else_did(self) -> None:
        bench = Bench(Task())
        bench.until(4.0)
        bench.now = 3600.0  # stopped by Ctrl-Z, say
        bench.watch.look(bench.now)
        assert bench.watch.overview(bench.now)[0].stalled is None
        bench.until(3604.0)
        assert bench.stalls == []
        bench.until(3605.0)
        assert bench.stalls == [(0, 5.0, 0)]

    def test_a_limit_of_our_own_is_no_stall(self) -> None:
        tasks = [Task() for _ in range(10)]
        bench = Bench(*tasks, rate=1.0)  # each has its turn in ten seconds
        bench.until(19.0)
        assert bench.stalls == [] and bench.watch.overview(19.0)[0].stalled is None
        bench.until(20.0)
        assert len(bench.stalls) == 10


class TestOverview:
    def test_a_file_alone_has_no_row_beside_the_total(self) -> None:
        task = Task(connections=4)
        task.at(50, 100)
        total, files = Bench(task).watch.overview(0.0)
        assert files == [] and (total.label, total.written, total.expected, total.connections) == ("f0", 50, 100, 4)

    def test_of_several_those_under_way_have_rows(self) -> None:
        tasks = [Task(TaskState.COMPLETED), Task(TaskState.CONNECTING), Task(), Task(TaskState.QUEUED)]
        tasks[2].at(50, 100)
        total, files = Bench(*tasks).watch.overview(0.0)
        assert total.label == "1 of 4 files" and total.connections == 1
        assert [(file.label, file.waiting, file.expected) for file in files] == [
            ("f1", "connecting", None),
            ("f2", "", 100),
        ]
        assert files[1].speed == 1000.0

    def test_all_have_stalled_only_if_each_has(self) -> None:
        tasks = [Task(), Task()]
        bench = Bench(*tasks)
        bench.until(3.0)
        tasks[1].at(1)
        bench.until(7.0)
        total, files = bench.watch.overview(7.0)
        assert [file.stalled for file in files] == [7.0, None] and total.stalled is None
        bench.until(9.0)
        assert bench.watch.overview(9.0)[0].stalled == 5.0

    def test_a_report_has_a_line_for_each_and_one_for_all(self) -> None:
        tasks = [Task(TaskState.WAITING), Task()]
        tasks[1].at(50, 100)
        bench = Bench(*tasks)
        bench.watch.report()
        lines = bench.written.getvalue().splitlines()
        assert [line[:7] for line in lines] == ["f0  wai", "f1   50", "0 of 2 "]

    def test_a_report_before_there_is_a_download(self) -> None:
        bench = Bench()
        bench.watch.report()
        assert bench.written.getvalue() == ""

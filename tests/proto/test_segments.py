"""Which bytes are there, and who fetches the rest: `Coverage` against a set of numbers, `Plan` against each byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rawdl.proto.segments import MOST_RANGES, Coverage, Plan, Segment

STEADY = settings(derandomize=True, deadline=None, database=None)
MIB = 1 << 20
RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=12)


def plan_of(total: int, *, done: list[tuple[int, int]] | None = None, min_segment: int = 1) -> Plan:
    return Plan(total, Coverage(done or []), min_segment)


def taken(plan: Plan) -> Segment:
    segment = plan.take()
    assert segment is not None
    return segment


def span(segment: Segment | None) -> tuple[int, int] | None:
    return None if segment is None else (segment.start, segment.stop)


# Coverage


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], []),
        ([(3, 3)], []),
        ([(0, 5)], [[0, 5]]),
        ([(0, 5), (5, 9)], [[0, 9]]),
        ([(5, 9), (0, 5)], [[0, 9]]),
        ([(0, 5), (6, 9)], [[0, 5], [6, 9]]),
        ([(6, 9), (0, 5)], [[0, 5], [6, 9]]),
        ([(0, 5), (2, 3)], [[0, 5]]),
        ([(2, 3), (0, 5)], [[0, 5]]),
        ([(0, 2), (4, 6), (8, 9), (1, 8)], [[0, 9]]),
        ([(0, 2), (4, 6), (8, 9), (3, 7)], [[0, 2], [3, 7], [8, 9]]),
        ([(0, 2), (4, 6), (2, 4)], [[0, 6]]),
        ([(2**62, 2**63 - 1), (0, 1)], [[0, 1], [2**62, 2**63 - 1]]),
    ],
)
def test_ranges_that_touch_become_one(ranges: list[tuple[int, int]], merged: list[list[int]]) -> None:
    coverage = Coverage(ranges)
    assert coverage.to_list() == merged
    assert coverage.count == sum(stop - start for start, stop in merged)
    assert Coverage.from_list(json.loads(json.dumps(coverage.to_list()))).to_list() == merged


@STEADY
@given(RANGES)
def test_coverage_is_a_set_of_numbers(ranges: list[tuple[int, int]]) -> None:
    coverage, model = Coverage(), set[int]()
    for start, stop in ranges:
        coverage.add(start, stop)
        model.update(range(start, stop))
        assert coverage.count == len(model)
    there = [n for start, stop in coverage for n in range(start, stop)]
    missing = [n for start, stop in coverage.missing(100) for n in range(start, stop)]
    assert there == sorted(model) and missing == [n for n in range(100) if n not in model]
    assert coverage.prefix == min(missing)
    ends = [n for pair in coverage for n in pair]
    assert ends == sorted(set(ends)), "two ranges touch"


def test_missing_is_within_the_total() -> None:
    assert Coverage().missing(0) == []
    assert Coverage().missing(7) == [(0, 7)]
    assert Coverage([(0, 7)]).missing(7) == []
    assert Coverage([(1, 2), (5, 6)]).missing(7) == [(0, 1), (2, 5), (6, 7)]


def test_what_grows_at_its_end_stays_one_range() -> None:
    coverage = Coverage()
    for position in range(0, 100_000, 10):
        coverage.add(position, position + 10)
    assert coverage.to_list() == [[0, 100_000]] and coverage.prefix == 100_000


@pytest.mark.parametrize(
    "value",
    [
        None, 5, "[]", {}, {"0": 5}, ((0, 5),), [[0]], [[0, 5, 6]], [0, 5], [None], ["05"], [{}],
        [[5, 5]], [[5, 4]], [[-1, 5]], [[0, 5], [4, 9]], [[6, 9], [0, 5]], [[0, 5], [0, 5]],
        [[0, 5.0]], [[0.0, 5]], [["0", "5"]], [[False, True]], [[0, True]], [[0, None]], [[0, float("nan")]],
        [[0, 101]], [[0, 5], [100, 101]], [[2 * n, 2 * n + 1] for n in range(MOST_RANGES + 1)],
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_R10_a_corrupt_list_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError):
        Coverage.from_list(value, total=100 if value and len(str(value)) < 40 else None)


def test_a_list_up_to_the_total_is_read() -> None:
    assert Coverage.from_list([[0, 5], [5, 6], [99, 100]], total=100).to_list() == [[0, 6], [99, 100]]
    most = [[2 * n, 2 * n + 1] for n in range(MOST_RANGES)]
    assert Coverage.from_list(most).to_list() == most


# Plan


def test_the_first_connection_has_everything() -> None:
    plan = plan_of(100)
    first = taken(plan)
    assert span(first) == (0, 100) and first.left == 100
    assert [(plan.received(first, n), plan.complete) for n in (99, 1)] == [(99, False), (1, True)]
    assert plan.coverage().to_list() == [[0, 100]]


def test_an_empty_file_is_complete() -> None:
    plan = plan_of(0)
    assert plan.complete and plan.take() is None


def test_the_next_takes_half_of_the_largest_remainder() -> None:
    plan = plan_of(1000)
    first = taken(plan)
    plan.received(first, 100)
    second = taken(plan)
    assert (span(first), span(second)) == ((0, 550), (550, 1000))
    plan.received(first, 10)
    third = taken(plan)
    assert (span(second), span(third)) == ((550, 775), (775, 1000))
    assert first.reach == second.reach == 1000


@pytest.mark.parametrize(
    ("left", "stolen"),
    [(2 * MIB - 1, None), (2 * MIB, MIB), (2 * MIB + 1, MIB), (4 * MIB, 2 * MIB), (1, None), (0, None)],
)
def test_both_halves_are_worth_a_connection(left: int, stolen: int | None) -> None:
    plan = plan_of(10 * MIB, min_segment=MIB)
    first = taken(plan)
    plan.received(first, 10 * MIB - left)
    second = plan.take()
    assert (None if second is None else second.left) == stolen
    assert first.left + (stolen or 0) == left


def test_a_single_byte_has_no_half() -> None:
    plan = plan_of(1)
    taken(plan)
    assert plan.take() is None


def test_what_comes_behind_a_lowered_stop_does_not_count() -> None:
    plan = plan_of(1000)
    first = taken(plan)
    second = taken(plan)
    assert [plan.received(first, n) for n in (700, 1, 0)] == [500, 0, 0]
    assert plan.received_bytes == 500 and plan.coverage().to_list() == [[0, 500]]
    assert plan.received(second, 500) == 500 and plan.complete


def test_free_stretches_go_first_and_in_order() -> None:
    plan = plan_of(100, done=[(10, 20), (30, 95)])
    assert plan.received_bytes == 75
    assert [span(plan.take()) for _ in range(3)] == [(0, 10), (20, 30), (95, 100)]


def test_what_a_failed_connection_leaves_is_free_again() -> None:
    plan = plan_of(100, done=[(0, 40)])
    first = taken(plan)
    plan.received(first, 10)
    plan.give_back(first)
    assert plan.coverage().to_list() == [[0, 50]] and plan.received_bytes == 50
    assert span(plan.take()) == (50, 100)


def test_nothing_counts_for_a_segment_that_was_given_back() -> None:
    plan = plan_of(100)
    first = taken(plan)
    plan.received(first, 10)
    plan.give_back(first)
    assert plan.received(first, 10) == 0 and plan.received_bytes == 10
    again = taken(plan)
    plan.give_back(first)
    assert plan.received(again, 90) == 90 and plan.complete


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (2, 3, 1), (1, 3, 2), (3, 1, 2)])
def test_refused_connections_leave_the_first_to_go_on_to_the_end(order: tuple[int, ...]) -> None:
    plan = plan_of(800)
    segments = [taken(plan) for _ in range(4)]
    plan.received(segments[0], 10)
    for number in order:
        plan.give_back(segments[number])
    assert span(segments[0]) == (0, 800)
    assert plan.received(segments[0], 790) == 790 and plan.complete


def test_a_stretch_that_was_not_asked_for_does_not_fall_to_the_one_before() -> None:
    plan = plan_of(100, done=[(40, 50)])
    first, second = taken(plan), taken(plan)
    assert (span(first), span(second)) == ((0, 40), (50, 100))
    plan.give_back(second)
    assert span(first) == (0, 40)
    third, fourth = taken(plan), taken(plan)
    assert (span(third), span(fourth)) == ((50, 75), (75, 100))
    fifth = taken(plan)
    assert (span(first), span(fifth)) == ((0, 20), (20, 40)) and fifth.reach == 40
    plan.received(fifth, 1)
    plan.give_back(fifth)
    assert span(first) == (0, 20), "between them a byte is there"


def test_a_finished_connection_gets_no_more() -> None:
    """Its response may have been closed already, behind the stop as it was."""
    plan = plan_of(100)
    first, second = taken(plan), taken(plan)
    plan.received(first, 50)
    plan.give_back(second)
    assert first.left == 0 and span(plan.take()) == (50, 100)


def test_the_coverage_is_the_plans_own() -> None:
    done = Coverage([(0, 10)])
    plan = Plan(100, done, 1)
    segment = taken(plan)
    plan.received(segment, 10)
    plan.coverage().add(90, 100)
    plan.give_back(segment)
    assert done.to_list() == [[0, 10]] and plan.coverage().to_list() == [[0, 20]]


class Connections(RuleBasedStateMachine):
    """Connections come, receive, are robbed and fail in any order; each byte of the file is looked at."""

    @initialize(total=st.integers(0, 120), done=RANGES, min_segment=st.integers(1, 16))
    def begin(self, total: int, done: list[tuple[int, int]], min_segment: int) -> None:
        inside = Coverage((min(start, total), min(stop, total)) for start, stop in done)
        self.plan = Plan(total, inside, min_segment)
        self.min_segment = min_segment
        self.live: list[Segment] = []
        self.counted = [0] * total  # how often each byte was counted
        for start, stop in inside:
            self.counted[start:stop] = [1] * (stop - start)

    @rule()
    def take(self) -> None:
        free = self.unclaimed()
        before = {id(segment): span(segment) for segment in self.live}
        segment = self.plan.take()
        if segment is None:
            assert not free and all(other.left < 2 * self.min_segment for other in self.live)
            return
        if not free:
            [robbed] = [other for other in self.live if span(other) != before[id(other)]]
            assert min(robbed.left, segment.left) >= self.min_segment and robbed.stop == segment.start
        self.live.append(segment)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), n=st.integers(0, 50))
    def receive(self, data: st.DataObject, n: int) -> None:
        self.bring(data.draw(st.sampled_from(self.live)), n)

    def bring(self, segment: Segment, n: int) -> None:
        position, count = segment.position, self.plan.received_bytes
        kept = self.plan.received(segment, n)
        assert 0 <= kept <= n and segment.position == position + kept
        assert self.plan.received_bytes == count + kept
        for byte in range(position, position + kept):
            self.counted[byte] += 1

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(self.live))
        self.live.remove(segment)
        self.plan.give_back(segment)
        assert segment.left == 0 and self.plan.received(segment, 5) == 0

    def unclaimed(self) -> list[int]:
        claimed = {byte for segment in self.live for byte in range(segment.position, segment.stop)}
        return [byte for byte, times in enumerate(self.counted) if not times and byte not in claimed]

    @invariant()
    def no_byte_is_fetched_twice(self) -> None:
        assert set(self.counted) <= {0, 1}
        awaited = [byte for segment in self.live for byte in range(segment.position, segment.stop)]
        assert len(awaited) == len(set(awaited)) and not any(self.counted[byte] for byte in awaited)

    @invariant()
    def the_plan_knows_what_is_there(self) -> None:
        there = [byte for start, stop in self.plan.coverage() for byte in range(start, stop)]
        assert there == [byte for byte, times in enumerate(self.counted) if times]
        assert self.plan.received_bytes == self.plan.coverage().count == len(there)
        assert self.plan.complete == (len(there) == len(self.counted))

    @invariant()
    def a_segment_is_what_its_response_brings(self) -> None:
        for segment in self.live:
            assert segment.start <= segment.position <= segment.stop <= segment.reach <= len(self.counted)

    def teardown(self) -> None:
        """However things stand, connections that do not fail bring the rest, in a bounded number of steps."""
        if not hasattr(self, "plan"):
            return
        for _ in range(2 * len(self.counted) + len(self.live) + 1):
            for segment in [*self.live]:
                self.bring(segment, segment.left)
                self.live.remove(segment)
                self.plan.give_back(segment)
            self.take()
            self.no_byte_is_fetched_twice()
        assert self.plan.complete and self.plan.coverage().missing(len(self.counted)) == []


TestConnections = Connections.TestCase
TestConnections.settings = settings(STEADY, max_examples=150, stateful_step_count=30)

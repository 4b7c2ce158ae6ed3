"""The statistics of the bench, against values computed by hand, and what must hold for any numbers."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from hypothesis import assume, given, settings, strategies as st

from rawdl.cli.bench.figures import (
    Bin,
    Comparison,
    Figures,
    compare,
    describe,
    histogram,
    instability,
    quantile,
)

pytestmark = pytest.mark.one_version

numbers = st.floats(1e-6, 1e9)
samples = st.lists(numbers, min_size=1, max_size=60)


def steady(count: int, seed: int = 1, mean: float = 1.0, deviation: float = 0.02) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(mean, deviation) for _ in range(count)]


# Description


def test_the_figures_of_one_to_five() -> None:
    found = describe([5.0, 1.0, 4.0, 2.0, 3.0])
    assert found[:4] == (5, 1.0, 3.0, 3.0)
    assert found[4:7] == pytest.approx((4.6, 4.8, 4.96))
    assert found[7:] == (5.0, pytest.approx(math.sqrt(2.5)))


def test_one_value_is_all_of_its_figures_and_deviates_by_nothing() -> None:
    assert describe([2.5]) == Figures(1, *[2.5] * 7, 0.0)


def test_the_figures_as_a_document_has_them() -> None:
    told = describe([1.0, 2.0]).to_dict()
    assert list(told) == ["count", "min", "mean", "p50", "p90", "p95", "p99", "max", "sd"]
    assert (told["count"], told["min"], told["mean"], told["max"]) == (2, 1.0, 1.5, 2.0)


def test_nothing_cannot_be_described() -> None:
    with pytest.raises(ValueError, match="no value"):
        describe([])
    with pytest.raises(ValueError, match="no value"):
        quantile([], 0.5)


@pytest.mark.parametrize(
    ("q", "value"), [(0, 10.0), (0.1, 13.0), (0.25, 17.5), (1 / 3, 20.0), (0.5, 25.0), (0.75, 32.5), (1, 40.0)]
)
def test_a_quantile_lies_evenly_between_its_neighbours(q: float, value: float) -> None:
    assert quantile([10.0, 20.0, 30.0, 40.0], q) == pytest.approx(value)


@given(samples, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_monotone_and_within_the_values(values: list[float], q: float, r: float) -> None:
    ordered = sorted(values)
    low, high = (quantile(ordered, part) for part in sorted((q, r)))
    assert ordered[0] <= low <= high <= ordered[-1]


@given(st.lists(numbers, min_size=2, max_size=60))
def test_the_figures_agree_with_the_standard_library(values: list[float]) -> None:
    found = describe(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.p50 == pytest.approx(statistics.median(values))
    assert found.deviation == pytest.approx(statistics.stdev(values), rel=1e-6, abs=found.mean * 1e-9)
    assert found.p90 == pytest.approx(statistics.quantiles(values, n=10, method="inclusive")[-1])


# Histograms


def test_few_values_in_bins_of_one_width() -> None:
    bins = histogram([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])
    assert bins == [Bin(0.0, 2.0, 2), Bin(2.0, 4.0, 2), Bin(4.0, 6.0, 2), Bin(6.0, 8.0, 2)]


def test_equal_values_are_one_bin() -> None:
    assert histogram([3.0] * 7) == [Bin(3.0, 3.0, 7)]
    assert histogram([]) == []


def test_a_long_tail_has_one_bin_of_its_own() -> None:
    bins = histogram([*(1 + at / 1000 for at in range(1000)), 50.0])
    assert bins[-1].end == 50.0 and bins[-1].count == 11  # the last hundredth: ten, and the outlier
    assert bins[-1].start < 2
    widths = [each.end - each.start for each in bins[:-1]]
    assert max(widths) == pytest.approx(min(widths))


def test_no_more_bins_than_are_asked_for() -> None:
    values = steady(5000)
    assert len(histogram(values, bins=8)) == 8
    assert len(histogram([*values, 1000.0], bins=8)) == 8
    assert histogram(values, bins=1) == [Bin(min(values), max(values), 5000)]


@given(samples, st.integers(1, 50))
def test_each_value_is_in_one_bin_and_the_bins_leave_no_gap(values: list[float], bins: int) -> None:
    found = histogram(values, bins)
    assert 1 <= len(found) <= bins
    assert sum(each.count for each in found) == len(values)
    assert (found[0].start, found[-1].end) == (min(values), max(values))
    assert all(before.end == after.start for before, after in itertools.pairwise(found))
    inside = [sum(each.start <= value < each.end for value in values) for each in found[:-1]]
    assert [each.count for each in found[:-1]] == inside


# Stability


def test_a_steady_run_gives_no_reason() -> None:
    assert instability(steady(60)) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "no value says nothing of how far they vary"),
        ([1.0], "one value says nothing of how far they vary"),
        ([1.0, 1.0, 1.0], "3 values are few: at least 10 are needed"),
        ([0.8, 1.0, 1.2, 1.0] * 5, "the standard deviation is 15 % of the mean"),
        ([1.0] * 19 + [2.0], "the largest are 1.8 times the median"),
        ([1.0] * 19 + [0.1], "the smallest are 0.27 times the median"),
        ([*steady(59), 1.4], "1 of 60 values lies far from all others"),
        ([*steady(98), 1.4, 1.4], "2 of 100 values lie far from all others"),
        ([*steady(20), *steady(20), *steady(20, mean=1.15)], "the last third has 1.15 times the median of the first"),
    ],
)
def test_what_makes_a_run_unstable_is_named(values: list[float], reason: str) -> None:
    assert reason in instability(values)


def test_one_far_value_of_very_many_is_an_accident() -> None:
    assert instability([*steady(999), 1.6]) == []


def test_a_wave_is_no_trend() -> None:
    assert not any("third" in reason for reason in instability([1 + 0.05 * math.sin(at) for at in range(300)]))


@given(st.lists(st.floats(-1e9, 1e9), max_size=40))
def test_any_values_are_judged(values: list[float]) -> None:
    assert all(reason and reason[-1] != "." for reason in instability(values))


# Comparison


def p_value(a: list[float], b: list[float]) -> float:
    return compare(a, b).p_value


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        # Of the 252 orders of five and five, 1, 1 and 2 have U = 0, 1 and 2: twice four of them.
        ([1, 2, 3, 5, 6], [4, 7, 8, 9, 10], 8 / 252),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([1], [2], 1.0),
        # Ages at a diagnosis, five men and four women: U = 3, so 1 + 1 + 2 + 3 of 126 orders, twice.
        ([19, 22, 16, 29, 24], [20, 11, 17, 12], 14 / 126),
        # The hare and the tortoise, six each: T H H H H H T T T T T H, U = 11, with 1 1 2 3 5 7 11 13 18 22 28 32.
        ([2, 3, 4, 5, 6, 12], [1, 7, 8, 9, 10, 11], 2 * 143 / 924),
    ],
)
def test_the_exact_p_value_counts_all_orders(a: list[float], b: list[float], p: float) -> None:
    assert p_value(a, b) == pytest.approx(p)


def test_the_exact_p_value_agrees_with_a_count_of_every_order() -> None:
    a, b = [3.0, 1.0, 7.0, 5.0], [2.0, 8.0, 9.0, 11.0, 10.0]
    spread = [
        abs(sum(y > x for x in some for y in {*a, *b} - {*some}) - 10) for some in itertools.combinations([*a, *b], 4)
    ]
    found = abs(sum(y > x for x in a for y in b) - 10)
    assert p_value(a, b) == pytest.approx(sum(each >= found for each in spread) / len(spread))


def by_the_normal_curve(above: float, m: int, n: int, ties: int = 0) -> float:
    z = (abs(above - m * n / 2) - 0.5) / math.sqrt(m * n / 12 * (m + n + 1 - ties / (m + n) / (m + n - 1)))
    return 2 * (1 - statistics.NormalDist().cdf(z))


def test_ties_are_corrected_for() -> None:
    # For 2, 3, 3, 4 and 6 there are 1 + 2/2, 3 + 1/2, 3 + 1/2, 4 and 5 below: U = 18 of 25.  Three are 2 and three are
    # 3, so that t^3 - t adds up to 48: variance 25/12 (11 - 48/90) = 21.8, z = 5/4.67 = 1.071.
    found = p_value([1.0, 2.0, 2.0, 3.0, 5.0], [2.0, 3.0, 3.0, 4.0, 6.0])
    assert found == pytest.approx(by_the_normal_curve(18, 5, 5, 48)) == pytest.approx(0.2843, abs=1e-4)


def test_the_normal_curve_takes_over_where_it_is_as_good() -> None:
    # b[k] = 2 k + 6.5 is above k + 4 values of a, but never above more than all.
    a, b = [2.0 * at for at in range(20)], [2 * at + 6.5 for at in range(20)]
    above = sum(min(at + 4, 20) for at in range(20))
    assert p_value(a, b) == pytest.approx(by_the_normal_curve(above, 20, 20), abs=0.001)
    # One more at either end: a has the least, and b the greatest.
    assert p_value([*a, -2.0], [*b, 99.0]) == pytest.approx(by_the_normal_curve(above + 20 + 21, 21, 21))


def test_equal_values_are_no_difference() -> None:
    assert p_value([1.0] * 5, [1.0] * 9) == 1.0


@pytest.mark.parametrize(
    ("pairs_above", "word"), [(100, "large"), (74, "large"), (73, "medium"), (66, "small"), (57, "negligible")]
)
def test_the_effect_has_a_word(pairs_above: int, word: str) -> None:
    """Of a hundred pairs, so many are for the second: delta is twice that share, less one."""
    a = [0.5] * (100 - pairs_above) + [-0.5] * pairs_above
    found = compare([0.0], a) if pairs_above < 50 else compare([0.0], [-each for each in a])
    assert found.delta == pytest.approx(2 * pairs_above / 100 - 1)
    assert found.effect == word


def test_a_ratio_is_found_with_its_interval() -> None:
    a, b = steady(200, seed=1), steady(200, seed=2, mean=1.2)
    found = compare(a, b)
    assert found.ratio == pytest.approx(1.2, abs=0.01)
    assert found.low is not None and found.high is not None and found.ratio is not None
    assert 1.18 < found.low < found.ratio < found.high < 1.22
    assert found.p_value < 1e-6 and found.effect == "large"


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        rng = random.Random(seed)
        a, b = ([rng.expovariate(1.0) + 1 for _ in range(count)] for count in (30, 31))
        found = compare(a, b, seed)
        assert found.low is not None and found.high is not None
        held += found.low <= 1 <= found.high
    assert 180 <= held < 200


def test_the_shortcut_of_the_resampling_is_as_good_as_drawing() -> None:
    for count in (1, 2, 7, 10):
        values = steady(count, deviation=0.3)
        rng = random.Random(3)
        drawn = sorted(statistics.median(rng.choices(values, k=count)) for _ in range(4000))
        found = compare([1.0], [1 + value for value in values])  # one value: its median never varies
        assert found.low == pytest.approx(1 + quantile(drawn, 0.025), abs=0.02)
        assert found.high == pytest.approx(1 + quantile(drawn, 0.975), abs=0.02)


def test_no_ratio_to_what_may_be_nothing() -> None:
    assert compare([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])[2:5] == (None, None, None)
    assert compare([1.0, 2.0], [-1.0, 3.0])[2:5] == (None, None, None)


def test_nothing_cannot_be_compared() -> None:
    for pair in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="nothing to compare"):
            compare(*pair)


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = steady(30), steady(30, seed=2)
    assert compare(a, b, 5) == compare(a, b, 5)
    assert compare(a, b, 5) != compare(a, b, 6)


@given(samples)
@settings(deadline=None)
def test_a_sample_does_not_differ_from_itself(values: list[float]) -> None:
    found = compare(values, values)
    assert (found.ratio, found.p_value, found.delta, found.effect) == (1.0, 1.0, 0.0, "negligible")
    assert found.low is not None and found.high is not None and found.low <= 1 <= found.high


@given(samples, samples)
@settings(deadline=None)
def test_the_other_order_is_the_mirror_image(a: list[float], b: list[float]) -> None:
    assume(sorted(a) != sorted(b))
    here, there = compare(a, b), compare(b, a)
    assert (here.first, here.second, here.effect) == (there.second, there.first, there.effect)
    assert here.p_value == there.p_value and here.delta == -there.delta
    turned = [1 / number for number in (there.ratio, there.high, there.low) if number]
    assert [here.ratio, here.low, here.high] == pytest.approx(turned)


def test_a_mirror_image_of_nothing() -> None:
    assert Comparison(0.0, 1.0, None, None, None, 1.0, 0.5, "large").mirrored()[2:5] == (None, None, None)

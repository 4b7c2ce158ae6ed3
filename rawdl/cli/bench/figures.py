"""What is said of many numbers by few: quantiles, a histogram, whether a run is stable, whether two runs differ.

Nothing here knows what the numbers are.  The one use of chance is seeded, so that the same numbers give the same words.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import ceil, comb, erfc, fsum, log2, sqrt
from random import Random
from typing import Final, NamedTuple


class Figures(NamedTuple):
    """A sample in nine numbers; ``deviation`` is that of a sample (n - 1), 0 for one value."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    minimum: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    maximum: float
    deviation: float

    def to_dict(self) -> dict[str, float]:
        names = ("count", "min", "mean", "p50", "p90", "p95", "p99", "max", "sd")
        return dict(zip(names, self, strict=True))


class Bin(NamedTuple):
    """How many values are from ``start`` on and below ``end``; in the last bin, up to ``end``."""

    start: float
    end: float
    count: int  # type: ignore[assignment]


class Comparison(NamedTuple):
    """Two samples held against each other.

    ``ratio`` is the second median by the first, and ``low`` to ``high`` where it lies with a confidence of 95 %: None
    where a value is not above 0.  ``p_value`` is that of the two-sided test of Mann and Whitney.  ``delta`` is Cliff's:
    how much more often a value of the second is the larger than the smaller, from -1 to 1; ``effect`` is a word for it.
    """

    first: float
    second: float
    ratio: float | None
    low: float | None
    high: float | None
    p_value: float
    delta: float
    effect: str

    def mirrored(self) -> Comparison:
        """Return what comes of the same samples in the other order."""
        ratio, low, high = (None if number is None else 1 / number for number in (self.ratio, self.high, self.low))
        return Comparison(self.second, self.first, ratio, low, high, self.p_value, -self.delta, self.effect)


def describe(values: Sequence[float]) -> Figures:
    """Describe a sample; ValueError if it is empty."""
    if not values:
        raise ValueError("there is no value to describe")
    ordered, count = sorted(values), len(values)
    mean = fsum(ordered) / count
    deviation = sqrt(fsum((value - mean) ** 2 for value in ordered) / (count - 1)) if count > 1 else 0.0
    p50, p90, p95, p99 = (quantile(ordered, q) for q in (0.5, 0.9, 0.95, 0.99))
    return Figures(count, ordered[0], mean, p50, p90, p95, p99, ordered[-1], deviation)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the value below which the part ``q`` (0 to 1) of sorted values lies; ValueError if there is none.

    Between two values it is interpolated: the first has q = 0, the last q = 1, the others lie evenly between (number 7
    of Hyndman and Fan, 1996, as NumPy, R and spreadsheets have it).
    """
    if not ordered:
        raise ValueError("there is no value to take a quantile of")
    position = q * (len(ordered) - 1)
    below = int(position)
    lower, upper = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return min(lower + (upper - lower) * (position - below), upper)  # rounding may lead above it


# A tail that takes more room than this, against all up to the 99th percentile, would squeeze these into few bins.
_LONG_TAIL: Final = 1.5


def histogram(values: Sequence[float], bins: int = 40) -> list[Bin]:
    """Sort values into at most ``bins`` bins of one width, from the least to the greatest.

    If the last hundredth reaches far out, it has one wide bin of its own and the others end at the 99th percentile.
    The width is that of Freedman and Diaconis (1981), but for no fewer bins than Sturges has (1926).
    """
    if not values:
        return []
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if low == high or bins < 2:
        return [Bin(low, high, len(ordered))]
    top = quantile(ordered, 0.99)
    tailed = top > low and high - low > _LONG_TAIL * (top - low)
    end = top if tailed else high
    number = _bin_number(ordered, end - low, bins - tailed)
    edges = [*(low + (end - low) * at / number for at in range(number)), end, *([high] if tailed else [])]
    starts = [bisect_left(ordered, edge) for edge in edges[:-1]] + [len(ordered)]
    return [Bin(*span, after - before) for span, (before, after) in zip(pairwise(edges), pairwise(starts), strict=True)]


def _bin_number(ordered: Sequence[float], span: float, limit: int) -> int:
    count = len(ordered)
    width = 2 * (quantile(ordered, 0.75) - quantile(ordered, 0.25)) / count ** (1 / 3)
    least = ceil(log2(count)) + 1
    wanted = ceil(min(span / width, limit)) if width > 0 else least
    return min(max(wanted, least), limit)


# Stability

# Fewer say little of the spread: the least that the interval of a median needs is six, and of a 95th percentile twenty.
_FEW: Final = 10
# A tenth is what pyperf warns of as well: two runs whose values vary by less can be told apart by some dozen of them.
_SPREAD: Final = 0.1
# What is half as much again as the usual is no longer the same work.
_FAR: Final = 1.5
# Iglewicz and Hoaglin (1993) take 3.5 for normal values; times have a tail to the right by nature, and are given ten.
_OUTLYING: Final = 10.0
_NORMAL_MAD: Final = 1.4826  # the standard deviation of normal values by their median absolute deviation
_SHARE: Final = 0.01  # of outliers that is no longer an accident
_DRIFT: Final = 0.1  # between the medians of the first and the last third, if chance does not explain it
_CHANCE: Final = 0.01


def instability(values: Sequence[float]) -> list[str]:
    """Say why values, in the order in which they were measured, do not stand for what another run would give.

    Each reason is a clause without a full stop; there is none if the run is stable.
    """
    count = len(values)
    if count < 2:
        return [f"{'one value' if count else 'no value'} says nothing of how far they vary"]
    ordered = sorted(values)
    checks = (_fewness(count), _spread(ordered), _extremes(ordered), _outliers(ordered), _trend(values))
    return [reason for reason in checks if reason]


def _fewness(count: int) -> str:
    return f"{count} values are few: at least {_FEW} are needed" if count < _FEW else ""


def _spread(ordered: Sequence[float]) -> str:
    figures = describe(ordered)
    if figures.deviation <= _SPREAD * abs(figures.mean):
        return ""
    share = f"{figures.deviation / abs(figures.mean):.0%}".replace("%", " %") if figures.mean else "more than all"
    return f"the standard deviation is {share} of the mean"


def _extremes(ordered: Sequence[float]) -> str:
    """Look at the outer hundredths: the one greatest of very many is always far out."""
    low, median, high = (quantile(ordered, q) for q in (0.01, 0.5, 0.99))
    if median <= 0:
        return ""
    if high > _FAR * median:
        return f"the largest are {high / median:.1f} times the median"
    return f"the smallest are {low / median:.2f} times the median" if low < median / _FAR else ""


def _outliers(ordered: Sequence[float]) -> str:
    median = quantile(ordered, 0.5)
    deviation = _NORMAL_MAD * quantile(sorted(abs(value - median) for value in ordered), 0.5)
    far = sum(abs(value - median) > _OUTLYING * deviation for value in ordered) if deviation else 0
    if not far or far < _SHARE * len(ordered):
        return ""
    return f"{far} of {len(ordered)} values {'lie' if far > 1 else 'lies'} far from all others"


def _trend(values: Sequence[float]) -> str:
    third = len(values) // 3
    if third < 4:  # the test cannot find anything in fewer: its least p-value is 0.1
        return ""
    found = compare(values[:third], values[-third:])
    if found.p_value >= _CHANCE or found.ratio is None or abs(found.ratio - 1) <= _DRIFT:
        return ""
    return f"the last third has {found.ratio:.2f} times the median of the first"


# Comparison

_RESAMPLES: Final = 2000
# Romano et al. (2006), by analogy with Cohen's 0.2, 0.5 and 0.8 standard deviations.
_EFFECTS: Final = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
_EXACT: Final = 20  # values in each sample, up to which all orders are counted; beyond, the normal curve is as good


def compare(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Comparison:
    """Hold ``b`` against ``a``; ValueError if either is empty.

    The other order of two that differ gives the mirror image, exactly.
    """
    if not a or not b:
        raise ValueError("there is nothing to compare")
    a, b = sorted(a), sorted(b)
    if b < a:
        return compare(b, a, seed).mirrored()
    first, second = quantile(a, 0.5), quantile(b, 0.5)
    ratio = low = high = None
    if a[0] > 0 and b[0] > 0:
        ratio = second / first
        rng = Random(seed)
        ratios = sorted(_resampled_median(b, rng) / _resampled_median(a, rng) for _ in range(_RESAMPLES))
        low, high = quantile(ratios, 0.025), quantile(ratios, 0.975)
    above = sum(bisect_left(a, value) + bisect_right(a, value) for value in b) / 2
    delta = 2 * above / (len(a) * len(b)) - 1
    effect = next((word for limit, word in _EFFECTS if abs(delta) < limit), "large")
    return Comparison(first, second, ratio, low, high, _p_value(a, b, above), delta, effect)


def _resampled_median(ordered: Sequence[float], rng: Random) -> float:
    """Return the median of as many values, drawn with replacement.

    To draw them is not needed: of n even draws from 0 to 1, the k-th smallest has the distribution Beta(k, n - k + 1),
    and the next one is the smallest of the n - k that are left of the way to 1.
    """
    count = len(ordered)
    rank = (count + 1) // 2
    place = rng.betavariate(rank, count - rank + 1)
    middle = ordered[min(int(place * count), count - 1)]
    if count % 2:
        return middle
    place += (1 - place) * rng.betavariate(1, count - rank)
    return (middle + ordered[min(int(place * count), count - 1)]) / 2


def _p_value(a: Sequence[float], b: Sequence[float], above: float) -> float:
    """Return how probable so uneven an order is, either way, if both samples come from one source.

    ``above`` is Mann and Whitney's U: in how many pairs the value of ``b`` is the larger, a tie being half a pair.
    """
    m, n = len(a), len(b)
    ties = [number for number in Counter((*a, *b)).values() if number > 1]
    if max(m, n) <= _EXACT and not ties:
        least = int(min(above, m * n - above))
        return min(1.0, 2 * sum(_orders(m, n)[: least + 1]) / comb(m + n, m))
    every = m + n
    variance = m * n / 12 * (every + 1 - sum(t**3 - t for t in ties) / (every * (every - 1)))
    if variance <= 0:  # all are equal
        return 1.0
    distance = max(0.0, abs(above - m * n / 2) - 0.5)  # corrected: U has steps, the normal curve none
    return erfc(distance / sqrt(2 * variance))


def _orders(m: int, n: int) -> list[int]:
    """Return for each U from 0 to m n how many orders of m and n values have it: the Gaussian binomial coefficient."""
    counts = [1] + [0] * (m * n)
    for k in range(1, m + 1):
        for at in range(m * n, n + k - 1, -1):
            counts[at] -= counts[at - n - k]
        for at in range(k, m * n + 1):
            counts[at] += counts[at - k]
    return counts

"""How a measured number is spelled: three digits and a unit that suits it, and the ticks of an axis."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import ceil, floor, log10
from typing import Final, NamedTuple


class Unit(NamedTuple):
    """A name, and how much of what is measured (seconds, bytes per second) is one of it."""

    name: str
    size: float

    def text(self, value: float) -> str:
        return f"{digits_text(value / self.size)} {self.name}"


SECONDS: Final = Unit("s", 1.0)
MB_PER_SECOND: Final = Unit("MB/s", 1e6)
MIB_PER_SECOND: Final = Unit("MiB/s", 1 << 20)
MBIT_PER_SECOND: Final = Unit("Mbit/s", 1e6 / 8)
_TIMES: Final = (Unit("µs", 1e-6), Unit("ms", 1e-3), SECONDS)
_RATES: Final = (Unit("B/s", 1.0), Unit("kB/s", 1e3), MB_PER_SECOND, Unit("GB/s", 1e9))


def time_unit(seconds: float) -> Unit:
    """Return the largest unit of which a time is at least one, as it will be rounded."""
    return _fitting(seconds, _TIMES)


def rate_unit(bytes_per_second: float) -> Unit:
    return _fitting(bytes_per_second, _RATES)


def time_text(seconds: float) -> str:
    """Spell a time: ``12.3 µs``, ``812 ms``, ``65.0 s``."""
    return time_unit(seconds).text(seconds) if seconds else "0 s"


def rate_text(bytes_per_second: float) -> str:
    """Spell a rate in powers of 1000, as links and disks are sold: ``81.2 MB/s``."""
    return rate_unit(bytes_per_second).text(bytes_per_second)


def digits_text(value: float) -> str:
    """Spell a number with three digits, or all before the point: ``0.0123``, ``1.20``, ``81.2``, ``1,234``."""
    if not value:
        return "0"
    exponent = floor(log10(float(f"{abs(value):.2e}")))
    decimals = min(max(0, 2 - exponent), 9)
    return count_text(value) if decimals == 0 else f"{value:.{decimals}f}"


def count_text(value: float) -> str:
    """Spell a whole number with its thousands apart."""
    return f"{value:,.0f}"


def ticks(high: float, limit: int, *, whole: bool = False) -> list[float]:
    """Return at most ``limit`` even steps from 0 on, the last at ``high`` or beyond; each is 1, 2 or 5 times a power
    of ten.  ``limit`` is at least 3.
    """
    least = high / (limit - 1) if high > 0 else 1 / (limit - 1)
    power = 10.0 ** floor(log10(least))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= least * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    return [step * at for at in range(max(1, ceil(high / step - 1e-9)) + 1)]


def tick_text(value: float, step: float) -> str:
    """Spell a tick with as many decimals as the step has."""
    if not value:
        return "0"
    decimals = max(0, -floor(log10(step) + 1e-9))
    return count_text(value) if decimals == 0 else f"{value:.{decimals}f}"


def rates_of(bytes_per_second: float) -> Mapping[str, str]:
    """Return one rate in the three units that people think in, by their names."""
    units = (MB_PER_SECOND, MIB_PER_SECOND, MBIT_PER_SECOND)
    return {unit.name: digits_text(bytes_per_second / unit.size) for unit in units}


def _fitting(value: float, units: tuple[Unit, ...]) -> Unit:
    # What three digits would round up to a thousand is one of the next.
    return next((unit for unit, above in pairwise(units) if value < 0.9995 * above.size), units[-1])

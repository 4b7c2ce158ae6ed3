"""When the journal of a part is written (T47)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawdl.ledger import Found, Ledger

MIB = 1 << 20


def writes(ledger: Ledger, *, rate: int, seconds: int) -> int:
    """Count the journals of a transfer of ``rate`` bytes per second that is noted each millisecond."""
    count = 0
    for tick in range(1, seconds * 1000 + 1):
        position, now = tick * rate // 1000, 1000.0 + tick / 1000
        if ledger.is_due(position, now):
            ledger.wants_sync(now)
            ledger.save(position, synced=False)
            count += 1
    return count


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "a.part"), "http://example.org/a", resume="auto", durable=False)
    ledger.version = Found("http://example.org/a", ("etag", '"1"'), None)
    return ledger


@pytest.mark.parametrize(
    ("rate", "least", "most"),
    [(1000, 9, 12), (100 * MIB, 55, 65), (100_000 * MIB, 900, 1001)],
)
def test_T47_in_order_each_second_or_16_mib_and_not_more_than_each_10_ms(
    ledger: Ledger, rate: int, least: int, most: int
):
    assert least <= writes(ledger, rate=rate, seconds=10) <= most


@pytest.mark.parametrize(
    ("rate", "least", "most"),
    [(100_000, 95, 102), (40 * MIB, 190, 205), (100_000 * MIB, 900, 1001)],
)
def test_T47_with_holes_each_100_ms_or_2_mib_and_not_more_than_each_10_ms(
    ledger: Ledger, rate: int, least: int, most: int
):
    ledger.share(lambda: ((0, 1),))
    assert least <= writes(ledger, rate=rate, seconds=10) <= most


def test_T47_nothing_new_and_nothing_to_tell_need_no_journal(ledger: Ledger):
    assert not ledger.is_due(0, 1000.0)
    ledger.version = Found("http://example.org/a", None, None)
    assert not ledger.is_due(1, 1000.0)
    assert not ledger.is_due(1, 2000.0)

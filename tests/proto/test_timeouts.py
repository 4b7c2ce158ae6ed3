"""Time limits by phase, in virtual time (T36, S11, S25)."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from rawdl.proto.timeouts import Deadlines, Phase, Timeouts, check_seconds

DEFAULTS = {
    "resolve": 10,
    "connect": 10,
    "proxy": 10,
    "tls": 10,
    "setup": None,
    "send": 30,
    "head": 60,
    "idle": 60,
    "total": None,
}


def test_T36_the_default_limits() -> None:
    assert dataclasses.asdict(Timeouts()) == DEFAULTS
    assert [phase.value for phase in Phase if phase is not Phase.LOW_SPEED] == list(DEFAULTS)
    assert Timeouts() == Timeouts(connect=10.0) != Timeouts(connect=11)
    assert pickle.loads(pickle.dumps(Timeouts(total=5))) == Timeouts(total=5)
    assert repr(Timeouts(total=5)).endswith("total=5)")
    with pytest.raises(TypeError):
        Timeouts(5)


@pytest.mark.parametrize("name", DEFAULTS)
def test_T36_S11_each_limit_is_above_zero_and_finite(name: str) -> None:
    for good in (None, 1, 0.001, 1e300, 10**400):
        assert getattr(Timeouts(**{name: good}), name) == good
    for wrong in (0, 0.0, -1, -0.5, -(10**400), float("inf"), -float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"timeouts.{name} must be above 0"):
            Timeouts(**{name: wrong})
    for wrong in (True, False, "1", b"1", 1j, [1]):
        with pytest.raises(TypeError, match=f"timeouts.{name} is a number of seconds or None"):
            Timeouts(**{name: wrong})


def test_the_name_in_the_message_is_the_callers() -> None:
    check_seconds("timeout", 5)
    check_seconds("timeout", None)
    with pytest.raises(ValueError, match=r"^timeout must be above 0 and finite; -1 is not"):
        check_seconds("timeout", -1)


def test_T36_each_phase_has_its_own_limit() -> None:
    timeouts = Timeouts(resolve=1, connect=2, proxy=3, tls=4, send=5, head=6, idle=7, total=None)
    deadlines = Deadlines(timeouts)
    assert deadlines.at is None and deadlines.expired(1e9) is None
    never_entered = (Phase.SETUP, Phase.LOW_SPEED, Phase.TOTAL)
    for seconds, phase in enumerate((phase for phase in Phase if phase not in never_entered), 1):
        assert deadlines.enter(phase, 200.0) == deadlines.at == 200 + seconds
        assert deadlines.expired(200 + seconds - 0.001) is None
        assert deadlines.expired(200.0 + seconds) is phase
    deadlines.leave()
    assert deadlines.at is None and deadlines.expired(1e9) is None


def test_S40_setup_is_all_that_it_takes_to_have_a_connection() -> None:
    deadlines = Deadlines(Timeouts(resolve=None, connect=3, tls=4, setup=5))
    assert deadlines.enter(Phase.RESOLVE, 100.0) == 105 and deadlines.expired(105.0) is Phase.SETUP
    assert deadlines.enter(Phase.CONNECT, 101.0) == 104 and deadlines.expired(104.0) is Phase.CONNECT
    assert deadlines.enter(Phase.TLS, 102.0) == 105 and deadlines.expired(105.0) is Phase.SETUP
    assert deadlines.enter(Phase.SEND, 103.0) == 133 and deadlines.expired(133.0) is Phase.SEND
    assert deadlines.enter(Phase.CONNECT, 200.0) == 203, "the next connection has a limit of its own"
    assert deadlines.enter(Phase.TLS, 203.0) == 205
    deadlines.leave()
    assert deadlines.enter(Phase.TLS, 300.0) == 304


def test_a_limit_that_is_off() -> None:
    deadlines = Deadlines(Timeouts(head=None))
    assert deadlines.enter(Phase.HEAD, 0.0) is None and deadlines.expired(1e9) is None
    deadlines.postpone(5.0)
    assert deadlines.at is None


def test_the_idle_gap_begins_anew_with_each_read() -> None:
    deadlines = Deadlines(Timeouts(idle=5))
    for now in (0.0, 3.0, 6.0, 10.9):
        assert deadlines.expired(now) is None
        assert deadlines.enter(Phase.IDLE, now) == now + 5
    assert deadlines.expired(15.9) is Phase.IDLE


def test_S25_time_in_which_nobody_looked_is_given_back() -> None:
    deadlines = Deadlines(Timeouts(idle=5))
    deadlines.enter(Phase.IDLE, 0.0)
    deadlines.postpone(7.0)
    assert deadlines.at == 12 and deadlines.expired(11.9) is None
    assert deadlines.expired(12.0) is Phase.IDLE


def test_C13_S25_the_head_deadline_is_absolute() -> None:
    """One byte each 29 seconds, and interim responses, do not put it off: nothing renews it."""
    deadlines = Deadlines(Timeouts(head=60))
    deadlines.enter(Phase.HEAD, 0.0)
    assert [deadlines.expired(now) for now in (29.0, 58.0, 59.999)] == [None, None, None]
    assert deadlines.expired(60.0) is Phase.HEAD

"""Which failures are followed by another try, and after how long (S33, R14, H1, N1)."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from math import inf, nan

import pytest
from hypothesis import given, settings, strategies as st

from rawdl import errors
from rawdl.errors import (
    Aborted,
    ChecksumError,
    ConnectError,
    ConnectionLost,
    DecodingError,
    DownloadError,
    IncompleteBody,
    IncompleteHead,
    InvalidURL,
    NetworkError,
    ProtocolError,
    ProxyError,
    RangeError,
    RedirectError,
    ResolveError,
    StatusError,
    StorageError,
    Timeout,
    TLSError,
    TooLarge,
)
from rawdl.proto.retry import Attempts, Retry, is_transient
from rawdl.proto.timeouts import Phase

STEADY = settings(derandomize=True, deadline=None, database=None)
HIGHEST = 1 - 2**-53  # the largest number that random() returns
EAI_AGAIN = (-3, 2, 11002)  # Linux, macOS and the BSDs, Windows


def lost() -> ConnectionLost:
    return ConnectionLost("the connection broke")


def waits(retry: Retry, count: int, *, progressed: bool = False, random: float = HIGHEST) -> list[float | None]:
    attempts = Attempts(retry)
    return [attempts.failed(lost(), 0.0, progressed=progressed, random=random) for _ in range(count)]


# The settings


def test_the_default_settings() -> None:
    retry = Retry()
    assert (retry.attempts, retry.backoff, retry.factor, retry.max_delay) == (5, 0.5, 2.0, 30.0)
    assert (retry.jitter, retry.respect_retry_after, retry.max_retry_after) == ("full", True, 300.0)
    assert retry.statuses == {408, 429, 500, 502, 503, 504}
    assert pickle.loads(pickle.dumps(Retry(attempts=2))) == Retry(attempts=2) != retry
    assert len({Retry(statuses=[503]), Retry(statuses={503}), Retry(statuses=(503, 503))}) == 1
    with pytest.raises(TypeError):
        Retry(5)
    with pytest.raises(AttributeError):
        retry.attempts = 7


@pytest.mark.parametrize("statuses", [[500, 503], (503, 500), {500, 503}, range(500, 504, 3), iter([500, 503]), []])
def test_any_collection_of_status_codes_is_kept_as_a_frozenset(statuses) -> None:
    kept = Retry(statuses=statuses).statuses
    assert type(kept) is frozenset and kept in ({500, 503}, set())


GOOD = [
    ("attempts", [1, 2, 10**9]),
    ("backoff", [0, 0.0, 1, 1e300]),
    ("factor", [1, 1.0, 1.5, 10**300]),
    ("max_delay", [0, 0.5, 1e300]),
    ("max_retry_after", [0, 86400]),
    ("max_time", [None, 0, 600.0]),
    ("jitter", ["full", "none"]),
    ("respect_retry_after", [True, False]),
    ("statuses", [{400}, {599}]),
]
NO_NUMBERS = [None, "1", b"1", 1j, [1], True, False]
WRONG_TYPE = [
    ("attempts", [*NO_NUMBERS, 1.0]),
    *((name, NO_NUMBERS) for name in ("backoff", "factor", "max_delay", "max_retry_after")),
    ("max_time", NO_NUMBERS[1:]),
    ("jitter", [None, 1, b"full", True]),
    ("respect_retry_after", [None, 0, 1, "yes"]),
    ("statuses", [None, 503, True, "503", [503.0], ["503"], [None], [True]]),
]
WRONG_VALUE = [
    ("attempts", [0, -1]),
    *(
        (name, [-1, -0.001, nan, inf, -inf, 10**400])
        for name in ("backoff", "max_delay", "max_retry_after", "max_time")
    ),
    ("factor", [0, 0.999, -2, nan, inf, 10**400]),
    ("jitter", ["", "Full", "equal", "decorrelated"]),
    ("statuses", [[399], [600], [503, 200], [-503]]),
]


@pytest.mark.parametrize(("name", "values"), GOOD)
def test_S11_good_settings(name: str, values: list[object]) -> None:
    for value in values:
        assert getattr(Retry(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "values"), WRONG_TYPE)
def test_S11_settings_of_a_wrong_type(name: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(TypeError, match=f"^retry.{name}"):
            Retry(**{name: value})


@pytest.mark.parametrize(("name", "values"), WRONG_VALUE)
def test_S11_settings_of_a_wrong_value(name: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^retry.{name}"):
            Retry(**{name: value})


# How many tries


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
def test_S33_so_many_tries_in_all(n: int) -> None:
    found = waits(Retry(attempts=n), n + 2)
    assert None not in found[: n - 1] and found[n - 1 :] == [None] * 3


def test_S33_one_attempt_is_one_whatever_it_brought() -> None:
    assert waits(Retry(attempts=1), 3, progressed=True) == [None] * 3
    assert not Attempts(Retry(attempts=1)).retries_status(503, 0.0)


def test_R14_progress_gives_the_attempts_back() -> None:
    """A line that drops every hour delays a download, and does not end it."""
    assert None not in waits(Retry(attempts=2), 10_000, progressed=True)


def test_R14_five_tries_in_a_row_without_a_byte_end_it() -> None:
    attempts = Attempts(Retry(attempts=5))
    for _ in range(3):
        for progressed in (True, False, False, False, False):
            assert attempts.failed(lost(), 0.0, progressed=progressed, random=0.5) is not None
    assert attempts.failed(lost(), 0.0, progressed=False, random=0.5) is None
    assert repr(attempts) == "<Attempts 5 of 5 without progress>"


# How long


def test_the_wait_grows_up_to_its_limit() -> None:
    retry = Retry(attempts=9, jitter="none")
    assert waits(retry, 9) == [0.5, 1, 2, 4, 8, 16, 30, 30, None]
    assert waits(Retry(attempts=4, jitter="none", backoff=3, factor=1), 4) == [3, 3, 3, None]
    assert waits(Retry(attempts=3, jitter="none", backoff=9, max_delay=2), 3) == [2, 2, None]
    assert waits(Retry(attempts=3, jitter="none", backoff=0), 3) == [0, 0, None]


def test_full_jitter_is_a_part_of_all_of_it() -> None:
    assert waits(Retry(attempts=5), 4, random=0.0) == [0, 0, 0, 0]
    assert waits(Retry(attempts=5), 4, random=0.25) == [0.125, 0.25, 0.5, 1]
    assert waits(Retry(attempts=5), 4) == pytest.approx([0.5, 1, 2, 4])


def test_full_jitter_is_even() -> None:
    draw = random.Random(1).random
    found = sorted(
        Attempts(Retry(backoff=8.0)).failed(lost(), 0.0, progressed=False, random=draw()) for _ in range(2000)
    )
    for i in range(1, 8):
        assert found[i * 250] == pytest.approx(i, abs=0.4)


def test_R14_progress_sets_the_wait_back() -> None:
    attempts = Attempts(Retry(jitter="none"))
    steps = [False, False, False, True, False, False, True, True]
    found = [attempts.failed(lost(), 0.0, progressed=progressed, random=0.0) for progressed in steps]
    assert found == [0.5, 1, 2, 0.5, 1, 2, 0.5, 0.5]


@pytest.mark.parametrize("settings", [{}, {"factor": 1e300}, {"factor": 10**300, "backoff": 10**300}, {"backoff": 0}])
def test_the_wait_never_overflows(settings) -> None:
    found = waits(Retry(attempts=5000, **settings), 4999)
    assert all(0 <= seconds <= 30 for seconds in found)


RETRY_AFTER = [
    (None, {}, 0.5),
    (0.0, {}, 0.5),
    (0.4, {}, 0.5),
    (7, {}, 7),
    (120.0, {}, 120),  # more than max_delay: the server knows better
    (300.0, {}, 300),
    (301.0, {}, 300),
    (1e18, {}, 300),
    (inf, {}, 300),
    (120.0, {"max_retry_after": 60}, 60),
    (120.0, {"max_retry_after": 0}, 0.5),
    (120.0, {"respect_retry_after": False}, 0.5),
]


@pytest.mark.parametrize(("retry_after", "settings", "wait"), RETRY_AFTER)
def test_H1_retry_after_is_the_least_up_to_its_limit(retry_after, settings, wait) -> None:
    attempts = Attempts(Retry(jitter="none", **settings))
    error = StatusError("503", status_code=503)
    assert attempts.failed(error, 0.0, progressed=False, random=0.0, retry_after=retry_after) == wait


def test_H1_jitter_does_not_undercut_retry_after() -> None:
    error = StatusError("503", status_code=503)
    assert Attempts(Retry()).failed(error, 0.0, progressed=False, random=0.0, retry_after=3.0) == 3.0


@STEADY
@given(
    retry=st.builds(
        Retry,
        attempts=st.integers(1, 6),
        backoff=st.floats(0, 100),
        factor=st.floats(1, 1e9),
        max_delay=st.floats(0, 1e6),
        jitter=st.sampled_from(["full", "none"]),
        max_retry_after=st.floats(0, 1e6),
    ),
    tries=st.lists(
        st.tuples(st.booleans(), st.floats(0, HIGHEST), st.none() | st.floats(0, 1e9), st.sampled_from([404, 503]))
    ),
)
def test_S33_R14_whatever_happens(retry: Retry, tries) -> None:
    attempts, barren = Attempts(retry), 0
    for progressed, drawn, retry_after, status in tries:
        error = StatusError("no", status_code=status)
        promised = attempts.retries_status(status, 0.0)
        wait = attempts.failed(error, 0.0, progressed=progressed, random=drawn, retry_after=retry_after)
        barren = 0 if progressed else barren + 1
        assert (wait is not None) == (status == 503 and retry.attempts > 1 and barren < retry.attempts)
        assert progressed or promised == (wait is not None)
        if wait is None:
            return
        assert min(retry_after or 0.0, retry.max_retry_after) <= wait <= max(retry.max_delay, retry.max_retry_after)


# For how long

MINUTE = Retry(attempts=1000, backoff=20.0, factor=1.0, jitter="none", max_time=60.0)


def waits_at(retry: Retry, *moments: float, progressed: bool = False) -> list[float | None]:
    attempts = Attempts(retry)
    return [attempts.failed(lost(), now, progressed=progressed, random=0.0) for now in moments]


def test_the_last_try_begins_when_the_time_is_over() -> None:
    assert waits_at(MINUTE, 1000.0, 1030.0, 1059.0, 1060.0) == [20.0, 20.0, 1.0, None]


def test_no_time_is_no_second_try() -> None:
    assert waits_at(Retry(max_time=0), 5.0) == [None]


def test_a_new_byte_begins_the_time_anew() -> None:
    assert waits_at(MINUTE, 0.0, 1e3, 1e6, progressed=True) == [20.0] * 3
    attempts = Attempts(MINUTE)
    steps = [(0.0, False), (50.0, True), (100.0, False), (110.0, False)]
    found = [attempts.failed(lost(), now, progressed=progressed, random=0.0) for now, progressed in steps]
    assert found == [20.0, 20.0, 10.0, None]


def test_H1_a_retry_after_that_is_later_is_not_waited_for() -> None:
    for retry_after, wait in ((60.0, 60.0), (60.1, None)):
        attempts, error = Attempts(MINUTE), StatusError("503", status_code=503)
        assert attempts.retries_status(503, 7.0, retry_after) == (wait is not None)
        assert attempts.failed(error, 7.0, progressed=False, random=0.0, retry_after=retry_after) == wait


def test_a_status_is_an_answer_when_the_time_is_over() -> None:
    attempts = Attempts(MINUTE)
    attempts.failed(lost(), 0.0, progressed=False, random=0.0)
    assert [attempts.retries_status(503, now) for now in (59.9, 60.0)] == [True, False]


# Statuses


def test_H1_the_statuses_that_are_tried_again() -> None:
    attempts = Attempts(Retry())
    again = [code for code in range(100, 600) if attempts.retries_status(code, 0.0)]
    assert again == [408, 429, 500, 502, 503, 504]
    assert Attempts(Retry(statuses=[404])).retries_status(404, 0.0)
    assert not Attempts(Retry(statuses=[])).retries_status(503, 0.0)


def test_H1_a_status_is_tried_again_while_a_try_is_left() -> None:
    attempts = Attempts(Retry(attempts=3))
    answers = []
    for _ in range(3):
        answers.append(attempts.retries_status(503, 0.0))
        attempts.failed(StatusError("503", status_code=503), 0.0, progressed=False, random=0.0)
    assert answers == [True, True, False]


@pytest.mark.parametrize(("status", "again"), [(404, False), (501, False), (503, True)])
def test_H1_an_error_for_a_status_follows_the_statuses(status: int, again: bool) -> None:
    error = StatusError(str(status), status_code=status)
    assert (Attempts(Retry()).failed(error, 0.0, progressed=False, random=0.0) is not None) == again


# Which errors


def resolve_error(temporary: bool) -> ResolveError:
    error = ResolveError("cannot resolve")
    error.temporary = temporary
    return error


AGAIN = [
    ConnectError("refused", errno=111),
    ConnectionLost("reset", errno=104),
    IncompleteHead("closed"),
    IncompleteBody("closed", received=1, expected=2),
    TLSError("reset by peer"),
    ProxyError("closed"),
    ProxyError("answered 503", status_code=503),
    resolve_error(True),
    *(Timeout("late", phase=phase) for phase in Phase if phase != "total"),
]
NEVER = [
    DownloadError("unexpected"),
    NetworkError("some"),
    TLSError("expired", certificate=True),
    ProxyError("answered 407", status_code=407),
    ProxyError("cannot be asked", permanent=True),
    resolve_error(False),
    ResolveError("it has no address"),
    Timeout("late", phase="total"),
    ProtocolError("no HTTP"),
    StorageError("disk full", errno=28),
    TooLarge("too large", limit=1),
    DecodingError("broken"),
    ChecksumError("wrong", expected="a:1", actual="a:2"),
    RedirectError("a loop"),
    InvalidURL("no"),
    Aborted("aborted"),
    RangeError("changed"),
    StatusError("503", status_code=503),  # by the settings, and not by its kind
]


@pytest.mark.parametrize("error", AGAIN, ids=repr)
def test_what_may_succeed_a_little_later(error: DownloadError) -> None:
    assert is_transient(error)
    assert Attempts(Retry()).failed(error, 0.0, progressed=False, random=0.0) is not None


@pytest.mark.parametrize("error", NEVER, ids=repr)
def test_what_would_fail_again(error: DownloadError) -> None:
    assert not is_transient(error)
    if not isinstance(error, StatusError):
        assert Attempts(Retry()).failed(error, 0.0, progressed=True, random=0.0) is None


def test_every_kind_of_error_is_decided() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DownloadError)}
    assert kinds - {type(error) for error in AGAIN + NEVER} == set(), "say in AGAIN or NEVER what becomes of it"


@pytest.mark.parametrize("number", EAI_AGAIN)
def test_N1_a_number_says_nothing_about_a_name(number: int) -> None:
    """That of one system's "try again" is another's "no such file", from a lookup that somebody else wrote."""
    assert not is_transient(ResolveError("cannot resolve", errno=number))


# What is remembered


def test_the_history_is_of_the_tries_before() -> None:
    attempts = Attempts(Retry(attempts=3))
    first, second, last = lost(), IncompleteHead("closed"), lost()
    assert attempts.history == ()
    for error in (first, second, last):
        attempts.failed(error, 0.0, progressed=False, random=0.0)
    assert attempts.history == (first, second)  # so that the last may carry it
    last.attempts = attempts.history
    assert [str(error) for error in pickle.loads(pickle.dumps(last)).attempts] == [str(first), str(second)]


def test_the_history_is_bounded() -> None:
    attempts = Attempts(Retry())
    tried = [lost() for _ in range(1000)]
    for error in tried:
        attempts.failed(error, 0.0, progressed=True, random=0.0)
    assert attempts.history == tuple(tried[-100:])


def raised() -> Iterator[BaseException]:
    """Raise an error with all that can hang on it, and yield each of them."""
    try:
        try:
            try:
                raise KeyError("an accident before")
            except KeyError as exc:
                yield exc
                raise OSError(104, "reset") from None
        except OSError as exc:
            yield exc
            raise lost() from exc
    except ConnectionLost as exc:
        yield exc


def test_the_history_keeps_reasons_and_no_frames() -> None:
    accident, reset, error = raised()
    assert all(exc.__traceback__ is not None for exc in (accident, reset, error))
    Attempts(Retry()).failed(error, 0.0, progressed=False, random=0.0)
    assert error.__cause__ is reset and reset.__context__ is accident
    assert all(exc.__traceback__ is None for exc in (accident, reset, error))


def test_reasons_in_a_circle_are_no_trap() -> None:
    error, other = lost(), OSError()
    error.__cause__, other.__cause__ = other, error
    assert Attempts(Retry()).failed(error, 0.0, progressed=False, random=0.0) is not None


def test_the_error_that_a_task_ends_with_keeps_its_traceback() -> None:
    *_, error = raised()
    Attempts(Retry(attempts=1)).failed(error, 0.0, progressed=False, random=0.0)
    assert error.__traceback__ is not None

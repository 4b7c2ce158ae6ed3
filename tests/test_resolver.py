"""Names to addresses, off the loop (S41, N1, T30)."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

import rawdl
from rawdl.errors import ResolveError
from rawdl.resolver import Address, ThreadResolver, literal_address
from tests import once
from tests.driving import in_thread
from tests.origin import Origin, Script
from tests.recorder import PATIENCE

V4 = (socket.AF_INET, ("192.0.2.1", 80))


class Answers:
    """Take what a resolver says, from whatever thread."""

    def __init__(self) -> None:
        self.given: list[tuple[Sequence[Address], ResolveError | None]] = []
        self._changed = threading.Condition()

    def __call__(self, addresses: Sequence[Address], error: ResolveError | None) -> None:
        with self._changed:
            self.given.append((addresses, error))
            self._changed.notify_all()

    def wait(self, n: int = 1) -> tuple[Sequence[Address], ResolveError | None]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.given) >= n, PATIENCE)
            return self.given[n - 1]


@pytest.fixture
def resolving() -> Iterator[Callable[..., ThreadResolver]]:
    made: list[ThreadResolver] = []

    def make(lookup: Callable[..., Sequence[Address | str]]) -> ThreadResolver:
        made.append(ThreadResolver(lookup))
        return made[-1]

    yield make
    for resolver in made:
        resolver.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("rawdl-resolver")]


def test_S41_an_answer(resolving: Callable[..., ThreadResolver]):
    answers = Answers()
    resolving(lambda host, port, family: [V4, "::1", "127.0.0.1"]).resolve("a.example", 80, socket.AF_UNSPEC, answers)
    addresses, error = answers.wait()
    assert error is None
    assert list(addresses) == [V4, (socket.AF_INET6, ("::1", 80, 0, 0)), (socket.AF_INET, ("127.0.0.1", 80))]


@pytest.mark.parametrize(
    ("lookup", "said"),
    [
        (lambda *question: 1 / 0, "ZeroDivisionError"),
        (lambda *question: sys.exit(1), "SystemExit"),
        (lambda *question: [], "no address"),
        (lambda *question: ["not.an.address"], "not.an.address"),
        (lambda *question: None, "TypeError"),
    ],
)
def test_S41_N1_an_answer_that_is_none(
    lookup: Callable[..., object], said: str, resolving: Callable[..., ThreadResolver]
):
    answers = Answers()
    resolver = resolving(lookup)
    resolver.resolve("a.example", 80, socket.AF_UNSPEC, answers)
    addresses, error = answers.wait()
    assert list(addresses) == []
    assert isinstance(error, ResolveError)
    assert "a.example" in str(error) and said in str(error)
    resolver.resolve("a.example", 80, socket.AF_UNSPEC, answers)  # the thread has survived
    answers.wait(2)


def test_N1_the_systems_error_is_the_cause(resolving: Callable[..., ThreadResolver]):
    def lookup(host: str, port: int, family: int) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    answers = Answers()
    resolving(lookup).resolve("a.example", 80, socket.AF_UNSPEC, answers)
    _, error = answers.wait()
    assert isinstance(error, ResolveError)
    assert error.errno == socket.EAI_NONAME
    assert isinstance(error.__cause__, socket.gaierror)
    assert "a.example" in str(error) and "Name or service not known" in str(error)


def test_a_cancelled_question_is_never_answered(resolving: Callable[..., ThreadResolver]):
    leave = threading.Event()
    asked: list[str] = []

    def lookup(host: str, port: int, family: int) -> list[Address]:
        asked.append(host)
        leave.wait(PATIENCE)
        return [V4]

    resolver, dropped, kept = resolving(lookup), Answers(), Answers()
    cancel = resolver.resolve("dropped.example", 80, socket.AF_UNSPEC, dropped)
    resolver.resolve("kept.example", 80, socket.AF_UNSPEC, kept)
    cancel()
    cancel()
    leave.set()
    kept.wait()
    assert dropped.given == []


def test_no_thread_before_there_is_a_question_and_a_few_at_most(resolving: Callable[..., ThreadResolver]):
    leave = threading.Event()
    resolver, answers = resolving(lambda *question: (leave.wait(PATIENCE), [V4])[1]), Answers()
    assert threads() == []
    for number in range(30):
        resolver.resolve(f"h{number}.example", 80, socket.AF_UNSPEC, answers)
    assert 1 <= len(threads()) <= 8
    assert all(thread.daemon for thread in threads())
    leave.set()
    answers.wait(30)
    assert [error for _, error in answers.given] == [None] * 30


def test_names_that_nobody_waits_for_any_more_hold_up_no_other(resolving: Callable[..., ThreadResolver]):
    leave = threading.Event()

    def lookup(host: str, port: int, family: int) -> list[Address]:
        if host.startswith("dead"):
            leave.wait(PATIENCE)
        return [V4]

    resolver, dead, alive = resolving(lookup), Answers(), Answers()
    for number in range(1, 4):
        cancels = [resolver.resolve(f"dead{i}.example", 80, socket.AF_UNSPEC, dead) for i in range(8)]
        resolver.resolve("alive.example", 80, socket.AF_UNSPEC, alive)
        assert len(alive.given) == number - 1
        for cancel in cancels:
            cancel()
        assert alive.wait(number) == ([V4], None)
    for _ in range(100):
        resolver.resolve("dead.example", 80, socket.AF_UNSPEC, dead)()
    assert len(threads()) <= 64
    leave.set()


def test_a_thread_that_cannot_be_leaves_the_name_to_those_that_are(
    resolving: Callable[..., ThreadResolver], monkeypatch: pytest.MonkeyPatch
):
    leave = threading.Event()
    resolver, answers = resolving(lambda *question: (leave.wait(PATIENCE), [V4])[1]), Answers()
    resolver.resolve("a.example", 80, socket.AF_UNSPEC, answers)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError("no thread")))
        resolver.resolve("b.example", 80, socket.AF_UNSPEC, answers)
    leave.set()
    assert answers.wait(2) == ([V4], None)


def test_a_thread_that_is_free_is_used_again(resolving: Callable[..., ThreadResolver]):
    resolver, answers = resolving(lambda *question: [V4]), Answers()
    for number in range(1, 20):
        resolver.resolve("a.example", 80, socket.AF_UNSPEC, answers)
        answers.wait(number)
    assert len(threads()) <= 2


@pytest.mark.parametrize(
    ("host", "family", "where"),
    [
        ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 80)),
        ("::1", socket.AF_INET6, ("::1", 80, 0, 0)),
        ("2001:db8::1", socket.AF_INET6, ("2001:db8::1", 80, 0, 0)),
    ],
)
def test_a_literal_is_its_own_address(host: str, family: int, where: tuple[object, ...]):
    assert literal_address(host, 80) == (family, where)


@pytest.mark.parametrize("host", ["example.org", "1.2.3", "127.0.0.1.example", "0x7f.1", "localhost", ""])
def test_a_name_is_no_literal(host: str):
    assert literal_address(host, 80) is None


def test_a_thread_that_cannot_be_is_not_waited_for(
    resolving: Callable[..., ThreadResolver], monkeypatch: pytest.MonkeyPatch
):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver, answers = resolving(lambda *question: [V4]), Answers()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(10):
            with pytest.raises(RuntimeError, match="thread"):
                resolver.resolve("a.example", 80, socket.AF_UNSPEC, answers)
    resolver.resolve("a.example", 80, socket.AF_UNSPEC, answers)
    assert answers.wait() == ([V4], None)


def test_a_literal_needs_no_resolver(origin: Origin):
    def resolver(*question: object) -> list[str]:
        raise AssertionError(question)

    with once.client(resolver=resolver) as client:
        task = client.download_file(url=origin.serve("/a", Script(body=b"x")), sink=rawdl.MemorySink())
        assert task.result().data_length == 1
    assert threads() == []


def test_N1_localhost_by_the_systems_resolver(origin: Origin):
    url = origin.serve("/a", Script(body=b"x")).replace("127.0.0.1", "localhost")
    with once.client() as client:
        assert client.download_file(url=url, sink=rawdl.MemorySink()).result(PATIENCE).data_length == 1


def test_N1_a_name_that_does_not_exist():
    with once.client() as client:
        error = client.download_file(url="http://nowhere.invalid/", timeout=PATIENCE).exception()
    assert isinstance(error, rawdl.ResolveError)
    assert error.reason == "name not resolved"
    assert "nowhere.invalid" in str(error)
    assert isinstance(error.__cause__, OSError)


def test_N1_the_deadline_holds_although_the_lookup_blocks():
    leave = threading.Event()
    with once.client(resolver=lambda *question: (leave.wait(PATIENCE), ["127.0.0.1"])[1]) as client:
        times = rawdl.Timeouts(resolve=0.05)
        task = client.download_file(url="http://example.org/", sink=rawdl.MemorySink(), timeouts=times)
        error = task.exception(PATIENCE)
        assert isinstance(error, rawdl.Timeout)
        assert error.phase == "resolve"
        assert "example.org" in str(error)
        assert not leave.is_set()
        leave.set()


def test_S41_a_resolver_that_answers_at_once_in_the_call(origin: Origin):
    class AtOnce:
        def resolve(self, host: str, port: int, family: int, callback: Callable[..., None]) -> Callable[[], None]:
            callback([(socket.AF_INET, ("127.0.0.1", port))], None)
            return lambda: None

    url = origin.serve("/a", Script(body=b"x")).replace("127.0.0.1", "example.org")
    with once.client(resolver=AtOnce()) as client:
        assert client.download_file(url=url, sink=rawdl.MemorySink()).result(PATIENCE).data_length == 1


def test_S41_a_resolver_that_answers_twice_or_after_its_cancel(origin: Origin):
    kept: list[Callable[..., None]] = []

    class Careless:
        def resolve(self, host: str, port: int, family: int, callback: Callable[..., None]) -> Callable[[], None]:
            kept.append(callback)
            return lambda: None

    answer = [(socket.AF_INET, ("127.0.0.1", origin.port))], None
    url = origin.serve("/a", Script(body=b"x")).replace("127.0.0.1", "example.org")
    with once.client(resolver=Careless()) as client:
        aborted = client.download_file(url=url, sink=rawdl.MemorySink())
        twice = client.download_file(url=url, sink=rawdl.MemorySink())
        while len(kept) < 2:
            client.step(0.01)
        aborted.abort()
        for callback in (*kept, *kept):
            in_thread(callback, *answer)()
        assert twice.result(PATIENCE).data_length == 1
        assert isinstance(aborted.exception(PATIENCE), rawdl.Aborted)
        time.sleep(0.01)
        assert client.run(PATIENCE) is False
    assert origin.connections == 1

"""The tree of errors: what they are, say and carry, and that they survive a trip (T26, S16-S19)."""

from __future__ import annotations

import copy
import errno
import json
import pickle
import re

import pytest

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

URL = "http://example.org/a"
MADE = [
    (DownloadError("m", url=URL), "interrupted", 602001, {}),
    (InvalidURL("m", url=URL), "invalid url", 600009, {}),
    (Aborted("m", url=URL), "abort", 600003, {}),
    (Timeout("m", phase="tls", url=URL), "timeout", 5, {"phase": "tls"}),
    (NetworkError("m", errno=errno.EPIPE, url=URL), "interrupted", 600001, {"errno": errno.EPIPE}),
    (ResolveError("m", errno=-2, url=URL), "name not resolved", 600001, {"errno": -2}),
    (ConnectError("m", errno=errno.ECONNREFUSED, url=URL), "connection failed", 600001, {"errno": errno.ECONNREFUSED}),
    (TLSError("m", url=URL), "connection failed", 600001, {"certificate": False, "errno": None}),
    (TLSError("m", certificate=True, errno=1, url=URL), "certificate", 600001, {"certificate": True, "errno": 1}),
    (ConnectionLost("m", errno=errno.ECONNRESET, url=URL), "interrupted", 600001, {"errno": errno.ECONNRESET}),
    (ProxyError("m", errno=1, url=URL), "proxy", 600001, {"status_code": None, "permanent": False, "errno": 1}),
    (
        ProxyError("m", status_code=407, url=URL),
        "proxy",
        600001,
        {"status_code": 407, "permanent": True, "errno": None},
    ),
    (ProtocolError("m", url=URL), "protocol error", 600001, {}),
    (IncompleteHead("m", url=URL), "incomplete", 600001, {}),
    (IncompleteBody("m", received=5, expected=10, url=URL), "incomplete", 600001, {"received": 5, "expected": 10}),
    (IncompleteBody("m", received=0, expected=None, url=URL), "incomplete", 600001, {"received": 0, "expected": None}),
    (RedirectError("m", url=URL), "redirect", 602001, {}),
    (DecodingError("m", url=URL), "decoding", 602001, {}),
    (RangeError("m", url=URL), "cannot resume", 602001, {}),
    (
        ChecksumError("m", expected="md5:00", actual="md5:01", url=URL),
        "checksum mismatch",
        602001,
        {"expected": "md5:00", "actual": "md5:01"},
    ),
    (StatusError("m", status_code=404, url=URL), "http status 404", 602001, {"status_code": 404}),
    (TooLarge("m", limit=10, url=URL), "exceed max file size", 602001, {"limit": 10}),
    (StorageError("m", path="/a", errno=28, url=URL), "storage", 602001, {"path": "/a", "errno": errno.ENOSPC}),
    (StorageError("m", url=URL), "storage", 602001, {"path": None, "errno": None}),
]
each = pytest.mark.parametrize(
    ("error", "reason", "code", "attributes"), MADE, ids=[type(error).__name__ for error, *_ in MADE]
)
PARENTS = {
    InvalidURL: (DownloadError, ValueError),
    Aborted: (DownloadError,),
    Timeout: (DownloadError, TimeoutError),
    NetworkError: (DownloadError, OSError),
    ResolveError: (NetworkError,),
    ConnectError: (NetworkError,),
    TLSError: (NetworkError,),
    ProxyError: (NetworkError,),
    ConnectionLost: (NetworkError,),
    ProtocolError: (DownloadError,),
    IncompleteHead: (ProtocolError,),
    IncompleteBody: (ProtocolError,),
    RedirectError: (DownloadError,),
    RangeError: (DownloadError,),
    DecodingError: (DownloadError,),
    ChecksumError: (DownloadError,),
    StatusError: (DownloadError,),
    TooLarge: (DownloadError,),
    StorageError: (DownloadError, OSError),
}
# S17: of a fixed set, never the server's text
REASONS = r"abort|timeout|interrupted|invalid url|exceed max file size|name not resolved|connection failed|certificate"
REASONS += r"|proxy|protocol error|incomplete|redirect|http status [45][0-9][0-9]|decoding|checksum mismatch"
REASONS += r"|cannot resume|storage"


def test_the_tree() -> None:
    classes = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)}
    assert classes == {DownloadError, *PARENTS} == {type(error) for error, *_ in MADE}
    assert DownloadError.__bases__ == (Exception,)
    for cls, bases in PARENTS.items():
        assert cls.__bases__ == bases
        assert cls.__doc__ and cls.__name__ in (errors.__doc__ or "")


@each
def test_T26_S16_S17_reason_number_and_message(error, reason: str, code: int, attributes) -> None:
    assert error.reason == reason and re.fullmatch(REASONS, reason)
    assert error.err_msg == f"downloadFile:fail {reason}"
    assert error.err_code == code and type(error.err_code) is int
    assert str(error) == error.message == "m"
    assert error.url == URL and error.attempts == ()
    assert {name: getattr(error, name) for name in attributes} == attributes


@each
def test_S16_to_dict_is_json(error, reason: str, code: int, attributes) -> None:
    expected = {"errMsg": f"downloadFile:fail {reason}", "errno": code, "message": "m"}
    assert json.loads(json.dumps(error.to_dict())) == expected


@each
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(error, reason: str, code: int, attributes, protocol: int) -> None:
    same(error, pickle.loads(pickle.dumps(error, protocol)))


@each
def test_errors_survive_copying(error, reason: str, code: int, attributes) -> None:
    same(error, copy.copy(error))
    same(error, copy.deepcopy(error))


def same(error: DownloadError, other: DownloadError) -> None:
    assert type(other) is type(error) and other is not error
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert (other.err_msg, other.err_code, other.url) == (error.err_msg, error.err_code, error.url)
    assert vars(other) == vars(error)
    if isinstance(error, OSError):
        assert other.errno == error.errno


def test_S19_failed_tries_travel_with_the_error() -> None:
    error = ConnectError("last", errno=5)
    error.attempts = (Timeout("first", phase="connect"), IncompleteBody("second", received=1, expected=2))
    other = pickle.loads(pickle.dumps(error))
    assert [str(attempt) for attempt in other.attempts] == ["first", "second"]
    assert other.attempts[0].phase == "connect" and other.attempts[1].expected == 2
    assert ConnectError("another").attempts == ()


def test_the_repr_names_the_class_and_the_message() -> None:
    assert repr(ProtocolError("what happened")) == "ProtocolError('what happened')"
    assert repr(ConnectionLost("what happened", errno=5)) == "ConnectionLost('what happened')"


@each
def test_errors_are_caught_by_what_they_are(error, reason: str, code: int, attributes) -> None:
    for cls in type(error).__mro__[:-3]:
        with pytest.raises(cls):
            raise error


def test_S16_the_systems_number_and_taros_do_not_meet() -> None:
    error = StorageError("disk full", path="/a", errno=errno.ENOSPC)
    assert error.errno == errno.ENOSPC and error.err_code == 602001 and error.to_dict()["errno"] == 602001
    timeout = Timeout("too slow", phase="head")
    assert timeout.errno is None and isinstance(timeout, OSError) and isinstance(timeout, TimeoutError)


def test_one_error_does_not_change_another() -> None:
    TLSError("m", certificate=True)
    StatusError("m", status_code=500)
    assert TLSError("m").reason == TLSError.reason == "connection failed"
    assert StatusError("m", status_code=404).reason == "http status 404"
    DownloadError("m", url=URL)
    assert DownloadError("m").url is None


@pytest.mark.parametrize("cls", [Timeout, IncompleteBody, StatusError, TooLarge])
def test_what_an_error_is_about_must_be_given(cls: type[DownloadError]) -> None:
    with pytest.raises(TypeError):
        cls("m")

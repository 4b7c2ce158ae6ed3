"""May a part be completed, and what does the answer to a range request mean (R2-R12, T45, T46, T48, S32, S36)."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.proto.events import HeadReceived
from rawdl.proto.fields import ContentRange, parse_content_range
from rawdl.proto.framing import Chunked, ContentLength, Framing, UntilClose
from rawdl.proto.messages import Headers, Limits, Request
from rawdl.proto.ranges import (
    Append,
    Asked,
    Complete,
    ETag,
    Overlap,
    Restart,
    Validator,
    Whole,
    accepts_ranges,
    judge,
    parse_etag,
    strong_validator,
)
from rawdl.proto.url import URL

STEADY = settings(derandomize=True, deadline=None, database=None)
TAG = Validator("etag", '"v1"')
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
A_SECOND_LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
DATE = Validator("last-modified", MODIFIED)
REST = Asked(offset=600, last=None, total=1000, validator=TAG, overlap=100)
MIDDLE = Asked(offset=200, last=299, total=1000, validator=TAG)


def head(status_code: int, *fields: tuple[str, str], framing: Framing | None = None) -> HeadReceived:
    return HeadReceived(status_code, "", "1.1", Headers(fields), framing or UntilClose(Limits()))


def partial(content_range: str, *fields: tuple[str, str], framing: Framing | None = None) -> HeadReceived:
    repeated = () if any(name.lower() == "etag" for name, _ in fields) else (("ETag", TAG.value),)
    return head(206, ("Content-Range", content_range), *repeated, *fields, framing=framing)


# Validators


@pytest.mark.parametrize(
    ("value", "etag"),
    [
        ('"v1"', ETag('"v1"', False)),
        ('W/"v1"', ETag('"v1"', True)),
        ('""', ETag('""', False)),
        (' "v1"\t', ETag('"v1"', False)),
        ('"a,b\\"', ETag('"a,b\\"', False)),
        ('"W/"', ETag('"W/"', False)),
        ('"!#~\x80\xff"', ETag('"!#~\x80\xff"', False)),
        ('w/"v1"', None),
        ('W/ "v1"', None),
        ("v1", None),
        ("'v1'", None),
        ("", None),
        ('"', None),
        ('"v1', None),
        ('"v"1"', None),
        ('"v 1"', None),
        ('"v\x7f"', None),
        ('"v\x1f"', None),
        ('"v1"\n', None),
        ('"\u0142"', None),
        ("*", None),
        ('"v1", "v1"', None),
    ],
)
def test_R5_the_grammar_of_an_etag(value: str, etag: ETag | None) -> None:
    assert parse_etag(value) == etag


@pytest.mark.parametrize(
    ("fields", "validator"),
    [
        ([("ETag", '"v1"')], TAG),
        ([("ETag", '"v1"'), ("Last-Modified", MODIFIED), ("Date", A_SECOND_LATER)], TAG),
        ([("etag", '"v1"'), ("Content-Encoding", "Identity")], TAG),
        ([("ETag", 'W/"v1"')], None),
        ([("ETag", 'W/"v1"'), ("Last-Modified", MODIFIED), ("Date", A_SECOND_LATER)], None),
        ([("ETag", "v1"), ("Last-Modified", MODIFIED), ("Date", A_SECOND_LATER)], None),
        ([("ETag", ""), ("Last-Modified", MODIFIED), ("Date", A_SECOND_LATER)], None),
        ([("ETag", '"v1"'), ("ETag", '"v2"')], None),
        ([("ETag", '"v1"'), ("ETag", '"v1"')], None),
        ([("Last-Modified", MODIFIED), ("Date", A_SECOND_LATER)], DATE),
        ([("Last-Modified", MODIFIED), ("Date", "Sat, 07 Nov 2026 00:00:00 GMT")], DATE),
        ([("Last-Modified", MODIFIED), ("Date", MODIFIED)], None),
        ([("Last-Modified", A_SECOND_LATER), ("Date", MODIFIED)], None),
        ([("Last-Modified", MODIFIED)], None),
        ([("Last-Modified", MODIFIED), ("Date", "today")], None),
        ([("Last-Modified", "yesterday"), ("Date", A_SECOND_LATER)], None),
        ([("Last-Modified", MODIFIED), ("Last-Modified", MODIFIED), ("Date", A_SECOND_LATER)], None),
        ([("Date", A_SECOND_LATER)], None),
        ([], None),
        ([("ETag", '"v1"'), ("Content-Encoding", "gzip")], None),  # R11
        ([("ETag", '"v1"'), ("Content-Encoding", "identity, gzip")], None),
    ],
)
def test_R5_S32_what_may_stand_in_if_range(fields: list[tuple[str, str]], validator: Validator | None) -> None:
    assert strong_validator(Headers(fields)) == validator


def test_R5_a_date_goes_back_exactly_as_it_came() -> None:
    odd = "Sunday, 06-Nov-94 08:49:37 GMT"
    assert strong_validator(Headers([("Last-Modified", odd), ("Date", A_SECOND_LATER)])) == ("last-modified", odd)


@pytest.mark.parametrize("validator", [TAG, DATE, Validator("etag", '"\xff"')])
def test_a_validator_survives_the_journal(validator: Validator) -> None:
    assert Validator.from_list(json.loads(json.dumps(validator))) == validator


@pytest.mark.parametrize(
    "value",
    [
        None, "etag", [], ["etag"], ["etag", None], ["etag", 5], ["etag", "v1"], ["etag", 'W/"v1"'], ["ETag", '"v1"'],
        ["etag", '"v1"', "x"], ["etag", '"v1"\r\nCookie: a=b'], ["etag", '"v\r\n1"'], {"etag": '"v1"'},
        ["last-modified", '"v1"'], ["last-modified", ""], ["last-modified", MODIFIED + "\r\n"], [["etag", '"v1"']],
    ],
)  # fmt: skip
def test_R10_a_corrupt_validator_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError):
        Validator.from_list(value)


# The request


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        (REST, {"Range": "bytes=500-", "If-Range": '"v1"'}),
        (MIDDLE, {"Range": "bytes=200-299", "If-Range": '"v1"'}),
        (Asked(0, 0, 1, DATE), {"Range": "bytes=0-0", "If-Range": MODIFIED}),
        (Asked(2**63 - 2, None, None, TAG), {"Range": "bytes=9223372036854775806-", "If-Range": '"v1"'}),
    ],
)
def test_T45_range_goes_with_if_range(asked: Asked, fields: dict[str, str]) -> None:
    assert asked.fields() == fields
    assert set(fields.items()) <= set(Request("GET", URL.parse("http://example.org/"), asked.fields()).fields)


# 200


def test_R2_R6_a_200_is_the_whole_from_byte_0_on() -> None:
    assert judge(REST, head(200)) == Whole()
    assert judge(REST, head(200, ("ETag", '"v2"'), framing=ContentLength(7))) == Whole()


def test_H4_the_content_range_of_a_200_is_ignored() -> None:
    assert judge(REST, head(200, ("Content-Range", "bytes 500-999/1000"))) == Whole()


# 206


@pytest.mark.parametrize(
    ("asked", "answer", "verdict"),
    [
        (REST, partial("bytes 500-999/1000"), Append(500, 999, 1000)),
        (REST, partial("Bytes 500-999/1000", framing=ContentLength(500)), Append(500, 999, 1000)),
        (REST, partial("bytes 500-999/1000", framing=Chunked(Limits())), Append(500, 999, 1000)),
        (REST, partial("bytes 500-999/1000", ("ETag", '"v1"')), Append(500, 999, 1000)),
        (REST, partial("bytes 500-999/1000", ("Last-Modified", MODIFIED)), Append(500, 999, 1000)),
        (REST, partial("bytes 500-999/1000", ("Content-Encoding", "identity")), Append(500, 999, 1000)),
        (REST, partial("bytes 500-999/1000", ("Content-Type", "text/plain")), Append(500, 999, 1000)),
        (REST._replace(total=None), partial("bytes 500-999/1000"), Append(500, 999, 1000)),
        (REST._replace(total=None), partial("bytes 500-599/600"), Append(500, 599, 600)),
        (REST._replace(validator=DATE), partial("bytes 500-999/1000", ("Last-Modified", MODIFIED)),
         Append(500, 999, 1000)),
        (MIDDLE, partial("bytes 200-299/1000", framing=ContentLength(100)), Append(200, 299, 1000)),
    ],
)  # fmt: skip
def test_T46_a_206_that_fits_is_appended(asked: Asked, answer: HeadReceived, verdict: Append) -> None:
    assert judge(asked, answer) == verdict


@pytest.mark.parametrize(
    ("asked", "content_range", "length"),
    [(REST, "bytes 500-500/1000", 1), (REST, "bytes 500-998/1000", 499), (MIDDLE, "bytes 200-298/1000", 99)],
)
def test_R8_a_206_shorter_than_asked_is_appended(asked: Asked, content_range: str, length: int) -> None:
    verdict = judge(asked, partial(content_range, framing=ContentLength(length)))
    assert isinstance(verdict, Append) and verdict.length == length


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (partial("bytes 499-999/1000"), "499"),
        (partial("bytes 0-999/1000"), "0-999"),
        (partial("bytes 501-999/1000"), "501"),
        (partial("bytes 600-999/1000"), "600"),
        (partial("bytes 500-499/1000"), "Content-Range"),
        (partial("bytes 500-1000/1000"), "Content-Range"),
        (partial("bytes 500-999/1001"), "1001"),
        (partial("bytes 500-998/999"), "999"),
        (partial("bytes 500-999/*"), "Content-Range"),
        (partial("bytes */1000"), "Content-Range"),
        (partial("bytes */*"), "Content-Range"),
        (head(206), "Content-Range"),
        (partial(""), "Content-Range"),
        (partial("500-999/1000"), "Content-Range"),
        (partial("items 500-999/1000"), "Content-Range"),
        (partial("bytes 500-999/1000", ("Content-Range", "bytes 500-999/1000")), "Content-Range"),
        (head(206, ("Content-Type", "multipart/byteranges; boundary=x")), "multipart"),
        (partial("bytes 500-999/1000", ("Content-Type", "Multipart/ByteRanges;boundary=x")), "multipart"),
    ],
)
def test_R7_a_206_of_other_bytes_restarts(answer: HeadReceived, word: str) -> None:
    verdict = judge(REST, answer)
    assert isinstance(verdict, Restart) and word in verdict.reason


def test_R7_a_206_that_goes_on_too_far_restarts() -> None:
    verdict = judge(MIDDLE, partial("bytes 200-300/1000"))
    assert verdict == Restart("the 206 is bytes 200-300; 200-299 were asked for")


@pytest.mark.parametrize(
    ("validator", "field"),
    [
        (TAG, ("ETag", '"v2"')),
        (TAG, ("ETag", 'W/"v1"')),
        (TAG, ("ETag", "")),
        (TAG, ("ETag", '"v1", "v1"')),
        (TAG, ("ETag", '"V1"')),
        (DATE, ("Last-Modified", A_SECOND_LATER)),
        (DATE, ("Last-Modified", "")),
    ],
)
@pytest.mark.parametrize("total", [1000, None])
def test_R3_T48_a_206_of_another_version_restarts(
    validator: Validator, field: tuple[str, str], total: int | None
) -> None:
    verdict = judge(REST._replace(validator=validator, total=total), partial("bytes 500-999/1000", field))
    assert isinstance(verdict, Restart) and "validator" in verdict.reason


def test_R10_a_206_of_less_than_is_here_restarts() -> None:
    verdict = judge(REST._replace(total=None), partial("bytes 500-598/599"))
    assert verdict == Restart("the 206 is of 599 bytes, and 600 are here")


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "identity, br", "unheard-of"])
def test_R11_D5_a_coded_206_restarts(coding: str) -> None:
    verdict = judge(REST, partial("bytes 500-999/1000", ("Content-Encoding", coding)))
    assert isinstance(verdict, Restart) and "coding" in verdict.reason


@pytest.mark.parametrize("length", [0, 499, 501, 1000])
def test_R7_a_length_that_contradicts_the_content_range_restarts(length: int) -> None:
    verdict = judge(REST, partial("bytes 500-999/1000", framing=ContentLength(length)))
    assert verdict == Restart(f"the 206 has {length} bytes, and a Content-Range of 500")


# 416


def unsatisfied(value: str, *fields: tuple[str, str]) -> HeadReceived:
    return head(416, ("Content-Range", value), *fields)


WHOLE = Asked(offset=1000, last=None, total=1000, validator=TAG)


@pytest.mark.parametrize("total", [1000, None])
@pytest.mark.parametrize("overlap", [0, 100])
@pytest.mark.parametrize("fields", [[], [("ETag", '"v1"')]])
def test_R9_a_416_of_as_many_bytes_as_are_here_completes(
    total: int | None, overlap: int, fields: list[tuple[str, str]]
) -> None:
    asked = WHOLE._replace(total=total, overlap=overlap)
    assert judge(asked, unsatisfied("bytes */1000", *fields)) == Complete(1000)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (WHOLE, unsatisfied("bytes */999")),
        (WHOLE, unsatisfied("bytes */1001")),
        (WHOLE._replace(total=None), unsatisfied("bytes */999")),
        (WHOLE._replace(total=None), unsatisfied("bytes */1001")),
        (WHOLE._replace(total=2000), unsatisfied("bytes */1000")),
        (MIDDLE, unsatisfied("bytes */1000")),
        (MIDDLE, unsatisfied("bytes */200")),
        (WHOLE, unsatisfied("bytes */1000", ("ETag", '"v2"'))),
        (WHOLE, unsatisfied("bytes */1000", ("ETag", 'W/"v1"'))),
        (WHOLE, unsatisfied("bytes */*")),
        (WHOLE, unsatisfied("bytes 0-999/1000")),
        (WHOLE, unsatisfied("items */1000")),
        (WHOLE, head(416)),
    ],
)
def test_R9_any_other_416_restarts(asked: Asked, answer: HeadReceived) -> None:
    assert isinstance(judge(asked, answer), Restart)


@pytest.mark.parametrize("status_code", [201, 204, 226, 301, 304, 404, 412, 429, 500, 503])
def test_another_status_says_nothing_about_ranges(status_code: int) -> None:
    assert judge(REST, head(status_code, ("Content-Range", "bytes 500-999/1000"))) is None


NUMBERS = st.integers(0, 12) | st.sampled_from([2**63 - 2, 2**63 - 1, 2**64])
ENDS = st.none() | NUMBERS


@STEADY
@given(
    st.tuples(NUMBERS, st.integers(0, 4), ENDS, ENDS).filter(lambda t: t[1] <= t[0]),
    st.builds("bytes {}-{}/{}".format, NUMBERS, NUMBERS, NUMBERS | st.just("*")) | st.text(max_size=20),
    ENDS,
)
def test_R7_what_is_appended_is_what_was_asked_for(
    asked_for: tuple[int, int, int | None, int | None], content_range: str, length: int | None
) -> None:
    offset, overlap, last, total = asked_for
    asked = Asked(offset, last, total, TAG, overlap)
    framing = None if length is None else ContentLength(length)
    verdict = judge(asked, partial(content_range, framing=framing))
    if not isinstance(verdict, Append):
        assert isinstance(verdict, Restart) and verdict.reason.isprintable()
        return
    assert parse_content_range(content_range) == ContentRange(*verdict)
    assert verdict.first == asked.first <= verdict.last < verdict.total and offset <= verdict.total
    assert last is None or verdict.last <= last
    assert total is None or verdict.total == total
    assert length is None or verdict.length == length


# Accept-Ranges


@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        (["bytes"], True),
        (["Bytes"], True),
        (["pages, bytes"], True),
        (["pages", "bytes"], True),
        (["none, bytes"], True),
        (["none"], False),
        (["None"], False),
        (["pages"], None),
        (["bytes 0-5"], None),
        ([""], None),
        ([], None),
    ],
)
def test_accept_ranges(values: list[str], accepted: bool | None) -> None:
    assert accepts_ranges(Headers(("Accept-Ranges", value) for value in values)) is accepted


# The overlap


def compare(expected: bytes, pieces: list[bytes]) -> bytes | None:
    """Return what follows the overlap, or None if it differs."""
    overlap = Overlap(expected)
    follows = b""
    for piece in pieces:
        rest = overlap.feed(memoryview(piece))
        if rest is None:
            return None
        assert not rest or overlap.left == 0
        follows += rest
    return follows


@STEADY
@given(st.binary(max_size=20), st.binary(max_size=20), st.lists(st.integers(0, 40), max_size=8))
def test_S36_the_overlap_in_any_cuts(expected: bytes, follows: bytes, cuts: list[int]) -> None:
    data = expected + follows
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[start:stop] for start, stop in pairwise(ends)]
    assert compare(expected, pieces) == follows
    assert compare(expected, [data[i : i + 1] for i in range(len(data))]) == follows


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_S36_R4_any_byte_that_differs_is_found(at: int, size: int) -> None:
    data = bytearray(b"abcdefgh" + b"more")
    data[at] ^= 1
    assert compare(b"abcdefgh", [bytes(data[i : i + size]) for i in range(0, len(data), size)]) is None


def test_an_overlap_that_is_cut_short_has_some_left() -> None:
    overlap = Overlap(b"abcdefgh")
    rest = overlap.feed(memoryview(b"abc"))
    assert rest is not None and not rest and overlap.left == 5

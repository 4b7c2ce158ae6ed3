"""The field parsers, safe_filename and escape (E1, E2, E6, E8, T43, RFC 6266, 8187, 9110, 9530, 9651)."""

from __future__ import annotations

import base64
import calendar
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.proto import fields
from rawdl.proto.fields import (
    ContentDisposition,
    ContentRange,
    UnsatisfiedRange,
    escape,
    parse_content_disposition,
    parse_content_range,
    parse_digest_field,
    parse_http_date,
    parse_retry_after,
    percent_decoded,
    safe_filename,
)
from tests.proto.feeding import hang_guard

# Content-Disposition


@pytest.mark.parametrize(
    ("value", "kind", "filename"),
    [
        ("attachment", "attachment", None),
        ("InLine", "inline", None),
        (" attachment ", "attachment", None),
        ("x-other; a=b", "x-other", None),
        ("attachment; filename=a.txt", "attachment", "a.txt"),
        ('attachment; filename="a.txt"', "attachment", "a.txt"),
        ('attachment;FileName = "a.txt"', "attachment", "a.txt"),
        ('attachment; filename="a b; c=\\"d\\" \\\\e"', "attachment", 'a b; c="d" \\e'),
        ('attachment; filename="%41"', "attachment", "%41"),
        ('attachment; filename="=?utf-8?q?a?="', "attachment", "=?utf-8?q?a?="),
        ('attachment; filename=""', "attachment", ""),
        ('attachment; note="filename=b"; filename=a', "attachment", "a"),
        ('attachment; filename="\xe9.txt"', "attachment", "é.txt"),
        ('attachment; filename="\xc3\xa9.txt"', "attachment", "é.txt"),
        ('attachment; filename="€.txt"', "attachment", "€.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20a.txt", "attachment", "€ a.txt"),
        ("attachment; filename*=utf-8'de'a", "attachment", "a"),
        ("attachment; filename*=ISO-8859-1''%e9", "attachment", "é"),
        ("attachment; filename=a; filename*=UTF-8''b", "attachment", "b"),
        ("attachment; filename*=UTF-8''b; filename=a", "attachment", "b"),
        ("attachment; FILENAME*=UTF-8''%2541", "attachment", "%41"),
        # RFC 8187: what is wrong with filename* leaves filename to count
        ("attachment; filename=a; filename*=UTF-8''%ff", "attachment", "a"),
        ("attachment; filename=a; filename*=UTF-8''%f", "attachment", "a"),
        ("attachment; filename=a; filename*=UTF-8'%41", "attachment", "a"),
        ("attachment; filename=a; filename*=UTF-16''%41", "attachment", "a"),
        ("attachment; filename=a; filename*=\"UTF-8''b\"", "attachment", "a"),
        ("attachment; filename=a; filename*=b", "attachment", "a"),
        ("attachment; filename*0=a; filename*1=b", "attachment", None),
        # invalid, with one meaning
        ("attachment; filename=a.txt;", "attachment", "a.txt"),
        ("attachment;; filename=a.txt ; ;", "attachment", "a.txt"),
        ("attachment; filename=a (1), b.txt", "attachment", "a (1), b.txt"),
        ("attachment; filename=/etc/passwd", "attachment", "/etc/passwd"),
    ],
)
def test_content_disposition(value: str, kind: str, filename: str | None) -> None:
    assert parse_content_disposition(value) == ContentDisposition(kind, filename)


@pytest.mark.parametrize(
    "value",
    [
        "", ";", "; filename=a", "=", '"attachment"; filename=a', "attach ment", "attachment filename=a", "a/b",
        "attachment; filename", "attachment; filename=", "attachment; =a", "attachment, inline",
        "attachment; filename=a=b",
        "attachment; filename=a filename=b", "attachment; filename=a; filename=b", "attachment; a=b; A=c",
        "attachment; filename*=UTF-8''a; filename*=UTF-8''b", 'attachment; filename="a', 'attachment; filename="a"b',
        'attachment; filename="a\\', 'attachment; filename="a\x1b"', 'attachment; filename="a\\\x00"',
        'attachment; filename="a\r\n"', "attachment; filename=a\x07", "attachment; filename=\xe9",
        'attachment; filename=a"b', "attachment; file name=a",
    ],
)  # fmt: skip
def test_an_invalid_content_disposition_is_none(value: str) -> None:
    assert parse_content_disposition(value) is None


# safe_filename


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.txt", "a.txt"),
        ("Ünïcödé 資料.pdf", "Ünïcödé 資料.pdf"),
        # E1, E2: one component, decoded by nobody
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("a/../../b", "b"),
        ("..\\..\\x.exe", "x.exe"),
        ("C:\\x", "x"),
        ("\\\\srv\\share\\x", "x"),
        ("a\\b/c", "c"),
        ("..%2f..%2fx", "__%2f..%2fx"),
        ("%252e%252e%252fx", "%252e%252e%252fx"),
        ("a%00b", "a%00b"),
        ("\udcc0\udcafx", "__x"),
        ("a／b", "a／b"),
        # E6: dangerous names
        (".bashrc", "_bashrc"),
        ("...a", "___a"),
        ("-rf", "_rf"),
        ("--", "__"),
        ("~", "_"),
        ("~root", "_root"),
        ("a~", "a~"),
        (" .x", "_x"),
        (". .x", "_ .x"),
        ("a.", "a"),
        ("a . . ", "a"),
        ("a:b", "a_b"),
        ('<>:"|?*', "_______"),
        ("a\u202etxt.exe", "a_txt.exe"),
        ("a\u200bb\u2066c\ufeffd", "a_b_c_d"),
        ("a\u2028b\u00a0c", "a_b_c"),
        ("\u3164", "_"),
        ("a\x00b\x1b[2Jc\x7fd\x9be\r\n", "a_b_[2Jc_d_e__"),
        ("\ud800", "_"),
        ("e\u0301", "é"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("aux.tar.gz", "_aux.tar.gz"),
        ("Nul .x", "_Nul .x"),
        ("prn.", "_prn"),
        ("COM1", "_COM1"),
        ("lpt9.a.b", "_lpt9.a.b"),
        ("com\u00b9", "_com¹"),
        ("LPT³.x", "_LPT³.x"),
        ("CONIN$", "_CONIN$"),
        ("conout$.x", "_conout$.x"),
        ("COM10", "COM10"),
        ("CONSOLE", "CONSOLE"),
        ("a.CON", "a.CON"),
        # nothing left
        ("", "download"),
        (".", "download"),
        ("..", "download"),
        (" . ", "download"),
        ("a/", "download"),
        ("/", "download"),
    ],
)
def test_T43_E1_E2_E6_a_name_is_one_harmless_component(name: str, safe: str) -> None:
    assert safe_filename(name) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a" * 255, "a" * 255),
        ("a" * 256, "a" * 255),
        ("a" * 300 + ".iso", "a" * 251 + ".iso"),
        ("a" * 300 + ".tar.gz", "a" * 248 + ".tar.gz"),
        ("é" * 200 + ".txt", "é" * 125 + ".txt"),
        ("資" * 100, "資" * 85),
        ("a" * 240 + ". . . . ." + "b" * 100, "a" * 240 + ". . . . ." + "b" * 6),
        ("a" * 240 + " " * 100 + ".b", "a" * 240 + ".b"),
        ("a" * 300 + "." + "b" * 25, "a" * 255),
        ("a." + "b" * 400, "a." + "b" * 253),
        ("a" * 5000 + ".iso", "a" * 251 + ".iso"),
        ("con" + " " * 300 + "x.txt", "_con.txt"),
        ("aux." + "b" * 251, "_aux." + "b" * 250),
    ],
)
def test_E6_a_long_name_is_cut_at_255_bytes_before_its_extension(name: str, safe: str) -> None:
    assert safe_filename(name) == safe
    assert len(safe.encode()) <= 255


def test_safe_filename_puts_the_default_through_the_same_rules() -> None:
    assert safe_filename("..", default="index.html") == "index.html"
    assert safe_filename("..", default="../.x") == "_x"
    assert safe_filename("..", default="..") == "download"


DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"} | {
    f"{p}{n}" for p in ("COM", "LPT") for n in "0123456789¹²³"
}
DANGEROUS = [
    "con", "aux", "COM1", ".", "..", " ", "-", "~", "/", "\\", ":", "%2f", "\u202e", "\ud800", "\x1b", "a", "é",
    "e\u0301", "\u0338", "=", "資" * 80, "x" * 250, ".tar.gz", ".iso",
]  # fmt: skip
NAMES = st.one_of(
    st.text(),
    st.text(st.characters()),
    st.lists(st.sampled_from(DANGEROUS)).map("".join),
)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_T43_whatever_the_text_the_name_is_safe(name: str, default: str) -> None:
    safe = safe_filename(name, default=default)
    assert safe.isprintable()
    assert not set(safe) & set('/\\<>:"|?*')
    assert safe[0] not in ".-~ "
    assert safe[-1] not in ". "
    assert len(safe.encode()) <= 255
    assert safe.partition(".")[0].rstrip().upper() not in DEVICES
    assert unicodedata.is_normalized("NFC", safe)
    assert safe_filename(safe) == safe


@settings(deadline=None)
@given(st.text(st.sampled_from("./\\%2ef5c"), max_size=30), st.integers(0, 4))
def test_E2_no_depth_of_percent_encoding_makes_a_separator(path: str, depth: int) -> None:
    for _ in range(depth):
        path = path.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")
    name = safe_filename(percent_decoded(path).decode("utf-8", "replace"))
    assert not set(name) & {"/", "\\"}
    assert name not in (".", "..")


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("", b""),
        ("a%41%zz%", b"aA%zz%"),
        ("%2541", b"%41"),
        ("%c3%A9é", b"\xc3\xa9\xc3\xa9"),
        ("\ud800", b"\xed\xa0\x80"),
    ],
)
def test_percent_decoded_decodes_once(text: str, octets: bytes) -> None:
    assert percent_decoded(text) == octets


# escape


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain \\ text", "plain \\ text"),
        ("naïve 資料 — ✓ e\u0301", "naïve 資料 — ✓ e\u0301"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\td\x00\x7f", "a\\x0db\\x0ac\\x09d\\x00\\x7f"),
        ("\u202e\u2066\u200f\ufeff", "\\u202e\\u2066\\u200f\\ufeff"),
        ("\u2028\ud800", "\\u2028\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_E8_escape_leaves_nothing_that_a_terminal_acts_on(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(st.text(st.characters()))
def test_E8_what_is_escaped_prints_and_what_prints_stays(text: str) -> None:
    assert escape(text).isprintable()
    assert escape(escape(text)) == escape(text)
    assert [c for c in text if c.isprintable()] == [c for c in text if escape(c) == c]


# Content-Range


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("bytes 0-0/1", ContentRange(0, 0, 1)),
        ("bytes 5-9/10", ContentRange(5, 9, 10)),
        ("Bytes 5-9/*", ContentRange(5, 9, None)),
        (" bytes 05-09/010\t", ContentRange(5, 9, 10)),
        ("bytes 0-9223372036854775806/9223372036854775807", ContentRange(0, 2**63 - 2, 2**63 - 1)),
        ("bytes */0", UnsatisfiedRange(0)),
        ("bytes */10", UnsatisfiedRange(10)),
        ("bytes */*", None),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-0/0", None),
        ("bytes 0-1/9223372036854775808", None),
        ("bytes 0-9223372036854775807/*", None),
        ("bytes */9223372036854775808", None),
        ("bytes 0-1/00000000000000000010", None),
        ("bytes -1/10", None),
        ("bytes 0-/10", None),
        ("bytes 0-1", None),
        ("bytes 0-1/", None),
        ("bytes 0-1/10/10", None),
        ("bytes=0-1/10", None),
        ("bytes  0-1/10", None),
        ("bytes 0 - 1/10", None),
        ("bytes +0-1/10", None),
        ("bytes 0_0-1/10", None),
        ("bytes ０-１/１０", None),
        ("items 0-1/10", None),
        ("0-1/10", None),
        ("", None),
    ],
)
def test_content_range(value: str, answer: ContentRange | UnsatisfiedRange | None) -> None:
    result = parse_content_range(value)
    assert result == answer
    assert type(result) is type(answer)


# Dates and Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
        ("Thu Jan  1 00:00:00 1970", 0),
        ("Thu Jan 01 00:00:00 1970", 0),
        (" Tue, 29 Feb 2000 23:59:60 GMT ", 951868800),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Sunday, 31-Dec-69 00:00:00 GMT", 3155673600),
        ("Mon, 29 Feb 1900 00:00:00 GMT", None),
        ("Mon, 31 Apr 2020 00:00:00 GMT", None),
        ("Mon, 00 Apr 2020 00:00:00 GMT", None),
        ("Mon, 01 Foo 2020 00:00:00 GMT", None),
        ("Mon, 01 Apr 2020 24:00:00 GMT", None),
        ("Mon, 01 Apr 2020 00:60:00 GMT", None),
        ("Mon, 01 Apr 2020 00:00:61 GMT", None),
        ("Mon, 1 Apr 2020 00:00:00 GMT", None),
        ("Mon, 01 Apr 2020 00:00:00", None),
        ("Mon, 01 Apr 2020 00:00:00 UTC", None),
        ("Mon, 01 Apr 2020 00:00:00 +0000", None),
        ("mon, 01 apr 2020 00:00:00 gmt", None),
        ("Mon, 01 Apr ２０２０ 00:00:00 GMT", None),
        ("Mon, 01 Apr 99999 00:00:00 GMT", None),
        ("2020-04-01T00:00:00Z", None),
        ("", None),
        ("0", None),
    ],
)
def test_E10_http_date(value: str, seconds: int | None) -> None:
    assert parse_http_date(value) == seconds


@pytest.mark.parametrize(
    ("date", "year_now", "year"),
    [
        ("06-Nov-94", 1994, 1994),
        ("06-Nov-94", 2026, 1994),
        ("06-Nov-94", 2060, 2094),
        ("06-Nov-26", 2026, 2026),
        ("06-Nov-25", 2026, 2025),
        ("06-Nov-75", 2026, 2075),
        ("06-Jan-76", 2026, 2076),
        ("06-Nov-76", 2026, 1976),
        ("06-Nov-77", 2026, 1977),
        ("29-Feb-00", 2040, 2000),
        ("29-Feb-00", 1999, 2000),
        ("06-Nov-00", 2099, 2100),
    ],
)
def test_a_two_digit_year_is_at_most_50_years_ahead(date: str, year_now: int, year: int) -> None:
    now = calendar.timegm((year_now, 6, 1, 0, 0, 0))
    seconds = parse_http_date(f"Sunday, {date} 00:00:00 GMT", wall_clock=now)
    assert seconds is not None
    assert time.gmtime(seconds).tm_year == year


@given(st.integers(calendar.timegm((1, 1, 1, 0, 0, 0)), calendar.timegm((9999, 12, 31, 23, 59, 59))))
def test_every_date_is_read_back_in_each_form(seconds: int) -> None:
    when = time.gmtime(seconds)
    day, month = fields._DAYS.split("|")[when.tm_wday], fields._MONTHS[when.tm_mon - 1]
    clock = f"{when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02}"
    long_day = fields._LONG_DAYS.split("|")[when.tm_wday]
    assert parse_http_date(f"{day}, {when.tm_mday:02} {month} {when.tm_year:04} {clock} GMT") == seconds
    assert parse_http_date(f"{day} {month} {when.tm_mday:2} {clock} {when.tm_year:04}") == seconds
    short = f"{long_day}, {when.tm_mday:02}-{month}-{when.tm_year % 100:02} {clock} GMT"
    assert parse_http_date(short, wall_clock=seconds) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120\t", 120),
        ("9223372036854775808", 2.0**63),
        ("9" * 9999, 2.0**63),
        ("Thu, 01 Jan 1970 00:17:40 GMT", 60.5),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1_0", None),
        ("1 0", None),
        ("0x10", None),
        ("1e3", None),
        ("nan", None),
        ("١٢", None),
        ("²", None),
        ("soon", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, wall_clock=999.5) == seconds


def test_retry_after_reads_a_two_digit_year_by_the_clock() -> None:
    now = calendar.timegm((2094, 1, 1, 0, 0, 0))
    assert parse_retry_after("Friday, 01-Jan-94 00:01:00 GMT", wall_clock=now) == 60


# Digests


@pytest.mark.parametrize(
    ("value", "digests"),
    [
        ("", {}),
        ("sha-256=:AAEC:", {"sha-256": b"\0\1\2"}),
        ("  sha-256=:AAEC:  ", {"sha-256": b"\0\1\2"}),
        ("sha-256=:AAEC:\t", {"sha-256": b"\0\1\2"}),
        ("sha-256=::", {"sha-256": b""}),
        ("sha-256=:AA==:", {"sha-256": b"\0"}),
        ("sha-256=:AA:", {"sha-256": b"\0"}),
        ("sha-256=:+/+/:;q=1;x", {"sha-256": b"\xfb\xff\xbf"}),
        ("md5=:AA==:, sha-256=:AAEC:\t ,\tsha-512=:AQ==:", {"md5": b"\0", "sha-256": b"\0\1\2", "sha-512": b"\1"}),
        ("a=:AA==:,a=:AQ==:", {"a": b"\1"}),
        ("a=:AA==:,a=1", {}),
        ("*k_-.9=:AA==:", {"*k_-.9": b"\0"}),
        ('a=1, b=-1.5, c="x\\"\\\\", d=t/o:k, e, f=?0;g, h=@-1, i=%"%c3%a9x", j=:AA==:', {"j": b"\0"}),
        ("a=(), b=(1 :AA==:;x  2), c=( 1 );y=:AA==:, d=:AA==:;  z", {"d": b"\0"}),
        # one fault, and none of it counts
        ("a=:AA==:,", {}),
        ("a=:AA==:,,b=1", {}),
        (",a=:AA==:", {}),
        ("a=:AA==: b=1", {}),
        ("\ta=:AA==:", {}),
        ("a=:AA==:, b=", {}),
        ("a=:AA==:, b=(1", {}),
        ("a=:AA==:, b=(1,2)", {}),
        ("a=:AA==:, b=(1\t2)", {}),
        ("a=:AA==:, b=((1))", {}),
        ("a=:AA==:, B=1", {}),
        ("a=:AA==:, b;Q", {}),
        ("a=:AA==:, b;=1", {}),
        ("a=:AA==:, b; q= 1", {}),
        ("a=:AA==:, b ;q", {}),
        ("a=:AA==:, b=1.", {}),
        ("a=:AA==:, b=1.2345", {}),
        ("a=:AA==:, b=1234567890123.1", {}),
        ("a=:AA==:, b=1234567890123456", {}),
        ("a=:AA==:, b=--1", {}),
        ("a=:AA==:, b=@1.5", {}),
        ("a=:AA==:, b=?2", {}),
        ('a=:AA==:, b="x', {}),
        ('a=:AA==:, b="\\x"', {}),
        ('a=:AA==:, b="é"', {}),
        ('a=:AA==:, b=%"%C3"', {}),
        ('a=:AA==:, b=%"%ff"', {}),
        ("sha-256=AAEC", {}),
        ("sha-256 = :AAEC:", {}),
        ("sha-256=:AAEC", {}),
        ("sha-256=:A:", {}),
        ("sha-256=:=:", {}),
        ("sha-256=:A=A=:", {}),
        ("sha-256=:AAEC=:", {}),
        ("sha-256=:_-8=:", {}),
        ("sha-256=:AA EC:", {}),
        ("SHA-256=:AAEC:", {}),
    ],
)
def test_digest_field(value: str, digests: dict[str, bytes]) -> None:
    assert parse_digest_field(value) == digests


@given(st.dictionaries(st.from_regex(r"[a-z*][a-z0-9_.*-]{0,9}", fullmatch=True), st.binary(max_size=70)))
def test_digests_are_read_back_in_order(digests: dict[str, bytes]) -> None:
    value = ", ".join(f"{name}=:{base64.b64encode(octets).decode()}:" for name, octets in digests.items())
    assert list(parse_digest_field(value).items()) == list(digests.items())


# Whatever the server sends

PARSERS: dict[str, Callable[[str], object]] = {
    "content-disposition": parse_content_disposition,
    "content-range": parse_content_range,
    "retry-after": lambda value: parse_retry_after(value, wall_clock=1e9),
    "http-date": parse_http_date,
    "http-date-now": lambda value: parse_http_date(value, wall_clock=1e9),
    "digest": parse_digest_field,
    "safe": safe_filename,
    "escape": escape,
}
PIECES = st.sampled_from(
    [
        "attachment", "filename", "filename*", "UTF-8''", ";", "=", '"', "\\", "%41", "%", "'", " ", "\t", "bytes",
        "0", "1", "-", "/", "*", ",", ":", "AA==", "(", ")", "?1", "@", "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 29-Feb-00 00:00:00 GMT", "\x00", "\xe9", "\u202e", "\ud800", "９",
    ]
)  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None)
@given(st.one_of(st.text(st.characters()), st.lists(PIECES, max_size=20).map("".join)))
def test_no_parser_ever_raises(name: str, value: str) -> None:
    first = PARSERS[name](value)
    assert first == PARSERS[name](value)


@pytest.mark.parametrize(
    ("name", "value", "run"),
    [
        ("content-disposition", "a{}", ";"),
        ("content-disposition", "a{}x", " "),
        ("content-disposition", "a{}x", " ;"),
        ("content-disposition", "a;b={}", "x "),
        ("content-disposition", 'a;b={}"', "x "),
        ("content-disposition", 'a;b=x{}"', " "),
        ("content-disposition", 'a;b="{}', "\\x"),
        ("content-disposition", 'a;b="{}', "\\"),
        ("content-disposition", "a;b{}", "="),
        ("content-disposition", "a;filename*=UTF-8''{}%", "%41x"),
        ("content-disposition", "a;filename*=UTF-8{}", "'"),
        ("content-range", "bytes {}", "9"),
        ("content-range", "{}x", " "),
        ("retry-after", "{}", "9"),
        ("retry-after", "{}.", "9"),
        ("http-date", "Mon, 01 Jan {}", "9"),
        ("digest", "a{}", ", a"),
        ("digest", "a{}x", " "),
        ("digest", "a=({}", "1 "),
        ("digest", "a=({}x", " "),
        ("digest", "a={}", "("),
        ("digest", "a{}!", ";a"),
        ("digest", "a;{}", " "),
        ("digest", 'a="{}', '\\"'),
        ("digest", 'a=%"{}', "%c3%a9"),
        ("digest", "a=:{}", "A"),
        ("digest", "a=:{}:", "="),
        ("digest", "a={}\x00", "x"),
        ("safe", "a{}", "\u0301\u0316"),
        ("safe", "{}", ". "),
        ("safe", "a{}", ".tar"),
        ("safe", "{}", "/"),
        ("escape", "{}", "\x1b"),
    ],
)
def test_B4_a_long_run_of_anything_is_read_in_one_go(name: str, value: str, run: str) -> None:
    hostile = value.format(run * (2**18 // len(run)))
    with hang_guard():
        first = PARSERS[name](hostile)
        assert first == PARSERS[name](hostile)

"""No field value makes a parser raise, and no text makes safe_filename give more than one harmless path component."""

from __future__ import annotations

import unicodedata

from rawdl.proto import fields

SEEDS: tuple[bytes, ...] = (
    b'attachment; filename="a \\"b\\".txt"; filename*=UTF-8\'\'%e2%82%ac.txt',
    b"attachment;; filename=..\\..\\a (1).tar.gz ;",
    b"bytes 5-9/10",
    b"bytes */9223372036854775807",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 29-Feb-00 23:59:60 GMT",
    b"Sun Nov  6 08:49:37 1994",
    b'sha-256=:AAEC:;q=1, b=(1 "x" t:k);a, c=-1.5, d=?1, e=@1, f=%"%c3%a9", sha-512=:AQ==:',
    "../.e\u0301\u202e資料:CON .txt. ".encode(),
    b"\x1b]0;x\x07\x9b\xff",
)
FORBIDDEN = set('/\\<>:"|?*')


def check(data: bytes) -> None:
    for text in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        disposition = fields.parse_content_disposition(text)
        check_parsers(text)
        check_name(text)
        check_name((disposition and disposition.filename) or "")
        assert fields.escape(text).isprintable()


def check_parsers(text: str) -> None:
    found = fields.parse_content_range(text)
    if isinstance(found, fields.ContentRange):
        assert 0 <= found.first <= found.last < (2**63 if found.total is None else found.total)
    wait = fields.parse_retry_after(text, wall_clock=1.7e9)
    assert wait is None or 0 <= wait < float("inf")
    assert fields.parse_http_date(text) == fields.parse_http_date(text, wall_clock=1.7e9) or "-" in text
    assert all(isinstance(digest, bytes) for digest in fields.parse_digest_field(text).values())


def check_name(text: str) -> None:
    name = fields.safe_filename(text)
    assert name.isprintable() and not set(name) & FORBIDDEN and unicodedata.is_normalized("NFC", name)
    assert name[0] not in ".-~ " and name[-1] not in ". " and len(name.encode()) <= 255
    assert fields.safe_filename(name) == name

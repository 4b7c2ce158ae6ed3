"""A Metalink is refused by a ProtocolError, or is within the limits and has safe names, usable URLs and true hashes."""

from __future__ import annotations

from rawdl.errors import ProtocolError
from rawdl.proto.checksums import Checksum
from rawdl.proto.fields import safe_filename
from rawdl.proto.mirrors import MAX_FILES, MAX_URLS, MetalinkFile, parse_metalink
from rawdl.proto.url import URL


def _document(content: bytes) -> bytes:
    return b'<metalink xmlns="urn:ietf:params:xml:ns:metalink">' + content + b"</metalink>"


_SHA256 = b'<hash type="sha-256">' + b"0123456789abcdef" * 4 + b"</hash>"
SEEDS: tuple[bytes, ...] = (
    _document(b'<file name="a/../b.iso"><size>10</size>' + _SHA256 + b"<url>http://example.org/b</url></file>"),
    _document(b'<file name="a"><url priority="1" location="DE"> https://[::1]:80/ </url><url>ftp://x/</url></file>'),
    _document(
        b'<file name="a"><size>5</size><pieces type="sha-1" length="4"><hash>' + b"0" * 40 + b"</hash></pieces></file>"
    ),
    b'<?xml version="1.0" encoding="UTF-8"?><!-- x -->'
    + _document(b'<file name="&#x202e;CON"/><file name="b"></file>'),
    b'<m:metalink xmlns:m="urn:ietf:params:xml:ns:metalink"><m:file name="x"><m:url>http://u:p@a/</m:url></m:file></m:metalink>',
    b'<!DOCTYPE x [<!ENTITY a "b">]>' + _document(b'<file name="&a;"/>'),
    _document(b'<file name="a"><x><url>http://a/</url></x><![CDATA[ <url> ]]></file>'),
    b"\xef\xbb\xbf" + _document(b'<file name="a"><hash type="md5">' + b"A" * 32 + b"</hash></file>"),
    "<?xml version='1.0' encoding='UTF-16'?><a/>".encode("utf-16"),
)


def check(data: bytes) -> None:
    try:
        files = parse_metalink(data).files
    except ProtocolError as exc:
        assert str(exc).startswith("invalid Metalink: ")
        return
    assert 0 < len(files) <= MAX_FILES and sum(len(file.urls) for file in files) <= MAX_URLS
    for file in files:
        check_file(file)


def check_file(file: MetalinkFile) -> None:
    assert file.name == safe_filename(file.name)
    assert file.size is None or 0 <= file.size < 2**63
    if file.checksum is not None:
        assert str(Checksum.parse(file.checksum)) == file.checksum
    assert [mirror.priority for mirror in file.urls] == sorted(mirror.priority for mirror in file.urls)
    for mirror in file.urls:
        url = URL.parse(mirror.url)
        assert str(url) == mirror.url and url.userinfo is None and url.fragment is None
    if file.pieces is not None and file.size is not None:
        assert len(file.pieces.hashes) == -(-file.size // file.pieces.length)

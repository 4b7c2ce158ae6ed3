"""Mirrors: Metalink 4 documents, hostile ones above all, and the Link fields (E1, I5, I6, RFC 5854, 6249, 8288)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from rawdl.errors import ProtocolError
from rawdl.proto import mirrors
from rawdl.proto.messages import Headers
from rawdl.proto.mirrors import (
    LAST,
    MAX_METALINK,
    Link,
    Metalink,
    MetalinkFile,
    Mirror,
    Pieces,
    described_by,
    mirrors_of,
    parse_link_field,
    parse_metalink,
)
from rawdl.proto.url import URL
from tests.proto.feeding import hang_guard

ROOT = '<metalink xmlns="urn:ietf:params:xml:ns:metalink">'
SHA1, SHA256, SHA512 = "1" * 40, "2a" * 32, "5b" * 64


def document(files: str) -> bytes:
    return f"{ROOT}{files}</metalink>".encode()


def file(content: str, name: str = "a.iso") -> bytes:
    return document(f'<file name="{name}">{content}</file>')


def only_file(data: bytes) -> MetalinkFile:
    (found,) = parse_metalink(data).files
    return found


def refusal(data: bytes) -> str:
    """Return the message of the error that a document is to bring; it must be fit to print."""
    with pytest.raises(ProtocolError) as caught:
        parse_metalink(data)
    assert type(caught.value) is ProtocolError
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200
    return str(caught.value)


# A document and what becomes of it

WHOLE = f"""<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink" xmlns:x="http://example.org/extension">
  <generator>by hand</generator>
  <published>2010-05-01T12:15:02Z</published>
  <!-- <file name="commented"/> -->
  <file name="a.iso">
    <identity>A</identity>
    <size>2500000</size>
    <hash type="md5">{"AB" * 16}</hash>
    <hash type="sha-256">
      {SHA256}
    </hash>
    <hash type="shake128">00</hash>
    <pieces length="1048576" type="sha-1">
      <hash>{"1" * 40}</hash>
      <hash>{"2" * 40}</hash>
      <hash>{"3" * 40}</hash>
    </pieces>
    <signature mediatype="application/pgp-signature">-----BEGIN …</signature>
    <metaurl mediatype="torrent" priority="1">http://example.org/a.torrent</metaurl>
    <url>http://last.example/a.iso</url>
    <url location="DE" priority="20"> http://de.example/a.iso </url>
    <url location="us" priority="1">https://us.example/a%20b?x=1&amp;y=<![CDATA[2&3]]></url>
    <url priority="1">ftp://ftp.example/a.iso</url>
    <x:url priority="1">http://foreign.example/</x:url>
    <x:more><url>http://inside-foreign.example/</url></x:more>
  </file>
  <file name="b"/>
</metalink>
"""


def test_a_whole_document() -> None:
    assert parse_metalink(WHOLE.encode()) == Metalink(
        (
            MetalinkFile(
                "a.iso",
                2500000,
                {"md5": "ab" * 16, "sha256": SHA256},
                (
                    Mirror("https://us.example/a%20b?x=1&y=2&3", 1, "us"),
                    Mirror("http://de.example/a.iso", 20, "de"),
                    Mirror("http://last.example/a.iso", LAST, ""),
                ),
                Pieces("sha1", 1048576, ("1" * 40, "2" * 40, "3" * 40)),
            ),
            MetalinkFile("b", None, {}, (), None),
        )
    )


@pytest.mark.parametrize(
    ("encoded", "readable"),
    [
        (b"\xef\xbb\xbf" + file("<size>1</size>"), True),
        (b'<?xml version="1.0" encoding="x-unheard-of"?>' + file("<size>1</size>"), True),
        (WHOLE.encode("utf-16"), False),
        (WHOLE.encode("utf-16-le"), False),
        (WHOLE.encode("utf-16-be"), False),
        (WHOLE.encode("utf-32"), False),
        (WHOLE.replace("UTF-8", "ISO-8859-1").replace("…", "é").encode("latin-1"), False),
    ],
)
def test_a_document_is_utf_8_whatever_it_says(encoded: bytes, readable: bool) -> None:
    if readable:
        assert only_file(encoded).size == 1
    else:
        refusal(encoded)


@pytest.mark.parametrize(
    ("data", "ours"),
    [
        ('<m:metalink xmlns:m="{ns}"><m:file name="a"/></m:metalink>', True),
        ('<m:metalink xmlns:m="{ns}"><file xmlns="{ns}" name="a"/></m:metalink>', True),
        ('<metalink xmlns="{ns}"><p:file xmlns:p="{ns}" xmlns="x" name="a"/></metalink>', True),
        ('<metalink><file name="a"/></metalink>', False),
        ('<m:metalink xmlns="{ns}"><file name="a"/></m:metalink>', False),
        ('<metalink xmlns="{ns}"><file xmlns="" name="a"/></metalink>', False),
        ('<metalink xmlns="{ns}"><x xmlns:p="{ns}"/><p:file name="a"/></metalink>', False),
        ('<m:metalink xmlns:m="{ns}"><x xmlns:m="other"><m:file name="a"/></x></m:metalink>', False),
        ('<metalink xmlns="{ns}"><x><file name="a"/></x></metalink>', False),
        ('<file xmlns="{ns}" name="a"/>', False),
        ('<metalink xmlns="http://www.metalinker.org/"><files><file name="a"/></files></metalink>', False),
    ],
)
def test_a_file_is_one_of_the_namespace_and_in_its_place(data: str, ours: bool) -> None:
    octets = data.format(ns="urn:ietf:params:xml:ns:metalink").encode()
    if ours:
        assert only_file(octets).name == "a"
    else:
        assert re.search("describes no file|root is not metalink", refusal(octets))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b.iso", "a b.iso"),
        ("debian/a.iso", "a.iso"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\a.dll", "a.dll"),
        ("..", "download"),
        ("a/", "download"),
        (".bashrc", "_bashrc"),
        ("C:\\aux", "_aux"),
        ("a&#10;b&#x202e;c", "a_b_c"),
        ("&lt;é&gt;", "_é_"),
        ("%2e%2e%2fa", "%2e%2e%2fa"),
    ],
)
def test_E1_the_name_is_one_safe_path_component(name: str, safe: str) -> None:
    assert only_file(file("", name)).name == safe


@pytest.mark.parametrize(
    ("content", "urls"),
    [
        ("<url>http://b/</url><url>http://a/</url>", [("http://b/", LAST), ("http://a/", LAST)]),
        ('<url priority="2">http://b/</url><url priority="1">http://a/</url>', [("http://a/", 1), ("http://b/", 2)]),
        ('<url>HTTP://A:80</url><url priority="7">http://a/#x</url>', [("http://a/", 7)]),
        ('<url priority="999999">http://a/</url>', [("http://a/", LAST)]),
        ("<url>http://a/é</url>", [("http://a/%C3%A9", LAST)]),
        # a priority that is none is the last
        ('<url priority="0">http://a/</url>', [("http://a/", LAST)]),
        ('<url priority="1000000">http://a/</url>', [("http://a/", LAST)]),
        ('<url priority="-1">http://a/</url>', [("http://a/", LAST)]),
        ('<url priority="١">http://a/</url>', [("http://a/", LAST)]),
        (f'<url priority="{"9" * 5000}">http://a/</url>', [("http://a/", LAST)]),
        # what is no use
        ("<url>ftp://a/</url><url>file:///etc/passwd</url><url>magnet:?x</url><url>javascript:x</url>", []),
        ("<url>http://user:password@a/</url><url>http://user@a/</url>", []),
        ("<url>http://[fe80::1%25eth0]/</url>", []),  # an interface of ours is not theirs to name
        ("<url></url><url/><url>/relative</url><url>a</url><url>//a/</url><url>http:///x</url>", []),
        ("<url>http://a\\@b/</url><url>http://a/b\nc</url>", []),
        (f"<url>http://a/{'b' * 65536}</url>", []),
    ],
)
def test_urls_by_priority(content: str, urls: list[tuple[str, int]]) -> None:
    assert [(url.url, url.priority) for url in only_file(file(content)).urls] == urls


@pytest.mark.parametrize(
    ("sent", "location"), [("de", "de"), ("DE", "de"), ("", ""), ("deu", ""), ("d1", ""), ("ßß", "")]
)
def test_a_location_is_two_letters(sent: str, location: str) -> None:
    (url,) = only_file(file(f'<url location="{sent}">http://a/</url>')).urls
    assert url.location == location


@pytest.mark.parametrize(
    ("content", "hashes"),
    [
        (f'<hash type="sha-256">{SHA256.upper()}</hash>', {"sha256": SHA256}),
        (f'<hash type="SHA-256">{SHA256}</hash>', {"sha256": SHA256}),
        (f'<hash type="sha-1">{SHA1}</hash><hash type="sha-512">{SHA512}</hash>', {"sha1": SHA1, "sha512": SHA512}),
        (f'<hash type="sha-224">{"0" * 56}</hash>', {"sha224": "0" * 56}),
        (f'<hash type="sha-384">{"0" * 96}</hash>', {"sha384": "0" * 96}),
        (f'<hash type="sha-256">{SHA256}</hash>' * 2, {"sha256": SHA256}),
        (f"<hash>{SHA256}</hash>", {}),
        ('<hash type="md2">x</hash><hash type="sha3-256">x</hash><hash type="">x</hash>', {}),
    ],
)
def test_hashes(content: str, hashes: dict[str, str]) -> None:
    assert only_file(file(content)).hashes == hashes


def pieces(kind: str, length: object, *hashes: str) -> str:
    return f'<pieces type="{kind}" length="{length}">{"".join(f"<hash>{h}</hash>" for h in hashes)}</pieces>'


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (pieces("sha-256", 10, SHA256), Pieces("sha256", 10, (SHA256,))),
        (pieces("sha-256", 10, SHA256) + "<size>10</size>", Pieces("sha256", 10, (SHA256,))),
        ("<size>11</size>" + pieces("sha-1", 10, SHA1, "0" * 40), Pieces("sha1", 10, (SHA1, "0" * 40))),
        (pieces("sha-1", 10, SHA1) + pieces("sha-256", 20, SHA256), Pieces("sha256", 20, (SHA256,))),
        (pieces("sha-256", 20, SHA256) + pieces("sha-1", 10, SHA1), Pieces("sha256", 20, (SHA256,))),
        (pieces("sha-256", 10), None),
        (pieces("md2", 10, "x") + pieces("", 10, "x"), None),
        ("", None),
    ],
)
def test_pieces(content: str, answer: Pieces | None) -> None:
    found = only_file(file(content))
    assert found.pieces == answer
    assert found.hashes == {}


# What is refused


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f'<hash type="sha-256">{SHA256[1:]}</hash>', "a sha256 hash is not 64 hexadecimal digits"),
        (f'<hash type="sha-256">{SHA256[1:]}g</hash>', "a sha256 hash is not 64 hexadecimal digits"),
        ('<hash type="md5"/>', "a md5 hash is not 32 hexadecimal digits"),
        (f'<hash type="sha-1">{"１" * 40}</hash>', "a sha1 hash is not 40 hexadecimal digits"),
        (f'<hash type="sha-1">{SHA1}</hash><hash type="sha-1">{"0" * 40}</hash>', "two sha1 hashes of one file"),
        ("<size>-1</size>", "size is not a number of bytes"),
        ("<size/>", "size is not a number of bytes"),
        ("<size>1 2</size>", "size is not a number of bytes"),
        ("<size>9223372036854775808</size>", "size is not a number of bytes"),
        (f"<size>{'0' * 9999}</size>", "size is not a number of bytes"),
        ("<size>1</size><size>2</size>", "two sizes, 1 and 2 bytes"),
        (pieces("sha-1", 0, SHA1), "pieces of 0 bytes"),
        (pieces("sha-1", "x", SHA1), "length of pieces is not a number"),
        (pieces("sha-1", "", SHA1), "length of pieces is not a number"),
        (pieces("sha-1", 10, SHA1, "x"), "a sha1 hash is not 40 hexadecimal digits"),
        ("<size>11</size>" + pieces("sha-1", 10, SHA1), "1 pieces of 10 bytes in a file of 11"),
        (pieces("sha-1", 10, SHA1, SHA1) + "<size>10</size>", "2 pieces of 10 bytes in a file of 10"),
        ("<size>0</size>" + pieces("sha-1", 10, SHA1), "1 pieces of 10 bytes in a file of 0"),
    ],
)
def test_a_document_that_is_malformed_or_contradicts_itself(content: str, reason: str) -> None:
    assert reason in refusal(file(content))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no element found"),
        (b"404 Not Found", "syntax error"),
        (b"<html><body>", "root is not metalink"),
        (document(""), "it describes no file"),
        (document("<file/>"), "a file without a name"),
        (document('<file name=""/>'), "a file without a name"),
        (file("")[:-1], "unclosed token"),
        (file("<url>http://a/</URL>"), "mismatched tag"),
        (file("") + b"<x/>", "junk after document element"),
        (file("&nbsp;"), "undefined entity"),
        (file("<url>\xff</url>").replace(b"\xc3\xbf", b"\xff"), "not well-formed"),
        (file("<url>\xff</url>").replace(b"\xc3\xbf", b"\xed\xa0\x80"), "not well-formed"),
        (file("\0"), "a NUL"),
        (file("&#0;"), "invalid character number"),
    ],
)
def test_what_is_no_metalink(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_a_refusal_tells_the_line() -> None:
    assert "(line 3)" in refusal(file("\n\n<size>x</size>\n\n\n"))
    assert "(line 3)" in refusal(file("\n\n<size>1</sise>\n\n\n"))
    assert "(line 3)" in refusal(b"\n\n<!DOCTYPE x>\n" + file(""))
    assert "(line 2)" in refusal(file("\n\0\n"))


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))


@pytest.mark.parametrize(
    "declarations",
    [
        f'[<!ENTITY l0 "ha">{LAUGHS}]',  # 10^29 laughs
        f'[<!ENTITY l29 "{"x" * 100_000}">]',
        f'[<!ENTITY % l0 "ha">{LAUGHS.replace("ENTITY", "ENTITY %").replace("&", "%")}]',
        '[<!ENTITY l29 SYSTEM "file:///etc/passwd">]',
        'SYSTEM "http://127.0.0.1/a.dtd"',
        'PUBLIC "-//x" "http://127.0.0.1/a.dtd"',
        '[<!ATTLIST file name CDATA "default">]',
        "",
    ],
)
def test_I6_no_document_type_hence_no_entity(declarations: str) -> None:
    data = f"<!DOCTYPE metalink {declarations}>\n".encode() + file("<url>" + "&l29;" * 100_000 + "</url>")
    with hang_guard():
        assert "a document type is not accepted" in refusal(data)
        for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
            assert "an encoding other than UTF-8" in refusal(data.decode().encode(encoding))


def filled(head: str, unit: str, tail: str = "") -> bytes:
    """Return a document of nearly the greatest size."""
    count = (MAX_METALINK - len(head.encode()) - len(tail.encode())) // len(unit.encode())
    return (head + unit * count + tail).encode()


FILE = ROOT + '<file name="a">'
END = "</file></metalink>"
LONG_TAG = "a tag or comment of more than 65536 bytes"
PREFIXES = " ".join(f'xmlns:p{i}=""' for i in range(3000))
ENDLESS = {
    # what it begins with, what it repeats, how it ends, why it is refused
    "depth": (ROOT, "<a>", "", "more than 16 levels of elements"),
    "depth of something else": ("", "<a>", "", "root is not metalink"),
    "elements": (ROOT, "<a/>", "", "more than 250000 elements"),
    "files": (ROOT, '<file name="a"/>', "", "more than 1000 files"),
    "URLs": (FILE, "<url>http://a/</url>", "", "more than 10000 URLs"),
    "empty URLs": (FILE, "<url/>", "", "more than 10000 URLs"),
    "attributes": (ROOT + "<a", ' a=""', "", LONG_TAG),
    "a name": (ROOT + '<file name="', "a", f'">{END}', LONG_TAG),
    "a comment": (ROOT + "<!--", "- ", "", LONG_TAG),
    "an instruction": (ROOT + "<?x ", "? ", "", LONG_TAG),
    "a long namespace": (f'{ROOT}<a xmlns:p="{"u" * 60_000}">', '<p:a p:a=""/>', "", "more than 250000 elements"),
    "a longer namespace": (f'{ROOT}<a xmlns:p="{"u" * 2**20}">', '<p:a p:a=""/>', "", LONG_TAG),
    "prefixes": (f"{ROOT}<a {PREFIXES}>", '<a xmlns:q=""/>', "", "more than 250000 elements"),
    "CDATA": (FILE + "<url><![CDATA[", "]]", "", "unclosed CDATA section"),
    "a hash": (FILE + '<hash type="sha-256">', "a", f"</hash>{END}", "not 64 hexadecimal digits"),
    "a size": (FILE + "<size>", "1", f"</size>{END}", "size is not a number"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_I6_no_document_takes_long(what: str) -> None:
    head, unit, tail, reason = ENDLESS[what]
    with hang_guard():
        assert reason in refusal(filled(head, unit, tail))


def test_I6_a_document_has_10_MiB_at_most() -> None:
    largest = file("<size>1</size>").ljust(MAX_METALINK)
    assert only_file(largest).size == 1
    assert "10485761 bytes, where 10485760 is the limit" in refusal(largest + b" ")


@pytest.mark.parametrize("unit", ["/b", "a.", "&lt;", "<![CDATA[a]]>", "a\n", "é", "%"])
def test_I6_one_long_url_takes_no_longer(unit: str) -> None:
    with hang_guard():
        assert only_file(filled(f"{FILE}<url>http://a", unit, f"</url>{END}")).urls == ()


def test_the_pieces_of_a_large_file_fit() -> None:
    count = 100_000
    found = only_file(file(f"<size>{count * 2**20}</size>" + pieces("sha-256", 2**20, *[SHA256] * count)))
    assert found.pieces is not None and len(found.pieces.hashes) == count


WORDS = [ROOT, "</metalink>", '<file name="a">', "</file>", "<url>", "</url>", "http://a/", "<size>", "</size>", "1"]
WORDS += [
    '<hash type="md5">',
    "</hash>",
    "0" * 32,
    '<pieces type="md5" length="1">',
    "</pieces>",
    "<x>",
    "</x>",
    "<a:b/>",
]
WORDS += [
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?x",
    "?>",
    "&amp;",
    "&#1;",
    '<!DOCTYPE x [<!ENTITY y "z">]>',
    "&y;",
    "\n",
]


@given(st.one_of(st.binary(), st.lists(st.sampled_from(WORDS)).map(lambda words: (ROOT + "".join(words)).encode())))
def test_whatever_comes_it_is_a_metalink_or_a_protocol_error(data: bytes) -> None:
    try:
        found = parse_metalink(data)
    except ProtocolError as error:
        assert type(error) is ProtocolError and str(error).isprintable()
    else:
        assert found.files


@given(st.integers(0, len(WHOLE.encode())), st.integers(0, 40), st.binary(max_size=4))
def test_a_document_with_a_dent_is_a_metalink_or_a_protocol_error(start: int, gone: int, put: bytes) -> None:
    data = WHOLE.encode()
    try:
        parse_metalink(data[:start] + put + data[start + gone :])
    except ProtocolError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_portions_make_no_difference(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parse_metalink(WHOLE.encode())
    monkeypatch.setattr(mirrors, "_PORTION", size)
    if size < 100:
        assert LONG_TAG.replace("65536", str(size)) in refusal(WHOLE.encode())
    else:
        assert parse_metalink(WHOLE.encode()) == whole


# Link fields


@pytest.mark.parametrize(
    ("value", "links"),
    [
        ("", []),
        ("<a>", [("a", {})]),
        ("<>", [("", {})]),
        (" \t<a> ; rel=b\t", [("a", {"rel": "b"})]),
        ("<a>;rel=b;Pri=1", [("a", {"rel": "b", "pri": "1"})]),
        ("<a>; rel = b", [("a", {"rel": "b"})]),
        ('<a>; rel="b c"; title="x, <y>; \\"z\\" \\\\"', [("a", {"rel": "b c", "title": 'x, <y>; "z" \\'})]),
        ("<a,b;c>; rel=d", [("a,b;c", {"rel": "d"})]),
        ("<a>, <b>;rel=c ,\t<d>", [("a", {}), ("b", {"rel": "c"}), ("d", {})]),
        (", ,<a>,,<b>, ", [("a", {}), ("b", {})]),
        ("<a>; pref; rel=b;; ;", [("a", {"pref": "", "rel": "b"})]),
        ("<a>; x=; y", [("a", {"x": "", "y": ""})]),
        ('<a>; x=""', [("a", {"x": ""})]),
        ("<a>; rel=b; rel=c; REL=d", [("a", {"rel": "b"})]),
        ("<a>; type=application/metalink4+xml", [("a", {"type": "application/metalink4+xml"})]),
        ("<a>; title*=UTF-8''%e2%82%ac", [("a", {"title*": "UTF-8''%e2%82%ac"})]),
        # a malformed link ends it
        ("a", []),
        ("<a", []),
        ("<a>b, <c>", []),
        ("<a>, b, <c>", [("a", {})]),
        ("<a>, <b>; rel=x y, <c>", [("a", {})]),
        ('<a>, <b>; rel="c', [("a", {})]),
        ('<a>; rel="b"c', []),
        ("<a>; =b", []),
        ("<a>; r<l=b", []),
        ("<a><b>", []),
    ],
)
def test_link_field(value: str, links: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_link_field(value) == [Link(*link) for link in links]


BASE = URL.parse("https://user:password@example.org/dir/a.iso?q#f")


def link_header(*values: str) -> Headers:
    return Headers([("Link", value) for value in values])


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("http://m.example/a.iso", "http://m.example/a.iso"),
        ("HTTPS://M.example:443/a b", "https://m.example/a%20b"),
        ("b.iso", "https://example.org/dir/b.iso"),
        ("../b", "https://example.org/b"),
        ("/b?x", "https://example.org/b?x"),
        ("//m.example/b#f", "https://m.example/b"),
        ("http://m.example/\xc3\xa9", "http://m.example/%C3%A9"),
        ("http://m.example/\xe9", "http://m.example/%E9"),
        # nowhere else, or nowhere to go
        ("", None),
        ("#x", None),
        ("https://example.org/dir/a.iso?q", None),
        ("http://user@m.example/", None),
        ("http://[fe80::1%25eth0]/", None),
        ("https://user:password@example.org/b", None),
        ("ftp://m.example/a.iso", None),
        ("file:///etc/passwd", None),
        ("http:///a", None),
        ("http://m.example:0/", None),
        ("\\\\m.example/a", None),
        ("http://m\x00.example/", None),
        ("http://€/", None),
    ],
)
def test_where_a_mirror_is(target: str, url: str | None) -> None:
    found = mirrors_of(link_header(f"<{target}>; rel=duplicate"), BASE)
    assert [mirror.url for mirror in found] == ([] if url is None else [url])
    described = described_by(link_header(f"<{target}>; rel=describedby; type=application/metalink4+xml"), BASE)
    assert (None if described is None else str(described)) == url


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], []),
        (["<http://a/>; rel=duplicate"], [("http://a/", LAST, "")]),
        (["<http://a/>; rel=duplicate; pri=1; pref; geo=GB; depth=2"], [("http://a/", 1, "gb")]),
        (['<http://a/>; rel="alternate\tDUPLICATE"'], [("http://a/", LAST, "")]),
        (
            ["<http://b/>;rel=duplicate;pri=2, <http://a/>;rel=duplicate;pri=1"],
            [("http://a/", 1, ""), ("http://b/", 2, "")],
        ),
        (
            ["<http://b/>;rel=duplicate", "<http://a/>;rel=duplicate"],
            [("http://b/", LAST, ""), ("http://a/", LAST, "")],
        ),
        (["x", "<http://a/>;rel=duplicate"], [("http://a/", LAST, "")]),
        (["<http://a/>;rel=duplicate", "<http://A:80>;rel=duplicate;pri=3"], [("http://a/", 3, "")]),
        (["<http://a/>;rel=duplicate;pri=0;geo=x"], [("http://a/", LAST, "")]),
        (["<http://a/>;rel=duplicate;pri=1000000;geo=xyz"], [("http://a/", LAST, "")]),
        (['<http://a/>;rel=duplicate;anchor="http://x/"', '<http://a/>;rel=duplicate;anchor=""'], []),
        (
            [
                "<http://a/>",
                "<http://a/>;rev=duplicate",
                "<http://a/>;rel=duplicates",
                "<http://a/>;rel=x;rel=duplicate",
            ],
            [],
        ),
    ],
)
def test_mirrors_by_priority(values: list[str], found: list[tuple[str, int, str]]) -> None:
    assert mirrors_of(link_header(*values), BASE) == tuple(Mirror(*mirror) for mirror in found)


def test_the_first_64_mirrors_count() -> None:
    values = [f"<http://m{i}.example/>; rel=duplicate; pri={100 - i}" for i in range(80)]
    found = mirrors_of(link_header("<ftp://a/>; rel=duplicate", *values), BASE)
    assert [mirror.priority for mirror in found] == list(range(37, 101))


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ([], None),
        (['<a.meta4>; rel=describedby; type="application/metalink4+xml"'], "https://example.org/dir/a.meta4"),
        (['<a>; rel=describedBy; type="Application/Metalink4+XML ; charset=utf-8"'], "https://example.org/dir/a"),
        (["<a>; rel=describedby; type=application/metalink4+xml; anchor=x"], None),
        (['<a>; rel=describedby; type="application/x-bittorrent"'], None),
        (['<a>; rel=describedby; type="application/metalink+xml"'], None),
        (["<a>; rel=describedby"], None),
        (["<a>; rel=duplicate; type=application/metalink4+xml"], None),
        (
            [f"<{target}>; rel=describedby; type=application/metalink4+xml" for target in ("ftp://a/", "b", "c")],
            "https://example.org/dir/b",
        ),
    ],
)
def test_where_the_metalink_is(values: list[str], url: str | None) -> None:
    found = described_by(link_header(*values), BASE)
    assert (None if found is None else str(found)) == url


LINK_PARTS = ["<", ">", ";", ",", "=", '"', "\\", " ", "\t", "a", "rel=duplicate", "<http://a/>", "<a>;rel=duplicate"]


@pytest.mark.parametrize("head", ["", "<", "<a>", "<a>;", "<a>;x", "<a>;x=", '<a>;x="', "<a>;rel="])
@pytest.mark.parametrize("unit", LINK_PARTS)
def test_I6_a_link_field_takes_linear_time(head: str, unit: str) -> None:
    header = link_header(head + unit * 50_000)
    with hang_guard():
        assert len(mirrors_of(header, BASE)) <= 1
        assert described_by(header, BASE) is None


@given(st.one_of(st.text(), st.lists(st.sampled_from(LINK_PARTS)).map("".join)))
def test_no_link_field_makes_an_error(value: str) -> None:
    for mirror in mirrors_of(link_header(value), BASE):
        assert str(URL.parse(mirror.url)) == mirror.url
    assert described_by(link_header(value), BASE) is None


# Which of its files it is


@pytest.mark.parametrize(
    ("names", "url", "size", "found"),
    [
        (["a"], "http://example.org/b", None, "a"),
        (["a"], "http://example.org/b", 5, "a"),
        (["a"], "http://example.org/a", 6, None),
        (["a", "b"], "http://example.org/x/b?q", 5, "b"),
        (["a", "b"], "http://example.org/b", 6, None),
        (["a", "b"], "http://example.org/c", None, None),
        (["a", "b c"], "http://example.org/b%20c", None, "b c"),
    ],
)
def test_the_file_that_a_url_is_of(names: list[str], url: str, size: int | None, found: str | None) -> None:
    files = "".join(f'<file name="{name}"><size>5</size></file>' for name in names)
    described = parse_metalink(document(files)).about(URL.parse(url), size)
    assert (described and described.name) == found


def test_the_hash_that_counts() -> None:
    hashes = [("md5", 32), ("sha-1", 40), ("sha-256", 64), ("sha-512", 128)]
    for count in range(len(hashes) + 1):
        lines = "".join(f'<hash type="{name}">{"0" * digits}</hash>' for name, digits in hashes[:count])
        described = only_file(file(lines))
        name, digits = hashes[count - 1]
        assert described.checksum == (f"{name.replace('-', '')}:{'0' * digits}" if count else None)

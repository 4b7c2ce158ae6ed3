"""Where else a file is, and what it must be: Metalink 4 (RFC 5854) and its header fields (RFC 6249, RFC 8288).

Only http and https URLs are kept, and none that brings a user name or password.  Nothing here says that a mirror has
the right file; the hashes do.

A Metalink document is a stranger's XML, and XML parsers can be made to work for hours.  Hence:

    document type, and with it every entity    refused before the parser sees any of it
    UTF-16 and other encodings                 refused: they could hide a document type; what is read is UTF-8
    namespaces                                 resolved here: expat copies a name's namespace, which may be a megabyte
                                               long, each time that the name is used
    size, depth, tags, elements, files, URLs   limited, see the constants
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from rawdl.errors import InvalidURL, ProtocolError
from rawdl.proto.fields import MAX_LENGTH, safe_filename
from rawdl.proto.redirects import MAX_URL
from rawdl.proto.url import URL

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

    from rawdl.proto.messages import Headers

__all__ = [
    "MAX_METALINK",
    "Link",
    "Metalink",
    "MetalinkFile",
    "Mirror",
    "Pieces",
    "described_by",
    "mirrors_of",
    "parse_link_field",
    "parse_metalink",
]

MAX_METALINK = 10 * 2**20  # bytes: SHA-256 for the pieces of 1 MiB of a file of 100 GB takes 8 MB
MAX_DEPTH = 16  # the format has four levels: metalink, file, pieces, hash
MAX_ELEMENTS = 250_000  # more than hashes fit into the size; an element takes some microseconds
MAX_FILES = 1000
MAX_URLS = 10_000  # in one document; the largest lists of mirrors in use have some hundred
MAX_MIRRORS = 64  # of the header fields: more would not fit into most heads

LAST = 999_999  # the priority of what states none (RFC 5854 4.2.16)

_NAMESPACE = "urn:ietf:params:xml:ns:metalink"
# Bytes that the parser is given at once.  What is refused it still reads to the end of the portion; and a tag that is
# longer than one may have half a million attributes, which take forty times their size.
_PORTION = 65536
# The registry of textual hash names has these of a fixed length (RFC 5854 4.2.4): hashlib's name, hexadecimal digits.
_HASHES = {
    "md5": ("md5", 32),
    "sha-1": ("sha1", 40),
    "sha-224": ("sha224", 56),
    "sha-256": ("sha256", 64),
    "sha-384": ("sha384", 96),
    "sha-512": ("sha512", 128),
}


class Mirror(NamedTuple):
    """A URL of the file.  The lowest ``priority`` (1 to 999999) goes first.

    ``location`` is a country's two letters (ISO 3166-1) in lower case, or "".
    """

    url: str
    priority: int
    location: str


class Pieces(NamedTuple):
    """Hashes of the pieces of a file, in hexadecimal: each of ``length`` bytes, of which the last may have fewer."""

    name: str
    length: int
    hashes: tuple[str, ...]


class MetalinkFile(NamedTuple):
    """A file as a Metalink describes it.

    ``name`` is one path component and safe; a folder that the document had before it is gone.  ``size`` is in bytes.
    ``hashes`` leads from hashlib's names to hexadecimal digits; it holds MD5 and SHA-1 too, if they are stated.
    ``urls`` are in the order of their priority.  If ``size`` is known, ``pieces`` has as many hashes as it takes.
    """

    name: str
    size: int | None
    hashes: dict[str, str]
    urls: tuple[Mirror, ...]
    pieces: Pieces | None

    @property
    def checksum(self) -> str | None:
        """The one of its hashes that is hardest to forge, as ``NAME:HEX``; None if it has none."""
        for name in ("sha512", "sha384", "sha256", "sha224", "sha1", "md5"):
            if name in self.hashes:
                return f"{name}:{self.hashes[name]}"
        return None


class Metalink(NamedTuple):
    """What a Metalink document describes: one file at least."""

    files: tuple[MetalinkFile, ...]

    def about(self, url: URL, size: int | None) -> MetalinkFile | None:
        """Return what it says of the file at ``url``: the only one in it, or that of the same name.

        None if there is none, or if it has another ``size`` (in bytes; None: unknown).
        """
        name = safe_filename(url.last_segment)
        for file in self.files:
            if len(self.files) == 1 or file.name == name:
                return file if size is None or file.size in (None, size) else None
        return None


class Link(NamedTuple):
    """A link of a Link field: its target as it was sent, and its parameters, their names in lower case."""

    target: str
    parameters: dict[str, str]


def parse_metalink(data: bytes) -> Metalink:
    """Read a Metalink 4 document (RFC 5854), encoded in UTF-8.

    Hashes of an unknown type and URLs that are of no use are passed over, and so is whatever is not in the namespace.
    Raises ProtocolError, with the line, for a document that is malformed, contradicts itself or exceeds a limit.
    """
    from xml.parsers import expat

    _check_octets(data)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    document = _Document(parser)
    parser.StartElementHandler = document.start
    parser.EndElementHandler = document.end
    parser.CharacterDataHandler = document.text.append
    try:
        for position in range(0, len(data), _PORTION):
            if position - parser.CurrentByteIndex > _PORTION:
                raise document.malformed(f"a tag or comment of more than {_PORTION} bytes")
            parser.Parse(data[position : position + _PORTION])
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise _malformed(expat.ErrorString(error.code), error.lineno) from error
    return Metalink(tuple(document.files))


def mirrors_of(header: Headers, base: URL) -> tuple[Mirror, ...]:
    """Return the mirrors that a response from ``base`` names (``rel=duplicate``, RFC 6249 3), by their priority.

    The first 64 count, without ``base`` itself.  ``pri`` is the priority and ``geo`` the location.  Whether to go from
    https to http, or to trust a mirror at all, is the caller's decision.
    """
    found = []
    for link, url in _related(header, base, "duplicate"):
        found.append(Mirror(str(url), _priority(link.parameters.get("pri")), _location(link.parameters.get("geo"))))
        if len(found) == MAX_MIRRORS:
            break
    return _ranked(found)


def described_by(header: Headers, base: URL) -> URL | None:
    """Return where the Metalink of a response from ``base`` is (``rel=describedby``, RFC 6249 4); the first of them."""
    for link, url in _related(header, base, "describedby"):
        media_type = link.parameters.get("type", "").partition(";")[0]
        if media_type.strip(" \t").lower() == "application/metalink4+xml":
            return url
    return None


def parse_link_field(value: str) -> list[Link]:
    """Read one line of Link, in the order sent (RFC 8288 3); of links behind a malformed one nothing is known.

    A parameter that is there twice counts the first time.  Takes time linear in the length, and never raises.
    """
    link = re.compile(r"[ \t,]*+<([^>]*+)>[ \t]*+")
    links = []
    match = link.match(value)
    while match is not None:
        parameters, position = _parameters(value, match.end())
        if position < len(value) and value[position] != ",":
            break
        links.append(Link(match[1], parameters))
        match = link.match(value, position)
    return links


# Link fields


def _related(header: Headers, base: URL, relation: str) -> Iterator[tuple[Link, URL]]:
    here = _requested(base)
    for value in header.get_all("Link"):
        for link in parse_link_field(value):
            # An anchor makes it a link of something else (RFC 8288 3.2).
            if relation not in link.parameters.get("rel", "").lower().split() or "anchor" in link.parameters:
                continue
            url = _resolved(link.target, here)
            if url is not None and url != here:
                yield link, url


def _resolved(target: str, base: URL) -> URL | None:
    try:
        url = base.join(target.encode("latin-1").decode("utf-8", "surrogateescape"))
    except (InvalidURL, UnicodeError):
        return None
    return _requested(url) if url.userinfo is None and "%" not in url.host else None  # an interface is ours to choose


def _parameters(value: str, position: int) -> tuple[dict[str, str], int]:
    name = r"([!#$%&'*+.^_`|~0-9A-Za-z-]++)"
    # Outside of quotes more is let through than RFC 8288 has: type=application/metalink4+xml is often sent like this.
    content = r'(?:"((?:[^"\\]|\\.)*+)"|([^ \t",;]*+))'
    parameter = re.compile(rf"[ \t]*+;[ \t]*+(?:{name}[ \t]*+(?:=[ \t]*+{content})?+)?+[ \t]*+", re.DOTALL)
    found: dict[str, str] = {}
    while match := parameter.match(value, position):
        position = match.end()
        if match[1] is not None:
            text = match[3] or "" if match[2] is None else re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
            found.setdefault(match[1].lower(), text)
    return found, position


def _requested(url: URL) -> URL:
    """Return the URL as a server gets to know it, so that two which ask for the same are equal."""
    return URL(url.scheme, url.host, url.port, None, url.path, url.query, None)


def _ranked(mirrors: Iterable[Mirror]) -> tuple[Mirror, ...]:
    best: dict[str, Mirror] = {}
    for mirror in sorted(mirrors, key=lambda mirror: mirror.priority):
        best.setdefault(mirror.url, mirror)
    return tuple(best.values())


def _priority(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch("[1-9][0-9]{0,5}", text) else LAST


def _location(text: str | None) -> str:
    return text.lower() if text is not None and re.fullmatch("[A-Za-z]{2}", text) else ""


# Metalink documents


def _check_octets(data: bytes) -> None:
    if len(data) > MAX_METALINK:
        raise ProtocolError(f"invalid Metalink: {len(data)} bytes, where {MAX_METALINK} is the limit")
    # Expat looks for UTF-16 whatever it is told; each character of the markup would have a NUL.
    if found := re.search(rb"\x00|<!DOCTYPE", data):
        what = "a NUL, or an encoding other than UTF-8" if found[0] == b"\0" else "a document type is not accepted"
        raise _malformed(what, data.count(b"\n", 0, found.start()) + 1)


class _Document:
    """What is kept of a document while the parser goes through it; ``text`` takes the characters."""

    _file: MetalinkFile  # the open one: what is known of it so far
    _mirrors: list[Mirror]  # its URLs
    _piece_hashes: list[str]  # of the open pieces
    _attributes: dict[str, str]  # of the open pieces, size, hash or URL

    def __init__(self, parser: XMLParserType) -> None:
        self.files: list[MetalinkFile] = []
        self.text: list[str] = []
        self._parser = parser
        self._path: list[str] = []  # the names of the open elements; "" for those that are not of the namespace
        self._scopes: list[dict[str, bool]] = []  # the prefixes that each declares, and whether for the namespace
        self._elements = self._url_count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._scopes.append({key[6:]: uri == _NAMESPACE for key, uri in attributes.items() if _is_declaration(key)})
        self._path.append(self._local(name))
        self._elements += 1
        self._limit(len(self._path), MAX_DEPTH, "levels of elements")
        self._limit(self._elements, MAX_ELEMENTS, "elements")
        match self._path:
            case [root] if root != "metalink":
                raise self.malformed(f"the root is not metalink of the namespace {_NAMESPACE}")
            case ["metalink", "file"]:
                self._open_file(attributes)
            case ["metalink", "file", "pieces"]:
                self._attributes, self._piece_hashes = attributes, []
            case ["metalink", "file", "size" | "hash" | "url"]:
                self._attributes = attributes
                self.text.clear()
            case ["metalink", "file", "pieces", "hash"]:
                self.text.clear()

    def end(self, _: str) -> None:
        match self._path:
            case ["metalink"] if not self.files:
                raise self.malformed("it describes no file")
            case ["metalink", "file"]:
                self._close_file()
            case ["metalink", "file", "size"]:
                self._size()
            case ["metalink", "file", "hash"]:
                self._hash()
            case ["metalink", "file", "url"]:
                self._url()
            case ["metalink", "file", "pieces"]:
                self._pieces()
            case ["metalink", "file", "pieces", "hash"]:
                self._piece_hash()
        self._path.pop()
        self._scopes.pop()

    def malformed(self, what: str) -> ProtocolError:
        return _malformed(what, self._parser.CurrentLineNumber)

    def _local(self, name: str) -> str:
        prefix, _, local = name.rpartition(":")
        ours = next((scope[prefix] for scope in reversed(self._scopes) if prefix in scope), False)
        return local if ours else ""

    def _open_file(self, attributes: dict[str, str]) -> None:
        self._limit(len(self.files) + 1, MAX_FILES, "files")
        if not attributes.get("name"):
            raise self.malformed("a file without a name")
        self._file = MetalinkFile(safe_filename(attributes["name"]), None, {}, (), None)
        self._mirrors = []

    def _close_file(self) -> None:
        size, pieces = self._file.size, self._file.pieces
        if size is not None and pieces is not None and len(pieces.hashes) != -(-size // pieces.length):
            raise self.malformed(f"{len(pieces.hashes)} pieces of {pieces.length} bytes in a file of {size}")
        self.files.append(self._file._replace(urls=_ranked(self._mirrors)))

    def _size(self) -> None:
        size = self._number(self._content(), "size")
        if self._file.size not in (None, size):
            raise self.malformed(f"two sizes, {self._file.size} and {size} bytes")
        self._file = self._file._replace(size=size)

    def _hash(self) -> None:
        name, length = self._algorithm()
        if not name:
            return
        digest = self._digest(name, length)
        if self._file.hashes.setdefault(name, digest) != digest:
            raise self.malformed(f"two {name} hashes of one file")

    def _url(self) -> None:
        self._url_count += 1
        self._limit(self._url_count, MAX_URLS, "URLs")
        try:
            url = URL.parse(self._content())
        except InvalidURL:
            return
        if url.userinfo is None and "%" not in url.host and len(str(url)) <= MAX_URL:
            priority, location = self._attributes.get("priority"), self._attributes.get("location")
            self._mirrors.append(Mirror(str(_requested(url)), _priority(priority), _location(location)))

    def _pieces(self) -> None:
        """Keep the pieces whose hash is the longest; there may be several sorts (RFC 5854 4.1.3)."""
        name, _ = self._algorithm()
        if not name or not self._piece_hashes:
            return
        length = self._number(self._attributes.get("length", ""), "length of pieces")
        if length == 0:
            raise self.malformed("pieces of 0 bytes")
        known = self._file.pieces
        if known is None or len(known.hashes[0]) < len(self._piece_hashes[0]):
            self._file = self._file._replace(pieces=Pieces(name, length, tuple(self._piece_hashes)))

    def _piece_hash(self) -> None:
        name, length = self._algorithm()
        if name:
            self._piece_hashes.append(self._digest(name, length))

    def _algorithm(self) -> tuple[str, int]:
        return _HASHES.get(self._attributes.get("type", "").lower(), ("", 0))

    def _digest(self, name: str, length: int) -> str:
        digest = self._content().lower()
        if re.fullmatch(f"[0-9a-f]{{{length}}}", digest) is None:
            raise self.malformed(f"a {name} hash is not {length} hexadecimal digits")
        return digest

    def _number(self, text: str, what: str) -> int:
        if re.fullmatch("[0-9]{1,19}", text) is None or int(text) > MAX_LENGTH:
            raise self.malformed(f"the {what} is not a number of bytes up to {MAX_LENGTH}")
        return int(text)

    def _content(self) -> str:
        return "".join(self.text).strip(" \t\r\n")

    def _limit(self, count: int, limit: int, what: str) -> None:
        if count > limit:
            raise self.malformed(f"more than {limit} {what}")


def _is_declaration(attribute: str) -> bool:
    return attribute == "xmlns" or attribute.startswith("xmlns:")


def _malformed(what: str, line: int) -> ProtocolError:
    return ProtocolError(f"invalid Metalink: {what} (line {line})")

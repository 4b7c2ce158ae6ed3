"""Where a file can be asked for: at the URL that was given, where redirects lead from there, and at mirrors.

    the first URL ──► redirects ──► url
         ▲                           │
         ├── go_back ◄───────────────┤    to be led anew
         └── go_on ◄─────────────────┘    to a mirror, which is the first URL from then on

It knows what of the caller's fields may be sent where, and nothing of bytes, tries or credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from rawdl.errors import ProtocolError
from rawdl.proto.messages import Headers, Request
from rawdl.proto.redirects import Chain, Redirects, crossing
from rawdl.proto.url import URL

if TYPE_CHECKING:
    from rawdl.proto.checksums import Checksum
    from rawdl.proto.mirrors import Mirror

# Which part of it is wanted, and in which codings: those of a document nothing would take off.
_OF_THE_FILE: Final = frozenset({"range", "accept-encoding"})


class Places:
    """The places of one file, of which ``request`` asks the first; ``header`` is what the caller wants to have sent.

    ``mirrors`` are those that have not been tried.
    """

    __slots__ = (
        "_chain",
        "_description",
        "_head",
        "_header",
        "_hops",
        "_left",
        "_redirects",
        "_strayed",
        "mirrors",
        "request",
    )

    def __init__(
        self, request: Request, header: Mapping[str, str | None] | None, redirects: Redirects, mirrors: Iterable[URL]
    ) -> None:
        self.request = request
        self.mirrors = list(mirrors)
        self._left: tuple[URL, ...] = ()  # where it is not to be asked for any more
        self._header = header
        self._redirects = redirects
        self._strayed = False  # a mirror of another origin has been asked, which may have named those that follow
        self._chain: Chain | None = None  # once there was a redirect
        self._hops: tuple[str, ...] = ()  # those before it
        self._description: URL | None = None  # a Metalink of the file, as a redirect has it
        self._head: tuple[Headers, URL] | None = None  # of the last response that brought some of the file, and whose

    @property
    def url(self) -> URL:
        """Where the file is asked for now."""
        return self.request.url if self._chain is None else self._chain.url

    @property
    def is_first(self) -> bool:
        """Whether no redirect has led away from the first URL."""
        return self._chain is None

    @property
    def has_left(self) -> bool:
        """Whether a redirect or a mirror has led to another origin."""
        return self._strayed or (self._chain is not None and self._chain.has_left)

    @property
    def hops(self) -> tuple[str, ...]:
        """The URLs that redirects have left behind."""
        return self._hops if self._chain is None else self._chain.hops

    def fields(self, url: URL | None = None) -> dict[str, str | None]:
        """Return what of the caller's fields is for a request here, or of another ``url``."""
        fields = dict((self._header or {}) if self._chain is None else self._chain.header)
        return fields if url is None or url.origin == self.url.origin else crossing(fields)

    def __repr__(self) -> str:
        return f"<Places {self.url.redacted}, {len(self.hops)} redirects, {len(self.mirrors)} mirrors>"

    # Redirects

    def follows(self, status_code: int) -> bool:
        """Say whether a response of this status is a redirect to be followed."""
        if self._chain is None:
            chain = Chain(self.request.url, self._header, self._redirects, self._hops)
            if not chain.follows(status_code):
                return False
            self._chain = chain
        return self._chain.follows(status_code)

    def follow(self, status_code: int, header: Headers) -> bool:
        """Move to where a redirect leads; return whether that is another origin.  RedirectError if it must not be."""
        assert self._chain is not None
        if "link" in header:
            from rawdl.proto.mirrors import described_by

            self._description = self._description or described_by(header, self.url)
        before = self.url.origin
        self._chain.advance(status_code, header)
        return self.url.origin != before

    def go_back(self) -> None:
        """Move to the first URL, as if no redirect had led away from it; but those that have count."""
        if self.has_left and not self._strayed:
            self._description = self._head = None  # as with mirrors: see _add
        self._hops, self._chain = self.hops, None

    # Mirrors

    def go_on(self) -> None:
        """Move to the next mirror, for good."""
        self._left += (self.request.url, self.url)
        url = self.mirrors.pop(0)
        self._strayed = self.has_left or url.origin != self.url.origin
        self._header = crossing(self.fields()) if self._strayed else self.fields()
        self._hops, self._chain = self.hops, None
        self.request = Request("GET", url, self._header)

    def learn(self, header: Headers) -> None:
        """Take the mirrors that a response tells of (RFC 6249)."""
        if "link" not in header:
            return
        from rawdl.proto.mirrors import mirrors_of

        self._add(mirrors_of(header, self.url))

    def _add(self, mirrors: Iterable[Mirror]) -> None:
        """Take those that are new: two that name one another would send us to and fro for ever.

        Whoever a redirect has led to chooses nothing that is asked of the first: we may go back there, and be trusted.
        """
        known = {(url.origin, url.target) for url in (self.url, *self.mirrors, *self._left)}
        urls = [URL.parse(mirror.url) for mirror in mirrors]
        if self.has_left and not self._strayed:
            urls = [url for url in urls if url.origin != self.request.url.origin]
        self.mirrors += [url for url in urls if (url.origin, url.target) not in known]

    # A description

    def brings(self, header: Headers) -> None:
        """Take note that a response from here, with this head, has some of the file."""
        self._head = header, self.url

    def inquiry(self) -> tuple[URL, dict[str, str | None]] | None:
        """Return where to ask for a Metalink of the file (RFC 6249 4), and with which fields; None the next time.

        From https nothing leads to http: whoever could change the document would choose the hash.
        """
        url, head = self._description, self._head
        self._description = self._head = None
        if url is None and head is not None and "link" in head[0]:
            from rawdl.proto.mirrors import described_by

            url = described_by(*head)
        if url is None or (self.request.url.scheme, url.scheme) == ("https", "http"):
            return None
        fields = self.fields(url).items()
        return url, {n: v for n, v in fields if n.lower() not in _OF_THE_FILE and not n.lower().startswith("if-")}

    def learn_description(self, document: bytes, total: int | None) -> Checksum | None:
        """Take the mirrors from a Metalink, and return the hash that their bytes must have; None if it is of no use.

        ``total`` is the length of the file, or None.
        """
        from rawdl.proto.checksums import TRUSTED, Checksum
        from rawdl.proto.mirrors import parse_metalink

        try:
            file = parse_metalink(document).about(self.request.url, total)
        except ProtocolError:
            return None
        # A longer one that is not trusted says nothing against those that are.
        name = max(TRUSTED & file.hashes.keys(), default=None) if file is not None else None
        if file is None or name is None:
            return None
        self._add(file.urls)
        return Checksum(name, bytes.fromhex(file.hashes[name]))
